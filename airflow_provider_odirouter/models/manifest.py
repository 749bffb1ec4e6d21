"""What a task returns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class LandedOutput(BaseModel):
    """One output in the manifest."""

    model_config = ConfigDict(frozen=True)

    path: str | None = None
    """Where the file landed."""
    url: str | None = None
    """The vendor's link, which expires; only where nothing was landed."""
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    sha256: str | None = None


class Manifest(BaseModel):
    """What a task returns: small and JSON. Pictures never go through XCom."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    endpoint: str
    outputs: tuple[LandedOutput, ...] = ()
    submitted_at: datetime | None = None
    completed_at: datetime | None = None
    """When a look first saw the request completed; the service does not tell the moment itself."""
    inference_seconds: float | None = None
    metadata: dict[str, Any] = {}

    def to_xcom(self) -> dict[str, Any]:
        """Return the manifest as plain JSON; an output has either ``path`` or ``url``."""
        plain = self.model_dump(mode="json")
        for output in plain["outputs"]:
            del output["url" if output["url"] is None else "path"]
        return plain
