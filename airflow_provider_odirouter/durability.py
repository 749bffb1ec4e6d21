"""
What a task instance remembers of its request between tries, and what a new try makes of that.

It lies in Airflow's task state store (3.3 and later), which survives a retry and a clear, or beside the outputs (see
:mod:`~airflow_provider_odirouter.lifecycle.state`). This room must never do HTTP, and no trigger may come here: the
store's calls hang there for ever.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_odirouter.errors import NotOwnerError
from airflow_provider_odirouter.models import RequestState

log = logging.getLogger(__name__)

KEY = "odirouter_request"

KEPT_WHEN_DONE = timedelta(days=1)
"""How long a request is remembered whose outputs have landed: a retry may follow if Airflow has not heard of it."""

OnLostSubmit = Literal["submit", "fail"]


ABSENT: Final = "nothing was ever noted under this key"
"""Not ``None``: a note that is ``null`` is a broken one."""
PLACE = f"key {KEY!r} of Airflow's task state store"


class Store(Protocol):
    """What is used of Airflow's ``context["task_state_store"]``."""

    def get(self, key: str, default: Any = None) -> Any:
        """
        Return the value, or the default if there is none.

        :raises ValueError: If there is something that is no JSON.
        """

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Keep a JSON value, for Airflow's ``[state_store] default_retention_days`` if nothing else is said."""

    def delete(self, key: str) -> None:
        """Drop it, if it is there."""


Text = Annotated[str, Field(min_length=1)]


class Intent(BaseModel):
    """What a try is about to submit."""

    # Whoever has written something else into it knows more than this version does, or less.
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    """Of the notes' form; the first notes had none."""
    max_tries: int
    """Airflow's own count of the tries that are allowed. It grows when a user clears the task, and only then."""
    fingerprint: Text
    """Of what is submitted: a mapped task's place may hold another input in the next try."""
    odirouter_conn_id: Text
    endpoint: Text

    def submitted(self, request_id: str, at: AwareDatetime) -> Submitted:
        """Return the request that the intent has become."""
        return Submitted(**self.model_dump(), request_id=request_id, submitted_at=at)


class Submitted(Intent):
    """The request that a try has submitted."""

    request_id: Annotated[str, Field(pattern=r"^[^/\\\s]+$")]
    submitted_at: AwareDatetime
    done: bool = False
    """Whether its try has come to its end: all that was missing then is Airflow's own word of it."""


@dataclass(frozen=True)
class Unreadable:
    """A note that cannot be read: a request that is paid may be behind it."""

    place: str
    """The file, or the key."""
    why: str
    max_tries: int | None
    """What can be read of it all the same; see :class:`Intent`."""
    first_since_clear: bool
    """Whether Airflow says that this is the first try since the task was made or cleared."""


Noted: TypeAlias = Intent | Unreadable | None
"""What an earlier try has noted: a :class:`Submitted`, its intent alone, something that cannot be read, or nothing."""


_MAX_TRIES = re.compile(r'"max_tries"\s*:\s*(\d{1,9})\b')
"""Half a note may still tell it."""


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

    :param store: Airflow's, or one beside the outputs; ``None``: every try is the first one.
    :param first_since_clear: Tells whether this is the first try since the task was made or cleared.
    """

    def __init__(self, store: Store | None, *, first_since_clear: Callable[[], bool] = lambda: False) -> None:
        self._store = store
        self._first_since_clear = first_since_clear
        self._failed = False

    @property
    def lasts(self) -> bool:
        """Whether a new try will know what this one notes."""
        return self._store is not None and not self._failed

    def recall(self) -> Noted:
        """
        Return what an earlier try noted.

        :raises Exception: If the store cannot tell: that is not the same as nothing.
        """
        if self._store is None:
            return None
        try:
            value = self._store.get(KEY, ABSENT)
        except ValueError as error:  # it has the text, if there is one
            return self._unreadable(getattr(error, "doc", ""), str(error))
        if value is ABSENT:
            return None
        text = json.dumps(value)
        try:
            kind = Submitted if "request_id" in value else Intent
            return kind.model_validate_json(text, strict=True)
        except ValidationError as error:
            return self._unreadable(text, "; ".join(map(_broken_rule, error.errors(include_url=False))))
        except TypeError:
            return self._unreadable(text, "it is no JSON object")

    def _unreadable(self, text: str, why: str) -> Unreadable:
        found = _MAX_TRIES.search(text)
        return Unreadable(
            place=getattr(self._store, "place", PLACE),
            why=why,
            max_tries=int(found[1]) if found else None,
            first_since_clear=self._first_since_clear(),
        )

    def note(self, what: Intent) -> None:
        """Remember this, instead of what was there."""
        if self._store is None:
            return
        try:
            self._store.set(KEY, what.model_dump(mode="json"))
        except NotOwnerError:
            raise  # a newer try has noted more than this one knows
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


def is_cleared(noted: Intent | Unreadable, intent: Intent) -> bool:
    """Return whether a user has cleared the task since it was noted."""
    if noted.max_tries is not None:
        return noted.max_tries != intent.max_tries
    return isinstance(noted, Unreadable) and noted.first_since_clear


def decide(
    noted: Noted,
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
    if isinstance(noted, Unreadable):
        return Move.SUBMIT_AGAIN if cleared else Move.REFUSE
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


def _broken_rule(detail: Any) -> str:
    field = ".".join(map(str, detail["loc"])) or "it"
    return f"{field}: {detail['msg'].removeprefix('Input ')}"
