"""What a task has paid for, or may have, in all its tries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

DIGITS = 6
"""Of a sum's fraction: sums of floats are rounded, so that 0.1 and 0.2 are 0.3."""


class Spending(NamedTuple):
    """
    How many submits there were, and their price.

    A submit counts as soon as it may have created a request: also if its answer was lost, or if the request failed or
    was cancelled.
    """

    submits: int = 0
    cost: float | None = 0.0
    """By the prices of the connection at each submit; ``None``: there was no price for one of the submits."""

    def plus(self, other: Spending) -> Spending:
        """Return both together."""
        known = self.cost is not None and other.cost is not None
        cost = round(self.cost + other.cost, DIGITS) if known else None  # type: ignore[operator]
        return Spending(self.submits + other.submits, cost)

    @classmethod
    def sum(cls, parts: Iterable[Spending]) -> Spending:
        """Return all together."""
        total = cls()
        for part in parts:
            total = total.plus(part)
        return total

    def __str__(self) -> str:
        submits = f"{self.submits:,} submit{'' if self.submits == 1 else 's'}"
        return f"{submits}, about {self.cost:,.2f}" if self.submits and self.cost is not None else submits


NOTHING_SPENT = Spending()
