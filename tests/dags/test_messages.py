"""What the log of a task shows of a failure: one error with one stack, our text once, and the next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.lifecycle import polling
from airflow_provider_odirouter.protocol import Action, retries
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from airflow_provider_odirouter.xcoms import FAILURE_XCOM
from tests.dags.batches import THREE, batch
from tests.dags.conftest import RunDag, edit

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 4)
    monkeypatch.setattr(retries, "MAX_REPEAT_SECONDS", dict.fromkeys(Action, 0.0))


@pytest.mark.parametrize("tries_left", [False, True], ids=["last try", "a retry follows"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"api_key": "another"}, "refuses the API key"),
        ({"balance": 0}, "no balance"),
        ({"error_type": "CONTENT_BLOCKED"}, "failed with CONTENT_BLOCKED"),
        ({"error_type": "INFERENCE_FAILURE"}, "failed with INFERENCE_FAILURE"),
        ({"drop_next": 1, "fault_actions": {"submit"}}, "it is not known whether it arrived"),
        ({"server_errors": None, "fault_actions": {"status"}, "run_seconds": 60}, "may still run"),
        ({"file_fault": "html"}, "is an HTML page"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_stands_once_in_the_log(
    settings: dict[str, Any],
    words: str,
    tries_left: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    pictures: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sandbox.configure(**settings)
    run = run_dag(edit(pictures, retries=int(tries_left), output_path=str(tmp_path)))
    log = capfd.readouterr().out
    assert log.count("Traceback (most recent call last)") == len(run.errors)
    assert "direct cause" not in log
    assert "During handling" not in log
    for error in run.errors:
        assert words in str(error)
        assert log.count(f"{type(error).__name__}: {error}") == sum(str(other) == str(error) for other in run.errors)
    assert "a retry" not in str(run.errors[-1]).lower()
    assert "clear the task" in str(run.errors[-1]).lower()
    record = run.xcom("edit", FAILURE_XCOM)
    assert record["what"] in str(run.errors[-1])
    assert record["advice"] in str(run.errors[-1])


def test_a_last_try_of_a_batch_names_no_retry(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE")
    run = run_dag(batch(THREE, tmp_path))
    first, last = map(str, run.errors)
    assert "A retry submits" in first
    assert "a retry" not in last.lower()
    assert "Clear the task: it then submits only the edits that are missing or have failed" in last
    assert all(
        "a retry" not in line.lower() for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()
    )


def test_a_refused_key_names_the_connection_and_the_base_url(
    run_dag: RunDag, sandbox: Sandbox, base_url: str, pictures: Path
) -> None:
    sandbox.configure(api_key="another")
    run = run_dag(edit(pictures))
    assert f"The connection is 'odirouter_default', its base URL {base_url}." in run.error
    assert "sandbox-key" not in run.error


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_a_sensor_that_is_skipped_says_why_once(
    flag: str, deferrable: bool, run_dag: RunDag, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, Any] = {
        "request_id": "mmsu_unknown",
        "poke_interval": 0.1,
        "deferrable": deferrable,
        flag: True,
    }
    with DAG("skips") as dag:
        OdiRouterRequestSensor(task_id="wait", **arguments)
    assert run_dag(dag).state_of("wait") == ["skipped"]
    log = capfd.readouterr().out
    assert log.count("To submit a new request, clear the task that submitted this one.") == 1
    assert f"The task is skipped, as {flag} says." in log
