"""Requests of a batch for which its try stops waiting: they are cancelled, waited for again, or their results taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.lifecycle import failures, polling
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import Clock, Listener, spent
from tests.dags.batches import FIVE, THREE, batch, changing, manifest, phases, submits
from tests.dags.conftest import RunDag, anywhere, clear

pytestmark = pytest.mark.usefixtures("poll_at_once")


@anywhere
def test_requests_that_cannot_be_polled_are_left_to_the_retry(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 2)
    sandbox.configure(run_seconds=1, server_errors=None, fault_actions={"status"})
    dag = batch(THREE, tmp_path, deferrable=deferrable, on_retry_callback=lambda _: sandbox.configure(server_errors=0))
    run = run_dag(dag)
    assert run.state == "success"
    assert "3 of 3 edits have no pictures: 3 RequestUnreachableError" in run.error
    assert "It was left running and may be paid; a retry waits for it again." in run.error
    assert spent(sandbox) == (3, 0)


@anywhere
def test_requests_that_no_try_can_poll_are_cancelled_by_the_last_one(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 2)
    sandbox.configure(run_seconds=60, server_errors=None, fault_actions={"status"})
    run = run_dag(batch(THREE, tmp_path, deferrable=deferrable))
    assert run.state == "failed"
    assert len(run.errors) == 2
    assert "It was cancelled; to submit a new request, clear the task." in str(run.errors[1])
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


@anywhere
def test_requests_past_their_deadline_are_cancelled_and_submitted_by_the_retry(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=60)
    dag = batch(
        THREE, tmp_path, timeout=1, deferrable=deferrable, on_retry_callback=lambda _: sandbox.configure(run_seconds=0)
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert "3 of 3 edits have no pictures: 3 RequestTimeoutError" in run.error
    assert "It was cancelled; a retry submits a new request." in run.error
    assert spent(sandbox) == (6, 3)


def test_the_deadline_cancels_the_rest_and_takes_what_has_ended(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    listeners.append(changing(sandbox, "submit", {"run_seconds": 60}))
    run = run_dag(batch(THREE, tmp_path, timeout=1))
    assert run.state == "success"
    assert spent(sandbox) == (3, 2)
    kinds = [line.get("error_type") for line in manifest(tmp_path)]
    assert kinds == [None, "RequestTimeoutError", "RequestTimeoutError"]


@anywhere
def test_requests_that_outlive_the_deadline_uncancelled_are_those_of_the_retry(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, clock: Clock, tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=3600)
    run = run_dag(
        batch(
            THREE,
            tmp_path,
            timeout=1,
            cancel_on_timeout=False,
            deferrable=deferrable,
            on_retry_callback=lambda _: clock.skip(3600),
        )
    )
    assert run.state == "success"
    assert "a retry waits for it again" in run.error
    assert spent(sandbox) == (3, 0)


def test_a_cleared_task_takes_requests_that_the_last_try_left_running(
    run_dag: RunDag, sandbox: Sandbox, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def change(context: Any) -> None:
        calls.append(spent(sandbox))
        clock.skip(3600)
        clear(context)

    monkeypatch.setattr(failures, "will_be_retried", lambda *_: False)
    sandbox.configure(run_seconds=3600)
    run = run_dag(
        batch(THREE, tmp_path, dag_id="cleared", timeout=1, cancel_on_timeout=False, on_retry_callback=change)
    )
    assert calls == [(3, 0)]
    assert "clearing the task cancels it, or takes its result if it has one by then" in run.error
    assert run.state == "success"
    assert spent(sandbox) == (3, 3)
    assert sandbox.paid == 3


def test_a_request_that_the_last_try_leaves_running_does_not_fail_the_others(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=60)
    listeners.append(changing(sandbox, "submit", {"run_seconds": 0}))
    run = run_dag(batch(THREE, tmp_path, timeout=1, cancel_on_timeout=False, retries=0))
    assert run.state == "success"
    record = run.xcom("edit", "odirouter_batch")
    assert (record["landed"], record["failed"], record.get("waiting")) == (2, 1, None)
    assert len(sandbox.alive) == 1
    assert phases(tmp_path)[0] == "submitted"


def test_a_request_that_cannot_be_cancelled_at_its_deadline_keeps_its_slot(
    run_dag: RunDag, sandbox: Sandbox, clock: Clock, listeners: list[Listener], tmp_path: Path
) -> None:
    alive: list[int] = []
    listeners.append(lambda _: alive.append(len(sandbox.alive)))
    sandbox.configure(run_seconds=3600, cancel_supported=False)

    def end_all(_: object) -> None:
        clock.skip(3600)
        sandbox.configure(run_seconds=0)

    run = run_dag(batch(FIVE, tmp_path, timeout=1, max_in_flight=2, on_retry_callback=end_all))
    assert run.state == "success"
    assert "The endpoint cannot cancel: the request runs on and may be paid; a retry waits for it again." in run.error
    assert sorted(submits(sandbox)) == ["Black", "Blue", "Green", "Red", "White"]
    assert max(alive) == 2


@anywhere
def test_a_retry_submits_again_requests_that_another_process_has_cancelled(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(error_type="CANCELED", fail_first=2)
    run = run_dag(batch(THREE, tmp_path, on_item_failure="fail", deferrable=deferrable))
    assert run.state == "success"
    assert "2 of 3 edits have no pictures" in run.error
    assert submits(sandbox) == ["Red", "Green", "Blue", "Red", "Green"]


def test_a_retry_submits_again_requests_that_the_service_no_longer_knows(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(not_found_seconds=3600)
    run = run_dag(
        batch(
            THREE,
            tmp_path,
            on_retry_callback=lambda _: sandbox.configure(not_found_seconds=0),
        )
    )
    assert run.state == "success"
    assert "3 of 3 edits have no pictures: 3 RequestLostError" in run.error
    assert sandbox.paid == 6
