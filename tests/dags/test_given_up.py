"""Tries that give up waiting: who cancels the request, and who goes on with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter import polling
from airflow_provider_odirouter.operators import steps
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Clock, ConfigureAt, Listener, actions, spent
from tests.dags.conftest import Fail, RunDag, anywhere, edit, kill_in_second_try, kill_task, mark, needs_store

pytestmark = [needs_store, pytest.mark.usefixtures("look_at_once")]


@anywhere
def test_a_request_that_cannot_be_looked_at_is_handed_on_to_the_retry(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_LOOKS", 2)
    sandbox.configure(run_seconds=1, server_errors=2, fault_actions={"status"})
    run = run_dag(edit(pictures, deferrable=deferrable))
    assert run.state == "success"
    assert "It was left running and may be paid; a retry goes on with it." in run.error
    assert spent(sandbox) == (1, 0)


@anywhere
def test_a_request_that_no_try_can_look_at_is_cancelled_by_the_last(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_LOOKS", 2)
    sandbox.configure(run_seconds=60, server_errors=None, fault_actions={"status"})
    run = run_dag(edit(pictures, deferrable=deferrable))
    assert run.state == "failed"
    assert "It was cancelled; a retry submits a new request." in str(run.errors[1])
    assert spent(sandbox) == (1, 1)
    assert run.note() is None


@anywhere
def test_a_request_whose_deadline_passed_is_cancelled_and_the_retry_submits_anew(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, configure_at: ConfigureAt, pictures: Path
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    run = run_dag(edit(pictures, timeout=1, deferrable=deferrable))
    assert run.state == "success"
    assert "It was cancelled; a retry submits a new request." in run.error
    assert spent(sandbox) == (2, 1)


@anywhere
def test_a_request_that_outlives_the_deadline_uncancelled_is_that_of_the_retry(
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
    assert "a retry goes on with it" in run.error
    assert spent(sandbox) == (1, 0)


looks = pytest.mark.parametrize("look", [1, 2], ids=["while it is found", "while it is waited for"])


def kill_at(look: int, sandbox: Sandbox) -> Listener:
    """Kills the task at the so manyth look at its request."""

    def kill(entry: JournalEntry) -> None:
        if entry.action == "status" and actions(sandbox).count("status") == look:
            kill_task()

    return kill


@looks
def test_a_last_try_that_is_killed_while_it_goes_on_with_an_earlier_request_cancels_it(
    look: int, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submit(1)
    dag = edit(pictures)
    listeners.append(kill_at(look, sandbox))
    run = run_dag(dag)
    assert run.state == "failed"
    assert spent(sandbox) == (1, 1)
    assert not sandbox.alive


def test_a_last_try_that_is_killed_before_its_operator_begins_cancels_an_earlier_request(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submit(1)
    run = run_dag(edit(pictures, pre_execute=kill_in_second_try))
    assert [str(error) for error in run.errors] == ["no XCom today", "The task was killed."]
    assert spent(sandbox) == (1, 1)
    assert not sandbox.alive


@looks
def test_a_worker_that_is_stopped_while_its_task_is_wanted_leaves_the_request_to_the_retry(
    look: int, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=2)
    fail_after_submit(1)
    dag = edit(pictures, retries=2)
    listeners.append(kill_at(look, sandbox))
    run = run_dag(dag)
    assert run.state == "success"
    assert [str(error) for error in run.errors] == ["no XCom today", "The task was killed."]
    assert spent(sandbox) == (1, 0)


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_task_that_was_marked_failed_cancels_its_request_though_there_is_a_retry(
    deferrable: bool,
    retries: int,
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    configure_at: ConfigureAt,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kill comes with the next heartbeat only, and so after a deferral that Airflow refuses."""

    def mark_failed(context: Any, *arguments: Any) -> None:
        publish(context, *arguments)
        mark(context, "failed")

    publish = steps.publish
    monkeypatch.setattr(steps, "publish", mark_failed)
    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    dag = edit(pictures, deferrable=deferrable, retries=retries)
    listeners.append(kill_at(1, sandbox))
    run = run_dag(dag)
    assert str(run.errors[0]) == "The task was killed."
    assert sandbox.requests[0].error_type == "CANCELED"
    assert actions(sandbox)[1:3].count("status") == (0 if deferrable else 1)


@pytest.mark.parametrize(("cancels", "calls"), [(True, (2, 1)), (False, (1, 0))])
def test_airflows_own_timeout_on_the_worker_counts_as_the_deadline_and_not_as_a_kill(
    cancels: bool, calls: tuple[int, int], run_dag: RunDag, sandbox: Sandbox, clock: Clock, pictures: Path
) -> None:
    def go_on(_: object) -> None:
        sandbox.configure(hang=False, run_seconds=0)
        clock.skip(3600)

    sandbox.configure(run_seconds=3600, hang=True, fault_actions={"status"})
    dag = edit(
        pictures,
        execution_timeout=timedelta(seconds=5),
        cancel_on_timeout=cancels,
        cancel_on_kill=not cancels,
        on_retry_callback=go_on,
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert [type(error).__name__ for error in run.errors] == ["AirflowTaskTimeout"]
    assert spent(sandbox) == calls


@pytest.mark.parametrize("broken", ["prompt", "output_path"])
def test_a_last_try_that_cannot_even_begin_cancels_the_request_of_the_one_before(
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
