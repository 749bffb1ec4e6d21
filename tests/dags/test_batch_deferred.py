"""What happens to a batch while nobody looks: its trigger is lost, its state is gone, its event does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import BatchStateMissingError, NoAnswerError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.operators import steps
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.records import WAVE_XCOM
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Listener, actions, spent
from tests.dags.abandoned import CRASH, TIMEOUT, AbandonedBatch, cancelling
from tests.dags.batches import FIVE, THREE, Again, batch, landed, manifest, phases
from tests.dags.conftest import HAS_STORE, Run, RunDag, clear, kill_task

pytestmark = pytest.mark.usefixtures("look_at_once")


@pytest.fixture
def lose(run_dag: RunDag, tmp_path: Path) -> Callable[..., Run]:
    """Runs a batch whose trigger ends for this reason."""

    def run(reason: str, **arguments: Any) -> Run:
        return run_dag(batch(THREE, tmp_path, AbandonedBatch, reason=reason, deferrable=True, **arguments))

    return run


Lose = Callable[..., Run]


@pytest.mark.parametrize("reason", [TIMEOUT, CRASH])
def test_what_has_succeeded_meanwhile_is_brought_home(
    reason: str, lose: Lose, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = lose(reason, retries=0)
    assert run.state == "success", run.errors
    assert len(landed(tmp_path)) == 3
    assert spent(sandbox) == (3, 0)
    assert f"{reason}: the worker looks at 3 requests itself" in caplog.text
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


def test_requests_that_their_trigger_has_cancelled_because_it_was_late_have_timed_out(
    lose: Lose, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "TRIGGERER_CALLS_ON_KILL", False)
    sandbox.configure(run_seconds=60)
    run = lose(TIMEOUT, retries=0, meanwhile=cancelling(sandbox))
    assert "3 of 3 edits have no pictures: 3 RequestTimeoutError" in run.error
    assert spent(sandbox) == (3, 3)


def test_live_requests_whose_trigger_has_crashed_are_handed_on_to_the_retry(lose: Lose, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=1)
    run = lose(CRASH)
    assert run.state == "success"
    assert "cannot be looked at: its trigger has crashed" in run.error
    assert "a retry goes on with it" in run.error
    assert spent(sandbox) == (3, 0)


@pytest.mark.parametrize("cancels", [True, False])
def test_live_requests_whose_trigger_has_crashed_are_cancelled_if_no_retry_goes_on_with_them(
    cancels: bool, lose: Lose, sandbox: Sandbox
) -> None:
    sandbox.configure(run_seconds=60)
    run = lose(CRASH, retries=0, cancel_on_timeout=cancels)
    assert ("It was cancelled" if cancels else "It was left running and may be paid") in run.error
    assert spent(sandbox) == (3, 3 * cancels)


def test_a_worker_that_is_killed_while_it_looks_itself_cancels_all(
    lose: Lose, sandbox: Sandbox, listeners: list[Listener]
) -> None:
    def kill(entry: JournalEntry) -> None:
        if entry.action == "status":
            listeners.clear()
            kill_task()

    sandbox.configure(run_seconds=60, latency_seconds=0.1)
    listeners.append(kill)
    run = lose(TIMEOUT, retries=0, cancel_on_timeout=False)
    assert run.error == "The task was killed."
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


class Tampered(Again):
    """Is deferred, and finds something changed when it comes back."""

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

    run = run_dag(batch(THREE, tmp_path, Tampered, tamper=delete, deferrable=True, retries=0))
    assert run.state == "failed"
    assert isinstance(run.errors[0], BatchStateMissingError)
    assert " is gone" in run.error
    assert spent(sandbox) == (3, 0)


def test_a_batch_that_resumes_where_its_disk_is_not_leaves_its_pictures_to_a_retry_that_sees_it(
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

    run = run_dag(batch(THREE, out, Tampered, tamper=unplug, deferrable=True, on_retry_callback=plug_in))
    assert "may not see the disk of the worker that has written it" in run.error
    assert run.state == "success"
    assert spent(sandbox) == (3, 0)
    assert len(landed(out)) == 3


def test_a_local_path_is_told_to_need_a_shared_disk_where_workers_are_many(
    run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    words = "all workers need the same disk there"
    assert run_dag(batch(THREE, tmp_path / "one")).state == "success"
    assert words not in caplog.text
    # Read when the task runs; nothing of Celery is loaded for it.
    monkeypatch.setattr("airflow_provider_odirouter.operators.steps.conf.get", lambda *_, **__: "CeleryExecutor")
    steps.tell_what_a_local_path_needs(str(tmp_path))
    assert f"The output path {tmp_path} is local, and Airflow's executor is CeleryExecutor: {words}" in caplog.text
    caplog.clear()
    steps.tell_what_a_local_path_needs("s3://bucket/edited")
    assert words not in caplog.text


@pytest.mark.skipif(not HAS_STORE, reason="before Airflow 3.3 nothing tells that there must be a state")
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
    assert " is gone" in str(run.errors[1])
    assert spent(sandbox) == (3, 0)


def test_an_event_that_does_not_fit_the_state_settles_nothing_and_a_clear_takes_what_is_paid(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    def forget_one(event: dict[str, Any]) -> dict[str, Any]:
        return event if cleared else event | {"requests": "of others"}

    def change(context: Any) -> None:
        cleared.append(context)
        clear(context)

    cleared: list[Any] = []
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
    assert "The trigger's event is about other requests than those that the batch's state names" in run.error
    assert run.state == "success"
    assert sandbox.paid == 3
    assert len(landed(tmp_path)) == 3


def test_each_wave_has_a_name_of_its_own_for_its_trigger(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    waves: list[tuple[str, list[str]]] = []

    class Watched(OdiRouterImageEditBatchOperator):
        def _defer(self, waits: Any, wave: str) -> None:
            waves.append((wave, [wait.request_id for wait in waits]))
            super()._defer(waits, wave)

    run = run_dag(batch(FIVE, tmp_path, Watched, max_in_flight=2, deferrable=True))
    assert run.state == "success"
    assert len({wave for wave, _ in waves}) == 3
    assert [len(requests) for _, requests in waves] == [2, 2, 1]
    assert run.xcom("edit", WAVE_XCOM) == waves[-1][0]
    assert actions(sandbox).count("submit") == 5


def test_a_retry_finds_out_why_a_request_has_failed_before_it_pays_anew(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event of a trigger has no room for it, and the look that would tell fails."""

    def fail_once(hook: OdiRouterHook, *arguments: str) -> Any:
        monkeypatch.setattr(OdiRouterHook, "get_status", look)
        raise NoAnswerError("no network today")

    look = OdiRouterHook.get_status
    monkeypatch.setattr(OdiRouterHook, "get_status", fail_once)
    sandbox.configure(error_type="CONTENT_BLOCKED", fail_first=1)
    run = run_dag(batch(THREE, tmp_path, deferrable=True))
    assert run.state == "success"
    assert "Why could not be found out; a retry looks again" in run.error
    assert [line.get("error_type") for line in manifest(tmp_path)] == ["CONTENT_BLOCKED", None, None]
    assert spent(sandbox) == (3, 0)


def test_what_the_service_had_to_say_of_a_failure_survives_the_trigger(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(error_type="CONTENT_BLOCKED", error_message="No cups", fail_first=1)
    run = run_dag(batch(THREE, tmp_path, deferrable=True))
    assert run.state == "success"
    [error] = [line["error"] for line in manifest(tmp_path) if "error" in line]
    assert "No cups" in error
    assert phases(tmp_path) == ["failed", "landed", "landed"]
