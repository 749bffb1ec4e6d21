"""
Parsing: what an operator costs each time that its Dag file is parsed.

The Dag processor parses each file again and again, each time in a new process that has loaded Airflow, but no provider.
So each repetition is a new interpreter that has imported the names of ``airflow.sdk`` that a Dag file needs.

- *import*: the operator's module, as ``from … import …Operator`` at the top of a Dag file.
- *first*: the first operator's construction, with the imports that it needs; ours imports its checks there.
- *parse*: both together, which is what one Dag file pays.
- *next*: each operator after the first, all literal arguments checked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.report import Goal, Report, Run, Table, medians, shown

REPETITIONS = 5
MAX_SECONDS = 60.0
"""Seconds for one process."""

OURS = "OdiRouterImageEditOperator"
OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    OURS: (
        "airflow_provider_odirouter.operators.image_edit",
        {"prompt": "Make it blue", "images": ["/pictures/cup.png"], "n": 2, "size": "1024x1024", "quality": "high"},
    ),
    "OpenAITriggerBatchOperator": (
        "airflow.providers.openai.operators.openai",
        {"file_id": "file-1", "endpoint": "/v1/chat/completions", "deferrable": True},
    ),
    "HttpOperator": ("airflow.providers.http.operators.http", {"endpoint": "edit", "deferrable": True}),
    "DatabricksSubmitRunOperator": (
        "airflow.providers.databricks.operators.databricks",
        {"notebook_task": {"notebook_path": "/edit"}, "existing_cluster_id": "one", "deferrable": True},
    ),
}


def run(*, quick: bool, progress: Callable[[str], None]) -> Report:
    """Import and construct each operator."""
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        environment = processes.environment(Path(folder))
        # The operators take turns, so that other load on the machine affects all of them alike.
        for number in range(1 if quick else REPETITIONS):
            for name, (module, arguments) in OPERATORS.items():
                progress(f"{name}, {number + 1}")
                order = {"module": module, "name": name, "arguments": arguments}
                result = processes.measured("parse_process", order, environment=environment, seconds=MAX_SECONDS)
                runs.append({"row": name} | result)
    found = [medians([run for run in runs if run["row"] == name]) for name in OPERATORS]
    columns = ("parsing", "import ms", "first ms", "parse ms", "next ms", "modules", "runs")
    rows = [
        [
            line["row"],
            *(shown(line[f"{name}_ms"], 1) for name in ("import", "first", "parse")),
            shown(line["next_ms"], 3),
            shown(line["modules"], 0),
            str(line["repetitions"]),
        ]
        for line in found
    ]
    ours, *peers = found
    best = min(peers, key=lambda line: line["import_ms"])
    goal = Goal(
        "import of the operator's module at most 1/20 of the best peer's",
        ours["import_ms"] <= best["import_ms"] / 20,
        f"{ours['import_ms']:.1f} ms against {best['import_ms']:.0f} ms of {best['row']}: "
        f"1/{best['import_ms'] / ours['import_ms']:.0f}",
    )
    return Report([Table("Parsing, above airflow.sdk", columns, rows)], found, runs, [goal])
