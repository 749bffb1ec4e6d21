"""A run of an example Dag, of which each change is printed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx

from dev.airflow_api import JsonObject
from dev.demo.timeline import Timeline
from dev.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

# The trigger takes at most 30 s to cancel a request.
CANCEL_TIMEOUT = 35.0
MAX_SILENCE = 10.0
CANCELLED = re.compile(r"cancel[^:]*: (?:[\d,]+ )?requests? ", re.IGNORECASE)
"""What the log says of a cancel, however it ended; not the line that announces it."""

TASK_STATES = {
    "scheduled": "is scheduled",
    "queued": "waits for a worker",
    "running": "runs on a worker",
    "deferred": "is deferred: it has left the worker and waits in the triggerer",
    "awaiting_input": "waits for a person, and holds neither a worker nor the triggerer",
    "up_for_retry": "failed, and will be retried",
    "success": "succeeded",
    "failed": "failed",
    "skipped": "is skipped",
    "upstream_failed": "cannot run, since a task before it failed",
}
ENDED = ("success", "skipped", "failed", "upstream_failed")


class DemoRun:
    """A run of an example Dag.

    :param sandbox: None if the real service is used.
    """

    def __init__(
        self, airflow: LocalAirflow, sandbox: Sandbox | None, timeline: Timeline, dag_id: str, conf: JsonObject
    ) -> None:
        self.airflow = airflow
        self.say = timeline.print
        self._sandbox = sandbox
        self._timeline = timeline
        self._dag_id = dag_id
        self._task_states: dict[str, str] = {}
        self._request_states: dict[str, str] = {}
        self._polls: dict[str, int] = {}
        self.run_id = airflow.trigger_dag(dag_id, conf)
        self.say(f"Run {self.run_id} of the Dag {dag_id} is queued.")

    def wait(self, timeout: float, on_poll: Callable[[], None]) -> str:
        """Wait for the end of the run, and return its state."""

        def final_state() -> str:
            self._print_changes()
            on_poll()
            state = self.airflow.api.run(self._dag_id, self.run_id)["state"]
            return str(state) if state in ("success", "failed") else ""

        state = self.airflow.wait_for(final_state, f"the run {self.run_id} to end", timeout)
        self._print_changes()
        return state

    def result(self, task_id: str) -> Any:
        """The return value of a task, None if it has none."""
        return self.airflow.xcom(self._dag_id, self.run_id, task_id, "return_value")

    def waits_for_person(self, task_id: str) -> bool:
        """Whether a review has asked, and has no answer yet. Before Airflow 3.3, it is deferred meanwhile."""
        return self._task_states.get(task_id) in ("awaiting_input", "deferred")

    def errors(self) -> list[str]:
        """The errors in the tasks' logs."""
        lines = []
        for instance in self._instances():
            for entry in self._log(instance):
                if entry.get("level") in ("error", "critical"):
                    lines.append(f"{instance['task_id']}: {entry['event']}")
                    lines += [f"{part['exc_type']}: {part['exc_value']}" for part in entry.get("error_detail") or ()]
        return lines

    def cancel(self) -> None:
        """Fail the run, as a user would, and wait until the tasks' logs say what became of their requests."""
        before = self._instances()
        # A task that is still queued could submit while Airflow stops.
        self.airflow.api.set_run_state(self._dag_id, self.run_id, "failed")
        live = {one["id"] for one in [*before, *self._instances()] if one["state"] in ("running", "deferred")}
        waiting = [one for one in before if one["id"] in live and one["task_id"] != "review"]
        if not waiting:
            return
        self.say("Cancelling the paid requests first. Ctrl-C again exits without that.")
        deadline = time.monotonic() + CANCEL_TIMEOUT
        while waiting and time.monotonic() < deadline:
            waiting = [instance for instance in waiting if not self._print_cancel(instance)]
            time.sleep(0.5)
        for instance in waiting:
            self.say(
                f"Not confirmed within {CANCEL_TIMEOUT:.0f} s: requests of the task {instance['task_id']} may still be "
                "running."
            )

    def _print_cancel(self, instance: JsonObject) -> bool:
        """Print what a task's log says of its cancel; return whether it says anything."""
        lines = [str(entry["event"]) for entry in self._log(instance) if CANCELLED.search(str(entry["event"]))]
        for line in lines:
            self.say(line)
        return bool(lines)

    def _print_changes(self) -> None:
        instances = self._instances()
        if self._sandbox is not None:
            self._print_requests(self._sandbox)
        for instance in instances:
            task_id, state = instance["task_id"], instance["state"]
            if state is not None and state != self._task_states.get(task_id):
                self._task_states[task_id] = state
                self.say(f"Task {task_id} {TASK_STATES.get(state, state)}.")
        if self._timeline.silence > MAX_SILENCE:
            live = [f"{name} is {state}" for name, state in self._task_states.items() if state not in ENDED]
            self.say(f"Still: {', '.join(live) or 'nothing is scheduled'}.")

    def _print_requests(self, sandbox: Sandbox) -> None:
        journal = sandbox.journal
        for request in sandbox.requests:
            request_id = request.request_id
            if request.state != self._request_states.get(request_id):
                self._request_states[request_id] = request.state
                self.say(f"Sandbox: request {request_id} is {request.state}.")
            polls = [call.at for call in journal if (call.action, call.request_id) == ("status", request_id)]
            for at in polls[self._polls.get(request_id, 0) :]:
                # The journal does not keep the answers.
                status = (
                    "COMPLETED" if at >= request.ends_at else "IN_PROGRESS" if at >= request.starts_at else "IN_QUEUE"
                )
                self.say(f"Triggerer: polled {request_id}, the status is {status}.")
            self._polls[request_id] = len(polls)

    def _instances(self) -> list[JsonObject]:
        return self.airflow.task_instances(self._dag_id, self.run_id)

    def _log(self, instance: JsonObject) -> list[JsonObject]:
        task_id, try_number, map_index = instance["task_id"], max(instance["try_number"], 1), instance["map_index"]
        try:
            return self.airflow.api.task_log(self._dag_id, self.run_id, task_id, try_number, map_index)
        except httpx.HTTPStatusError:
            # A task that never started has no log.
            return []
