"""How late the event loop is: every trigger on it is delayed by this."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import median
from time import monotonic

BEAT = 0.05


class Heartbeat:
    """
    A beat that is due every 50 ms, and the lag of each.

    A loop that is blocked for a second is late for twenty beats, not for one: each beat that was due meanwhile counts,
    with the time from its due time to the end of the block. Otherwise the worst loop would show the fewest late beats.
    """

    def __init__(self) -> None:
        self._began = monotonic()
        self._lags: list[float] = []
        """Of the beats that came, in order."""

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(max(0.0, self._due(len(self._lags)) - monotonic()))
            self._catch_up(monotonic(), self._lags)

    def lags(self, begin: float, end: float) -> list[float]:
        """
        Return the lags of the beats that were due in a window, in seconds. May be called from another thread.

        A beat that has not come by the end of the window counts with its lag at that time, the least that it can be.
        """
        lags = list(self._lags)
        self._catch_up(end, lags)
        return [lag for number, lag in enumerate(lags) if begin <= self._due(number) < end]

    def _due(self, number: int) -> float:
        return self._began + (number + 1) * BEAT

    def _catch_up(self, now: float, lags: list[float]) -> None:
        while (due := self._due(len(lags))) <= now:
            lags.append(now - due)


def summary(lags: Sequence[float]) -> dict[str, float]:
    """Return the median, the 99th percentile and the maximum, in milliseconds."""
    ordered = sorted(lags)
    return {
        "lag_p50_ms": 1000 * median(ordered),
        "lag_p99_ms": 1000 * ordered[int(0.99 * (len(ordered) - 1) + 0.5)],
        "lag_max_ms": 1000 * ordered[-1],
    }
