"""What the API answers. Fields that we do not know are kept, never an error."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class Answered(BaseModel):
    """Base of what the vendor fills: unknown fields are kept, never an error."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Submission(Answered):
    """The answer to a submit."""

    request_id: str
    """The service's handle of the request, such as ``mmsu_…``."""


class RequestState(StrEnum):
    """Where a request is. The service's ``COMPLETED`` means success or failure; here these are told apart."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"
    """A word that nobody knows: not terminal."""

    @property
    def terminal(self) -> bool:
        """Whether the request has ended."""
        return self in {RequestState.SUCCEEDED, RequestState.FAILED, RequestState.CANCELED}


class Failure(BaseModel):
    """Why a request failed, in the vendor's words."""

    model_config = ConfigDict(frozen=True)

    error_type: str | None = None
    """Such as ``INFERENCE_FAILURE`` or ``CONTENT_BLOCKED``; other words occur."""
    message: str | None = None


class RequestStatus(BaseModel):
    """One look at a request."""

    model_config = ConfigDict(frozen=True)

    state: RequestState
    word: str
    """The vendor's own word for the state."""
    queue_position: int | None = None
    progress: float | None = None
    """From 0 to 1."""
    inference_seconds: float | None = None
    """How long the model worked, in seconds."""
    failure: Failure | None = None


class OutputFile(Answered):
    """One file of a result."""

    type: str | None = None
    """``image`` where the service says so; other endpoints make other things."""
    url: str
    """Where the file lies for a while. It expires; when is not documented."""
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None
    width: int | None = None
    height: int | None = None


class RequestResult(BaseModel):
    """The outputs of a request that succeeded, in order."""

    model_config = ConfigDict(frozen=True)

    outputs: tuple[OutputFile, ...]
    without_link: int = 0
    """How many outputs the result lists without saying where they are."""
    metadata: dict[str, Any] = {}


class CancelOutcome(StrEnum):
    """What a cancel came to. All of these are normal."""

    REQUESTED = "REQUESTED"
    """The service accepted the cancel."""
    ALREADY_COMPLETED = "ALREADY_COMPLETED"
    NOT_FOUND = "NOT_FOUND"
    UNSUPPORTED = "UNSUPPORTED"
    """The endpoint cannot cancel: the request runs to its end, and is paid."""
