"""A batch that is killed on a worker: nothing runs on, and nobody pays for it once more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.images import landing, threads
from airflow_provider_odirouter.models import BatchItem
from airflow_provider_odirouter.operators import steps
from airflow_provider_odirouter.operators.batch import ledger, submitting
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Clock, Listener, actions, spent
from tests.dags.batches import FIVE, THREE, batch, changing, phases, prompts, submits
from tests.dags.conftest import RunDag, clear, kill_task, mark

pytestmark = pytest.mark.usefixtures("look_at_once")

left: list[list[str]] = []
"""What was alive when each try ended: a real worker's process ends there, and its threads with it."""


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


def kill_at(action: str, number: int, sandbox: Sandbox, meanwhile: Callable[[], Any] = lambda: None) -> Listener:
    """Kills the task at the so manyth call of a kind, once."""

    def kill(entry: JournalEntry) -> None:
        if entry.action == action and actions(sandbox).count(action) == number:
            meanwhile()
            kill_task()

    return kill


@pytest.mark.parametrize(("action", "number"), [("submit", 1), ("submit", 4), ("status", 1), ("status", 7)])
def test_a_kill_cancels_all_also_what_was_being_submitted(
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
    monkeypatch.setattr(threads, "HEARTBEAT", 0.05)
    sandbox.configure(run_seconds=60, latency_seconds=0.2)
    dag = batch(prompts(*map(str, range(10))), tmp_path, killed, max_concurrent_submits=3, retries=0)
    listeners.append(kill_at(action, number, sandbox))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert left == [[]]
    looks = actions(sandbox).count("status")
    time.sleep(0.5)
    assert actions(sandbox).count("status") <= looks + 3  # those that were under way
    cancelled = [entry.request_id for entry in sandbox.journal if entry.action == "cancel"]
    assert set(cancelled) == {request.request_id for request in sandbox.requests}
    assert sandbox.paid == 10 if action == "status" else sandbox.paid < 10
    assert set(phases(tmp_path)) == {"planned"}


def test_a_submit_whose_answer_does_not_come_in_time_is_told_loudly(
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(submitting, "UNDER_WAY_SECONDS", 0.2)
    sandbox.configure(run_seconds=60, latency_seconds=1.5)
    dag = batch(THREE, tmp_path, retries=0)
    listeners.append(kill_at("submit", 1, sandbox))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert "1 submits are under way, and their fate is unknown" in caplog.text
    assert phases(tmp_path)[0] == "submitting"
    end = time.monotonic() + 10
    while spent(sandbox) != (1, 1) and time.monotonic() < end:
        time.sleep(0.1)
    # Where the process lives on.
    assert not sandbox.alive


def test_a_kill_while_pictures_land_cancels_the_next_wave(
    killed: Killed, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    """The pictures of a wave land while the next one runs."""
    listeners.append(changing(sandbox, "status", {"run_seconds": 60}))
    dag = batch(FIVE, tmp_path, killed, max_in_flight=3, retries=0)
    listeners.append(kill_at("file", 2, sandbox))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert spent(sandbox) == (5, 2)
    assert left == [[]]
    assert set(phases(tmp_path)[:3]) <= {"landed", "succeeded"}
    assert phases(tmp_path)[3:] == ["planned"] * 2


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


def test_a_kill_leaves_the_requests_alone_if_told_so(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=60)
    dag = batch(THREE, tmp_path, cancel_on_kill=False, retries=0)
    listeners.append(kill_at("status", 2, sandbox))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert len(sandbox.alive) == 3
    assert spent(sandbox) == (3, 0)
    assert phases(tmp_path) == ["submitted"] * 3


@pytest.mark.parametrize(("action", "number"), [("submit", 2), ("status", 2)])
def test_a_worker_that_is_stopped_while_its_task_is_wanted_leaves_all_to_the_retry(
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
    listeners.append(kill_at(action, number, sandbox))
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
    listeners.append(kill_at("status", 2, sandbox, lambda: mark(contexts[0], "failed")))
    run = run_dag(dag)
    assert str(run.errors[0]) == "The task was killed."
    assert left[0] == []
    assert spent(sandbox)[1] == 3


@pytest.mark.parametrize("moment", ["deadline", "publish"])
def test_a_task_killed_or_marked_just_before_it_defers_cancels_all(
    moment: str, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = steps.deadline
    contexts: list[Any] = []

    def end(context: Any, *arguments: Any) -> Any:
        if sandbox.paid and moment == "deadline":
            kill_task()
        elif sandbox.paid:
            mark(contexts[0], "failed")
        return deadline(context, *arguments)

    monkeypatch.setattr(steps, "deadline", end)
    sandbox.configure(run_seconds=60)
    run = run_dag(batch(THREE, tmp_path, deferrable=True, retries=0, on_execute_callback=contexts.append))
    assert str(run.errors[0]) == "The task was killed."
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


def test_what_was_done_when_the_kill_came_is_taken_by_a_cleared_task_and_not_paid_again(
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kill finds requests that have ended, but were not looked at since."""

    def end_all(entry: JournalEntry) -> None:
        if entry.action == "submit" and sandbox.paid == 3:
            clock.skip(60)
            kill_task()

    sandbox.configure(run_seconds=60)
    listeners.append(end_all)
    monkeypatch.setattr(steps, "is_tried_again", lambda *_: False)
    dag = batch(THREE, tmp_path, dag_id="cleared", on_retry_callback=clear)
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert run.state == "success"
    assert sandbox.paid == 3


@pytest.mark.parametrize(("cancels", "calls"), [(True, (6, 3)), (False, (3, 0))])
def test_airflows_own_timeout_on_the_worker_counts_as_the_deadline_and_not_as_a_kill(
    cancels: bool, calls: tuple[int, int], run_dag: RunDag, sandbox: Sandbox, clock: Clock, tmp_path: Path
) -> None:
    def go_on(_: object) -> None:
        sandbox.configure(hang=False, run_seconds=0)
        clock.skip(3600)

    sandbox.configure(run_seconds=3600, hang=True, fault_actions={"status"})
    dag = batch(
        THREE,
        tmp_path,
        # Enough for the second try, and for an Airflow that is not loaded yet when the first begins.
        execution_timeout=timedelta(seconds=10),
        cancel_on_timeout=cancels,
        cancel_on_kill=not cancels,
        on_retry_callback=go_on,
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert [type(error).__name__ for error in run.errors] == ["AirflowTaskTimeout"]
    assert spent(sandbox) == calls


@pytest.mark.parametrize("broken", ["edits", "output_path"])
def test_a_last_try_that_cannot_even_begin_cancels_what_the_one_before_has_left(
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
    listeners.append(kill_at("status", 1, sandbox))
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
    listeners.append(kill_at("status", 1, sandbox))
    listeners.append(kill_at("cancel", 1, sandbox))
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert spent(sandbox) == (3, 3)


def test_a_kill_in_the_middle_of_a_change_of_the_state_cancels_all(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ledger._line

    def kill_first(item: BatchItem) -> bytes:
        if threading.current_thread() is threading.main_thread() and sandbox.paid == 3:
            monkeypatch.setattr(ledger, "_line", line)
            kill_task()
        return line(item)

    monkeypatch.setattr(ledger, "_line", kill_first)
    sandbox.configure(run_seconds=1)
    run = run_dag(batch(THREE, tmp_path, retries=0))
    assert run.error == "The task was killed."
    assert not sandbox.alive
