"""Start everything, run the chosen example, and end everything."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from dev.demo.options import OptionError, Options, read_options
from dev.demo.run import DemoRun
from dev.demo.timeline import Timeline
from dev.interrupts import Interrupted, raise_on_signals
from dev.local_airflow import LocalAirflow, LocalAirflowError
from dev.ports import PortBusyError

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

EXAMPLE_DAGS = Path(__file__).parents[2] / "example_dags"
# Two edits, one after the other, wait for at most 3,600 s each; the rest is for Airflow.
RUN_TIMEOUT = 7500.0
HOW_TO_END = "KEEP=1 leaves Airflow and its UI running: Ctrl-C ends them."


def main() -> int:
    try:
        with raise_on_signals():
            return demonstrate(read_options(os.environ))
    except (OptionError, PortBusyError) as error:
        print(error, file=sys.stderr)
        return 2
    except (LocalAirflowError, httpx.HTTPError) as error:
        print(error, file=sys.stderr)
        return 1
    except Interrupted as interrupt:
        print(f"Ended by {interrupt}; nothing is left running.", file=sys.stderr)
        return interrupt.exit_code
    except BrokenPipeError:
        # The reader of stdout has exited. Without this, the interpreter fails once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def demonstrate(options: Options) -> int:
    """Start everything, run the example, print the result, and return the exit code."""
    example = options.example
    conf = example.conf(options.image) | {"output_path": str(options.output)}
    if options.prompt:
        conf["prompt"] = options.prompt
    timeline = Timeline()
    timeline.print(f"{example.title}. The params of the Dag {example.dag_id} are:")
    for name, value in conf.items():
        timeline.print(f"  {name}: {json.dumps(value, ensure_ascii=False)}")
    if options.keep:
        timeline.print(HOW_TO_END)
    with ExitStack() as stack:
        sandbox = None
        connection = {"conn_type": "odirouter", "password": options.api_key}
        if options.api_key is None:
            # Imported late: it takes half a second, during which Ctrl-C should not print a traceback.
            from airflow_provider_odirouter.sandbox import Sandbox

            # The first poll comes after 7 to 12 s: so the task is seen waiting, and mostly needs one poll.
            sandbox = Sandbox(queue_seconds=2, run_seconds=6)
            server = stack.enter_context(sandbox.serve())
            connection |= {"password": sandbox.settings.api_key, "host": server.base_url}
            timeline.print(f"The sandbox is ready at {server.base_url}.")
        else:
            timeline.print("Using the real service: each edit costs money.")
        timeline.print("Starting Airflow …")
        variables = {"AIRFLOW_CONN_ODIROUTER_DEFAULT": json.dumps(connection)}
        airflow = stack.enter_context(LocalAirflow(EXAMPLE_DAGS, variables, port=options.port))
        timeline.print(f"Airflow is ready at {airflow.url}.")
        exit_code = _run(options, DemoRun(airflow, sandbox, timeline, example.dag_id, conf), sandbox)
        if options.keep:
            _keep_open(airflow, example.dag_id)
    return exit_code


def _run(options: Options, run: DemoRun, sandbox: Sandbox | None) -> int:
    example = options.example
    # A person who has to answer may take any time.
    timeout = math.inf if options.keep else RUN_TIMEOUT
    try:
        state = run.wait(timeout, lambda: example.on_poll(run, keep=options.keep))
    except (Interrupted, LocalAirflowError, httpx.HTTPError):
        if sandbox is None:
            try:
                run.cancel()
            except httpx.HTTPError as error:
                run.say(f"The requests could not be cancelled: {error}")
        raise
    if state != "success":
        print("The run failed. Errors in the tasks' logs:", *run.errors(), sep="\n", file=sys.stderr)
        return 1
    example.print_result(run)
    return 0


def _keep_open(airflow: LocalAirflow, dag_id: str) -> None:
    print(
        f"\nThe UI is open: {airflow.url}/dags/{dag_id}\n"
        f"  login     {airflow.username}\n"
        f"  password  {airflow.password}\n"
        f"{HOW_TO_END}",
        flush=True,
    )
    with suppress(Interrupted):
        airflow.wait_for(lambda: False, "Ctrl-C", math.inf)
    print("\nEnding Airflow …", flush=True)


if __name__ == "__main__":
    sys.exit(main())
