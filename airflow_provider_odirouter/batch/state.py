"""
The state of a batch's edits, which its tries share: files beside the manifest.

Airflow's task state store cannot hold it: it takes at most 64 KiB, and came with Airflow 3.3. What no try may forget is
in a file before the next call is made: an intent before its submit, a request's id right after it.

Each try has its own files, and a pointer to them, ``owner-{id}.json``, which it writes last. The id is Airflow's: each
retry and each clear gives the task instance a new one, a UUID of version 7, whose order is that of time. The newest
pointer counts: it switches from all of an earlier try's edits to all of a new one's at once, and is read again before
each group of writes. So a process that was frozen, and wakes after another try has taken over, overwrites nothing of
that try, not even with a write that was under way.
"""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from uuid import uuid4

from pydantic import BaseModel

from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.errors import BatchStateError, BatchStateMissingError, NotOwnerError, StorageError
from airflow_provider_odirouter.models import NOTHING_SPENT, BatchItem, Phase, Spending
from airflow_provider_odirouter.storage.files import files_below, make_folder, remove
from airflow_provider_odirouter.storage.paths import LOCAL_PROTOCOLS, scheme_of
from airflow_provider_odirouter.storage.state_folder import StateFolder

if TYPE_CHECKING:
    from airflow_provider_odirouter.lifecycle.ownership import Ownership
    from airflow_provider_odirouter.lifecycle.state import TaskStateStore

log = logging.getLogger(__name__)

KEY = "odirouter_batch"
"""In Airflow's task state store."""

POINTER = "owner-"
POINTERS = f"{POINTER}*.json"
STATE = "state-"
ITEMS_PER_FILE = 200
"""A file is written again whenever the state of one of its edits changes: small files keep that cheap."""
MAX_BYTES = 64 * 2**20


class _Pointer(BaseModel):
    """Which files are valid."""

    version: Literal[1] = 1
    ti_id: str
    """Of the task instance that owns the files: a retry and a clear change it, a deferral does not."""
    generation: str
    """In the names of the files."""
    max_tries: int
    edits: int
    """In all files together."""
    submits_of_others: int = 0
    cost_of_others: float | None = 0.0
    """What was spent on edits that are no longer in the list."""

    @property
    def spent_on_others(self) -> Spending:
        return Spending(self.submits_of_others, self.cost_of_others)


class _Head(BaseModel):
    """The first line of each file."""

    version: Literal[1] = 1
    edits: int
    """In all files together."""

    def line(self) -> bytes:
        return self.model_dump_json().encode()


class BatchStore:
    """
    The edits of one batch with their states. Used by many threads.

    :param output_path: Of the batch.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :param name: Of the task instance.
    :param max_tries: Airflow's own count of the tries that are allowed. It grows when a user clears the task.
    :param ti_id: Airflow's id of the task instance, a UUID of version 7; a reader needs none.
    :param ownership: Whether this process still acts for the task; ``None``: it is not checked.
    """

    def __init__(
        self,
        output_path: str,
        storage_conn_id: str | None,
        name: str,
        *,
        max_tries: int,
        ti_id: str = "",
        ownership: Ownership | None = None,
    ) -> None:
        self._folder = StateFolder(output_path, storage_conn_id, name, content="The batch's state")
        self._is_local = scheme_of(output_path) in LOCAL_PROTOCOLS
        self._max_tries = max_tries
        self._ti_id = ti_id
        self._ownership = ownership
        self.survives_retry = True
        """Whether a new try will know what this one saves."""
        self._generation = ""
        """Of the files that are read and written: the earlier try's, until this one begins."""
        self._has_begun = False
        """Whether the pointer has named this try's files."""
        self._items = BatchItems()
        self._unwritten: set[int] = set()
        self._spent_on_others = Spending()
        # A signal handler may interrupt a change in the same thread, and read the edits.
        self._changing = threading.RLock()
        self._writing = threading.Lock()
        self.was_cleared = False
        """Whether a user has cleared the task since the state was written."""

    def load(self, store: TaskStateStore | None) -> BatchItems:
        """
        Read the state that an earlier try has left; no edits, if there was no earlier try.

        :param store: Airflow's (3.3 and later), which knows whether there must be a state: without it, an output path
            that is missing for a while would look like a first try, and all edits would be paid again.
        :raises BatchStateError: If the state was edited or deleted: that does not mean that there was none.
        :raises StorageError: If it cannot be read.
        """
        pointer = self._read_pointer()
        items = self._load(pointer) if pointer else self._items
        noted = (store and store.get(KEY)) or {}
        if not isinstance(noted, dict):
            raise BatchStateError(f"Key {KEY!r} of Airflow's task state store is not a note of a batch: {noted!r}.")
        if noted.get("max_tries") == self._max_tries and noted.get("state") != self._note["state"]:
            raise BatchStateError(
                f"An earlier try has written the batch's state to {noted.get('state')}, "
                f"and this try expects it in {self._note['state']}.",
                advice="Make output_path the same in every try, or clear the task: then all edits are paid again.",
            )
        if not pointer and noted == self._note:
            raise self._missing(POINTERS)
        if not pointer:
            self._refuse_lost_pointer()
        return items

    def load_after_deferral(self) -> BatchItems:
        """
        Read the state that this try has written before it was deferred.

        :raises BatchStateMissingError: If there is none.
        :raises NotOwnerError: If another try has taken over.
        """
        pointer = self._read_pointer()
        if pointer is None or pointer.ti_id < self._ti_id:
            raise self._missing(_pointer_name(self._ti_id))
        if pointer.ti_id > self._ti_id:
            self._lose(pointer)
        self._has_begun = True
        return self._load(pointer)

    def begin(self, items: BatchItems, store: TaskStateStore | None, spent_on_others: Spending = NOTHING_SPENT) -> None:
        """
        Replace the state that an earlier try has left by the edits of this one.

        However this ends, either all of the earlier try's edits are in the store, or all of these.

        :param store: As for :meth:`load`.
        :param spent_on_others: On the earlier try's edits that are not among these.
        :raises NotOwnerError: If this process no longer acts for the task.
        """
        self._folder.run("", make_folder, "written")
        # New names even if this try begins twice: files that are valid are never replaced one by one.
        earlier, self._generation = self._generation, uuid4().hex[:12]
        # At once: a signal handler that interrupts this must find all requests that may be alive.
        self._items = items
        self._spent_on_others = self._spent_on_others.plus(spent_on_others)
        for number in _files(len(items)):
            self._write(self._file_name(number), self._content(number))
        self._write_pointer()
        self._has_begun = True
        if store:
            store.set(KEY, self._note)
        self._remove(earlier)

    @property
    def _note(self) -> dict[str, Any]:
        """What Airflow's store knows of the state."""
        return {"state": self._folder.path_of(), "max_tries": self._max_tries}

    @property
    def items(self) -> Sequence[BatchItem]:
        """All edits, in their order; most are made when they are read."""
        return self._items

    def spent(self) -> Spending:
        """Return what the task instance has paid for, or may have, in all its tries."""
        return self._spent_on_others.plus(Spending.sum(item.spending for item in self.items))

    def item(self, number: int) -> BatchItem:
        """Return an edit."""
        return self._items[number - 1]

    def submitted(self) -> list[BatchItem]:
        """Return the edits whose requests may be running, in their order."""
        with self._changing:
            return [item for _, item in sorted(self._items.objects.items()) if item.phase is Phase.SUBMITTED]

    def stage(self, item: BatchItem) -> None:
        """Take a new state of an edit, which the next save writes: if it is lost, a new try can find it out again."""
        with self._changing:
            self._items[item.number - 1] = item
            self._unwritten.add(_file_of(item.number))

    def save_now(self, item: BatchItem) -> None:
        """
        Take a new state of an edit, and return when it is in the store.

        :raises StorageError: If it cannot be written.
        """
        self.stage(item)
        self.save()

    def save(self) -> None:
        """
        Write all states that are not written yet; if another thread is writing them, wait for it.

        :raises StorageError: If it cannot be written.
        :raises NotOwnerError: If another try has taken over.
        """
        with self._writing:
            with self._changing:
                files = {number: self._content(number) for number in sorted(self._unwritten)}
                self._unwritten.clear()
            try:
                if files:
                    self.check_owner()
                for number in list(files):
                    self._write(self._file_name(number), files[number])
                    del files[number]
            except StorageError:
                self.survives_retry = False
                raise
            finally:
                with self._changing:
                    self._unwritten |= set(files)

    def check_owner(self) -> None:
        """
        Return if this try's files are valid.

        :raises NotOwnerError: If another try has taken over.
        :raises StorageError: If the pointer cannot be read, or is missing.
        """
        if self._ownership:
            self._ownership.check()
        pointer = self._read_pointer()
        if pointer and pointer.generation == self._generation:
            return
        if pointer and (pointer.ti_id > self._ti_id or (self._has_begun and pointer.ti_id == self._ti_id)):
            self._lose(pointer)
        if not self._has_begun:
            raise StorageError("This try has not yet taken over an earlier try's state, and does not change it.")
        name = self._folder.path_of(_pointer_name(self._ti_id))
        raise StorageError(f"The batch's state cannot be written: {name} is missing.")

    def _lose(self, pointer: _Pointer) -> NoReturn:
        name = self._folder.path_of(_pointer_name(pointer.ti_id))
        why = f"another try has taken over the batch, as {name} says"
        if self._ownership:
            self._ownership.lose(why)
        raise NotOwnerError(f"This process no longer acts for its task: {why}.")

    def _content(self, number: int) -> bytes:
        lines = self._items.lines[number * ITEMS_PER_FILE : (number + 1) * ITEMS_PER_FILE]
        return b"\n".join([_Head(edits=len(self._items)).line(), *lines, b""])

    def _read_pointer(self) -> _Pointer | None:
        """Return the newest try's pointer; ``None``: no try has begun."""
        name = ""
        for _ in range(2):  # a newer try removes what was listed, once its own pointer is there
            names = self._names(POINTER)
            if not names:
                return None
            name = names[-1]
            content = self._folder.read(name, MAX_BYTES)
            if content is not None:
                try:
                    return _Pointer.model_validate_json(content)
                except ValueError as error:
                    raise self._broken(name, f": {_one_line(error)}") from error
        raise self._missing(name)

    def _load(self, pointer: _Pointer) -> BatchItems:
        """Read and hold all files of a state."""
        self._generation = pointer.generation
        self._spent_on_others = pointer.spent_on_others
        self.was_cleared = pointer.max_tries != self._max_tries
        items = BatchItems()
        is_in_order = True
        for number in _files(pointer.edits):
            name = self._file_name(number)
            content = self._folder.read(name, MAX_BYTES)
            if content is None:
                raise self._missing(name)
            for item in self._parse(name, content):
                items.append(item)
                is_in_order = is_in_order and item.number == len(items)
        if not is_in_order or len(items) != pointer.edits:
            first = self._file_name(0)
            raise self._broken(first, f" and those beside it should hold {pointer.edits} edits, in order")
        self._items = items
        return items

    def _parse(self, name: str, content: bytes) -> list[BatchItem]:
        items: list[BatchItem] = []
        line = 1
        try:
            lines = content.rstrip(b"\n").split(b"\n")
            _Head.model_validate_json(lines[0])
            for line in range(2, len(lines) + 1):
                items.append(BatchItem.model_validate_json(lines[line - 1]))
        except ValueError as error:
            raise self._broken(name, f", line {line}: {_one_line(error)}") from error
        return items

    def _refuse_lost_pointer(self) -> None:
        """Refuse a state whose pointer is missing. A first try that died before its pointer has only planned edits."""
        for name in self._names(STATE):
            content = self._folder.read(name, MAX_BYTES)
            if content is not None and any(item.phase is not Phase.PLANNED for item in self._parse(name, content)):
                raise self._missing(POINTERS)

    def _names(self, prefix: str) -> list[str]:
        """Return the names of the files that begin so, the newest pointer last."""
        return sorted(name for name in self._folder.run("", files_below, "read") if name.startswith(prefix))

    def _write_pointer(self) -> None:
        pointer = _Pointer(
            ti_id=self._ti_id,
            generation=self._generation,
            max_tries=self._max_tries,
            edits=len(self._items),
            submits_of_others=self._spent_on_others.submits,
            cost_of_others=self._spent_on_others.cost,
        )
        self._write(_pointer_name(self._ti_id), pointer.model_dump_json().encode() + b"\n")

    def _remove(self, generation: str) -> None:
        """Remove an earlier try's files, which are no longer valid, and all older pointers. A store may forbid it."""
        if not generation:
            return
        older = [name for name in self._names(POINTER) if name < _pointer_name(self._ti_id)]
        for name in [*older, *self._names(f"{STATE}{generation}-")]:
            try:
                self._folder.run(name, remove, "removed")
            except StorageError as error:
                log.info("A file of an earlier try is not removed, and is ignored: %s", error)

    def _broken(self, name: str, how: str) -> BatchStateError:
        return BatchStateError(f"The batch's state cannot be read: {self._folder.path_of(name)}{how}.")

    def _missing(self, name: str) -> BatchStateMissingError:
        what = f"The batch's state cannot be read: {self._folder.path_of(name)} is missing."
        if not self._is_local:
            return BatchStateMissingError(what)
        return BatchStateMissingError(
            f"{what} This worker ({platform.node()}) may not see the disk of the worker that has written it.",
            advice=(
                "Put output_path on a disk that all workers share, or into a store: a retry on a worker that finds the "
                "state continues with it. If the state was deleted, and no request of the batch is alive, clear the "
                "task: all edits are then paid again."
            ),
            last_advice=(
                "Put output_path on a disk that all workers share, or into a store, and clear the task: it continues "
                "with the state, if it finds it. If the state was deleted, and no request of the batch is alive, all "
                "edits are then paid again."
            ),
        )

    def _write(self, name: str, content: bytes) -> None:
        if self._ownership:
            self._ownership.check()
        self._folder.write(name, content)

    def _file_name(self, number: int) -> str:
        return f"{STATE}{self._generation}-{number:03}.jsonl"


def _pointer_name(ti_id: str) -> str:
    return f"{POINTER}{ti_id}.json"


def _file_of(number: int) -> int:
    return (number - 1) // ITEMS_PER_FILE


def _files(edits: int) -> Sequence[int]:
    """Return the numbers of all files."""
    return range(_file_of(edits) + 1)


def _one_line(error: ValueError) -> str:
    return " ".join(str(error).split())[:300]
