from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter import xcoms
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.sensors import request as sensor_module
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from airflow_provider_odirouter.xcoms import RequestRecord
from tests.conftest import Clock, Listener, actions
from tests.dags.conftest import RunDag

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


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


def test_a_sensor_keeps_waiting_after_a_transient_error(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    sandbox.configure(server_errors=2, fault_actions={"status"})
    run = run_dag(submit_then_wait(pictures, deferrable=False, poke_interval=0.1))
    assert run.state == "success", run.errors
    assert actions(sandbox) == ["submit", "status", "status", "status", "result"]


def test_a_sensor_that_times_out_leaves_the_request_to_its_task(
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


def test_a_sensor_of_an_unknown_request_fails_after_a_few_polls(run_dag: RunDag, sandbox: Sandbox) -> None:
    with DAG("unknown") as dag:
        OdiRouterRequestSensor(task_id="wait", request_id="mmsu_unknown", deferrable=False, poke_interval=0.1)
    run = run_dag(dag)
    assert "does not know this request" in run.error
    assert actions(sandbox) == ["status"] * 3


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses within a poke, which take no time."""
    taken: list[float] = []
    monkeypatch.setattr(sensor_module, "time", SimpleNamespace(sleep=taken.append))
    return taken


def rescheduled(request_id: str, **arguments: Any) -> DAG:
    """A sensor that is a new process in each poke."""
    with DAG("rescheduled") as dag:
        OdiRouterRequestSensor(
            task_id="wait", request_id=request_id, deferrable=False, mode="reschedule", poke_interval=0.2, **arguments
        )
    return dag


def test_a_rescheduled_sensor_of_an_unknown_request_fails_soon_and_for_good(
    run_dag: RunDag, sandbox: Sandbox, pauses: list[float]
) -> None:
    run = run_dag(rescheduled("mmsu_unknown", timeout=15, retries=1))
    assert run.state_of("wait") == ["failed"]
    assert [type(error).__name__ for error in run.errors[-1:]] == ["AirflowFailException"]
    assert "does not know this request" in str(run.errors[-1])
    assert pauses == [2.0, 4.0]
    assert 4 <= len(actions(sandbox)) <= 6


def test_a_rescheduled_sensor_waits_for_a_request_that_is_not_known_yet(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, clock: Clock, listeners: list[Listener]
) -> None:
    sandbox.configure(not_found_seconds=60)

    def skip(entry: JournalEntry) -> None:
        if entry.action == "status":
            clock.skip(61)

    listeners.append(skip)
    run = run_dag(submit_then_wait(pictures, deferrable=False, mode="reschedule", poke_interval=0.2, timeout=3600))
    assert run.state == "success"
    assert actions(sandbox) == ["submit", "status", "status", "result"]


def test_one_404_late_in_the_wait_of_a_rescheduled_sensor_is_not_the_end(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, listeners: list[Listener], clock: Clock, pauses: list[float]
) -> None:
    sandbox.configure(run_seconds=3600)

    def change(entry: JournalEntry) -> None:
        if entry.action == "status":
            polls = actions(sandbox).count("status")
            sandbox.configure(not_found_seconds=7200 if polls == 1 else 0)
            clock.skip(3600 if polls == 3 else 0)

    listeners.append(change)
    run = run_dag(submit_then_wait(pictures, deferrable=False, mode="reschedule", poke_interval=0.2, timeout=3600))
    assert run.state == "success"
    assert pauses == [2.0]


def test_a_rescheduled_sensor_waits_since_its_first_poke(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=3600)
    records: list[RequestRecord] = []
    push = xcoms.push_request

    def note(ti: Any, record: RequestRecord, url_of: Any) -> None:
        if ti.task_id == "wait":
            records.append(record)
            clock.skip(3600 if len(records) == 3 else 0)
        push(ti, record, url_of)

    monkeypatch.setattr(xcoms, "push_request", note)
    run = run_dag(submit_then_wait(pictures, deferrable=False, mode="reschedule", poke_interval=0.2, timeout=3600))
    assert run.state == "success"
    [_, second, third] = records
    # Airflow notes when it has rescheduled the sensor for the first time, which the first poke cannot know.
    assert second.waiting_since
    assert (third.waiting_since, third.deadline) == (second.waiting_since, second.deadline)
    assert second.deadline == second.waiting_since + timedelta(seconds=3600)


@pytest.mark.parametrize(
    ("request_id", "words"),
    [
        (None, "is None: there is no request to wait for"),
        ("None", "is 'None': there is no request to wait for"),
        (" null ", "is ' null ': there is no request to wait for"),
        ("", "is empty"),
        ("  ", "is empty"),
        ([], "must be the id of one request, not a list"),
        (["mmsu_1", "{{ 2 }}"], "must be the id of one request, not a list; for several requests, map the sensor"),
        ({"request_id": "mmsu_1"}, "must be the id of one request, not a dict"),
        (7, "must be the id of a request, which is a text, not 7"),
        (float("nan"), "must be the id of a request, which is a text, not nan"),
        (True, "must be the id of a request, which is a text, not True"),
    ],
)
def test_a_literal_that_is_no_request_id_is_refused_when_the_dag_is_parsed(request_id: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^request_id {re.escape(words)}"):
        OdiRouterRequestSensor(task_id="wait", request_id=request_id)


@pytest.mark.parametrize("mode", [{"deferrable": True}, {"deferrable": False}, {"soft_fail": True}], ids=str)
@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ ti.xcom_pull(task_ids='submit', key='request_id') }}", "is 'None': there is no request"),
        ("{{ '' }}", "is empty"),
        ("{{ ['mmsu_1'] }}", "must be the id of one request, not a list"),
        ("{{ none }}", "is None: there is no request"),
        ("{{ 7 }}", "must be the id of a request, which is a text, not 7"),
    ],
)
def test_what_renders_to_no_request_id_fails_before_a_poll(
    template: str, words: str, mode: dict[str, Any], run_dag: RunDag, sandbox: Sandbox
) -> None:
    is_native = words not in {"is 'None': there is no request", "is empty"}
    with DAG("renders", render_template_as_native_obj=is_native) as dag:
        OdiRouterRequestSensor(task_id="wait", request_id=template, **mode)
    run = run_dag(dag)
    assert f"- request_id: {words}" in run.error
    assert run.is_final
    assert actions(sandbox) == []


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_sensor_with_never_fail_skips_whatever_is_wrong(deferrable: bool, run_dag: RunDag, sandbox: Sandbox) -> None:
    with DAG("never") as dag:
        OdiRouterRequestSensor(task_id="wait", request_id="../escape", never_fail=True, deferrable=deferrable)
    assert run_dag(dag).state_of("wait") == ["skipped"]


def test_a_wrong_key_fails_the_sensor_at_once_even_after_a_404(
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


@pytest.mark.parametrize(
    ("given", "poll", "poke"),
    [
        ({}, 5.0, 60.0),
        ({"poll_interval": 20}, 20, 20),
        ({"poke_interval": 20}, 20, 20),
        ({"poke_interval": timedelta(seconds=20)}, 20, 20),
        ({"poll_interval": 20.0, "poke_interval": timedelta(seconds=20)}, 20, 20),
    ],
    ids=str,
)
def test_poke_interval_and_poll_interval_are_one_parameter(given: dict[str, Any], poll: float, poke: float) -> None:
    sensor = OdiRouterRequestSensor(task_id="wait", request_id="x", **given)
    assert (sensor.poll_interval, sensor.poke_interval) == (poll, poke)


def test_two_intervals_that_differ_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"poll_interval \(5\) and poke_interval \(60\) are two names of one parameter"
    ):
        OdiRouterRequestSensor(task_id="wait", request_id="x", poll_interval=5, poke_interval=60)


@pytest.mark.parametrize("name", ["poll_interval", "poke_interval"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "5"])
def test_an_impossible_interval_is_named_as_it_was_given(name: str, value: Any) -> None:
    arguments: Any = {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be "):
        OdiRouterRequestSensor(task_id="wait", request_id="x", **arguments)
