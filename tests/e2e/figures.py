"""What was measured, one line for each run: the table at the end of the tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True)
class Figure:
    """How a run went."""

    row: str
    submits: int
    cancels: int
    cancel_calls: int
    seconds_to_cancel: str
    ends: str
    seconds: str
    remark: str


def states_in_words(states: list[str | None]) -> str:
    """Say "4 success, 1 failed"; a single state needs no number."""
    if len(states) == 1:
        return str(states[0])
    return ", ".join(f"{number} {state}" for state, number in Counter(states).most_common()) or "deleted"


def table(figures: list[Figure]) -> list[str]:
    """Lines of a Markdown table."""
    head = [field.name.replace("_", " ") for field in fields(Figure)]
    rows = [head, *([str(value) for value in astuple(figure)] for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
