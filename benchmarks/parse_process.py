"""One operator in a new interpreter: ``python -m benchmarks.parse_process {…}``."""

from __future__ import annotations

import gc
import json
import sys
import time
from importlib import import_module
from statistics import median
from typing import Any

from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, XComArg, task  # noqa: F401 - a Dag file imports them

MORE = 50
"""Operators beyond the first."""


def main(order: dict[str, Any]) -> None:
    """Import the module and construct operators; print the milliseconds that it takes."""
    gc.collect()
    modules = len(sys.modules)
    began = time.perf_counter()
    operator = getattr(import_module(order["module"]), order["name"])
    imported = time.perf_counter() - began
    with DAG("benchmark"):
        first, *more = [_construct(operator, order["arguments"], number) for number in range(1 + MORE)]
    result = {
        "import_ms": 1000 * imported,
        "first_ms": 1000 * first,
        "parse_ms": 1000 * (imported + first),
        "next_ms": 1000 * median(more),
        "modules": len(sys.modules) - modules,
    }
    print(json.dumps(result))


def _construct(operator: Any, arguments: dict[str, Any], number: int) -> float:
    began = time.perf_counter()
    operator(task_id=f"task_{number}", **arguments)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
