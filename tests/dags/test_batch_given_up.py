"""Requests of a batch that are given up: who cancels them, who goes on with them, and who takes what they made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter import polling
from airflow_provider_odirouter.operators import steps
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import Clock, Listener, spent
from tests.dags.batches import FIVE, THREE, batch, changing, manifest, phases, submits
from tests.dags.conftest import RunDag, anywhere, clear

pytestmark = pytest.mark.usefixtures("look_at_once")


@anywhere
def test_requests_that_cannot_be_looked_at_are_handed_on_to_the_retry(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_LOOKS", 2)
    sandbox.configure(run_seconds=1, server_errors=None, fault_actions={"status"})
    dag = batch(THREE, tmp_path, deferrable=deferrable, on_retry_callback=lambda _: sandbox.configure(server_errors=0))
    run = run_dag(dag)
    assert run.state == "success"
    assert "3 of 3 edits have no pictures: 3 RequestUnwatchedError" in run.error
    assert "It was left running and may be paid; a retry goes on with it." in run.error
    assert spent(sandbox) == (3, 0)


@anywhere
def test_requests_that_no_try_can_look_at_are_cancelled_by_the_last(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_LOOKS", 2)
    sandbox.configure(run_seconds=60, server_errors=None, fault_actions={"status"})
    run = run_dag(batch(THREE, tmp_path, deferrable=deferrable))
    assert run.state == "failed"
    assert len(run.errors) == 2
    assert "It was cancelled; a retry submits a new request." in str(run.errors[1])
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


@anywhere
def test_requests_whose_deadline_has_passed_are_cancelled_and_the_retry_submits_anew(
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
    assert "a retry goes on with it" in run.error
    assert spent(sandbox) == (3, 0)


def test_requests_that_the_last_try_leaves_alone_are_taken_by_a_cleared_task_and_not_paid_again(
    run_dag: RunDag, sandbox: Sandbox, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def change(context: Any) -> None:
        calls.append(spent(sandbox))
        clock.skip(3600)
        clear(context)

    monkeypatch.setattr(steps, "is_tried_again", lambda *_: False)
    sandbox.configure(run_seconds=3600)
    run = run_dag(
        batch(THREE, tmp_path, dag_id="cleared", timeout=1, cancel_on_timeout=False, on_retry_callback=change)
    )
    assert calls == [(3, 0)]
    assert "clearing the task cancels it, or takes what it has made by then" in run.error
    assert run.state == "success"
    assert spent(sandbox) == (3, 3)
    assert sandbox.paid == 3


def test_one_that_the_last_try_leaves_alone_does_not_fail_the_others(
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


def test_what_cannot_be_cancelled_at_the_deadline_holds_its_place_and_the_retry_goes_on(
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
    assert "The endpoint cannot cancel: it runs on and may be paid; a retry goes on with it." in run.error
    assert sorted(submits(sandbox)) == ["Black", "Blue", "Green", "Red", "White"]
    assert max(alive) == 2


@anywhere
def test_requests_that_were_cancelled_behind_airflows_back_are_submitted_by_the_retry(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(error_type="CANCELED", fail_first=2)
    run = run_dag(batch(THREE, tmp_path, on_item_failure="fail", deferrable=deferrable))
    assert run.state == "success"
    assert "2 of 3 edits have no pictures" in run.error
    assert submits(sandbox) == ["Red", "Green", "Blue", "Red", "Green"]


def test_requests_that_the_service_does_not_know_any_more_are_submitted_by_the_retry(
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
