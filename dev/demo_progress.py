"""What the demo says while a run goes on."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from dev.demo_sandbox import DemoSandbox
    from dev.local_airflow import LocalAirflow

DAG_ID = "odirouter_edit_photo"
TASK_ID = "edit"
FINAL = ("success", "failed")
SILENCE = 10.0
CANCELLED = re.compile(r"request .*cancelled|cancelled request", re.IGNORECASE)

TASK_WORDS = {
    "scheduled": "is scheduled",
    "queued": "waits for a worker",
    "running": "runs on a worker",
    "deferred": "is deferred: it has left the worker and waits in the triggerer",
    "up_for_retry": "failed, and will be tried again",
    "success": "succeeded",
    "failed": "failed",
}


class Clock:
    """Prints lines with the time since its making."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._last = self._start

    def say(self, text: str) -> None:
        """Print one line."""
        self._last = time.monotonic()
        print(f"{self._last - self._start:6.1f} s  {text}", flush=True)

    @property
    def silent(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._last


class RunWatch:
    """Looks at a run of the demo's Dag and says what is new."""

    def __init__(self, clock: Clock, airflow: LocalAirflow, sandbox: DemoSandbox | None, run_id: str) -> None:
        self.run_id = run_id
        self.request_id: str | None = None
        self._clock = clock
        self._airflow = airflow
        self._sandbox = sandbox
        self._task_state: str | None = None
        self._request_state: str | None = None
        self._looks = 0

    def look(self) -> str | None:
        """Say what is new; answer the run's final state, None before that."""
        state = self._instance()["state"]
        if self.request_id is None and state is not None:
            self._find_request()
        self._look_into_sandbox()
        if state != self._task_state:
            self._task_state = state
            self._clock.say(f"Task {TASK_ID} {TASK_WORDS.get(str(state), str(state))}.")
        elif self._clock.silent > SILENCE:
            self._clock.say(f"Task {TASK_ID} is still {state or 'not scheduled'}.")
        run_state = self._airflow.api.run(DAG_ID, self.run_id)["state"]
        return str(run_state) if run_state in FINAL else None

    def errors(self) -> list[str]:
        """The errors in the task's log."""
        lines = []
        for entry in self._log():
            if entry.get("level") in ("error", "critical"):
                lines.append(str(entry["event"]))
                lines += [f"{part['exc_type']}: {part['exc_value']}" for part in _exceptions(entry)]
        return lines

    def cancel(self, patience: float) -> None:
        """Let Airflow kill the task, as a user would, and wait at most so many seconds for what it says of that."""
        before = self._instance()["state"]
        # Also one that is still queued: it could submit while Airflow ends.
        self._airflow.api.set_run_state(DAG_ID, self.run_id, "failed")
        if before not in ("running", "deferred"):
            return
        self._clock.say("Interrupted: the paid request is cancelled first. Ctrl-C again leaves it alone.")
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            for entry in self._log():
                if CANCELLED.search(str(entry["event"])):
                    self._clock.say(str(entry["event"]))
                    return
            time.sleep(0.5)
        self._clock.say(f"No word of that within {patience:.0f} s: request {self.request_id} may still be running.")

    def _instance(self) -> dict[str, Any]:
        instances = self._airflow.task_instances(DAG_ID, self.run_id)
        return instances[0] if instances else {"state": None, "try_number": 0}

    def _log(self) -> list[dict[str, Any]]:
        try_number = max(self._instance()["try_number"], 1)
        try:
            return self._airflow.api.task_log(DAG_ID, self.run_id, TASK_ID, try_number, -1)
        except httpx.HTTPStatusError:
            # A task that never started has no log.
            return []

    def _find_request(self) -> None:
        self.request_id = self._airflow.xcom(DAG_ID, self.run_id, TASK_ID, "request_id")
        if self.request_id is not None:
            self._clock.say(f"Request {self.request_id} is submitted.")

    def _look_into_sandbox(self) -> None:
        if self._sandbox is None or self.request_id is None:
            return
        request = self._sandbox.request(self.request_id)
        if request["state"] != self._request_state:
            self._request_state = request["state"]
            self._clock.say(f"Sandbox: the request is {self._request_state}.")
        looks = self._sandbox.looks(self.request_id)
        for at in looks[self._looks :]:
            self._clock.say(f"Triggerer: looked, and saw {_state_at(request, at)}.")
        self._looks = len(looks)


def _state_at(request: dict[str, Any], at: float) -> str:
    if at < request["starts_at"]:
        return "IN_QUEUE"
    return "IN_PROGRESS" if at < request["ends_at"] else "COMPLETED"


def _exceptions(entry: dict[str, Any]) -> list[dict[str, Any]]:
    detail = entry.get("error_detail")
    return detail if isinstance(detail, list) else []
