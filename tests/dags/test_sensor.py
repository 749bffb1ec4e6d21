from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from tests.conftest import Listener, actions
from tests.dags.conftest import RunDag


def submit_then_wait(pictures: Path, **arguments: Any) -> DAG:
    """One task submits, another waits."""
    with DAG("submit_then_wait") as dag:
        submit = OdiRouterImageEditOperator(
            task_id="submit", prompt="Blue", images=[str(pictures / "coffee.png")], wait_for_completion=False
        )
        output: Any = submit.output
        OdiRouterRequestSensor(task_id="wait", request_id=output["request_id"], **arguments)
    return dag


@pytest.mark.parametrize(
    "mode",
    [{"deferrable": True}, {"deferrable": False, "poke_interval": 0.2}],
    ids=["in the triggerer", "on the worker"],
)
def test_a_sensor_lands_what_another_task_has_submitted(
    mode: dict[str, Any], run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=0.5)
    run = run_dag(submit_then_wait(pictures, output_path=str(tmp_path), **mode))
    assert run.state == "success", run.errors
    manifest = run.xcom("wait")
    assert manifest["request_id"] == run.xcom("submit", "request_id") == run.xcom("wait", "request_id")
    assert [str(path) for path in tmp_path.iterdir()] == [output["path"] for output in manifest["outputs"]]
    assert sandbox.paid == 1


def test_a_sensor_goes_on_when_a_look_fails_in_passing(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    sandbox.configure(server_errors=2, fault_actions={"status"})
    run = run_dag(submit_then_wait(pictures, deferrable=False, poke_interval=0.1))
    assert run.state == "success", run.errors
    assert actions(sandbox) == ["submit", "status", "status", "status", "result"]


def test_a_sensor_that_times_out_leaves_the_request_to_the_task_that_submitted_it(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    sandbox.configure(run_seconds=60)
    run = run_dag(submit_then_wait(pictures, timeout=1))
    assert [type(error).__name__ for error in run.errors] == ["AirflowSensorTimeout"]
    assert "cancel" not in actions(sandbox)
    assert len(sandbox.alive) == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_sensor_with_soft_fail_skips_when_it_times_out(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    sandbox.configure(run_seconds=60)
    run = run_dag(submit_then_wait(pictures, timeout=1, poke_interval=0.3, deferrable=deferrable, soft_fail=True))
    assert run.state_of("wait") == ["skipped"]


def test_a_sensor_of_an_unknown_request_fails_after_a_few_looks(run_dag: RunDag, sandbox: Sandbox) -> None:
    with DAG("unknown") as dag:
        OdiRouterRequestSensor(task_id="wait", request_id="mmsu_unknown", deferrable=False, poke_interval=0.1)
    run = run_dag(dag)
    assert "does not know this request" in run.error
    assert actions(sandbox) == ["status"] * 3


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_sensor_with_never_fail_skips_whatever_is_wrong(deferrable: bool, run_dag: RunDag, sandbox: Sandbox) -> None:
    with DAG("never") as dag:
        OdiRouterRequestSensor(task_id="wait", request_id="../escape", never_fail=True, deferrable=deferrable)
    assert run_dag(dag).state_of("wait") == ["skipped"]


def test_a_wrong_key_is_told_at_once_even_after_a_404(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path
) -> None:
    def change_key(entry: JournalEntry) -> None:
        if entry.action == "status":
            sandbox.configure(api_key="another")

    sandbox.configure(not_found_seconds=0.3, run_seconds=60)
    listeners.append(change_key)
    run = run_dag(submit_then_wait(pictures, deferrable=False, poke_interval=0.5, timeout=30))
    assert "refuses the API key" in run.error
    assert actions(sandbox) == ["submit", "status", "status"]


def test_a_shorter_execution_timeout_counts_for_a_deferred_sensor(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    sandbox.configure(run_seconds=60)
    run = run_dag(submit_then_wait(pictures, execution_timeout=timedelta(seconds=2)))
    assert [type(error).__name__ for error in run.errors] == ["AirflowSensorTimeout"]


def test_a_sensor_refuses_an_impossible_interval() -> None:
    with pytest.raises(ValueError, match="poll_interval must be a number, more than 0 seconds"):
        OdiRouterRequestSensor(task_id="wait", request_id="x", poll_interval=0)
