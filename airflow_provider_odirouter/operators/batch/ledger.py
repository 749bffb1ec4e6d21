"""
What a batch remembers of each of its edits between tries: files beside its manifest.

Not Airflow's task state store, which has room for 64 KiB and came with Airflow 3.3. What must not be forgotten lies in
the store before the next call is made: an intent before its submit, a request's id right after it.

Each try has files of its own, and ``owner.json`` says whose count: with it, either all of an earlier try's edits are
remembered, or all of a new one's. It is read again with each group of writes. So a process that was frozen, and wakes
when another try has taken over, overwrites nothing of that one, not even with a write that was under way.
"""

from __future__ import annotations

import io
import logging
import platform
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar
from uuid import uuid4

from pydantic import BaseModel

from airflow_provider_odirouter.errors import BatchStateError, BatchStateMissingError, NotOwnerError, StorageError
from airflow_provider_odirouter.images.files import files_below, make_folder, read, write_whole
from airflow_provider_odirouter.images.paths import LOCAL_PROTOCOLS, scheme_of
from airflow_provider_odirouter.images.stores import in_words, reached
from airflow_provider_odirouter.images.threads import tried_aside
from airflow_provider_odirouter.models import BatchItem, Phase
from airflow_provider_odirouter.redaction import raises_bare, without_password

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_odirouter.durability import Store
    from airflow_provider_odirouter.lifecycle.ownership import Ownership

log = logging.getLogger(__name__)

T = TypeVar("T")

KEY = "odirouter_batch"
"""In Airflow's task state store."""

FOLDER = ".odirouter"
"""Below the output path. What begins with a dot is left out by most that read whole folders."""
POINTER = "owner.json"
STATE = "state"
SUFFIX = ".jsonl"
ITEMS_PER_FILE = 200
"""A file is written anew whenever one of its edits has moved on: small files, so that this stays cheap."""
MOST_BYTES = 64 * 2**20


class _Pointer(BaseModel):
    """Whose state counts."""

    version: Literal[1] = 1
    ti_id: str
    """Of the task instance that owns it: a retry and a clear change it, a deferral does not."""
    generation: str
    """In the names of its files."""
    max_tries: int
    edits: int
    """In all files together."""


class _Head(BaseModel):
    """The first line of each file."""

    version: Literal[1] = 1
    edits: int
    """In all files together."""

    def line(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"


class Ledger:
    """
    The edits of one batch, and how far each has come. Used by many threads.

    :param output_path: Of the batch.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :param name: Of the task instance.
    :param max_tries: Airflow's own count of the tries that are allowed. It grows when a user clears the task.
    :param ti_id: Airflow's id of the task instance; only who reads, and does not write, needs none.
    :param ownership: Whether this process still acts for the task; ``None``: nothing is watched.
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
        self._output_path = output_path
        self._storage_conn_id = storage_conn_id
        self._name = name
        self._max_tries = max_tries
        self._ti_id = ti_id
        self._ownership = ownership
        self.lasts = True
        """Whether a new try will know what this one notes."""
        self._generation = ""
        """Of the files that are read and written: the earlier try's, until this one begins."""
        self._has_begun = False
        """Whether the pointer is known to name this try's files."""
        self._items: dict[int, BatchItem] = {}
        self._lines: dict[int, bytes] = {}
        self._unwritten: set[int] = set()
        # A signal handler may come in the middle of a change, in the same thread, and ask what is alive.
        self._changing = threading.RLock()
        self._writing = threading.Lock()
        self.was_cleared = False
        """Whether a user has cleared the task since the batch was noted."""

    def load(self, store: Store | None) -> list[BatchItem]:
        """
        Read what an earlier try has noted; nothing, if there was none.

        :param store: Airflow's (3.3 and later), which tells whether there must be something: an output path that is
            missing for a while would else look like a first try, and all would be paid once more.
        :raises BatchStateError: If somebody has edited or deleted it: that is not the same as nothing.
        :raises StorageError: If it cannot be read.
        """
        pointer = self._read_pointer()
        items = self._load(pointer) if pointer else []
        noted = (store and store.get(KEY)) or {}
        if not isinstance(noted, dict):
            raise BatchStateError(f"Key {KEY!r} of Airflow's task state store holds no note of a batch: {noted!r}.")
        if noted.get("max_tries") == self._max_tries and noted.get("state") != self._mark["state"]:
            raise BatchStateError(
                f"An earlier try has noted its edits in {noted.get('state')}.",
                advice="Make output_path the same in every try, or clear the task: then all edits are paid anew.",
            )
        if not pointer and noted == self._mark:
            raise self._missing(POINTER)
        if not pointer:
            self._refuse_lost_pointer()
        return items

    def resume(self) -> list[BatchItem]:
        """
        Read what this try has noted before it was deferred.

        :raises BatchStateMissingError: If there is nothing.
        :raises NotOwnerError: If another try has taken over.
        """
        pointer = self._read_pointer()
        if pointer is None:
            raise self._missing(POINTER)
        if pointer.ti_id != self._ti_id:
            self._lose()
        self._has_begun = True
        return self._load(pointer)

    def begin(self, items: Iterable[BatchItem], store: Store | None) -> None:
        """
        Note the edits of this try in the place of an earlier one's.

        However this ends, either all of the earlier one's are remembered, or all of these.

        :param store: As for :meth:`load`.
        :raises NotOwnerError: If this process no longer acts for the task.
        """
        items = list(items)
        self._in_store(POINTER, lambda path: make_folder(path.parent), "written")
        earlier, self._generation = self._generation, uuid4().hex[:12]
        self._hold(items)
        with self._changing:
            contents = {number: self._content(number) for number in _files(len(items))}
        for number, content in contents.items():
            self._write(self._file_name(number), content)
        self._write_pointer()
        self._has_begun = True
        if store:
            store.set(KEY, self._mark)
        self._remove(earlier)

    @property
    def _mark(self) -> dict[str, Any]:
        return {"state": self._shown(POINTER), "max_tries": self._max_tries}

    @property
    def items(self) -> list[BatchItem]:
        """All edits, in order."""
        with self._changing:
            return list(self._items.values())

    def of(self, *phases: Phase) -> list[BatchItem]:
        """Return the edits that have come so far and no farther, in order."""
        return [item for item in self.items if item.phase in phases]

    def put(self, item: BatchItem) -> None:
        """Note what an edit has come to, with the next one that is kept or flushed: it can be found out again."""
        with self._changing:
            self._items[item.number] = item
            self._lines[item.number] = _line(item)
            self._unwritten.add(_file_of(item.number))

    def keep(self, item: BatchItem) -> None:
        """
        Note what an edit has come to, and return when it lies in the store.

        :raises StorageError: If it cannot be written.
        """
        self.put(item)
        self.flush()

    def flush(self) -> None:
        """
        Write what is not written yet, or wait for another thread that does.

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
                self.lasts = False
                raise
            finally:
                with self._changing:
                    self._unwritten |= set(files)

    def check_owner(self) -> None:
        """
        Return if this try is the one whose state counts.

        :raises NotOwnerError: If it is not.
        :raises StorageError: If the store does not tell.
        """
        if self._ownership:
            self._ownership.check()
        pointer = self._read_pointer()
        if pointer is None:
            raise StorageError(
                f"What is to be remembered of the batch cannot be written: {self._shown(POINTER)} is gone."
            )
        if pointer.generation == self._generation:
            return
        # Ids of task instances have the order of time.
        if pointer.ti_id > self._ti_id or (self._has_begun and pointer.ti_id == self._ti_id):
            self._lose()
        if not self._has_begun:
            raise StorageError("An earlier try's edits are not yet noted as this one's, and stay as they were.")
        self._write_pointer()  # an older try's has come late: it was frozen in the middle of it

    def _lose(self) -> NoReturn:
        why = f"another try has taken over the batch, as {self._shown(POINTER)} says"
        if self._ownership:
            self._ownership.lose(why)
        raise NotOwnerError(f"This process no longer acts for its task: {why}.")

    def _hold(self, items: Iterable[BatchItem]) -> None:
        with self._changing:
            self._items = {item.number: item for item in items}
            self._lines = {item.number: _line(item) for item in self._items.values()}

    def _content(self, number: int) -> bytes:
        head = _Head(edits=len(self._lines))
        return head.line() + b"".join(self._lines[item] + b"\n" for item in _numbers(number, len(self._lines)))

    def _read_pointer(self) -> _Pointer | None:
        content = self._read(POINTER)
        if content is None:
            return None
        try:
            return _Pointer.model_validate_json(content)
        except ValueError as error:
            raise self._broken(POINTER, f": {_words(error)}") from error

    def _load(self, pointer: _Pointer) -> list[BatchItem]:
        """Read and hold all files of a state."""
        self._generation = pointer.generation
        self.was_cleared = pointer.max_tries != self._max_tries
        items: list[BatchItem] = []
        for number in _files(pointer.edits):
            name = self._file_name(number)
            content = self._read(name)
            if content is None:
                raise self._missing(name)
            items += self._parse(name, content)
        if [item.number for item in items] != list(range(1, pointer.edits + 1)):
            first = self._file_name(0)
            raise self._broken(first, f" and those beside it should hold {pointer.edits} edits, in order")
        self._hold(items)
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
            raise self._broken(name, f", line {line}: {_words(error)}") from error
        return items

    def _refuse_lost_pointer(self) -> None:
        """Refuse state whose pointer is missing. What a first try has left that did not come to its begin is none."""
        for name in self._state_files():
            content = self._read(name)
            if content and any(item.phase is not Phase.PLANNED for item in self._parse(name, content)):
                raise self._missing(POINTER)

    def _state_files(self) -> list[str]:
        names = self._in_store("", files_below, "read")
        return [name for name in names if name.startswith(STATE) and name.endswith(SUFFIX)]

    def _write_pointer(self) -> None:
        pointer = _Pointer(
            ti_id=self._ti_id, generation=self._generation, max_tries=self._max_tries, edits=len(self._lines)
        )
        self._write(POINTER, pointer.model_dump_json().encode() + b"\n")

    def _remove(self, generation: str) -> None:
        """Remove an earlier try's files: they count no more. A store may refuse it."""
        for name in self._state_files() if generation else ():
            if name.startswith(f"{STATE}-{generation}-"):
                try:
                    self._in_store(name, lambda path: path.unlink(), "removed")
                except StorageError as error:
                    log.info("An earlier try's file stays: %s", error)

    def _broken(self, name: str, how: str) -> BatchStateError:
        return BatchStateError(f"What is remembered of the batch cannot be read: {self._shown(name)}{how}.")

    def _missing(self, name: str) -> BatchStateMissingError:
        what = f"What is remembered of the batch cannot be read: {self._shown(name)} is gone."
        if scheme_of(self._output_path) not in LOCAL_PROTOCOLS:
            return BatchStateMissingError(what)
        return BatchStateMissingError(
            f"{what} This worker ({platform.node()}) may not see the disk of the worker that has written it.",
            advice=(
                "Put output_path on a disk that all workers share, or into a store; a retry on a worker that sees the "
                "state goes on with it. If it was deleted, and no request of the batch is alive, clear the task: then "
                "all edits are paid anew."
            ),
        )

    def _read(self, name: str) -> bytes | None:
        def found(path: ObjectStoragePath) -> bytes | None:
            try:
                return read(path, MOST_BYTES, told=False)
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self._in_store(name, found, "read")

    def _write(self, name: str, content: bytes) -> None:
        if self._ownership:
            self._ownership.check()

        def write(path: ObjectStoragePath) -> None:
            write_whole(io.BytesIO(content), path, told=False)

        self._in_store(name, write, "written")

    @raises_bare()
    def _in_store(self, name: str, do: Callable[[ObjectStoragePath], T], done: str) -> T:
        outcome = tried_aside(lambda: do(self._folder() / name))
        if isinstance(outcome, Exception):
            reason = in_words(outcome, self._output_path, self._storage_conn_id)
            raise StorageError(
                f"What is to be remembered of the batch cannot be {done}: {self._shown(name)}: {reason}."
            )
        return outcome

    def _file_name(self, number: int) -> str:
        return f"{STATE}-{self._generation}-{number:03}{SUFFIX}"

    def _folder(self) -> ObjectStoragePath:
        folder: ObjectStoragePath = reached(self._output_path, self._storage_conn_id) / FOLDER / self._name
        return folder

    def _shown(self, name: str) -> str:
        return without_password(f"{self._output_path}/{FOLDER}/{self._name}/{name}")


def _file_of(number: int) -> int:
    return (number - 1) // ITEMS_PER_FILE


def _files(edits: int) -> Sequence[int]:
    """Return the numbers of all files."""
    return range(_file_of(edits) + 1)


def _numbers(file: int, edits: int) -> Sequence[int]:
    """Return the numbers of the edits in a file."""
    return range(file * ITEMS_PER_FILE + 1, min((file + 1) * ITEMS_PER_FILE, edits) + 1)


def _words(error: ValueError) -> str:
    return " ".join(str(error).split())[:300]


def _line(item: BatchItem) -> bytes:
    return item.model_dump_json(exclude_defaults=True).encode()
