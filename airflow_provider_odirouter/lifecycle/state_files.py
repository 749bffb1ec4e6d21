"""
What a task remembers of its request between tries, in files beside its outputs.

Airflow before 3.3 has no task state store; with an output path, this module is one, behind the same interface. Each try
writes its own file, ``{output_path}/.odirouter/{task instance}/{id}.json``. The id is Airflow's: each retry and each
clear gives the task instance a new one. These ids are UUIDs of version 7: their order is that of time (as far as the
clocks of Airflow's servers agree within the length of a try; its workers' tokens need that, too).

So a try never overwrites the file of an earlier try, and the newest file counts. A try that finds a newer file than its
own is no longer its task's owner, and writes nothing. Between that listing and the write lies one call to the store; a
file that another try writes meanwhile is a second file, of which the newer counts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from airflow_provider_odirouter.errors import NotOwnerError, StorageError
from airflow_provider_odirouter.lifecycle.state import STORE_KEY, TaskStateStore
from airflow_provider_odirouter.storage.files import files_below, make_folder, remove, remove_empty_folder
from airflow_provider_odirouter.storage.state_folder import StateFolder

log = logging.getLogger(__name__)

SUFFIX = ".json"
MAX_BYTES = 64 * 2**10
"""As much as Airflow's own store takes."""
FORGOTTEN = {"version": 1, "forgotten": True}
"""Replaces a note that the store does not let us delete."""

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
    :param is_first_try: Whether it is the task instance's first: files of other tries are those of a deleted run.
    :param has_begun: Whether this try may have left a note already: it resumes after a deferral.
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
        self._folder = StateFolder(
            output_path, storage_conn_id, name, content="The note of this task's request", advice=RIGHTS_ADVICE
        )
        self._own = f"{try_id}{SUFFIX}"
        self.is_first_try = is_first_try
        self._has_begun = has_begun
        self.path = self._folder.path_of()
        """Of the folder of the notes; as soon as one was read, of its file."""

    @property
    def was_forbidden(self) -> bool:
        """Whether the last call that failed did so because the store forbids it."""
        return self._folder.was_forbidden

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - there is one note, and so one key
        """
        Return what the newest try has noted.

        :raises ValueError: If that is not JSON.
        :raises NotOwnerError: If that try is newer than this one.
        :raises StorageError: If the store does not answer.
        """
        if self.is_first_try and not self._has_begun:
            return default
        names = [name for name in self._names() if name == self._own or not self.is_first_try]
        for name in reversed(names):
            content = self._folder.read(name, MAX_BYTES)
            if content is not None:
                self.path = self._folder.path_of(name)
                value = json.loads(content.decode(errors="replace"))
                return default if value == FORGOTTEN else value
        return default

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:  # noqa: ARG002 - as long as files
        """
        Note a JSON value, and then remove the notes of earlier tries, if the store allows that.

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
        Remove all notes; where the store does not allow that, this try's note says that there is none.

        :raises NotOwnerError: If there is a newer try.
        :raises StorageError: If it can neither be removed nor be written.
        """
        names = self._names()
        try:
            self._remove(names)
            self._folder.run("", remove_empty_folder, "removed")
        except StorageError:
            self._write(FORGOTTEN)

    def _names(self) -> Sequence[str]:
        """Return the files of all tries up to this one, the newest last."""
        names = sorted(filter(is_note, self._folder.run("", files_below, "listed")))
        if names and names[-1] > self._own:
            newer = self._folder.path_of(names[-1])
            raise NotOwnerError(f"A newer try of this task has begun, and has left a note: {newer}.")
        return names

    def _write(self, value: Any) -> None:
        self._folder.run("", make_folder, "written")
        self._folder.write(self._own, json.dumps(value, allow_nan=False).encode())

    def _remove(self, names: Sequence[str]) -> None:
        # The newest last: as long as it is there, it counts.
        for name in names:
            self._folder.run(name, remove, "removed")


class NotesOfBoth:
    """
    Airflow's task state store; where it has no note, the one from before Airflow was upgraded to have such a store.

    :param airflows: ``context["task_state_store"]``.
    :param beside: Notes of an Airflow without it.
    """

    def __init__(self, airflows: TaskStateStore, beside: NotesBesideOutputs | None) -> None:
        self._airflows = airflows
        self._beside = beside
        self._is_beside = False
        """Whether the note that counts was found beside the outputs."""

    @property
    def path(self) -> str:
        """Of the note: a key, or a file."""
        return self._beside.path if self._beside and self._is_beside else STORE_KEY

    def get(self, key: str, default: Any = None) -> Any:
        """
        Return what is noted.

        :raises ValueError: If that is not JSON.
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
                return default  # so the older Airflow could not write a note here, either
            raise

    def _airflows_get(self, key: str, default: Any) -> Any:
        try:
            return self._airflows.get(key, default)
        except ValueError:
            raise
        except Exception as error:  # noqa: BLE001 - raised below, or by the next call
            # Airflow's server fails at a value that is not JSON. If it answers for another key, and fails at this one
            # again, the value is at fault, and it is not a transient error.
            self._airflows.get(f"{key}_probe", default)
            try:
                return self._airflows.get(key, default)
            except Exception:  # noqa: BLE001 - the first one says why
                raise ValueError(f"Airflow cannot read it: {error}") from error


def is_note(name: str) -> bool:
    """Return whether a file is a try's note."""
    return _id_in(name) is not None


def began_at(name: str) -> float | None:
    """Return the epoch seconds at which the try of a note began; ``None``: it is not in the file's name."""
    try_id = _id_in(name)
    return (try_id.int >> 80) / 1000 if try_id and try_id.version == 7 else None


def _id_in(name: str) -> UUID | None:
    try:
        try_id = UUID(name.removesuffix(SUFFIX))
    except ValueError:
        return None
    return try_id if name == f"{try_id}{SUFFIX}" else None
