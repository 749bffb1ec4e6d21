"""What a trigger tells the task when the wait is over."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from airflow_provider_odirouter.models.answers import CancelOutcome, Failure


class Ending(StrEnum):
    """How the wait for a request ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    """By somebody else than the waiter."""
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The service does not know the request any more."""
    UNWATCHED = "unwatched"
    """Looking failed too often in a row, or cannot succeed; the request may be alive."""


class RequestEvent(BaseModel):
    """What a trigger tells the task when the wait is over. It goes through Airflow's database: plain JSON, no key."""

    model_config = ConfigDict(frozen=True)

    ending: Ending
    endpoint: str
    request_id: str
    submitted_at: datetime | None = None
    """``None``: another task has submitted the request."""
    at: datetime
    """When the ending was seen."""
    inference_seconds: float | None = None
    failure: Failure | None = None
    reason: str | None = None
    """Why looking failed."""
    vendor: str | None = None
    """The vendor's own words about that."""
    cancel: CancelOutcome | None = None
    """What the waiter's own cancel came to, when it gave up."""
    cancel_error: str | None = None
    """Why that cancel failed."""

    def given_up(self, cancel: CancelOutcome | Exception) -> RequestEvent:
        """Return the event with what became of the request when the waiter cancelled it."""
        if isinstance(cancel, CancelOutcome):
            return self.model_copy(update={"cancel": cancel})
        return self.model_copy(update={"cancel_error": getattr(cancel, "what", str(cancel))})
