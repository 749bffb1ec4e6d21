"""
What a task instance remembers of its request between tries.

It lies in Airflow's task state store (3.3 and later), which survives a retry and a clear, or beside the outputs (see
:mod:`~airflow_provider_odirouter.lifecycle.state_files`). No trigger may import this module: there, the store's calls
hang for ever.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_odirouter.compat import is_not_found
from airflow_provider_odirouter.errors import NotOwnerError
from airflow_provider_odirouter.models import Spending

log = logging.getLogger(__name__)

KEY = "odirouter_request"

OnLostSubmit = Literal["submit", "fail"]

ABSENT: Final = "there is no note under this key"
"""Not ``None``: a note that is ``null`` is broken."""

STORE_KEY = f"key {KEY!r} of Airflow's task state store"


class TaskStateStore(Protocol):
    """What is used of Airflow's ``context["task_state_store"]``."""

    def get(self, key: str, default: Any = None) -> Any:
        """
        Return the value, or the default if there is none.

        :raises ValueError: If the value is not JSON.
        """

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Keep a JSON value, by default for Airflow's ``[state_store] default_retention_days``."""

    def delete(self, key: str) -> None:
        """Delete the value, if there is one."""


Text = Annotated[str, Field(min_length=1)]


class _Note(BaseModel):
    """What all notes hold."""

    # A note with other fields was written by another version of this provider, or by hand.
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    """Of the note's form; the first notes had none."""
    submits: Annotated[int, Field(ge=1)] = 1
    """In all tries of the task instance, the noted one included; the first notes did not count them."""
    cost: float | None = None
    """See :class:`~airflow_provider_odirouter.models.spending.Spending`."""

    @property
    def spending(self) -> Spending:
        """What the task instance has paid for, or may have."""
        return Spending(self.submits, self.cost)


class Intent(_Note):
    """What a try is about to submit."""

    max_tries: int
    """Airflow's own count of the tries that are allowed. It grows when a user clears the task, and only then."""
    fingerprint: Text
    """Of the input: a map index may have another input in the next try."""
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
    """Whether its try has ended; only its report to Airflow may be missing."""


class Ended(_Note):
    """What is left of requests that have ended, and have no result to take."""

    ended: Literal[True] = True


@dataclass(frozen=True)
class Unreadable:
    """A note that cannot be read: it may be of a request that is paid."""

    path: str
    """The file, or the key."""
    why: str
    max_tries: int | None
    """See :class:`Intent`; ``None``: it cannot be read either."""
    first_since_clear: bool
    """Whether this is the first try since the task was made or cleared, by Airflow's counts."""
    submits: int = 1
    """See :class:`Intent`; 1, if it cannot be read either."""

    @property
    def spending(self) -> Spending:
        """What the task instance has paid for at least."""
        return Spending(self.submits, None)


Noted: TypeAlias = Intent | Ended | Unreadable | None
"""What an earlier try has noted: a :class:`Submitted`, its intent alone, what it has spent, or nothing."""

_NUMBER = r'"{}"\s*:\s*(\d{{1,9}})\b'
"""A field of a broken note that may be whole."""


def make_fingerprint(odirouter_conn_id: str, endpoint: str, body: bytes) -> str:
    """
    Return a digest that differs for different submits.

    :param body: The body of the submit, pictures included.
    """
    digest = hashlib.sha256()
    for part in (odirouter_conn_id.encode(), endpoint.encode(), body):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


class RequestStore:
    """
    What one task instance remembers of its request.

    :param store: Airflow's, or one beside the outputs; ``None``: it remembers nothing.
    :param first_since_clear: Returns whether this is the first try since the task was made or cleared.
    """

    def __init__(self, store: TaskStateStore | None, *, first_since_clear: Callable[[], bool] = lambda: False) -> None:
        self._store = store
        self._first_since_clear = first_since_clear
        self._failed = False
        self._noted: Noted = None
        self._has_read = False
        """Whether ``_noted`` is what the store holds."""

    @property
    def survives_retry(self) -> bool:
        """Whether the next try will know what this one notes."""
        return self._store is not None and not self._failed

    def recall(self) -> Noted:
        """
        Return what an earlier try noted.

        :raises Exception: If the store does not answer: that does not mean that there is no note.
        """
        if self._store is None:
            return None
        self._noted, self._has_read = self._read(self._store), True
        return self._noted

    def spent(self) -> Spending:
        """
        Return what the task instance has paid for, or may have, in all its tries.

        :raises Exception: As :meth:`recall` does, which it calls unless this process has read or written the note.
        """
        noted = self._noted if self._has_read else self.recall()
        return noted.spending if noted else Spending()

    def _read(self, store: TaskStateStore) -> Noted:
        try:
            value = store.get(KEY, ABSENT)
        except ValueError as error:  # a JSON error has the text
            return self._unreadable(getattr(error, "doc", ""), str(error))
        if value is ABSENT:
            return None
        text = json.dumps(value)
        try:
            kind = Ended if "ended" in value else Submitted if "request_id" in value else Intent
            return kind.model_validate_json(text, strict=True)
        except ValidationError as error:
            return self._unreadable(text, "; ".join(map(_broken_rule, error.errors(include_url=False))))
        except TypeError:
            return self._unreadable(text, "it is not a JSON object")

    def _unreadable(self, text: str, why: str) -> Unreadable:
        max_tries, submits = _number("max_tries", text), _number("submits", text)
        return Unreadable(
            path=getattr(self._store, "path", STORE_KEY),
            why=why,
            max_tries=max_tries,
            first_since_clear=self._first_since_clear(),
            submits=submits or 1,
        )

    def note(self, what: Intent) -> None:
        """Replace the note."""
        if self._store is None:
            return
        try:
            self._store.set(KEY, what.model_dump(mode="json"))
        except NotOwnerError:
            raise  # a newer try has noted more than this one knows
        except BaseException:
            self._failed = True
            raise
        self._noted, self._has_read = what, True

    def done(self) -> None:
        """
        Note that the try has ended well.

        The request is not forgotten yet: Airflow tries again if the return value cannot be pushed, for example.
        """
        if self._store is None:
            return
        try:
            noted = self._noted if self._has_read else self.recall()
            if isinstance(noted, Submitted):
                self._store.set(KEY, noted.model_copy(update={"done": True}).model_dump(mode="json"))
        except Exception as error:  # noqa: BLE001 - as below
            if is_not_found(error):
                return  # a newer try owns the note
            log.warning("It could not be noted that this task's request is done: %r", error)

    def forget(self, spending: Spending | None = None) -> None:
        """
        Replace the note by what was spent: the request is over, and has no result to take.

        :param spending: What was spent, if the note counts a submit that created no request. Default: the note's.
        """
        if self._store is None:
            return
        try:
            spending = self.spent() if spending is None else spending
            if spending.submits:
                ended = Ended(submits=spending.submits, cost=spending.cost)
                with suppress(Exception):  # a store that takes no note may still delete one
                    self._store.set(KEY, ended.model_dump(mode="json"))
                    self._noted, self._has_read = ended, True
                    return
            self._store.delete(KEY)
            self._noted, self._has_read = None, True
        except Exception as error:  # noqa: BLE001 - the outcome of the try matters more than its note
            if is_not_found(error):
                return  # a newer try owns the note
            log.warning(
                "The note of this task's request could not be deleted; a new try will poll that request: %r", error
            )


def _number(field: str, text: str) -> int | None:
    found = re.search(_NUMBER.format(field), text)
    return int(found[1]) if found else None


def _broken_rule(detail: Any) -> str:
    field = ".".join(map(str, detail["loc"])) or "it"
    return f"{field}: {detail['msg'].removeprefix('Input ')}"
