"""How far many requests have come, in one line for the log. This module must never read a clock."""

from __future__ import annotations


class Progress:
    """
    Counts requests that end.

    :param total: How many there are.
    :param now: The time, in seconds of any clock.
    """

    def __init__(self, total: int, *, now: float) -> None:
        self._total = total
        self._began = now
        self._well = self._badly = 0

    @property
    def ended(self) -> int:
        """How many have ended."""
        return self._well + self._badly

    def end(self, *, well: bool) -> None:
        """Count one that has ended."""
        if well:
            self._well += 1
        else:
            self._badly += 1

    def line(self, *, now: float) -> str:
        """Say how far they have come, how fast it goes, and how long it may take yet."""
        waiting = self._total - self.ended
        text = f"{self.ended:,} of {self._total:,} requests have ended ({self._badly:,} not well), {waiting:,} wait"
        rate = self.ended / max(now - self._began, 1.0)
        if not (waiting and rate):
            return f"{text}."
        return f"{text}; {_a_time(rate)}, about {_duration(waiting / rate)} left."


def _a_time(rate: float) -> str:
    return f"{rate:.1f} a second" if rate >= 1 else f"{rate * 60:.1f} a minute"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
