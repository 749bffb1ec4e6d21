"""Tries that stop waiting: who cancels the request, and who resumes it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter import xcoms
from airflow_provider_odirouter.lifecycle import polling
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Clock, ConfigureAt, Listener, actions, spent
from tests.dags.conftest import (
    ONE_ENDED,
    Fail,
    RunDag,
    anywhere,
    edit,
    end_execution_timeout,
    kill_in_second_try,
    kill_task,
    mark,
    needs_store,
)

pytestmark = [needs_store, pytest.mark.usefixtures("poll_at_once")]


@anywhere
def test_a_request_that_cannot_be_polled_is_left_to_the_retry(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 2)
    sandbox.configure(run_seconds=1, server_errors=2, fault_actions={"status"})
    run = run_dag(edit(pictures, deferrable=deferrable))
    assert run.state == "success"
    assert "It was left running and may be paid; a retry waits for it again." in run.error
    assert spent(sandbox) == (1, 0)


@anywhere
def test_a_request_that_no_try_can_poll_is_cancelled_by_the_last(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 2)
    sandbox.configure(run_seconds=60, server_errors=None, fault_actions={"status"})
    run = run_dag(edit(pictures, deferrable=deferrable))
    assert run.state == "failed"
    assert "It was cancelled; to submit a new request, clear the task." in str(run.errors[1])
    assert spent(sandbox) == (1, 1)
    assert run.note() == ONE_ENDED


@anywhere
def test_a_request_after_its_deadline_is_cancelled_and_the_retry_submits_again(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, configure_at: ConfigureAt, pictures: Path
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    run = run_dag(edit(pictures, timeout=1, deferrable=deferrable))
    assert run.state == "success"
    assert "It was cancelled; a retry submits a new request." in run.error
    assert spent(sandbox) == (2, 1)


@anywhere
def test_a_retry_resumes_a_request_that_outlives_its_deadline_uncancelled(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, clock: Clock, pictures: Path
) -> None:
    sandbox.configure(run_seconds=3600)
    dag = edit(
        pictures,
        timeout=1,
        cancel_on_timeout=False,
        deferrable=deferrable,
        on_retry_callback=lambda _: clock.skip(3600),
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert "a retry waits for it again" in run.error
    assert spent(sandbox) == (1, 0)


polls = pytest.mark.parametrize("poll", [1, 2], ids=["while it is found", "while it is waited for"])


def kill_at(poll: int, sandbox: Sandbox) -> Listener:
    """Kills the task at this poll of its request."""

    def kill(entry: JournalEntry) -> None:
        if entry.action == "status" and actions(sandbox).count("status") == poll:
            kill_task()

    return kill


@polls
def test_a_last_try_killed_while_it_resumes_an_earlier_request_cancels_it(
    poll: int, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submit(1)
    dag = edit(pictures)
    listeners.append(kill_at(poll, sandbox))
    run = run_dag(dag)
    assert run.state == "failed"
    assert spent(sandbox) == (1, 1)
    assert not sandbox.alive


def test_a_last_try_killed_before_its_operator_begins_cancels_the_request(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submit(1)
    run = run_dag(edit(pictures, pre_execute=kill_in_second_try))
    assert [str(error) for error in run.errors] == ["no XCom today", "The task was killed."]
    assert spent(sandbox) == (1, 1)
    assert not sandbox.alive


@polls
def test_a_worker_stopped_while_its_task_runs_leaves_the_request_to_the_retry(
    poll: int, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=2)
    fail_after_submit(1)
    dag = edit(pictures, retries=2)
    listeners.append(kill_at(poll, sandbox))
    run = run_dag(dag)
    assert run.state == "success"
    assert [str(error) for error in run.errors] == ["no XCom today", "The task was killed."]
    assert spent(sandbox) == (1, 0)


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_task_marked_failed_cancels_its_request_although_it_has_retries(
    deferrable: bool,
    retries: int,
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    configure_at: ConfigureAt,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kill comes only with the next heartbeat, and so after a deferral that Airflow refuses."""

    def mark_failed(ti: Any, *arguments: Any) -> None:
        push(ti, *arguments)
        mark({"ti": ti}, "failed")

    push = xcoms.push_request
    monkeypatch.setattr(xcoms, "push_request", mark_failed)
    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    dag = edit(pictures, deferrable=deferrable, retries=retries)
    listeners.append(kill_at(1, sandbox))
    run = run_dag(dag)
    assert str(run.errors[0]) == "The task was killed."
    assert sandbox.requests[0].error_type == "CANCELED"
    assert actions(sandbox)[1:3].count("status") == (0 if deferrable else 1)


@pytest.mark.parametrize(("cancels", "calls"), [(True, (2, 1)), (False, (1, 0))])
def test_airflows_timeout_on_the_worker_counts_as_the_deadline_not_as_a_kill(
    cancels: bool,
    calls: tuple[int, int],
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    clock: Clock,
    pictures: Path,
) -> None:
    def release(_: object) -> None:
        sandbox.configure(hang=False, run_seconds=0)
        clock.skip(3600)

    listeners.append(end_execution_timeout(sandbox, "status"))
    sandbox.configure(run_seconds=3600, hang=True, fault_actions={"status"})
    dag = edit(
        pictures,
        execution_timeout=timedelta(hours=1),
        cancel_on_timeout=cancels,
        cancel_on_kill=not cancels,
        on_retry_callback=release,
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert [type(error).__name__ for error in run.errors] == ["AirflowTaskTimeout"]
    assert spent(sandbox) == calls


@pytest.mark.parametrize("broken", ["prompt", "output_path"])
def test_a_last_try_that_cannot_begin_cancels_the_earlier_request(
    broken: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path, fail_after_submit: Fail
) -> None:
    templates: dict[str, Any] = {
        "prompt": "{{ 'Blue' if ti.try_number == 1 else '' }}",
        "output_path": f"{tmp_path}/{{{{ ti.try_number }}}}",
    }
    (tmp_path / "2").touch()
    sandbox.configure(run_seconds=60)
    fail_after_submit(1)
    run = run_dag(edit(pictures, **{broken: templates[broken]}))
    assert run.state == "failed"
    assert not sandbox.alive
