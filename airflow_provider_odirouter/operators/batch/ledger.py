"""
What a batch remembers of each of its edits between tries: files beside its manifest.

Not Airflow's task state store, which has room for 64 KiB and came with Airflow 3.3. What must not be forgotten lies in
the store before the next call is made: an intent before its submit, a request's id right after it.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel

from airflow_provider_odirouter.errors import BatchStateError, StorageError
from airflow_provider_odirouter.images.files import make_folder, read, write_whole
from airflow_provider_odirouter.images.stores import in_words, reached
from airflow_provider_odirouter.images.threads import tried_aside
from airflow_provider_odirouter.models import BatchItem, Phase
from airflow_provider_odirouter.redaction import raises_bare, without_password

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_odirouter.durability import Store

T = TypeVar("T")

KEY = "odirouter_batch"
"""In Airflow's task state store."""

FOLDER = ".odirouter"
"""Below the output path. What begins with a dot is left out by most that read whole folders."""
ITEMS_PER_FILE = 200
"""A file is written anew whenever one of its edits has moved on: small files, so that this stays cheap."""
MOST_BYTES = 64 * 2**20
STATE = "state"
EARLIER = "earlier"
"""An earlier try's state, while that of one with other edits takes its place: some of them change their files."""


class _Head(BaseModel):
    """The first line of each file."""

    version: Literal[1] = 1
    max_tries: int
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
    """

    def __init__(self, output_path: str, storage_conn_id: str | None, name: str, *, max_tries: int) -> None:
        self._output_path = output_path
        self._storage_conn_id = storage_conn_id
        self._name = name
        self._max_tries = max_tries
        self.lasts = True
        """Whether a new try will know what this one notes."""
        self._items: dict[int, BatchItem] = {}
        self._lines: dict[int, bytes] = {}
        self._unwritten: set[int] = set()
        # A signal handler may come in the middle of a change, in the same thread, and ask what is alive.
        self._changing = threading.RLock()
        self._writing = threading.Lock()
        self._noted_max_tries = max_tries
        """What the files say: the earlier try's, until this one has begun."""
        self._is_moving = False
        """Whether the earlier try's state counts, since this one's is not whole yet."""
        self.was_cleared = False
        """Whether a user has cleared the task since the batch was noted."""

    def load(self, store: Store | None, *, needed: bool = False) -> list[BatchItem]:
        """
        Read what an earlier try has noted; nothing, if there was none.

        :param store: Airflow's (3.3 and later), which tells whether there must be something: an output path that is
            missing for a while would else look like a first try, and all would be paid once more.
        :param needed: Whether there must be something in any case.
        :raises BatchStateError: If somebody has edited or deleted it: that is not the same as nothing.
        :raises StorageError: If it cannot be read.
        """
        items = self._load(EARLIER)
        self._is_moving = bool(items)
        items = items or self._load(STATE)
        self._hold(items)
        noted = (store and store.get(KEY)) or {}
        if noted.get("max_tries") == self._max_tries and noted.get("state") != self._mark["state"]:
            raise BatchStateError(
                f"An earlier try has noted its edits in {noted.get('state')}.",
                advice="Make output_path the same in every try, or clear the task: then all edits are paid anew.",
            )
        if not items and (needed or noted == self._mark):
            raise self._broken(_file_name(STATE, 0), " is gone")
        return items

    def begin(self, items: Iterable[BatchItem], store: Store | None) -> None:
        """
        Note the edits of this try in the place of an earlier one's.

        However this ends, either all of the earlier one's are remembered, or all of these.

        :param store: As for :meth:`load`.
        """
        items = list(items)
        self._in_store(_file_name(STATE, 0), lambda path: make_folder(path.parent), "written")
        if not self._is_moving and (earlier := self.items) and _places(earlier) != _places(items):
            for number in _files(len(earlier)):
                self._write(_file_name(EARLIER, number), self._content(number))
            self._is_moving = True
        self._noted_max_tries = self._max_tries
        self._hold(items)
        with self._changing:
            self._unwritten = set(_files(len(items)))
        self.flush()
        if self._is_moving:
            self._write(_file_name(EARLIER, 0), _Head(max_tries=self._max_tries, edits=0).line())
            self._is_moving = False
        if store:
            store.set(KEY, self._mark)

    @property
    def _mark(self) -> dict[str, Any]:
        return {"state": self._shown(_file_name(STATE, 0)), "max_tries": self._max_tries}

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
        """
        with self._writing:
            with self._changing:
                # The first file comes last: where it is missing, no try has begun.
                files = {number: self._content(number) for number in sorted(self._unwritten, reverse=True)}
                self._unwritten.clear()
            try:
                for number in list(files):
                    self._write(_file_name(STATE, number), files[number])
                    del files[number]
            except StorageError:
                self.lasts = False
                raise
            finally:
                with self._changing:
                    self._unwritten |= set(files)

    def _hold(self, items: Iterable[BatchItem]) -> None:
        with self._changing:
            self._items = {item.number: item for item in items}
            self._lines = {item.number: _line(item) for item in self._items.values()}

    def _content(self, number: int) -> bytes:
        head = _Head(max_tries=self._noted_max_tries, edits=len(self._lines))
        return head.line() + b"".join(self._lines[item] + b"\n" for item in _numbers(number, len(self._lines)))

    def _load(self, kind: str) -> list[BatchItem]:
        """Read all files of a state; there is none, if the first is missing."""
        first = self._parse(_file_name(kind, 0))
        if first is None:
            return []
        edits, items = first
        for number in range(1, len(_files(edits))):
            found = self._parse(_file_name(kind, number))
            if found is None:
                raise self._broken(_file_name(kind, number), " is gone")
            items += found[1]
        if [item.number for item in items] != list(range(1, edits + 1)):
            raise self._broken(_file_name(kind, 0), f" and those beside it should hold {edits} edits, in order")
        return items

    def _parse(self, name: str) -> tuple[int, list[BatchItem]] | None:
        content = self._read(name)
        if content is None:
            return None
        items: list[BatchItem] = []
        line = 1
        try:
            lines = content.rstrip(b"\n").split(b"\n")
            head = _Head.model_validate_json(lines[0])
            for line in range(2, len(lines) + 1):
                items.append(BatchItem.model_validate_json(lines[line - 1]))
        except ValueError as error:
            raise self._broken(name, f", line {line}: {' '.join(str(error).split())[:300]}") from error
        if head.max_tries != self._max_tries:
            self.was_cleared = True
            self._noted_max_tries = head.max_tries
        return head.edits, items

    def _broken(self, name: str, how: str) -> BatchStateError:
        return BatchStateError(f"What is remembered of the batch cannot be read: {self._shown(name)}{how}.")

    def _read(self, name: str) -> bytes | None:
        def found(path: ObjectStoragePath) -> bytes | None:
            try:
                return read(path, MOST_BYTES, told=False)
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self._in_store(name, found, "read")

    def _write(self, name: str, content: bytes) -> None:
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

    def _folder(self) -> ObjectStoragePath:
        folder: ObjectStoragePath = reached(self._output_path, self._storage_conn_id) / FOLDER / self._name
        return folder

    def _shown(self, name: str) -> str:
        return without_password(f"{self._output_path}/{FOLDER}/{self._name}/{name}")


def _file_name(kind: str, number: int) -> str:
    return f"{kind}-{number:03}.jsonl"


def _file_of(number: int) -> int:
    return (number - 1) // ITEMS_PER_FILE


def _files(edits: int) -> Sequence[int]:
    """Return the numbers of all files; the first one comes last."""
    return range(_file_of(edits), -1, -1)


def _numbers(file: int, edits: int) -> Sequence[int]:
    """Return the numbers of the edits in a file."""
    return range(file * ITEMS_PER_FILE + 1, min((file + 1) * ITEMS_PER_FILE, edits) + 1)


def _places(items: Iterable[BatchItem]) -> Sequence[tuple[str, str]]:
    """Return which edits there are, in order."""
    return [(item.fingerprint, item.name) for item in items]


def _line(item: BatchItem) -> bytes:
    return item.model_dump_json(exclude_defaults=True).encode()
