"""Counters that the server writes and a measurement reads, without a request that would be measured along."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

COUNTERS = struct.Struct("QQ")


class Tally:
    """
    How many looks the server has answered, and how many different waiters have sent one.

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
        """Return the looks and the waiters."""
        looks, waiters = COUNTERS.unpack_from(self._memory)
        return looks, waiters

    def write(self, looks: int, waiters: int) -> None:
        """Set both."""
        COUNTERS.pack_into(self._memory, 0, looks, waiters)
