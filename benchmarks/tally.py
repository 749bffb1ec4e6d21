"""Counters that the server writes and a measurement reads, without a request that would count, too."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

COUNTERS = struct.Struct("QQ")


class Tally:
    """
    How many polls the server has answered, and how many different waiters have sent one.

    :param path: A file that both processes map into their memory.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), COUNTERS.size)

    @staticmethod
    def create(path: Path) -> None:
        """Make a tally in which nothing has been counted."""
        path.write_bytes(bytes(COUNTERS.size))

    def read(self) -> tuple[int, int]:
        """Return the number of polls and of waiters."""
        polls, waiters = COUNTERS.unpack_from(self._memory)
        return polls, waiters

    def write(self, polls: int, waiters: int) -> None:
        """Set both."""
        COUNTERS.pack_into(self._memory, 0, polls, waiters)
