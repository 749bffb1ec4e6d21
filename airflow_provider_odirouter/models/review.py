"""What a review keeps while a person decides."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from airflow_provider_odirouter.models.batch import BatchItem


class ReviewRecord(BaseModel):
    """The edits under review, as they were when it began: the review's XCom, which the gallery reads, too."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    """Of the record's form."""
    edits: tuple[BatchItem, ...]
    """With the digests of their pictures: nothing else may be shown in their place, or be approved."""

    def to_xcom(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return {"version": self.version, **self.model_dump(mode="json", exclude_defaults=True)}
