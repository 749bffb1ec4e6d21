"""What a task does when its trigger has crashed, or did not end in time: Airflow itself would only fail it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_odirouter.lifecycle import wait
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import ConfigureAt, Listener, actions, spent
from tests.dags.abandoned import CRASH, TIMEOUT, AbandonedEdit, AbandonedSensor, cancelling
from tests.dags.conftest import HAS_STORE, Run, RunDag, edit, kill_task, needs_store

pytestmark = pytest.mark.usefixtures("poll_at_once")


@pytest.fixture
def lose(run_dag: RunDag, pictures: Path) -> Callable[..., Run]:
    """Runs an edit whose trigger ends for this reason."""

    def run(reason: str, **arguments: Any) -> Run:
        return run_dag(edit(pictures, AbandonedEdit, reason=reason, deferrable=True, **arguments))

    return run


@pytest.fixture
def lose_sensor(run_dag: RunDag, pictures: Path) -> Callable[..., Run]:
    """Runs a sensor whose trigger ends for this reason, behind the task that submits."""

    def run(reason: str, **arguments: Any) -> Run:
        with DAG("wait") as dag:
            submit = OdiRouterImageEditOperator(
                task_id="submit", prompt="Blue", images=[str(pictures / "coffee.png")], wait_for_completion=False
            )
            output: Any = submit.output
            AbandonedSensor(task_id="wait", request_id=output["request_id"], reason=reason, **arguments)
        return run_dag(dag)

    return run


Lose = Callable[..., Run]


@pytest.mark.parametrize("reason", [TIMEOUT, CRASH])
def test_a_request_that_has_succeeded_meanwhile_lands(
    reason: str,
    lose: Lose,
    sandbox: Sandbox,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = lose(reason, retries=0, output_path=str(tmp_path))
    assert run.state == "success", run.errors
    manifest = run.xcom("edit")
    assert [output["path"] for output in manifest["outputs"]] == [str(path) for path in tmp_path.iterdir()]
    assert (manifest["submitted_at"] is not None) is HAS_STORE
    assert spent(sandbox) == (1, 0)
    assert (
        f"The trigger has ended ({reason}). The worker polls request {manifest['request_id']} once more" in caplog.text
    )
    assert "Traceback of the trigger" in caplog.text


@pytest.mark.parametrize("cancels", [True, False])
def test_a_live_request_whose_trigger_did_not_end_in_time_has_timed_out(
    cancels: bool, lose: Lose, sandbox: Sandbox
) -> None:
    sandbox.configure(run_seconds=60)
    run = lose(TIMEOUT, retries=0, cancel_on_timeout=cancels)
    assert run.state == "failed"
    assert "did not end before its deadline" in run.error
    assert spent(sandbox) == (1, int(cancels))
    assert bool(sandbox.alive) is not cancels


def test_a_request_that_its_late_trigger_has_cancelled_has_timed_out(
    lose: Lose, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "TRIGGERER_CALLS_ON_KILL", False)
    sandbox.configure(run_seconds=60)
    run = lose(TIMEOUT, retries=0, meanwhile=cancelling(sandbox))
    assert "did not end before its deadline" in run.error
    assert "It was cancelled; to submit a new request, clear the task." in run.error
    assert spent(sandbox) == (1, 1)


@pytest.mark.parametrize(("on_kill", "cancels"), [(True, True), (False, False)])
def test_a_request_that_its_trigger_cannot_have_cancelled_has_not_timed_out(
    on_kill: bool, cancels: bool, lose: Lose, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "TRIGGERER_CALLS_ON_KILL", on_kill)
    sandbox.configure(run_seconds=60)
    run = lose(TIMEOUT, retries=0, cancel_on_timeout=cancels, meanwhile=cancelling(sandbox))
    assert "was cancelled, but not by this task" in run.error


@needs_store
def test_a_live_request_whose_trigger_has_crashed_is_left_to_the_retry(lose: Lose, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=1)
    run = lose(CRASH)
    assert run.state == "success"
    assert "cannot be read, and it may still run: its trigger has crashed" in run.error
    assert "a retry waits for it again" in run.error
    assert spent(sandbox) == (1, 0)


@pytest.mark.parametrize("arguments", [{"retries": 0}, {"durable": False}], ids=["no retry", "not durable"])
def test_a_live_request_whose_trigger_has_crashed_is_cancelled_without_a_retry(
    arguments: dict[str, Any], lose: Lose, sandbox: Sandbox, configure_at: ConfigureAt
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    run = lose(CRASH, **arguments)
    assert "cannot be read, and it may still run: its trigger has crashed" in run.error
    then = "to submit a new request, clear the task" if "retries" in arguments else "a retry submits a new request"
    assert f"It was cancelled; {then}." in run.error
    assert spent(sandbox) == (1 if "retries" in arguments else 2, 1)
    assert not sandbox.alive


def test_a_live_request_without_its_trigger_runs_on_only_if_it_may_not_be_cancelled(
    lose: Lose, sandbox: Sandbox
) -> None:
    sandbox.configure(run_seconds=60)
    run = lose(CRASH, retries=0, cancel_on_timeout=False)
    assert "It was left running and may be paid" in run.error
    assert spent(sandbox) == (1, 0)


def test_a_worker_killed_while_it_polls_itself_cancels_the_request(
    lose: Lose, sandbox: Sandbox, listeners: list[Listener]
) -> None:
    def kill(entry: JournalEntry) -> None:
        if entry.action == "status":
            kill_task()

    sandbox.configure(run_seconds=60)
    listeners.append(kill)
    run = lose(CRASH, retries=0, cancel_on_timeout=False)
    assert run.state == "failed"
    assert spent(sandbox) == (1, 1)
    assert not sandbox.alive


def lose_xcom(context: Any) -> None:
    ti = context["ti"]
    XCom.delete(key="request_id", dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)


def test_a_task_that_does_not_know_its_request_any_more_says_so(lose: Lose, sandbox: Sandbox) -> None:
    run = lose(CRASH, retries=0, durable=False, meanwhile=lose_xcom)
    assert run.error.startswith("The trigger did not end, and the XCom request_id is missing.")
    assert actions(sandbox) == ["submit"]


@needs_store
def test_a_task_whose_xcom_is_missing_remembers_its_request(lose: Lose, sandbox: Sandbox) -> None:
    run = lose(CRASH, retries=0, meanwhile=lose_xcom)
    assert run.state == "success", run.errors
    assert spent(sandbox) == (1, 0)


@pytest.mark.parametrize("reason", [TIMEOUT, CRASH])
def test_a_sensor_without_its_trigger_takes_a_request_that_has_succeeded(
    reason: str, lose_sensor: Lose, sandbox: Sandbox, tmp_path: Path
) -> None:
    run = lose_sensor(reason, output_path=str(tmp_path))
    assert run.state == "success", run.errors
    assert run.xcom("wait")["outputs"][0]["path"] == str(next(tmp_path.iterdir()))
    assert spent(sandbox) == (1, 0)


@pytest.mark.parametrize("cancels", [True, False])
def test_a_sensor_whose_trigger_is_late_times_out_and_cancels_only_if_it_may(
    cancels: bool, lose_sensor: Lose, sandbox: Sandbox
) -> None:
    sandbox.configure(run_seconds=60)
    run = lose_sensor(TIMEOUT, cancel_on_timeout=cancels)
    assert [type(error).__name__ for error in run.errors] == ["AirflowSensorTimeout"]
    assert "did not end before its deadline" in run.error
    assert spent(sandbox) == (1, int(cancels))
    assert bool(sandbox.alive) is not cancels


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_a_sensor_with_soft_fail_skips_when_its_trigger_is_late(flag: str, lose_sensor: Lose, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=60)
    assert lose_sensor(TIMEOUT, **{flag: True}).state_of("wait") == ["skipped"]
    assert len(sandbox.alive) == 1


@pytest.mark.parametrize("cancels", [True, False])
def test_a_sensor_whose_trigger_has_crashed_leaves_the_request_running(
    cancels: bool, lose_sensor: Lose, sandbox: Sandbox
) -> None:
    sandbox.configure(run_seconds=60)
    run = lose_sensor(CRASH, cancel_on_timeout=cancels)
    assert "cannot be read, and it may still run: its trigger has crashed" in run.error
    assert "To wait for it again, clear this sensor." in run.error
    assert spent(sandbox) == (1, 0)
