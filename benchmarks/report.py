"""The results of a benchmark: tables, goals, and every repetition, so that they can be checked."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "airflow-provider-odirouter",
    "apache-airflow",
    "apache-airflow-providers-common-ai",
    "apache-airflow-providers-databricks",
    "apache-airflow-providers-http",
    "apache-airflow-providers-openai",
    "aiohttp",
    "fsspec",
    "httpx",
    "openai",
    "s3fs",
)

Run = dict[str, Any]
"""The figures of one repetition; ``None``: the figure could not be measured."""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column is aligned to the left, the others to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.columns, ["-" * width for width in widths], *self.rows)
        ]
        return "\n".join([self.title, "", *lines, *([""] if self.notes else []), *self.notes])


@dataclass(frozen=True)
class Goal:
    """A goal and the measured figure; ``met`` is ``None`` if nothing was measured."""

    text: str
    met: bool | None
    found: str

    def __str__(self) -> str:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        return f"goal {verdict}: {self.text} ({self.found})"


@dataclass(frozen=True)
class Report:
    """
    The results of a benchmark.

    :param medians: One for each row: the medians over its repetitions.
    :param runs: Each repetition.
    """

    tables: Sequence[Table]
    medians: Sequence[Run]
    runs: Sequence[Run]
    goals: Sequence[Goal] = field(default=())

    def __str__(self) -> str:
        return "\n\n".join(map(str, [*self.tables, *(["\n".join(map(str, self.goals))] if self.goals else [])]))

    def write(self, name: str, *, quick: bool, began: datetime, load: float) -> Path:
        """
        Write it as JSON.

        :param began: When the benchmark began.
        :param load: The load average at that time: other work on the machine.
        """
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}{'-quick' if quick else ''}.json"
        content = {
            "benchmark": name,
            "quick": quick,
            "date": began.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - began).total_seconds(), 1),
            "machine": {"cpus": os.cpu_count(), "load_average_before": load, "platform": platform.platform()},
            "python": platform.python_version(),
            "versions": {package: _version(package) for package in PACKAGES},
            "goals": [asdict(goal) for goal in self.goals],
            "medians": list(self.medians),
            "runs": list(self.runs),
        }
        path.write_text(json.dumps(content, indent=2, default=list) + "\n", encoding="utf-8")
        return path


def medians(runs: Sequence[Run]) -> Run:
    """
    Return the median of each figure; a value that is not a number is taken from the first repetition.

    A figure that is missing in one repetition is ``None``, since the median of the others would be too good.
    """
    result: Run = {}
    for name, first in runs[0].items():
        values = [run[name] for run in runs]
        if any(value is None for value in values):
            result[name] = None
        elif isinstance(first, int | float) and not isinstance(first, bool):
            result[name] = median(values)
        else:
            result[name] = first
    return result | {"repetitions": len(runs)}


def shown(value: float | None, digits: int = 2) -> str:
    """Show a figure, or a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
