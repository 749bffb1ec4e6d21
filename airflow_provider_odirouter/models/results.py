"""The event that a trigger sends its task, and the manifest that a task returns."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_provider_odirouter.models.api import CancelOutcome, Failure


class Ending(StrEnum):
    """How the wait for a request ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    """Cancelled, but not by the task or the trigger that waits."""
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The service no longer knows the request."""
    UNREACHABLE = "unreachable"
    """Too many polls failed in a row, or no poll can succeed; the request may be alive."""


class RequestEvent(BaseModel):
    """How the wait for a request ended. Airflow stores it in its database: plain JSON, without the API key."""

    model_config = ConfigDict(frozen=True)

    ending: Ending
    endpoint: str
    request_id: str
    submitted_at: datetime | None = None
    """``None``: another task submitted the request."""
    at: datetime
    """When the wait ended."""
    inference_seconds: float | None = None
    failure: Failure | None = None
    reason: str | None = None
    """Why polling failed."""
    vendor: str | None = None
    """The vendor's own words about that failure."""
    cancel: CancelOutcome | None = None
    """The answer to the cancel that ended the wait; ``None``: no cancel was sent, or it failed."""
    cancel_error: str | None = None
    """Why that cancel failed."""

    def with_cancel_outcome(self, cancel: CancelOutcome | Exception) -> RequestEvent:
        """Return the event with the answer to a cancel, or with the error of a cancel that failed."""
        if isinstance(cancel, CancelOutcome):
            return self.model_copy(update={"cancel": cancel})
        return self.model_copy(update={"cancel_error": getattr(cancel, "what", str(cancel))})


class LandedOutput(BaseModel):
    """One output in the manifest."""

    model_config = ConfigDict(frozen=True)

    path: str | None = None
    """The path of the stored file."""
    url: str | None = None
    """The vendor's link, which expires; only if the file was not landed."""
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    note: str | None = None
    """Why there is neither a path nor a link."""


class Manifest(BaseModel):
    """The return value of a task: small and JSON. Pictures never go through XCom."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    endpoint: str
    outputs: tuple[LandedOutput, ...] = ()
    submitted_at: datetime | None = None
    completed_at: datetime | None = None
    """When a poll first returned ``COMPLETED``: the service does not say when the request ended."""
    inference_seconds: float | None = None
    submits: int | None = None
    """Of the task instance in all its tries; ``None``: nothing remembers them."""
    cost: float | None = None
    """Of these, by the prices of the connection; ``None``: it has none for one of them."""
    metadata: dict[str, Any] = {}

    def to_xcom(self) -> dict[str, Any]:
        """Return the manifest as plain JSON; an output has either ``path``, ``url`` or ``note``."""
        plain = self.model_dump(mode="json")
        for output in plain["outputs"]:
            for name in ("path", "url", "note"):
                if output[name] is None:
                    del output[name]
        return plain
