"""Durations of edits with a long tail, and how long a batch of them takes if nothing but the durations counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heapreplace
from math import exp, log
from random import Random

MEDIAN, SIGMA = 40.0, 0.5
SHORTEST, LONGEST = 8.0, 180.0


def drawn(rng: Random, count: int) -> Iterator[float]:
    """Yield durations in seconds: lognormal, half of them between 29 and 56 s."""
    for _ in range(count):
        yield min(LONGEST, max(SHORTEST, exp(rng.gauss(log(MEDIAN), SIGMA))))


def perfect(durations: Sequence[float], slots: int) -> float:
    """
    Return the length of a schedule in which each edit begins the moment that a slot is free.

    :param durations: In the order of the submits.
    :param slots: How many edits may run at once.
    """
    free_at = [0.0] * slots
    heapify(free_at)
    for duration in durations:
        heapreplace(free_at, free_at[0] + duration)
    return max(free_at)


def waves(durations: Sequence[float], slots: int) -> float:
    """Return the length of a schedule in which the next edits begin when all of the last ones have ended."""
    return sum(max(durations[begin : begin + slots]) for begin in range(0, len(durations), slots))
