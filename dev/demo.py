"""`make demo`: edit a photograph with a real Airflow, and print what happens.

Options are environment variables, of which an empty one counts as not set: IMAGE (your own photograph), PROMPT, OUTPUT
(a folder), PORT (of the UI), KEEP=1 (keep the UI open until Ctrl-C), ODIROUTER_API_KEY (use the real, paid service).

Exit codes: 0 success, 1 failure, 2 wrong option, 130 interrupted.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from PIL import Image

from dev.airflow_api import JsonObject
from dev.interrupts import Interrupted, raise_on_signals
from dev.local_airflow import LocalAirflow, LocalAirflowError
from dev.ports import PortBusyError, check_port

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "tests" / "pictures"
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_IMAGE_BYTES = 10 * 1024 * 1024

DAG_ID = "odirouter_edit_photo"
TASK_ID = "edit"
# The operator's own timeout is 900 s; the rest is for Airflow.
RUN_TIMEOUT = 1020.0
# The trigger takes at most 30 s to cancel a request.
CANCEL_TIMEOUT = 35.0
MAX_SILENCE = 10.0
CANCELLED = re.compile(r"request .*cancelled|cancelled request", re.IGNORECASE)

TASK_STATES = {
    "scheduled": "is scheduled",
    "queued": "waits for a worker",
    "running": "runs on a worker",
    "deferred": "is deferred: it has left the worker and waits in the triggerer",
    "up_for_retry": "failed, and will be retried",
    "success": "succeeded",
    "failed": "failed",
}


class OptionError(ValueError):
    """An option cannot be used; the message says which one, and why."""


@dataclass(frozen=True)
class Options:
    """What the user can choose. All paths are absolute.

    :param api_key: None uses the sandbox.
    :param port: 0 uses a free one.
    """

    image: Path
    mask: Path | None
    prompt: str
    output: Path
    api_key: str | None
    port: int
    keep: bool


class Timeline:
    """Prints lines with the seconds since it was created."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def print(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{self._last - self._start:6.1f} s  {text}", flush=True)

    @property
    def silence(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._last


class DemoRun:
    """A run of the demo's Dag, of which each change is printed."""

    def __init__(self, airflow: LocalAirflow, sandbox: Sandbox | None, timeline: Timeline, conf: JsonObject) -> None:
        self._airflow = airflow
        self._sandbox = sandbox
        self._timeline = timeline
        self._task_state: str | None = None
        self._request_id: str | None = None
        self._request_state: str | None = None
        self._polls = 0
        self._run_id = airflow.trigger_dag(DAG_ID, conf)
        timeline.print(f"Run {self._run_id} of the Dag {DAG_ID} is queued.")

    def wait(self) -> str:
        """Wait for the end of the run, and return its state."""
        return self._airflow.wait_for(self._final_state, f"the run {self._run_id} to end", RUN_TIMEOUT)

    def manifest(self) -> JsonObject:
        manifest: JsonObject = self._xcom("return_value")
        return manifest

    def errors(self) -> list[str]:
        """The errors in the task's log."""
        lines = []
        for entry in self._log():
            if entry.get("level") in ("error", "critical"):
                lines.append(str(entry["event"]))
                lines += [f"{part['exc_type']}: {part['exc_value']}" for part in entry.get("error_detail") or ()]
        return lines

    def cancel(self) -> None:
        """Fail the run, as a user would, and wait until the task's log says what became of the request."""
        state = self._instance()["state"]
        # A task that is still queued could submit while Airflow stops.
        self._airflow.api.set_run_state(DAG_ID, self._run_id, "failed")
        if state not in ("running", "deferred"):
            return
        self._timeline.print("Interrupted: cancelling the paid request first. Ctrl-C again exits without that.")
        deadline = time.monotonic() + CANCEL_TIMEOUT
        while time.monotonic() < deadline:
            for entry in self._log():
                if CANCELLED.search(str(entry["event"])):
                    self._timeline.print(str(entry["event"]))
                    return
            time.sleep(0.5)
        self._timeline.print(
            f"Not confirmed within {CANCEL_TIMEOUT:.0f} s: request {self._request_id} may still be running."
        )

    def _final_state(self) -> str:
        """Print what has changed; return the run's state if it has ended, else ""."""
        state = self._instance()["state"]
        if self._request_id is None and state is not None:
            self._request_id = self._xcom("request_id")
            if self._request_id is not None:
                self._timeline.print(f"Request {self._request_id} is submitted.")
        if self._sandbox is not None and self._request_id is not None:
            self._print_sandbox(self._sandbox)
        if state != self._task_state:
            self._task_state = state
            self._timeline.print(f"Task {TASK_ID} {TASK_STATES.get(str(state), str(state))}.")
        elif self._timeline.silence > MAX_SILENCE:
            self._timeline.print(f"Task {TASK_ID} is still {state or 'not scheduled'}.")
        run_state = self._airflow.api.run(DAG_ID, self._run_id)["state"]
        return str(run_state) if run_state in ("success", "failed") else ""

    def _print_sandbox(self, sandbox: Sandbox) -> None:
        request = next(request for request in sandbox.requests if request.request_id == self._request_id)
        if request.state != self._request_state:
            self._request_state = request.state
            self._timeline.print(f"Sandbox: the request is {request.state}.")
        polls = [call.at for call in sandbox.journal if (call.action, call.request_id) == ("status", self._request_id)]
        for at in polls[self._polls :]:
            # The journal does not keep the answers.
            status = "COMPLETED" if at >= request.ends_at else "IN_PROGRESS" if at >= request.starts_at else "IN_QUEUE"
            self._timeline.print(f"Triggerer: polled, the status is {status}.")
        self._polls = len(polls)

    def _instance(self) -> JsonObject:
        instances = self._airflow.task_instances(DAG_ID, self._run_id)
        return instances[0] if instances else {"state": None, "try_number": 0}

    def _xcom(self, key: str) -> Any:
        return self._airflow.xcom(DAG_ID, self._run_id, TASK_ID, key)

    def _log(self) -> list[JsonObject]:
        try_number = max(self._instance()["try_number"], 1)
        try:
            return self._airflow.api.task_log(DAG_ID, self._run_id, TASK_ID, try_number, -1)
        except httpx.HTTPStatusError:
            # A task that never started has no log.
            return []


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


def read_options(environment: Mapping[str, str]) -> Options:
    """Read the options and check them, before anything is started.

    :raises OptionError: If one of them cannot be used.
    :raises PortBusyError: If the port is taken.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    own_image = given.get("IMAGE")
    default_prompt = "Make it a watercolour painting" if own_image else "Turn the coffee into hot chocolate"
    return Options(
        image=_image(own_image) if own_image else PICTURES / "coffee.png",
        mask=None if own_image else PICTURES / "coffee-mask.png",
        prompt=given.get("PROMPT", default_prompt),
        output=_folder(given.get("OUTPUT", "demo-output")),
        api_key=given.get("ODIROUTER_API_KEY"),
        port=_port(given["PORT"]) if "PORT" in given else 0,
        keep=given.get("KEEP", "0").lower() not in ("0", "no", "false"),
    )


def _image(given: str) -> Path:
    path = Path(given).expanduser().absolute()
    if not path.is_file():
        raise OptionError(f"IMAGE: there is no file {path}.")
    if not os.access(path, os.R_OK):
        raise OptionError(f"IMAGE: no permission to read {path}.")
    if (size := path.stat().st_size) > MAX_IMAGE_BYTES:
        raise OptionError(f"IMAGE: {path} has {size / 2**20:.1f} MiB; OdiRouter takes at most 10 MiB.")
    try:
        with Image.open(path, formats=FORMATS) as picture:
            picture.load()
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise OptionError(f"IMAGE: {path} is not a valid PNG, JPEG or WebP picture.") from error
    return path


def _folder(given: str) -> Path:
    path = Path(given).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"OUTPUT: the folder {path} cannot be created: {error.strerror}.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OptionError(f"OUTPUT: no permission to write to the folder {path}.")
    return path


def _port(given: str) -> int:
    if not given.isdecimal() or not 1 <= int(given) <= 65535:
        raise OptionError(f"PORT: {given!r} is not a number from 1 to 65535.")
    check_port(int(given))
    return int(given)


def demonstrate(options: Options) -> int:
    """Start everything, edit the photograph, print the result, and return the exit code."""
    timeline = Timeline()
    timeline.print(f"Editing {options.image}: “{options.prompt}”.")
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
            timeline.print("Using the real service: this edit costs money.")
        timeline.print("Starting Airflow …")
        variables = {"AIRFLOW_CONN_ODIROUTER_DEFAULT": json.dumps(connection)}
        airflow = stack.enter_context(LocalAirflow(ROOT / "example_dags", variables, port=options.port))
        timeline.print(f"Airflow is ready at {airflow.url}.")
        exit_code = _edit(options, airflow, sandbox, timeline)
        if options.keep:
            _keep_open(airflow)
    return exit_code


def _edit(options: Options, airflow: LocalAirflow, sandbox: Sandbox | None, timeline: Timeline) -> int:
    conf = {
        "image": str(options.image),
        "mask": str(options.mask) if options.mask else None,
        "prompt": options.prompt,
        "output_path": str(options.output),
    }
    run = DemoRun(airflow, sandbox, timeline, conf)
    try:
        state = run.wait()
    except Interrupted:
        if sandbox is None:
            try:
                run.cancel()
            except httpx.HTTPError as error:
                timeline.print(f"The request could not be cancelled: {error}")
        raise
    if state != "success":
        print("The run failed. Errors in the task's log:", *run.errors(), sep="\n", file=sys.stderr)
        return 1
    manifest = run.manifest()
    print("\nThe manifest, which is the task's return value:")
    print(json.dumps(manifest, indent=2, ensure_ascii=False))
    print("\nEdited pictures:")
    for output in manifest["outputs"]:
        print(f"  {output['path']}")
    return 0


def _keep_open(airflow: LocalAirflow) -> None:
    print(
        f"\nThe UI is open: {airflow.url}/dags/{DAG_ID}\n"
        f"  login     {airflow.username}\n"
        f"  password  {airflow.password}\n"
        "Ctrl-C ends it.",
        flush=True,
    )
    with suppress(Interrupted):
        airflow.wait_for(lambda: False, "Ctrl-C", math.inf)


if __name__ == "__main__":
    sys.exit(main())
