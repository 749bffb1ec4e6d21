"""A trial: one run of a Dag against a sandbox of its own, so that no trial disturbs another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from airflow_provider_odirouter.sandbox import Sandbox
from dev.local_airflow import LocalAirflow, WaitTimeoutError
from dev.ports import LOOPBACK
from tests.conftest import Clock
from tests.e2e.figures import Figure, states_in_words
from tests.e2e.witness import Ending, Witness

T = TypeVar("T")

TASK_ID = "edit"
LONG = 3600.0
"""How long requests run, unless a test says otherwise: until it lets them end."""
WITHIN = 5.0
"""Seconds from Airflow's answer to the kill to the cancel at the sandbox."""


class Trial:
    """Starts the run when entered, and ends what is left of it at the end.

    `row` names it in the table of figures; outputs go to `folder`, unless `conf`, the run's, says otherwise; `host` is
    the name of the sandbox's host in Airflow's connection; `settings` are the sandbox's.
    """

    def __init__(
        self,
        row: str,
        airflow: LocalAirflow,
        dag_id: str,
        folder: Path,
        *,
        conf: Mapping[str, str] | None = None,
        host: str = LOOPBACK,
        **settings: Any,
    ) -> None:
        self.row = row
        self.dag_id = dag_id
        self.run_id = ""
        self.outputs = folder
        self.conf = {"output_path": str(folder), **(conf or {})}
        self._airflow = airflow
        self._host = host
        self._clock = Clock()
        self.sandbox = Sandbox(clock=self._clock, **{"queue_seconds": 0, "run_seconds": LONG, **settings})
        self.witness = Witness(self.sandbox)
        self.figure: Figure | None = None
        self.base_url = ""
        self._server = ExitStack()
        self._port = 0
        self._conn_id = ""
        self._acted_at = 0.0
        self._deleted = False
        self._canceled_by_the_end: set[str] | None = None

    def __enter__(self) -> Self:
        self.go_up()
        self._conn_id = f"sandbox_{self._port}"
        key, host = self.sandbox.settings.api_key, self.base_url.replace(LOOPBACK, self._host)
        self._airflow.api.add_connection(self._conn_id, "odirouter", host=host, password=key)
        self.run_id = self._airflow.trigger_dag(self.dag_id, {"conn_id": self._conn_id, **self.conf})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._deleted and not self._has_ended():
            self._airflow.api.set_run_state(self.dag_id, self.run_id, "failed")
        self.go_down()
        self._airflow.api.delete_connection(self._conn_id)

    # What a test does to it

    def mark_task(self, state: str, map_index: int = -1) -> None:
        """Mark a task instance, as a user would."""
        self._airflow.api.set_task_state(self.dag_id, self.run_id, TASK_ID, state, map_index)
        self._acted_at = time.time()

    def clear_task(self) -> None:
        """Clear the task, as a user would."""
        self._airflow.api.clear_task(self.dag_id, self.run_id, TASK_ID)
        self._acted_at = time.time()

    def mark_run(self, state: str) -> None:
        """Mark the run, as a user would."""
        self._airflow.api.set_run_state(self.dag_id, self.run_id, state)
        self._acted_at = time.time()

    def delete_run(self) -> None:
        """Delete the run, which must have ended."""
        self._airflow.api.delete_run(self.dag_id, self.run_id)
        self._deleted = True

    def let_requests_end(self) -> None:
        """Let all requests end that run now."""
        self._clock.skip(LONG)

    def go_down(self) -> None:
        """Take the sandbox from the network; it forgets nothing."""
        self._server.close()

    def go_up(self) -> None:
        """Bring the sandbox back, under its address."""
        server = self._server.enter_context(self.sandbox.serve(port=self._port))
        self._port, self.base_url = server.port, server.base_url

    # How it stands

    @property
    def instances(self) -> list[dict[str, Any]]:
        """The task's instances, in the order of their map index."""
        found = self._airflow.task_instances(self.dag_id, self.run_id)
        return sorted((ti for ti in found if ti["task_id"] == TASK_ID), key=lambda ti: int(ti["map_index"]))

    @property
    def states(self) -> list[str | None]:
        """The states of the task's instances."""
        return [] if self._deleted else [ti["state"] for ti in self.instances]

    @property
    def triggerer(self) -> str | None:
        """The component that has the task's trigger."""
        [instance] = self.instances
        job = instance["triggerer_job"]
        return str(job["unixname"]) if job else None

    @property
    def request_id(self) -> str | None:
        """The id that the task has pushed."""
        found: str | None = self._airflow.xcom(self.dag_id, self.run_id, TASK_ID, "request_id")
        return found

    def log(self, try_number: int = 1, map_index: int = -1) -> str:
        """What a try logged, on the worker and in triggerers, errors included."""
        lines = self._airflow.api.task_log(self.dag_id, self.run_id, TASK_ID, try_number, map_index)
        return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)

    def wait_for(self, find: Callable[[], T], what: str, timeout: float = 120.0) -> T:
        """Ask until the answer is true, and return it."""
        try:
            return self._airflow.wait_for(find, f"{what} in {self.row!r}", timeout)
        except WaitTimeoutError as error:
            error.add_note(self.witness.story())
            raise

    def wait_until_watched(self, requests: int | None = None) -> None:
        """Wait until there are so many requests, one for each task instance, and each is polled."""

        def watched() -> bool:
            states = self.states
            seen = sum(bool(request.polls) for request in self.witness.requests)
            return seen == (requests or len(states)) and set(states) <= {"deferred", "running"}

        self.wait_for(watched, "every request to be watched")

    def wait_for_cancels(self, number: int = 1) -> float:
        """Wait until so many requests are cancelled; answer how long it took since the last thing done to it."""
        self.wait_for(lambda: len(self.witness.canceled) >= number, f"{number} cancels")
        return self._seconds_to_cancel

    # How it ended

    def wait_until_ended(self) -> None:
        """Wait for the run's end."""
        if not self._deleted:
            self.wait_for(self._has_ended, "the run to end", 300)

    def check(self, *, submits: int, cancels: int, ends: str, abandoned: int = 0, remark: str = "") -> None:
        """Wait for the end, note what was seen, and compare it with what it should be.

        `ends` is the state of the task, or in words those of many. No request may be left alive, and a process must
        have asked for the end of all but `abandoned` ones.
        """
        self.wait_until_ended()
        canceled = self.witness.canceled
        self._canceled_by_the_end = self._ids_of_canceled()
        self.figure = Figure(
            row=self.row,
            submits=self.sandbox.paid,
            cancels=len(canceled),
            cancel_calls=sum(len(request.cancels) for request in canceled),
            seconds_to_cancel=f"{self._seconds_to_cancel:.1f}" if self._acted_at and canceled else "",
            ends=states_in_words(self.states),
            seconds=self._seconds,
            remark=remark,
        )
        seen = (self.figure.submits, self.figure.cancels, self.figure.ends)
        assert seen == (submits, cancels, ends), self._story()
        assert self.witness.count(Ending.ALIVE) == 0, self._story()
        assert self.witness.count(Ending.ABANDONED) == abandoned, self._story()

    def check_that_nothing_followed(self) -> None:
        """Fail if a request was cancelled after the end.

        One that is cancelled already may be cancelled again: where Airflow ends a deferral, worker and trigger both do.
        """
        if self._canceled_by_the_end is not None:
            late = self._ids_of_canceled() - self._canceled_by_the_end
            assert not late, f"cancelled after the end: {late}\n{self._story()}"

    def _story(self) -> str:
        return f"{self.witness.story()}\nErrors logged:\n{self._airflow.tail_errors()}"

    @property
    def _seconds_to_cancel(self) -> float:
        return min(call for request in self.witness.canceled for call in request.cancels) - self._acted_at

    @property
    def _seconds(self) -> str:
        """How long the run took."""
        if self._deleted:
            return ""
        run = self._airflow.api.run(self.dag_id, self.run_id)
        began, ended = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
        return f"{(ended - began).total_seconds():.0f}"

    def _ids_of_canceled(self) -> set[str]:
        return {request.request_id for request in self.witness.canceled}

    def _has_ended(self) -> bool:
        return self._airflow.api.run(self.dag_id, self.run_id)["state"] in {"success", "failed"}
