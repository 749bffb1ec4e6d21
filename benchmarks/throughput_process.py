"""
One batch on a worker, in its own process: ``python -m benchmarks.throughput_process {…}``.

The operator runs as Airflow's task runner runs it, but without Airflow's database, so that the figures are its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from airflow.sdk import DAG

from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator


def main(order: dict[str, Any]) -> None:
    """Run the batch, and print the figures."""
    _run(order, ["Warm up"])  # loads what is loaded only once
    before, cpu, began = _peak(), time.process_time(), time.monotonic()
    summary = _run(order, [f"Edit {number}" for number in range(order["edits"])])
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    result = {
        "wall_seconds": wall,
        "cpu_ms_per_edit": 1000 * cpu / order["edits"],
        "cpu_share": cpu / wall,
        "peak_mib": _peak() / 2**20,
        "grown_mib": (_peak() - before) / 2**20,
        "landed": summary["succeeded"],
    }
    print(json.dumps(result))


def _run(order: dict[str, Any], prompts: Sequence[str]) -> dict[str, Any]:
    with DAG("benchmark"):
        operator = OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=[{"prompt": prompt} for prompt in prompts],
            defaults={"images": order["image"]},
            output_path=str(Path(order["output_path"], str(uuid4()))),
            max_in_flight=order["in_flight"],
            poll_interval=order["poll_interval"],
            deferrable=False,
        )
    ti = SimpleNamespace(
        id=uuid4(),
        dag_id="benchmark",
        task_id="edit",
        run_id="run",
        map_index=-1,
        try_number=1,
        max_tries=0,
        start_date=datetime.now(UTC),
        xcom_push=lambda key, value: None,  # noqa: ARG005 - Airflow's names
    )
    context: Any = {"ti": ti, "task": operator, "outlet_events": {}, "task_state_store": None}
    return operator.execute(context)


def _peak() -> int:
    """Return the peak of this process's memory, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
