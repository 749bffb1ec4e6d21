"""
What a task leaves as XCom for people to look at: the request it waits for, and why it failed.

Written by operators and sensors; read by the gallery, and by the listener that cancels for a task which cannot. This
module must never do I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from airflow_provider_odirouter.errors import OdiRouterError

REQUEST_XCOM = "odirouter_request"
FAILURE_XCOM = "odirouter_failure"
BATCH_XCOM = "odirouter_batch"
WAVE_XCOM = "odirouter_wave"
"""Names the requests that a batch waits for now, as ``request_id`` names that of a single edit."""

LONGEST_TEXT = 4_000
"""Characters of a parameter of an endpoint that we do not know: it may be a picture as base64."""


class Record(BaseModel):
    """Base of the records: plain JSON, without what is not known."""

    model_config = ConfigDict(frozen=True)

    def to_xcom(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)


class WaitRecord(Record):
    """What a task waits for, and whose it is."""

    endpoint: str
    odirouter_conn_id: str | None = None
    cancel_on_kill: bool = False
    """Whether it is cancelled when the task is marked: never, if another task waits for it."""


class RequestRecord(WaitRecord):
    """A request, as the task that waits for it knows it."""

    request_id: str
    submitted_at: datetime | None = None
    """``None``: another task has submitted the request."""
    deadline: datetime | None = None
    """When the wait is given up; ``None``: the task does not wait."""
    images: tuple[str, ...] = ()
    """The input pictures: URLs, and paths with the connection of their store."""
    mask: str | None = None
    sha256: dict[str, str] = {}
    """Of the pictures that the worker has read, by their path: nothing else may be shown in their place."""
    parameters: dict[str, Any] = {}
    """All that was sent but the pictures."""


class BatchRecord(WaitRecord):
    """A batch, as its task knows it while it submits and waits."""

    output_path: str | None = None
    """Below it lies what is noted of each edit."""
    storage_conn_id: str | None = None
    name: str | None = None
    """Of the task instance, there."""
    edits: int
    """How many there are."""
    waiting: int = 0
    """How many requests are waited for."""
    landed: int = 0
    failed: int = 0
    submitted_at: datetime | None = None
    deadline: datetime | None = None
    """When the wait for those is given up."""
    manifest: str | None = None
    """Where the manifest lies, as soon as it is written."""


class FailureRecord(Record):
    """Why the task failed."""

    what: str
    vendor: str | None = None
    """The vendor's own words."""
    request_id: str | None = None
    advice: str | None = None
    """What the user should do."""

    @classmethod
    def of(cls, error: OdiRouterError) -> Self:
        """Return an error's record."""
        return cls(what=error.what, vendor=error.vendor, request_id=error.request_id, advice=error.advice or None)


def shortened(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without what is too long to be looked at."""
    return {name: _shortened(value) for name, value in parameters.items()}


def _shortened(value: Any) -> Any:
    match value:
        case str() if len(value) > LONGEST_TEXT:
            return f"{value[:80]}… ({len(value):,} characters)"
        case list() | tuple():
            return [_shortened(item) for item in value]
        case Mapping():
            return {str(name): _shortened(item) for name, item in value.items()}
        case _:
            return value
