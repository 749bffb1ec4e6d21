"""
The manifests of batches, line by line, kept for a moment: each small picture of a page needs a line.

A manifest carries no digest: its name alone gives the right to read it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from airflow_provider_odirouter.images.inputs import is_url
from airflow_provider_odirouter.models import BatchSummary
from airflow_provider_odirouter.plugins.gallery.files import (
    MOST_BYTES,
    NotShownError,
    not_shown,
    not_too_slow,
    now,
    open_file,
    size_of,
)
from airflow_provider_odirouter.plugins.gallery.instances import Instance
from airflow_provider_odirouter.plugins.gallery.turns import listing, patiently
from airflow_provider_odirouter.records import BatchRecord
from airflow_provider_odirouter.redaction import raises_bare, without_password

MOST_LINES = 100_000
"""Ten times as many as a batch has."""
LONGEST_LINE = 2 * 2**20
"""Bytes; a prompt of 32,000 characters takes 384,000 of them at most."""
HELD_SECONDS = 30.0
HELD_BYTES = 128 * 2**20
"""Of all manifests together; one of 10,000 edits has some 20 MiB."""


@dataclass(frozen=True)
class _Content:
    lines: Sequence[bytes]
    size: int


@dataclass(frozen=True)
class _Version:
    """A manifest as one try of its task has left it: what another one leaves is never taken for it."""

    place: str
    told: BatchSummary | BatchRecord


@dataclass(frozen=True)
class _Held:
    read_at: float
    content: Future[_Content]

    @property
    def is_old(self) -> bool:
        """Whether it should be read anew: not while somebody still reads it, since that would pile up."""
        if not self.content.done():
            return False
        return now() >= self.read_at + HELD_SECONDS or self.content.exception() is not None

    @property
    def size(self) -> int:
        return self.content.result().size if self.content.done() and not self.content.exception() else 0


_held: dict[_Version, _Held] = {}
_lock = threading.Lock()


def place_of(batch: Instance) -> str | None:
    """
    Return where the manifest of a batch lies, ``None`` if its task has written none yet.

    :raises NotShownError: If the task cannot have written a file there: who can write its XComs, but not read another
        Dag's, could else name that one's manifest.
    """
    place = batch.told.manifest if batch.told else None
    if place is None:
        return None
    name = place.rpartition("/")[2]
    if name != f"{batch.file_name}.jsonl" or ".." in PurePosixPath(place).parts or is_url(place):
        raise NotShownError(
            "The task's XComs name a manifest that the task cannot have written, so it is not opened.", 404
        )
    return place


async def lines_of(batch: Instance) -> Sequence[bytes]:
    """
    Return the lines of the manifest of a batch; none, if its task has written none yet.

    :raises NotShownError: If it cannot be shown.
    """
    place = place_of(batch)
    if place is None or batch.told is None:
        return ()
    version = _Version(place, batch.told)
    with _lock:
        _let_go()
        if version not in _held:
            _held[version] = _Held(now(), listing.submit(partial(_read, place)))
        content = _held[version].content
    # Nobody may ask for another one, ever.
    asyncio.get_running_loop().call_later(HELD_SECONDS + 1, _let_go_later)
    with not_too_slow():
        return (await patiently(content)).lines


def _let_go_later() -> None:
    with _lock:
        _let_go()


def _let_go() -> None:
    """Forget what is old; and if what is left takes too much memory, the first of it."""
    for version in [version for version, held in _held.items() if held.is_old]:
        del _held[version]
    while sum(held.size for held in _held.values()) > HELD_BYTES:
        del _held[next(version for version, held in _held.items() if held.size)]


@raises_bare(NotShownError)
def _read(place: str) -> _Content:
    with not_shown(place):
        with open_file(place, follow=False) as file:
            size_of(file, place)
            content = file.read(MOST_BYTES)
        if content.count(b"\n") > MOST_LINES:
            raise NotShownError(f"{without_password(place)} has more than {MOST_LINES:,} lines.", 413)
        return _Content([line for line in content.split(b"\n") if line.strip()], len(content))
