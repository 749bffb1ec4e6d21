"""
The sandbox in its own process, whose CPU is not measured: ``python -m benchmarks.sandbox_process {…}``.

The edit with the prompt "Edit 7" runs for the seventh duration, whichever is submitted first; any other runs for none.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sandbox.sandbox import CONTROL_PATH
from airflow_provider_odirouter.sandbox.server import SandboxServer
from airflow_provider_odirouter.sandbox.wire import Call

_NUMBER = re.compile(rb'"prompt": ?"Edit (\d+)"')


def main(order: dict[str, list[float]]) -> None:
    """Serve until standard input ends."""
    sandbox, seconds = Sandbox(queue_seconds=0, run_seconds=0), order["seconds"]
    with SandboxServer(lambda call: sandbox.handle(_with_duration(call, seconds)), "127.0.0.1", 0) as server:
        connection = {"conn_type": "odirouter", "password": sandbox.settings.api_key, "host": server.base_url}
        print(json.dumps({"connection": connection, "control": f"{server.origin}{CONTROL_PATH}"}), flush=True)
        sys.stdin.read()


def _with_duration(call: Call, seconds: Sequence[float]) -> Call:
    number = _NUMBER.search(call.body)
    if number is None:
        return call
    return replace(call, headers={**call.headers, "x-sandbox-run-seconds": str(seconds[int(number[1])])})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
