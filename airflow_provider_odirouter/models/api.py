"""The answers of the API."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class ApiModel(BaseModel):
    """Base of the models that the vendor fills: unknown fields are kept, and are never an error."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Submission(ApiModel):
    """The answer to a submit."""

    request_id: str
    """The service's id of the request, such as ``mmsu_…``."""


class RequestState(StrEnum):
    """The state of a request. The service's ``COMPLETED`` means success or failure; here they are two states."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"
    """A status that is not documented. It does not end the wait."""

    @property
    def is_terminal(self) -> bool:
        """Whether the request has ended."""
        return self in {RequestState.SUCCEEDED, RequestState.FAILED, RequestState.CANCELED}


class Failure(BaseModel):
    """Why a request failed, in the vendor's words."""

    model_config = ConfigDict(frozen=True)

    error_type: str | None = None
    """Such as ``INFERENCE_FAILURE`` or ``CONTENT_BLOCKED``; other values occur."""
    message: str | None = None


class RequestStatus(BaseModel):
    """The answer to one poll."""

    model_config = ConfigDict(frozen=True)

    state: RequestState
    raw_status: str
    """The status as the vendor spells it."""
    queue_position: int | None = None
    inference_seconds: float | None = None
    """How long the model worked, in seconds."""
    failure: Failure | None = None


class OutputFile(ApiModel):
    """One file of a result."""

    type: str | None = None
    """``image``, if the service says so; other endpoints return other types."""
    url: str
    """The link to the file. It expires; the vendor does not document when."""
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None
    width: int | None = None
    height: int | None = None


class RequestResult(BaseModel):
    """The outputs of a request that succeeded, in order."""

    model_config = ConfigDict(frozen=True)

    outputs: tuple[OutputFile, ...]
    without_url: int = 0
    """How many outputs the result lists without a URL."""
    metadata: dict[str, Any] = {}


class CancelOutcome(StrEnum):
    """The answer to a cancel. None of these is an error."""

    REQUESTED = "REQUESTED"
    """The service accepted the cancel."""
    ALREADY_COMPLETED = "ALREADY_COMPLETED"
    NOT_FOUND = "NOT_FOUND"
    UNSUPPORTED = "UNSUPPORTED"
    """The endpoint cannot cancel: the request runs to its end, and costs money."""
