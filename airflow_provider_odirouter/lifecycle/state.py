"""
What a task remembers of its request between tries, in files beside its outputs.

Airflow before 3.3 has no task state store; with an output path, there is one here, behind the same interface. Each try
writes a file of its own, ``{output_path}/.odirouter/{task instance}/{id}.json``, whose name is the id that Airflow
gives the task instance anew for each retry and each clear. These ids are UUIDs of version 7: their order is that of
time (as far as the clocks of Airflow's servers agree within the length of a try; its workers' tokens need that, too).

So nothing of an earlier try is ever written over, the newest file counts, and a try that finds a newer one than its own
knows that it is not its task's owner any more: it writes nothing. Between that look and the write lies one call to the
store; what comes in between are two files, of which the newer counts.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from airflow_provider_odirouter.durability import PLACE, Store
from airflow_provider_odirouter.errors import NotOwnerError, StorageError
from airflow_provider_odirouter.images.files import (
    files_below,
    make_folder,
    read,
    remove,
    remove_empty_folder,
    write_whole,
)
from airflow_provider_odirouter.images.stores import in_words, reached
from airflow_provider_odirouter.images.threads import tried_aside
from airflow_provider_odirouter.redaction import raises_bare, without_password

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

T = TypeVar("T")

log = logging.getLogger(__name__)

FOLDER = ".odirouter"
"""Below the output path. What begins with a dot is left out by most that read whole folders."""
SUFFIX = ".json"
MAX_BYTES = 64 * 2**10
"""As much as Airflow's own store takes."""
FORGOTTEN = {"version": 1, "forgotten": True}
"""Takes the place of a note that the store does not let go."""

RIGHTS_ADVICE = (
    "Check the store. Besides writing, the notes need the rights to list and to read this folder; without these, set "
    "durable=False: then each new try submits, and pays, again."
)


class NotesBesideOutputs:
    """
    The notes of one task instance, as this try sees them.

    :param output_path: Of the task.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :param name: Of the task instance, the same in all its tries.
    :param try_id: The task instance's id in this try.
    :param is_first_try: Whether the task instance had none before: what else lies there is of a run that was deleted.
    :param has_begun: Whether this try may have left a note already: it goes on after a deferral.
    """

    def __init__(
        self,
        output_path: str,
        storage_conn_id: str | None,
        name: str,
        try_id: UUID | str,
        *,
        is_first_try: bool,
        has_begun: bool,
    ) -> None:
        self._output_path = output_path
        self._storage_conn_id = storage_conn_id
        self._name = name
        self._own = f"{try_id}{SUFFIX}"
        self.is_first_try = is_first_try
        self._has_begun = has_begun
        self.place = self._shown("")
        """Where the note lies; as soon as one was read, its file."""
        self.was_forbidden = False
        """Whether the store has refused the last call that failed."""

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - there is one note, and so one key
        """
        Return what the newest try has noted.

        :raises ValueError: If that is no JSON.
        :raises NotOwnerError: If it is newer than this one.
        :raises StorageError: If the store does not tell.
        """
        if self.is_first_try and not self._has_begun:
            return default
        names = [name for name in self._names() if name == self._own or not self.is_first_try]
        for name in reversed(names):
            content = self._in_store(name, _content, "read")
            if content is not None:
                self.place = self._shown(name)
                value = json.loads(content.decode(errors="replace"))
                return default if value == FORGOTTEN else value
        return default

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:  # noqa: ARG002 - as long as files
        """
        Note a JSON value, and then remove what earlier tries have noted, if the store lets it go.

        :raises NotOwnerError: If there is a newer try.
        :raises StorageError: If it cannot be written.
        """
        earlier = [name for name in self._names() if name != self._own]
        self._write(value)
        self._has_begun = True
        try:
            self._remove(earlier)
        except StorageError as error:
            log.debug("An earlier try's note stays: %s", error)

    def delete(self, key: str) -> None:  # noqa: ARG002
        """
        Remove all notes; where the store lets none go, what this try has noted says so.

        :raises NotOwnerError: If there is a newer try.
        :raises StorageError: If it can neither be removed nor be written.
        """
        names = self._names()
        try:
            self._remove(names)
            self._in_store("", remove_empty_folder, "removed")
        except StorageError:
            self._write(FORGOTTEN)

    def _names(self) -> Sequence[str]:
        """Return the files of all tries up to this one, the newest last."""
        names = sorted(filter(is_note, self._in_store("", files_below, "listed")))
        if names and names[-1] > self._own:
            raise NotOwnerError(f"A newer try of this task has begun, and has left a note: {self._shown(names[-1])}.")
        return names

    def _write(self, value: Any) -> None:
        content = json.dumps(value, allow_nan=False).encode()

        def write(path: ObjectStoragePath) -> None:
            make_folder(path.parent)
            write_whole(io.BytesIO(content), path, told=False)

        self._in_store(self._own, write, "written")

    def _remove(self, names: Sequence[str]) -> None:
        # The newest comes last: as long as it is there, it counts.
        for name in names:
            self._in_store(name, remove, "removed")

    @raises_bare()
    def _in_store(self, name: str, do: Callable[[ObjectStoragePath], T], done: str) -> T:
        def job() -> T:
            folder: ObjectStoragePath = reached(self._output_path, self._storage_conn_id) / FOLDER / self._name
            return do(folder / name if name else folder)

        outcome = tried_aside(job)
        if isinstance(outcome, Exception):
            reason = in_words(outcome, self._output_path, self._storage_conn_id)
            error = StorageError(
                f"What this task remembers of its request cannot be {done}: {self._shown(name)}: {reason}.",
                advice=RIGHTS_ADVICE,
            )
            self.was_forbidden = isinstance(outcome, PermissionError)
            raise error
        return outcome

    def _shown(self, name: str) -> str:
        return without_password(f"{self._output_path.rstrip('/')}/{FOLDER}/{self._name}/{name}".rstrip("/"))


class NotesOfBoth:
    """
    Airflow's task state store; and where it has nothing, what the task noted before Airflow was upgraded to have one.

    :param airflows: ``context["task_state_store"]``.
    :param beside: Notes of an Airflow without it.
    """

    def __init__(self, airflows: Store, beside: NotesBesideOutputs | None) -> None:
        self._airflows = airflows
        self._beside = beside
        self._is_beside = False
        """Whether the note that counts was found beside the outputs."""

    @property
    def place(self) -> str:
        """Where the note lies."""
        return self._beside.place if self._beside and self._is_beside else PLACE

    def get(self, key: str, default: Any = None) -> Any:
        """
        Return what is noted.

        :raises ValueError: If that is no JSON.
        """
        value = self._airflows_get(key, default)
        if value is not default or self._beside is None or self._beside.is_first_try:
            return value
        self._is_beside = True
        return self._beside_get(self._beside, key, default)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Note a value in Airflow's store, which counts from then on."""
        self._airflows.set(key, value, retention=retention)
        self._forget_beside(key)

    def delete(self, key: str) -> None:
        """Remove the note, wherever it is."""
        self._airflows.delete(key)
        self._forget_beside(key)

    def _forget_beside(self, key: str) -> None:
        if self._beside and self._is_beside:
            self._beside.delete(key)
            self._is_beside = False

    def _beside_get(self, beside: NotesBesideOutputs, key: str, default: Any) -> Any:
        try:
            return beside.get(key, default)
        except StorageError:
            if beside.was_forbidden:
                return default  # so the older Airflow could not note anything here, either
            raise

    def _airflows_get(self, key: str, default: Any) -> Any:
        try:
            return self._airflows.get(key, default)
        except ValueError:
            raise
        except Exception as error:  # noqa: BLE001 - raised below, or by the next question
            # Airflow's server fails at a value that is no JSON. If it answers for another key, and fails at this one
            # once more, the value is at fault, and not a passing trouble.
            self._airflows.get(f"{key}_probe", default)
            try:
                return self._airflows.get(key, default)
            except Exception:  # noqa: BLE001 - the first one says why
                raise ValueError(f"Airflow cannot read it: {error}") from error


def is_note(name: str) -> bool:
    """Return whether a file is a try's note."""
    return _id_in(name) is not None


def began_at(name: str) -> float | None:
    """Return when the try began whose note a file is, in epoch seconds; ``None``: its name does not tell."""
    try_id = _id_in(name)
    return (try_id.int >> 80) / 1000 if try_id and try_id.version == 7 else None


def _id_in(name: str) -> UUID | None:
    try:
        try_id = UUID(name.removesuffix(SUFFIX))
    except ValueError:
        return None
    return try_id if name == f"{try_id}{SUFFIX}" else None


def _content(path: ObjectStoragePath) -> bytes | None:
    try:
        return read(path, MAX_BYTES, told=False)
    except FileNotFoundError:  # someone has tidied up since it was listed
        return None
