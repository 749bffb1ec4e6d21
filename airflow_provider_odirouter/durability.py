"""
What a task instance remembers of its request between tries, and what a new try makes of that.

It lies in Airflow's task state store (3.3 and later), which survives a retry and a clear. This room must never do HTTP,
and no trigger may come here: the store's calls hang there for ever.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_odirouter.models import RequestState

log = logging.getLogger(__name__)

KEY = "odirouter_request"

KEPT_WHEN_DONE = timedelta(days=1)
"""How long a request is remembered whose outputs have landed: a retry may follow if Airflow has not heard of it."""

OnLostSubmit = Literal["submit", "fail"]


class Store(Protocol):
    """What is used of Airflow's ``context["task_state_store"]``."""

    def get(self, key: str) -> Any:
        """Return the value, ``None`` if there is none."""

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Keep a JSON value, for Airflow's ``[state_store] default_retention_days`` if nothing else is said."""

    def delete(self, key: str) -> None:
        """Drop it, if it is there."""


class Intent(BaseModel):
    """What a try is about to submit."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    """Of what is submitted: a mapped task's place may hold another input in the next try."""
    odirouter_conn_id: str
    endpoint: str
    max_tries: int
    """Airflow's own count of the tries that are allowed. It grows when a user clears the task, and only then."""

    def submitted(self, request_id: str, at: datetime) -> Submitted:
        """Return the request that the intent has become."""
        return Submitted(**self.model_dump(), request_id=request_id, submitted_at=at)


class Submitted(Intent):
    """The request that a try has submitted."""

    request_id: str
    submitted_at: datetime
    done: bool = False
    """Whether its try has come to its end: all that was missing then is Airflow's own word of it."""


def fingerprint(odirouter_conn_id: str, endpoint: str, body: bytes) -> str:
    """
    Tell one submit from another.

    :param body: What is sent, pictures included.
    """
    digest = hashlib.sha256()
    for part in (odirouter_conn_id.encode(), endpoint.encode(), body):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


class Memory:
    """
    What one task instance remembers, or nothing at all.

    :param store: Airflow's; ``None``: every try is the first one.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._failed = False

    @property
    def lasts(self) -> bool:
        """Whether a new try will know what this one notes."""
        return self._store is not None and not self._failed

    def recall(self) -> Intent | None:
        """
        Return what an earlier try noted: a :class:`Submitted`, or its intent alone.

        :raises Exception: If Airflow cannot tell: that is not the same as nothing.
        """
        value = self._store.get(KEY) if self._store is not None else None
        if value is None:
            return None
        try:
            return (Submitted if "request_id" in value else Intent).model_validate(value)
        except (ValidationError, TypeError):
            log.warning("What this task remembers of its request cannot be read, and is ignored: %s", value)
            return None

    def note(self, what: Intent) -> None:
        """Remember this, instead of what was there."""
        if self._store is None:
            return
        try:
            self._store.set(KEY, what.model_dump(mode="json"))
        except BaseException:
            self._failed = True
            raise

    def done(self) -> None:
        """
        Remember that there is nothing left to do but to tell Airflow so.

        Not to forget it yet: if the return value cannot be pushed, say, Airflow tries the task again.
        """
        if self._store is None:
            return
        try:
            if isinstance(noted := self.recall(), Submitted):
                value = noted.model_copy(update={"done": True}).model_dump(mode="json")
                self._store.set(KEY, value, retention=KEPT_WHEN_DONE)
        except Exception as error:  # noqa: BLE001 - as below
            log.warning("Airflow could not note that this task's request is done: %r", error)

    def forget(self) -> None:
        """Remember nothing: the request is over, and there is nothing to fetch."""
        if self._store is None:
            return
        try:
            self._store.delete(KEY)
        except Exception as error:  # noqa: BLE001 - what the try has come to counts more than its note
            log.warning("Airflow could not forget this task's request; a new try will look at it once more: %r", error)


class Move(Enum):
    """What a try does about the request of an earlier one."""

    SUBMIT = auto()
    SUBMIT_AGAIN = auto()
    """… although the earlier submit may have been paid."""
    REFUSE = auto()
    """Not submit, since the earlier submit may have been paid."""
    CANCEL = auto()
    """Cancel it, then decide anew."""
    WAIT = auto()
    TAKE = auto()
    """Take its result."""


def is_cleared(noted: Intent, intent: Intent) -> bool:
    """Return whether a user has cleared the task since it was noted."""
    return noted.max_tries != intent.max_tries


def decide(
    noted: Intent | None,
    intent: Intent,
    state: RequestState | None,
    *,
    may_cancel: bool,
    on_lost_submit: OnLostSubmit,
) -> Move:
    """
    Decide what a try does about the request of an earlier one.

    :param noted: What the task remembers.
    :param intent: What this try would submit.
    :param state: Of the noted request; ``None``: the service does not know it, or there is none.
    :param may_cancel: Whether a live request can and shall be cancelled.
    :param on_lost_submit: What to do if the earlier try died during its submit.
    """
    if noted is None:
        return Move.SUBMIT
    cleared = is_cleared(noted, intent)
    if not isinstance(noted, Submitted):
        return Move.REFUSE if on_lost_submit == "fail" and not cleared else Move.SUBMIT_AGAIN
    if noted.done and cleared:
        return Move.SUBMIT
    if noted.fingerprint != intent.fingerprint:
        return Move.CANCEL if may_cancel else Move.SUBMIT
    match state:
        case RequestState.SUCCEEDED:
            return Move.TAKE
        case None | RequestState.FAILED | RequestState.CANCELED:
            return Move.SUBMIT
        case _:
            return Move.CANCEL if cleared and may_cancel else Move.WAIT
