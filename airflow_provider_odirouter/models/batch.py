"""What a batch knows of each of its edits, and what it tells of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from airflow_provider_odirouter.models.answers import CancelOutcome
from airflow_provider_odirouter.models.event import Ending, RequestEvent
from airflow_provider_odirouter.models.manifest import LandedOutput


class Phase(StrEnum):
    """How far an edit of a batch has come."""

    PLANNED = "planned"
    SUBMITTING = "submitting"
    """Noted before the submit: if nothing else follows, its fate is unknown."""
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    """The request has; its outputs have not landed yet."""
    LANDED = "landed"
    FAILED = "failed"


class BatchItem(BaseModel):
    """An edit of a batch, and what became of it: a line of the batch's state, and in part of its manifest."""

    model_config = ConfigDict(frozen=True)

    number: int
    """Its place among the edits, from 1."""
    name: str
    """What its files begin with."""
    edit: dict[str, Any]
    """Its parameters; pictures by their path or URL, with the connection of their store."""
    sha256: dict[str, str] = {}
    """Of the pictures that the worker has read, by their path."""
    request_id: str | None = None
    submitted_at: datetime | None = None
    completed_at: datetime | None = None
    """When a look first saw the request completed."""
    inference_seconds: float | None = None
    outputs: tuple[LandedOutput, ...] = ()
    metadata: dict[str, Any] = {}
    error: str | None = None
    """Why there are no outputs: what happened, the vendor's own words, what to do."""
    error_type: str | None = None
    """The vendor's ``error_type``, or the name of our error."""

    phase: Phase = Phase.PLANNED
    fingerprint: str = ""
    """Of what is submitted: in the next try, its place may hold another edit."""
    try_number: int = 0
    """Of the try that has submitted it."""
    retry_helps: bool = True
    """Of a failed one: whether a new try submits it again."""

    @property
    def is_alive(self) -> bool:
        """Whether there is a request that may be running."""
        return self.phase is Phase.SUBMITTED

    def to_manifest(self) -> dict[str, Any]:
        """Return its line of the manifest, as plain JSON without what is not known."""
        private = {"phase", "fingerprint", "try_number", "retry_helps"}
        line = self.model_dump(mode="json", exclude=private, exclude_none=True)
        return {name: value for name, value in line.items() if value not in ({}, [])}


class BatchSummary(BaseModel):
    """What a batch's task returns: small and JSON, whatever the number of its edits."""

    model_config = ConfigDict(frozen=True)

    endpoint: str
    manifest: str
    """Where the manifest lies: JSON Lines, one line per edit, in order."""
    edits: int
    succeeded: int
    failed: int
    outputs: int
    """How many pictures have landed."""
    submitted_at: datetime | None = None
    """The first submit."""
    completed_at: datetime | None = None
    """When a look saw the last request completed."""

    @classmethod
    def of(cls, endpoint: str, manifest: str, items: Sequence[BatchItem]) -> Self:
        """Count what became of the edits."""
        landed = [item for item in items if item.phase is Phase.LANDED]
        return cls(
            endpoint=endpoint,
            manifest=manifest,
            edits=len(items),
            succeeded=len(landed),
            failed=len(items) - len(landed),
            outputs=sum(len(item.outputs) for item in landed),
            submitted_at=min((item.submitted_at for item in items if item.submitted_at), default=None),
            completed_at=max((item.completed_at for item in items if item.completed_at), default=None),
        )


class BatchEvent(BaseModel):
    """
    What a batch's trigger tells when all its requests have ended: columns, in the order of the trigger's requests.

    It goes through Airflow's database, where MySQL has room for 64 KiB. So the vendor's words are not in it: a look at
    a request that has failed brings them again.
    """

    model_config = ConfigDict(frozen=True)

    requests: str
    """A digest of the ids that it speaks of: they themselves have no room in it."""
    endings: str
    """A letter for each request."""
    cancels: str
    """A letter for what the trigger's own cancel came to, a space where there was none."""
    at: tuple[int, ...]
    """When each ending was seen, in epoch seconds."""
    inference_seconds: tuple[float | None, ...]
    reason: str | None = None
    """Why looking failed, of the first of those that could not be looked at: it is the same for all, mostly."""
    vendor: str | None = None
    """The vendor's own words about that."""

    @classmethod
    def of(cls, events: Sequence[RequestEvent]) -> Self:
        """Put the events of all requests together."""
        unseen = next((event for event in events if event.reason), None)
        return cls(
            requests=_digest(event.request_id for event in events),
            endings="".join(_ENDINGS[event.ending] for event in events),
            cancels="".join(_cancel_letter(event) for event in events),
            at=tuple(round(event.at.timestamp()) for event in events),
            inference_seconds=tuple(event.inference_seconds for event in events),
            reason=unseen.reason if unseen else None,
            vendor=unseen.vendor if unseen else None,
        )

    def is_about(self, request_ids: Sequence[str]) -> bool:
        """Return whether these are the requests that it speaks of, in their order."""
        return self.requests == _digest(request_ids)

    def events(self, endpoint: str, request_ids: Sequence[str]) -> Iterator[RequestEvent]:
        """Take it apart again: an event for each request, without the vendor's words."""
        for index, request_id in enumerate(request_ids):
            ending = _ENDED[self.endings[index]]
            unseen = ending in {Ending.UNWATCHED, Ending.LOST}
            yield RequestEvent(
                ending=ending,
                endpoint=endpoint,
                request_id=request_id,
                at=datetime.fromtimestamp(self.at[index], UTC),
                inference_seconds=self.inference_seconds[index],
                cancel=_CANCELED.get(self.cancels[index]),
                cancel_error="see the log" if self.cancels[index] == _CANCEL_FAILED else None,
                reason=(self.reason or "see the log") if unseen else None,
                vendor=self.vendor if unseen else None,
            )


_ENDINGS = {
    Ending.SUCCEEDED: "S",
    Ending.FAILED: "F",
    Ending.CANCELED: "C",
    Ending.TIMED_OUT: "T",
    Ending.LOST: "L",
    Ending.UNWATCHED: "U",
}
_ENDED = {letter: ending for ending, letter in _ENDINGS.items()}
_CANCELS = {
    CancelOutcome.REQUESTED: "R",
    CancelOutcome.ALREADY_COMPLETED: "A",
    CancelOutcome.NOT_FOUND: "N",
    CancelOutcome.UNSUPPORTED: "U",
}
_CANCELED = {letter: outcome for outcome, letter in _CANCELS.items()}
_CANCEL_FAILED = "E"


def _digest(request_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(request_ids).encode()).hexdigest()[:32]


def _cancel_letter(event: RequestEvent) -> str:
    if event.cancel:
        return _CANCELS[event.cancel]
    return _CANCEL_FAILED if event.cancel_error else " "
