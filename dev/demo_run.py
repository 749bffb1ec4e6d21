"""The demo from start to end."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx

from dev.demo_options import ROOT, Options, WrongOptionError
from dev.demo_progress import DAG_ID, TASK_ID, Clock, RunWatch
from dev.demo_sandbox import DemoSandbox, SandboxError
from dev.interrupts import Interrupted
from dev.local_airflow import LocalAirflow, LocalAirflowError

# The operator's own timeout, 900 s, and what surrounds it.
RUN_TIME = 1020.0
# The trigger takes at most 30 s for a cancel.
CANCEL_TIME = 35.0


def run(environment: Mapping[str, str]) -> int:
    """Run the demo with the settings of an environment; answer the exit code."""
    try:
        options = Options.read(environment)
    except WrongOptionError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return _demonstrate(options)
    except (LocalAirflowError, SandboxError, httpx.HTTPError) as error:
        print(error, file=sys.stderr)
        return 1


def _demonstrate(options: Options) -> int:
    clock = Clock()
    clock.say(f"Editing {options.image}: “{options.prompt}”.")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="odirouter-demo-")))
        sandbox = None
        connection = {"conn_type": "odirouter", "password": options.api_key}
        if options.api_key is None:
            sandbox = stack.enter_context(DemoSandbox(folder))
            connection |= {"password": sandbox.api_key, "host": sandbox.base_url}
            clock.say(f"The sandbox is ready at {sandbox.base_url}.")
        else:
            clock.say("Using the real service: this edit is paid for.")
        clock.say("Starting Airflow …")
        variables = {"AIRFLOW_CONN_ODIROUTER_DEFAULT": json.dumps(connection)}
        airflow = stack.enter_context(LocalAirflow(ROOT / "example_dags", variables, port=options.port))
        clock.say(f"Airflow is ready at {airflow.url}.")
        exit_code = _edit(options, clock, airflow, sandbox)
        if options.keep:
            _stay_open(airflow)
    return exit_code


def _edit(options: Options, clock: Clock, airflow: LocalAirflow, sandbox: DemoSandbox | None) -> int:
    params = {
        "image": str(options.image),
        "mask": str(options.mask) if options.mask else None,
        "prompt": options.prompt,
        "output_path": str(options.output),
    }
    run_id = airflow.trigger_dag(DAG_ID, params)
    clock.say(f"Run {run_id} of the Dag {DAG_ID} is queued.")
    watch = RunWatch(clock, airflow, sandbox, run_id)
    try:
        state = airflow.wait_for(watch.look, f"the run {run_id} to end", RUN_TIME)
    except Interrupted:
        if options.api_key is not None:
            try:
                watch.cancel(CANCEL_TIME)
            except httpx.HTTPError as error:
                clock.say(f"The request could not be cancelled: {error}")
        raise
    if state != "success":
        print("The run failed. Errors in the task's log:", *watch.errors(), sep="\n", file=sys.stderr)
        return 1
    _show(airflow.xcom(DAG_ID, run_id, TASK_ID, "return_value"))
    return 0


def _show(manifest: dict[str, Any]) -> None:
    print("\nThe manifest, which is the task's return value:")
    print(json.dumps(manifest, indent=2, ensure_ascii=False))
    print("\nEdited pictures:")
    for output in manifest["outputs"]:
        print(f"  {output['path']}")


def _stay_open(airflow: LocalAirflow) -> None:
    print(
        f"\nThe UI is open: {airflow.url}/dags/{DAG_ID}\n"
        f"  login     {airflow.username}\n"
        f"  password  {airflow.password}\n"
        "Ctrl-C ends it.",
        flush=True,
    )
    with suppress(Interrupted):
        airflow.wait_for(lambda: False, "Ctrl-C", math.inf)
