"""Lines with the time."""

from __future__ import annotations

import time


class Timeline:
    """Prints lines with the seconds since it was created."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def print(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{self._last - self._start:6.1f} s  {text}", flush=True)

    @property
    def silence(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._last
