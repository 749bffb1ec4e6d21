"""A batch that was deferred: its trigger is lost, its state is missing, or its event is about other requests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import BatchStateMissingError, NoAnswerError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import finish, wait
from airflow_provider_odirouter.models import unpack_deadlines
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.xcoms import WAIT_XCOM
from tests.conftest import Clock, Listener, actions, spent
from tests.dags.abandoned import CRASH, TIMEOUT, AbandonedBatch, cancelling
from tests.dags.batches import THREE, Again, batch, landed, manifest, phases
from tests.dags.conftest import HAS_STORE, Run, RunDag, clear, kill_task

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


@pytest.fixture
def lose(run_dag: RunDag, tmp_path: Path) -> Callable[..., Run]:
    """Runs a batch whose trigger ends for this reason."""

    def run(reason: str, **arguments: Any) -> Run:
        return run_dag(batch(THREE, tmp_path, AbandonedBatch, reason=reason, deferrable=True, **arguments))

    return run


Lose = Callable[..., Run]


@pytest.mark.parametrize("reason", [TIMEOUT, CRASH])
def test_requests_that_have_succeeded_meanwhile_land(
    reason: str, lose: Lose, sandbox: Sandbox, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(run_seconds=60)
    run = lose(reason, retries=0, meanwhile=lambda _: clock.skip(60))
    assert run.state == "success", run.errors
    assert len(landed(tmp_path)) == 3
    assert spent(sandbox) == (3, 0)
    assert f"The trigger has ended ({reason}). The worker polls 3 requests once more" in caplog.text
    assert "Traceback of the trigger" in caplog.text


@pytest.mark.parametrize("cancels", [True, False])
def test_live_requests_whose_trigger_did_not_end_in_time_have_timed_out(
    cancels: bool, lose: Lose, sandbox: Sandbox
) -> None:
    sandbox.configure(run_seconds=60)
    run = lose(TIMEOUT, retries=0, cancel_on_timeout=cancels)
    assert run.state == "failed"
    assert "3 of 3 edits have no pictures: 3 RequestTimeoutError" in run.error
    assert spent(sandbox) == (3, 3 * cancels)
    assert bool(sandbox.alive) is not cancels


def test_requests_that_a_late_trigger_has_cancelled_have_timed_out(
    lose: Lose, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "TRIGGERER_CALLS_ON_KILL", False)
    sandbox.configure(run_seconds=60)
    run = lose(TIMEOUT, retries=0, meanwhile=cancelling(sandbox))
    assert "3 of 3 edits have no pictures: 3 RequestTimeoutError" in run.error
    assert spent(sandbox) == (3, 3)


def test_live_requests_whose_trigger_has_crashed_are_left_to_the_retry(lose: Lose, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=1)
    run = lose(CRASH)
    assert run.state == "success"
    assert "cannot be read, and it may still run: its trigger has crashed" in run.error
    assert "a retry waits for it again" in run.error
    assert spent(sandbox) == (3, 0)


@pytest.mark.parametrize("cancels", [True, False])
def test_live_requests_whose_trigger_has_crashed_are_cancelled_if_no_retry_follows(
    cancels: bool, lose: Lose, sandbox: Sandbox
) -> None:
    sandbox.configure(run_seconds=60)
    run = lose(CRASH, retries=0, cancel_on_timeout=cancels)
    assert ("It was cancelled" if cancels else "It was left running and may be paid") in run.error
    assert spent(sandbox) == (3, 3 * cancels)


def test_a_worker_that_is_killed_during_its_own_polls_cancels_all(
    lose: Lose, sandbox: Sandbox, listeners: list[Listener]
) -> None:
    def kill(entry: JournalEntry) -> None:
        if entry.action == "status":
            listeners.clear()
            kill_task()

    sandbox.configure(run_seconds=60, latency_seconds=0.1)
    run = lose(TIMEOUT, retries=0, cancel_on_timeout=False, meanwhile=lambda _: listeners.append(kill))
    assert run.error == "The task was killed."
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


class Tampered(Again):
    """A batch that finds something changed when it resumes."""

    def __init__(self, *, tamper: Callable[[dict[str, Any]], dict[str, Any]], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.tamper = tamper

    def execute_complete(self, context: Any, event: Any) -> Any:
        return super().execute_complete(context, self.tamper(dict(event)))


def test_a_state_that_was_deleted_while_the_batch_was_deferred_pays_for_nothing(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    def delete(event: dict[str, Any]) -> dict[str, Any]:
        shutil.rmtree(tmp_path / ".odirouter")
        return event

    sandbox.configure(run_seconds=1)
    run = run_dag(batch(THREE, tmp_path, Tampered, tamper=delete, deferrable=True, retries=0))
    assert run.state == "failed"
    assert isinstance(run.errors[0], BatchStateMissingError)
    assert " is missing" in run.error
    assert spent(sandbox) == (3, 0)


def test_a_batch_that_resumes_without_its_disk_leaves_its_pictures_to_a_retry(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"

    def unplug(event: dict[str, Any]) -> dict[str, Any]:
        if not elsewhere.exists():
            out.rename(elsewhere)
        return event

    def plug_in(_: Any) -> None:
        elsewhere.rename(out)
        elsewhere.touch()

    sandbox.configure(run_seconds=1)
    run = run_dag(batch(THREE, out, Tampered, tamper=unplug, deferrable=True, on_retry_callback=plug_in))
    assert "may not see the disk of the worker that has written it" in run.error
    assert run.state == "success"
    assert spent(sandbox) == (3, 0)
    assert len(landed(out)) == 3


def test_the_log_says_that_many_workers_need_a_shared_disk_for_a_local_path(
    run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    words = "all workers need the same disk there"
    assert run_dag(batch(THREE, tmp_path / "one")).state == "success"
    assert words not in caplog.text
    # Read when the task runs; nothing of Celery is loaded for it.
    monkeypatch.setattr("airflow_provider_odirouter.lifecycle.finish.conf.get", lambda *_, **__: "CeleryExecutor")
    finish.prepare_output_path(str(tmp_path), None)
    assert f"The output path {tmp_path} is local, and Airflow's executor is CeleryExecutor: {words}" in caplog.text
    caplog.clear()
    monkeypatch.setattr("airflow_provider_odirouter.images.landing.probe", lambda *_: None)
    finish.prepare_output_path("s3://bucket/edited", None)
    assert words not in caplog.text


@pytest.mark.skipif(not HAS_STORE, reason="before Airflow 3.3 nothing says that there must be a state")
def test_a_state_that_was_deleted_before_a_retry_pays_for_nothing(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE", fail_first=1)
    dag = batch(
        THREE,
        tmp_path,
        on_item_failure="fail",
        on_retry_callback=lambda _: shutil.rmtree(tmp_path / ".odirouter"),
    )
    run = run_dag(dag)
    assert " is missing" in str(run.errors[1])
    assert spent(sandbox) == (3, 0)


def test_an_event_of_other_requests_ends_none_and_a_cleared_task_takes_the_results(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    def forget_one(event: dict[str, Any]) -> dict[str, Any]:
        return event if cleared else event | {"requests": "of others"}

    def change(context: Any) -> None:
        cleared.append(context)
        clear(context)

    cleared: list[Any] = []
    sandbox.configure(run_seconds=1)
    dag = batch(
        THREE,
        tmp_path,
        Tampered,
        dag_id="cleared",
        tamper=forget_one,
        deferrable=True,
        on_retry_callback=change,
    )
    run = run_dag(dag)
    assert "The trigger's event and the batch's state name different requests" in run.error
    assert run.state == "success"
    assert sandbox.paid == 3
    assert len(landed(tmp_path)) == 3


def test_each_deferral_has_its_own_id_for_its_trigger(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    """A request of an earlier try that has failed is submitted again, and waited for in a second deferral."""
    deferrals: list[tuple[str, int]] = []
    latest: dict[str, Any] = {}

    class Watched(OdiRouterImageEditBatchOperator):
        def defer_to(self, trigger: Any) -> None:
            deferrals.append((trigger.wait_id, len(trigger.pending())))
            if latest["ti"].try_number == 1:
                raise OSError("no deferral today")
            super().defer_to(trigger)

        def execute(self, context: Any) -> Any:
            latest.update(context)
            return super().execute(context)

    sandbox.configure(run_seconds=1, error_type="INFERENCE_FAILURE", fail_first=2)
    run = run_dag(batch(THREE, tmp_path, Watched, deferrable=True))
    assert (run.state, [str(error) for error in run.errors]) == ("success", ["no deferral today"])
    assert len({wait_id for wait_id, _ in deferrals}) == 3
    assert [requests for _, requests in deferrals] == [3, 3, 2]
    assert run.xcom("edit", WAIT_XCOM) == deferrals[-1][0]
    assert actions(sandbox).count("submit") == 5


def test_the_trigger_knows_the_deadline_of_each_request(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    deadlines: list[float] = []

    class Watched(OdiRouterImageEditBatchOperator):
        def defer_to(self, trigger: Any) -> None:
            deadlines.extend(unpack_deadlines(trigger.deadlines).values())
            super().defer_to(trigger)

    sandbox.configure(run_seconds=4, latency_seconds=1.0)
    run = run_dag(batch(THREE, tmp_path, Watched, deferrable=True, timeout=100))
    assert run.state == "success", run.errors
    submitted = [datetime.fromisoformat(line["submitted_at"]).timestamp() for line in manifest(tmp_path)]
    assert all(100 <= end - at <= 101 for end, at in zip(deadlines, submitted, strict=True))
    assert deadlines[2] - deadlines[0] >= 2


def test_a_retry_finds_out_why_a_request_has_failed_before_it_pays_again(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger's event does not hold the reason, and the poll that asks for it fails."""

    async def fail(hook: OdiRouterHook, *arguments: str) -> Any:
        raise NoAnswerError("no network today")

    class WithoutNetwork(OdiRouterImageEditBatchOperator):
        def execute_complete(self, context: Any, event: Any) -> Any:
            with monkeypatch.context() as patch:
                if context["ti"].try_number == 1:
                    patch.setattr(OdiRouterHook, "aget_status", fail)
                return super().execute_complete(context, event)

    sandbox.configure(error_type="CONTENT_BLOCKED", fail_first=1, run_seconds=1)
    run = run_dag(batch(THREE, tmp_path, WithoutNetwork, deferrable=True))
    assert run.state == "success"
    assert "The reason could not be read; a retry asks for it again" in run.error
    assert [line.get("error_type") for line in manifest(tmp_path)] == ["CONTENT_BLOCKED", None, None]
    assert spent(sandbox) == (3, 0)


def test_the_vendors_words_about_a_failure_survive_the_trigger(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(error_type="CONTENT_BLOCKED", error_message="No cups", fail_first=1, run_seconds=1)
    run = run_dag(batch(THREE, tmp_path, deferrable=True))
    assert run.state == "success"
    [error] = [line["error"] for line in manifest(tmp_path) if "error" in line]
    assert "No cups" in error
    assert phases(tmp_path) == ["failed", "landed", "landed"]
