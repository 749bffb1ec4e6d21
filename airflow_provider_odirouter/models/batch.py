"""The state of each edit of a batch, the summary that its task returns, and the event that its trigger sends."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from airflow_provider_odirouter import IMAGE_EDIT_ENDPOINT
from airflow_provider_odirouter.models.api import CancelOutcome
from airflow_provider_odirouter.models.results import Ending, LandedOutput, RequestEvent
from airflow_provider_odirouter.models.spending import Spending
from airflow_provider_odirouter.redaction import MASK, shorten_url, shorten_urls


class Phase(StrEnum):
    """The progress of one edit of a batch."""

    PLANNED = "planned"
    """Not submitted yet."""
    SUBMITTING = "submitting"
    """Saved before the submit. If a try ends in this phase, it is unknown whether the submit arrived."""
    SUBMITTED = "submitted"
    """The request has an id, and may be running."""
    SUCCEEDED = "succeeded"
    """The request succeeded; its outputs have not landed yet."""
    LANDED = "landed"
    FAILED = "failed"


PICTURE_FIELDS = ("images", "mask")
"""The parameters of an image edit that hold URLs and paths."""


def _shortened(value: Any) -> Any:
    """Return a parameter without the secrets of web addresses: it is one as a whole, or a text that holds some."""
    match value:
        case str():
            return shorten_urls(shorten_url(value))
        case dict():
            return {name: _shortened(one) for name, one in value.items()}
        case list() | tuple():
            return [_shortened(one) for one in value]
    return value


class BatchItem(BaseModel):
    """One edit of a batch and its outcome: a line of the batch's state file; most of its fields are in the manifest."""

    model_config = ConfigDict(frozen=True)

    number: int
    """The position among the edits, from 1."""
    name: str
    """The prefix of the names of its output files."""
    given_name: str | None = None
    """The name in the user's list, of which ``name`` may be a free variant; ``None``: it has none there."""
    own_files: tuple[str, ...] = ()
    """The names of files that earlier tries of this task instance have landed: its own may replace them."""
    endpoint: str = IMAGE_EDIT_ENDPOINT
    """Of its request: a later try may have another one."""
    edit: dict[str, Any]
    """The parameters; files as paths or URLs, with the connection id of their store. Written with shortened URLs."""
    url_fields: tuple[str, ...] = PICTURE_FIELDS
    """The names of the parameters that may hold URLs."""
    sha256: dict[str, str] = {}
    """The checksums of the files that the worker has read, by path."""
    request_id: str | None = None
    submitted_at: datetime | None = None
    completed_at: datetime | None = None
    """When a poll first returned ``COMPLETED``."""
    inference_seconds: float | None = None
    outputs: tuple[LandedOutput, ...] = ()
    metadata: dict[str, Any] = {}
    error: str | None = None
    """Why there are no outputs: what happened, the vendor's own words, what to do."""
    error_type: str | None = None
    """The vendor's ``error_type``, or the name of our error class."""
    submits: int = 0
    """In all tries."""
    cost: float | None = 0.0
    """Of these; ``None``: there was no price for one of them."""

    phase: Phase = Phase.PLANNED
    fingerprint: str = ""
    """A digest of the submitted parameters: in the next try, another edit may be at this position."""
    try_number: int = 0
    """The try that submitted the edit."""
    retry_helps: bool = True
    """Whether a retry submits the edit again, if it has failed."""

    def without_secrets(self) -> Self:
        """
        Return the edit as it is written: with shortened URLs.

        Only the process that submits an edit needs its URLs whole; it reads them from the user's list.
        """
        # Not in a serializer of pydantic: that turns an execution_timeout which passes meanwhile into its own error.
        shown = {name: _shortened(self.edit[name]) for name in self.url_fields if self.edit.get(name)}
        return self.model_copy(
            update={
                "edit": self.edit | shown,
                "sha256": {shorten_url(path): digest for path, digest in self.sha256.items()},
                "error": shorten_urls(self.error),
                "metadata": shorten_urls(self.metadata),  # the service repeats parameters in them
            }
        )

    def to_line(self) -> bytes:
        """Return the line of the batch's state file, without the end of the line."""
        return self.without_secrets().model_dump_json(exclude_defaults=True).encode()

    @property
    def has_shortened_url(self) -> bool:
        """Whether a URL may not be whole, since the edit was read from a file."""
        return MASK in json.dumps([self.edit.get(name) for name in self.url_fields])

    @property
    def spending(self) -> Spending:
        """What was paid for the edit, or may have been."""
        return Spending(self.submits, self.cost)

    @property
    def is_alive(self) -> bool:
        """Whether the edit has a request that may be running."""
        return self.phase is Phase.SUBMITTED

    def to_manifest(self) -> dict[str, Any]:
        """Return the line of the manifest as plain JSON, without empty fields."""
        private = {
            "phase",
            "fingerprint",
            "try_number",
            "retry_helps",
            "given_name",
            "own_files",
            "url_fields",
            "endpoint",
        }
        unknown = set() if self.submits else {"submits", "cost"}
        line = self.without_secrets().model_dump(mode="json", exclude=private | unknown, exclude_none=True)
        return {name: value for name, value in line.items() if value not in ({}, [])}


class BatchSummary(BaseModel):
    """The return value of a batch's task: small and JSON, whatever the number of edits."""

    model_config = ConfigDict(frozen=True)

    endpoint: str
    manifest: str
    """The path of the manifest: JSON Lines, one line per edit, in order."""
    edits: int
    succeeded: int
    failed: int
    outputs: int
    """How many pictures have landed."""
    submits: int = 0
    """Of the task instance in all its tries, also for edits that are no longer in the list."""
    cost: float | None = None
    """Of these, by the prices of the connection; ``None``: it has none for one of them."""
    submitted_at: datetime | None = None
    """When the first request was submitted."""
    completed_at: datetime | None = None
    """When a poll first returned ``COMPLETED`` for the last request."""

    @classmethod
    def from_items(cls, endpoint: str, manifest: str, items: Sequence[BatchItem], spent: Spending) -> Self:
        """Count the edits that succeeded and failed, and their outputs."""
        landed = outputs = 0
        submitted_at = completed_at = None
        for item in items:  # once: most are made when they are read
            if item.phase is Phase.LANDED:
                landed += 1
                outputs += len(item.outputs)
            submitted_at = min(filter(None, (submitted_at, item.submitted_at)), default=None)
            completed_at = max(filter(None, (completed_at, item.completed_at)), default=None)
        return cls(
            endpoint=endpoint,
            manifest=manifest,
            edits=len(items),
            succeeded=landed,
            failed=len(items) - landed,
            outputs=outputs,
            submits=spent.submits,
            cost=spent.cost,
            submitted_at=submitted_at,
            completed_at=completed_at,
        )


class BatchEvent(BaseModel):
    """
    How the waits for the requests of a batch ended, sent by the trigger: columns, in the order of its requests.

    Airflow stores it in its database, where MySQL allows 64 KiB. So it omits why each request failed: another poll of
    the request returns that again.
    """

    model_config = ConfigDict(frozen=True)

    requests: str
    """A digest of the request ids: the ids themselves would be too long."""
    endings: str
    """One letter per request."""
    cancels: str
    """One letter per request for the answer to the trigger's cancel; a space: it sent none."""
    at: tuple[int, ...]
    """When each wait ended, in epoch seconds."""
    inference_seconds: tuple[float | None, ...]
    reason: str | None = None
    """Why polling failed, of the first request that could not be polled: usually the reason is the same for all."""
    vendor: str | None = None
    """The vendor's own words about that failure."""

    @classmethod
    def from_events(cls, events: Sequence[RequestEvent]) -> Self:
        """Join the events of all requests."""
        failed_poll = next((event for event in events if event.reason), None)
        return cls(
            requests=_digest(event.request_id for event in events),
            endings="".join(_LETTER_OF_ENDING[event.ending] for event in events),
            cancels="".join(_cancel_letter(event) for event in events),
            at=tuple(round(event.at.timestamp()) for event in events),
            inference_seconds=tuple(event.inference_seconds for event in events),
            reason=failed_poll.reason if failed_poll else None,
            vendor=failed_poll.vendor if failed_poll else None,
        )

    def is_for(self, request_ids: Sequence[str]) -> bool:
        """Return whether the event is about exactly these requests, in this order."""
        return self.requests == _digest(request_ids)

    def events(self, endpoint: str, request_ids: Sequence[str]) -> Iterator[RequestEvent]:
        """Yield an event for each request, without the failures."""
        for index, request_id in enumerate(request_ids):
            ending = _ENDING_OF_LETTER[self.endings[index]]
            has_reason = ending in {Ending.UNREACHABLE, Ending.LOST}
            yield RequestEvent(
                ending=ending,
                endpoint=endpoint,
                request_id=request_id,
                at=datetime.fromtimestamp(self.at[index], UTC),
                inference_seconds=self.inference_seconds[index],
                cancel=_CANCEL_OF_LETTER.get(self.cancels[index]),
                cancel_error="see the log" if self.cancels[index] == _CANCEL_FAILED else None,
                reason=(self.reason or "see the log") if has_reason else None,
                vendor=self.vendor if has_reason else None,
            )


def pack_deadlines(deadlines: Mapping[str, float]) -> str:
    """
    Return requests and the end of the wait for each, in epoch seconds, as short text.

    MySQL allows 64 KiB for the arguments of a trigger, and Airflow's encryption makes them a third longer.
    """
    first = math.floor(min(deadlines.values(), default=0.0))
    # Rounded up: a worker has waited at least as long.
    columns = [first, list(deadlines), [math.ceil(end) - first for end in deadlines.values()]]
    return base64.b64encode(zlib.compress(json.dumps(columns, separators=(",", ":")).encode(), 9)).decode()


def unpack_deadlines(text: str) -> dict[str, float]:
    """
    Return what :func:`pack_deadlines` has packed.

    :raises ValueError: If it is something else.
    """
    try:
        first, request_ids, offsets = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
        return {request_id: float(first + offset) for request_id, offset in zip(request_ids, offsets, strict=True)}
    except (zlib.error, TypeError) as error:
        raise ValueError(f"not a list of requests and deadlines: {error}") from error


_LETTER_OF_ENDING = {
    Ending.SUCCEEDED: "S",
    Ending.FAILED: "F",
    Ending.CANCELED: "C",
    Ending.TIMED_OUT: "T",
    Ending.LOST: "L",
    Ending.UNREACHABLE: "U",
}
_ENDING_OF_LETTER = {letter: ending for ending, letter in _LETTER_OF_ENDING.items()}
_LETTER_OF_CANCEL = {
    CancelOutcome.REQUESTED: "R",
    CancelOutcome.ALREADY_COMPLETED: "A",
    CancelOutcome.NOT_FOUND: "N",
    CancelOutcome.UNSUPPORTED: "U",
}
_CANCEL_OF_LETTER = {letter: outcome for outcome, letter in _LETTER_OF_CANCEL.items()}
_CANCEL_FAILED = "E"


def _digest(request_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(request_ids).encode()).hexdigest()[:32]


def _cancel_letter(event: RequestEvent) -> str:
    if event.cancel:
        return _LETTER_OF_CANCEL[event.cancel]
    return _CANCEL_FAILED if event.cancel_error else " "
