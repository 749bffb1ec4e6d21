"""A batch that is killed on a worker: no request runs on, and none is paid twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.batch import pipeline, report, submit
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.images import landing
from airflow_provider_odirouter.lifecycle import failures
from airflow_provider_odirouter.models import BatchItem
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.storage import threads
from tests.conftest import Clock, Listener, actions, spent
from tests.dags.batches import FIVE, THREE, batch, changing, phases, prompts, submits
from tests.dags.conftest import RunDag, clear, end_execution_timeout, kill_task, mark

pytestmark = pytest.mark.usefixtures("poll_at_once")

left: list[list[str]] = []
"""The requests that were alive when each try ended: there a real worker's process ends with its threads."""


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    left.clear()


@pytest.fixture
def killed(sandbox: Sandbox) -> type[OdiRouterImageEditBatchOperator]:
    """An operator that notes what is alive when a try ends."""

    class Killed(OdiRouterImageEditBatchOperator):
        def execute(self, context: Any) -> Any:
            try:
                return super().execute(context)
            finally:
                left.append(sandbox.alive)

    return Killed


Killed = type[OdiRouterImageEditBatchOperator]


def kill_at(
    action: str, number: int, sandbox: Sandbox, meanwhile: Callable[[], Any] = lambda: None, *, submits: int = 0
) -> Listener:
    """Kills the task at the so manyth call of a kind after so many submits, once."""
    seen: list[str] = []

    def kill(entry: JournalEntry) -> None:
        if entry.action == action and sandbox.paid >= submits:
            seen.append(action)
            if len(seen) == number:
                meanwhile()
                kill_task()

    return kill


@pytest.mark.parametrize(("action", "number"), [("submit", 1), ("submit", 4), ("status", 1), ("status", 7)])
def test_a_kill_cancels_all_even_those_that_are_being_submitted(
    action: str,
    number: int,
    killed: Killed,
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The kill may come just before a wait begins: by its end, so few edits could all be submitted.
    monkeypatch.setattr(threads, "MAX_SIGNAL_DELAY", 0.05)
    sandbox.configure(run_seconds=60, latency_seconds=0.2)
    dag = batch(prompts(*map(str, range(10))), tmp_path, killed, max_concurrent_submits=3, retries=0)
    listeners.append(kill_at(action, number, sandbox, submits=10 if action == "status" else 0))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert left == [[]]
    polls = actions(sandbox).count("status")
    time.sleep(0.5)
    assert actions(sandbox).count("status") <= polls + 3  # those that were under way
    cancelled = [entry.request_id for entry in sandbox.cancels]
    assert set(cancelled) == {request.request_id for request in sandbox.requests}
    assert sandbox.paid == 10 if action == "status" else sandbox.paid < 10
    assert set(phases(tmp_path)) == {"planned"}


def test_the_log_warns_of_a_submit_whose_answer_does_not_come_in_time(
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(submit, "UNDER_WAY_SECONDS", 0.2)
    sandbox.configure(run_seconds=60, latency_seconds=1.5)
    dag = batch(THREE, tmp_path, retries=0)
    listeners.append(kill_at("submit", 1, sandbox))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert "Submits without an answer: 1." in caplog.text
    assert phases(tmp_path)[0] == "submitting"
    end = time.monotonic() + 60
    while spent(sandbox) != (1, 1) and time.monotonic() < end:
        time.sleep(0.1)
    # Where the process lives on.
    assert not sandbox.alive


def test_a_kill_while_pictures_land_cancels_what_still_runs(
    killed: Killed, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    listeners.append(changing(sandbox, "submit", {}, {}, {"run_seconds": 60}))
    dag = batch(FIVE, tmp_path, killed, max_concurrent_submits=5, retries=0)
    listeners.append(kill_at("file", 2, sandbox))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert left == [[]]
    # One that has ended, but was not polled since, is cancelled, too: the service refuses that cancel.
    assert sum(request.cancel_requested for request in sandbox.requests) == sandbox.paid - 3
    assert phases(tmp_path).count("planned") == 2


def test_a_kill_before_the_first_submit_costs_nothing(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "probe", lambda *_: kill_task())
    run = run_dag(batch(THREE, tmp_path, retries=0))
    assert run.error == "The task was killed."
    assert actions(sandbox) == []


def test_a_kill_before_the_operator_begins_costs_nothing(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    run = run_dag(batch(THREE, tmp_path, retries=0, pre_execute=lambda _: kill_task()))
    assert run.error == "The task was killed."
    assert actions(sandbox) == []


def test_a_kill_leaves_the_requests_running_without_cancel_on_kill(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=60)
    dag = batch(THREE, tmp_path, cancel_on_kill=False, retries=0)
    listeners.append(kill_at("status", 2, sandbox, submits=3))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert len(sandbox.alive) == 3
    assert spent(sandbox) == (3, 0)
    assert phases(tmp_path) == ["submitted"] * 3


@pytest.mark.parametrize(("action", "number"), [("submit", 2), ("status", 2)])
def test_a_worker_that_is_stopped_alone_leaves_all_requests_to_the_retry(
    action: str,
    number: int,
    killed: Killed,
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
) -> None:
    sandbox.configure(run_seconds=2, latency_seconds=0.1)
    dag = batch(FIVE, tmp_path, killed, max_concurrent_submits=2)
    listeners.append(kill_at(action, number, sandbox, submits=5 if action == "status" else 0))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert run.state == "success"
    assert len(left[0]) == (5 if action == "status" else sandbox.paid - (5 - len(left[0])))
    assert sorted(submits(sandbox)) == ["Black", "Blue", "Green", "Red", "White"]
    assert spent(sandbox) == (5, 0)


def test_a_task_that_was_marked_failed_cancels_all_though_there_is_a_retry(
    killed: Killed, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    contexts: list[Any] = []
    sandbox.configure(run_seconds=60)
    dag = batch(THREE, tmp_path, killed, on_execute_callback=contexts.append)
    listeners.append(changing(sandbox, "cancel", {"run_seconds": 0}))
    listeners.append(kill_at("status", 2, sandbox, lambda: mark(contexts[0], "failed"), submits=3))
    run = run_dag(dag)
    assert str(run.errors[0]) == "The task was killed."
    assert left[0] == []
    assert spent(sandbox)[1] == 3


@pytest.mark.parametrize("moment", ["killed", "marked"])
def test_a_task_killed_or_marked_just_before_it_defers_cancels_all(
    moment: str, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = report.publish
    contexts: list[Any] = []

    def end(*arguments: Any, **keywords: Any) -> None:
        if moment == "killed":
            kill_task()
        mark(contexts[0], "failed")
        publish(*arguments, **keywords)

    monkeypatch.setattr(report, "publish", end)
    sandbox.configure(run_seconds=60)
    run = run_dag(batch(THREE, tmp_path, deferrable=True, retries=0, on_execute_callback=contexts.append))
    assert str(run.errors[0]) == "The task was killed."
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


def test_a_kill_while_the_counts_are_pushed_is_not_taken_for_an_error_of_the_push(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = report.publish

    def end(context: Any, store: Any, record: Any, **options: Any) -> None:
        if record.waiting == 3:
            kill_task()
        publish(context, store, record, **options)

    monkeypatch.setattr(report, "publish", end)
    monkeypatch.setattr(pipeline, "SAVE_SECONDS", 0.0)
    sandbox.configure(run_seconds=3)
    run = run_dag(batch(THREE, tmp_path, cancel_on_kill=False, retries=0))
    assert run.error == "The task was killed."
    assert len(sandbox.alive) == 3
    assert actions(sandbox).count("result") == 0


def test_a_cleared_task_takes_requests_that_had_ended_when_the_kill_came(
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kill finds requests that have ended, but were not polled since."""

    def end_all(entry: JournalEntry) -> None:
        if entry.action == "submit" and sandbox.paid == 3:
            clock.skip(60)
            kill_task()

    sandbox.configure(run_seconds=60)
    listeners.append(end_all)
    monkeypatch.setattr(failures, "will_be_retried", lambda *_: False)
    dag = batch(THREE, tmp_path, dag_id="cleared", on_retry_callback=clear)
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert run.state == "success"
    assert sandbox.paid == 3


@pytest.mark.usefixtures("poll_late")
@pytest.mark.parametrize(("cancels", "calls"), [(True, (6, 3)), (False, (3, 0))])
def test_airflows_own_timeout_on_the_worker_counts_as_the_deadline_and_not_as_a_kill(
    cancels: bool,
    calls: tuple[int, int],
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    clock: Clock,
    tmp_path: Path,
) -> None:
    def go_on(_: object) -> None:
        sandbox.configure(hang=False, run_seconds=0)
        clock.skip(3600)

    listeners.append(end_execution_timeout(sandbox, "status"))
    sandbox.configure(run_seconds=3600, hang=True, fault_actions={"status"})
    dag = batch(
        THREE,
        tmp_path,
        execution_timeout=timedelta(hours=1),
        poll_interval=1,
        cancel_on_timeout=cancels,
        cancel_on_kill=not cancels,
        on_retry_callback=go_on,
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert [type(error).__name__ for error in run.errors] == ["AirflowTaskTimeout"]
    assert spent(sandbox) == calls


@pytest.mark.parametrize("broken", ["edits", "output_path"])
def test_a_last_try_that_cannot_begin_cancels_the_requests_of_the_earlier_try(
    broken: str,
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probe = landing.probe

    def fail_later(*arguments: Any) -> None:
        if sandbox.paid:
            raise OSError("no store today")
        probe(*arguments)

    async def ask(_: object) -> None:
        raise AssertionError("Airflow was asked for the connection after the kill")

    # In a signal handler, another question to Airflow may be on the line.
    monkeypatch.setattr(OdiRouterHook, "aget_connection", ask)
    if broken == "output_path":
        monkeypatch.setattr(landing, "probe", fail_later)
    edits = prompts("Red", "{{ 'Blue' if ti.try_number == 1 or '" + broken + "' != 'edits' else '' }}")
    sandbox.configure(run_seconds=60)
    dag = batch(edits, tmp_path)
    listeners.append(kill_at("status", 1, sandbox, submits=2))
    run = run_dag(dag)
    assert run.state == "failed"
    assert str(run.errors[0]) == "The task was killed."
    assert spent(sandbox) == (2, 2)
    assert not sandbox.alive


def test_a_second_kill_does_nothing_more(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=60)
    dag = batch(THREE, tmp_path, retries=0)
    listeners.append(kill_at("status", 1, sandbox, submits=3))
    listeners.append(kill_at("cancel", 1, sandbox))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert spent(sandbox) == (3, 3)


def test_a_kill_in_the_middle_of_a_change_of_the_state_cancels_all(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_line = BatchItem.to_line

    def kill_first(item: BatchItem) -> bytes:
        if threading.current_thread() is threading.main_thread() and sandbox.paid == 3:
            monkeypatch.setattr(BatchItem, "to_line", to_line)
            kill_task()
        return to_line(item)

    monkeypatch.setattr(BatchItem, "to_line", kill_first)
    sandbox.configure(run_seconds=1)
    run = run_dag(batch(THREE, tmp_path, retries=0))
    assert run.error == "The task was killed."
    assert not sandbox.alive
