"""After the submit, only the network may fail: all else is tried before, when the Dag is parsed and when it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.errors import InvalidParametersError
from airflow_provider_odirouter.lifecycle import wait
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from tests.conftest import actions, spent
from tests.dags import test_bad_input as bad_input
from tests.dags.conftest import Outcome, RunDag, edit, run_once
from tests.test_json_values import Broken, Rude, deep

pytestmark = pytest.mark.every_version

ENDPOINT = "nano_banana_2"


class Numb(OdiRouterQueueOperator):
    """Gets its parameters when it is too late for the Dag's parse."""

    changes: ClassVar[dict[str, Any]] = {}

    def pre_execute(self, context: Any) -> None:
        for name, value in self.changes.items():
            setattr(self, name, value)


def run_queue(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Outcome:
    """Run a request whose parameters change after the Dag's parse."""
    monkeypatch.setattr(Numb, "changes", changes)
    with DAG("numb") as dag:
        Numb(
            task_id="make",
            endpoint=ENDPOINT,
            parameters={"prompt": "Blue"},
            deferrable=False,
            poll_interval=0.1,
            retries=1,
            retry_delay=timedelta(0),
        )
    return run_once(dag)


def assert_refused(run: Outcome, sandbox: Sandbox, message: str) -> None:
    assert run.is_final, run.errors
    assert message in run.error
    assert "nothing was paid" in run.error
    assert actions(sandbox) == []


# --- Pictures that can be read once


COLLECTIONS: dict[str, Callable[[list[str]], Any]] = {
    "generator": lambda paths: (path for path in paths),
    "map": lambda paths: map(str, paths),
    "glob": lambda paths: Path(paths[0]).parent.glob(Path(paths[0]).name),
    "values": lambda paths: dict(enumerate(paths)).values(),
    "keys": lambda paths: dict.fromkeys(paths).keys(),
    "deque": deque,
    "reversed": reversed,
}


@pytest.mark.parametrize("make", COLLECTIONS.values(), ids=COLLECTIONS)
def test_pictures_that_can_be_read_once_are_read_once(
    make: Callable[[list[str]], Any], conn_id: str, sandbox: Sandbox, pictures: Path
) -> None:
    coffee = str(pictures / "coffee.png")
    run = run_once(edit(pictures, images=make([coffee]), retries=0))
    assert (run.state, spent(sandbox)) == ("success", (1, 0))
    assert run.xcoms["odirouter_request"]["images"] == [coffee]


@pytest.mark.parametrize("make", COLLECTIONS.values(), ids=COLLECTIONS)
def test_pictures_of_a_template_are_read_once_too(
    make: Callable[[list[str]], Any], conn_id: str, sandbox: Sandbox, pictures: Path
) -> None:
    coffee = str(pictures / "coffee.png")
    run = run_once(bad_input.edit(pictures, images=make([coffee])))
    assert (run.state, spent(sandbox)) == ("success", (1, 0))
    assert run.xcoms["odirouter_request"]["images"] == [coffee]


def test_pictures_without_an_order_are_refused_since_a_retry_could_send_others(pictures: Path) -> None:
    with pytest.raises(InvalidParametersError, match="images: is a set, which has no order"):
        edit(pictures, images={"a.png", "b.png"})


def test_a_batch_reads_pictures_once_too(run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path) -> None:
    edits: Any = ({"prompt": f"Blue {number}", "images": pictures.glob("coffee.png")} for number in range(2))
    with DAG("batch") as dag:
        OdiRouterImageEditBatchOperator(
            task_id="edit", edits=edits, output_path=str(tmp_path), deferrable=False, poll_interval=0.1
        )
    run = run_dag(dag)
    assert (run.state, spent(sandbox)) == ("success", (2, 0))


# --- Parameters that no JSON or no database takes


BAD = {
    "NUL": ({"prompt": "a\0b"}, "parameters.prompt: holds a NUL character"),
    "half a character": ({"prompt": "a\ud83d"}, "parameters.prompt: holds a lone surrogate"),
    "pairs": ([["prompt", "x"]], "parameters: must be a JSON object (a dictionary), not list"),
    "nothing": (None, "parameters: must be a JSON object (a dictionary), not NoneType"),
    "text": ('{"prompt": "x"}', "parameters: must be a JSON object (a dictionary), not str"),
    "deep": ({"prompt": deep(60)}, "lists and objects deep"),
    "many": ({"prompt": [0] * 100_001}, "is one of more than 100,000 values"),
    "keys": ({"prompt": {1: 2}}, "parameters.prompt: has a key that is not text"),
    "bytes": ({"prompt": b"x"}, "parameters.prompt: is not JSON: its type is bytes"),
    "huge": ({"seed": 2**64}, "parameters.seed: is a whole number of more than 64 bits"),
    "set": ({"tags": {"a"}}, "parameters.tags: is not JSON: its type is set"),
    "NaN": ({"strength": float("nan")}, "parameters.strength: is infinite or not a number"),
    "decimal": ({"strength": Decimal("0.5")}, "parameters.strength: is not JSON: its type is Decimal"),
    "rude": ({"prompt": Rude()}, "parameters.prompt: is not JSON: its type is Rude"),
    "broken": (Broken(), "parameters: cannot be read: RuntimeError"),
    "reserved": ({"a": {"__classname__": "x"}}, "parameters.a.__classname__: is a key that Airflow reserves"),
}


@pytest.mark.parametrize(("parameters", "message"), BAD.values(), ids=BAD)
def test_parameters_that_cannot_be_kept_are_not_paid(
    parameters: Any, message: str, conn_id: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidParametersError) as raised:
        OdiRouterQueueOperator(task_id="make", endpoint=ENDPOINT, parameters=parameters)
    assert message in str(raised.value)
    assert_refused(run_queue(monkeypatch, parameters=parameters), sandbox, message)


@pytest.mark.parametrize("field", ["prompt", "user", "images", "mask"])
@pytest.mark.parametrize("text", ["a\0b.png", "a\udc80b.png"], ids=["NUL", "half a character"])
def test_no_text_of_an_edit_is_paid_that_cannot_be_kept(
    field: str, text: str, conn_id: str, sandbox: Sandbox, pictures: Path
) -> None:
    changes: dict[str, Any] = {field: text}
    with pytest.raises(InvalidParametersError, match=rf"- {field}"):
        edit(pictures, **changes)
    run = run_once(bad_input.edit(pictures, **{field: text}))
    assert (run.state, actions(sandbox)) == ("failed", [])
    assert run.is_final
    assert f"- {field}" in run.error


# --- The task's own parameters


TIMES = [float("inf"), float("nan"), 1e12, 10**400, -1, 0, True, "10", None, Decimal(10), timedelta(seconds=10)]


@pytest.mark.parametrize("name", ["timeout", "poll_interval"])
@pytest.mark.parametrize("value", TIMES, ids=lambda value: f"{value!r:.20}")
def test_an_impossible_time_is_not_paid(
    name: str, value: Any, conn_id: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        OdiRouterQueueOperator(task_id="make", endpoint=ENDPOINT, parameters={}, **{name: value})
    assert_refused(run_queue(monkeypatch, **{name: value}), sandbox, f"{name}: must be")


def nothing() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("name", ["timeout", "poll_interval"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e12], ids=str)
def test_an_impossible_time_is_refused_by_batch_sensor_and_decorator_too(name: str, value: float) -> None:
    from airflow.sdk import task

    arguments: dict[str, Any] = {"task_id": "edit", name: value}
    with pytest.raises(ValueError, match=r"must be"):
        OdiRouterImageEditBatchOperator(edits="a.jsonl", output_path="out", **arguments)
    with pytest.raises(ValueError, match=r"must be"):
        OdiRouterRequestSensor(request_id="mmsu_1", **arguments)
    with pytest.raises(ValueError, match=r"must be"), DAG("decorated"):
        task.odirouter_image_edit(**arguments)(nothing)()


def test_an_endless_execution_timeout_limits_nothing() -> None:
    now = datetime.now(UTC)
    context: Any = {"ti": SimpleNamespace(start_date=now)}
    assert wait.end_of_execution(context, timedelta.max) is None
    assert wait.end_of_execution(context, timedelta(seconds=5)) == now + timedelta(seconds=5)


OWN: dict[str, list[Any]] = {
    "endpoint": [None, "", "  ", 1, b"e", "a\0b", "../v2", "a b\n", Rude()],
    "odirouter_conn_id": [None, "", " ", 5, "a\0b", "a\ud800", Rude()],
    "output_path": ["", " ", 1, b"/out", ["/out"], {"a": 1}, "/tmp/a\0b", "/tmp/\udce9", Rude()],
    "storage_conn_id": [1, "a\0b", Rude()],
    "deferrable": [None, "True", 1],
    "cancel_on_kill": ["False", Rude()],
    "cancel_on_timeout": [0],
    "wait_for_completion": ["no"],
    "durable": ["False"],
    "on_lost_submit": ["never", None, ["fail"], Rude()],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OWN.items() for value in values])
def test_other_unusable_parameters_are_not_paid(
    name: str, value: Any, conn_id: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"endpoint": ENDPOINT, "parameters": {}, name: value}
    if name != "endpoint" or not isinstance(value, str) or not value.strip() or "\0" in value:
        with pytest.raises(ValueError, match=name):
            OdiRouterQueueOperator(task_id="make", **arguments)
    assert_refused(run_queue(monkeypatch, **{name: value}), sandbox, name)


class Shows(OdiRouterQueueOperator):
    """An edit whose record fields cannot be pushed."""

    fields: Any = None

    def record_fields(self) -> Any:
        if isinstance(self.fields, Exception):
            raise self.fields
        return self.fields


@pytest.mark.parametrize(
    "fields",
    [
        RuntimeError("no picture"),
        None,
        {"images": 5},
        {"parameters": {"a": Rude()}},
        {"parameters": {"a": "\0"}},
        {"b": 1},
    ],
    ids=["an error", "nothing", "other images", "an odd object", "NUL", "another field"],
)
def test_record_fields_that_cannot_be_pushed_are_found_before_the_submit(
    fields: Any, conn_id: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shows, "fields", fields)
    with DAG("shows") as dag:
        Shows(task_id="make", endpoint=ENDPOINT, parameters={"prompt": "Blue"}, deferrable=False, poll_interval=0.1)
    run = run_once(dag)
    if fields == {"b": 1}:  # The record has no such field, and so it is not pushed.
        assert (run.state, spent(sandbox)) == ("success", (1, 0))
    else:
        assert (run.state, actions(sandbox)) == ("failed", [])


# --- What an error says of the costs


def test_a_retry_does_not_say_that_nothing_was_paid(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE")
    run = run_dag(edit(pictures, prompt="{{ 'Blue' if ti.try_number == 1 else '' }}"))
    assert spent(sandbox) == (1, 0)
    assert "prompt: is empty" in str(run.errors[1])
    assert "this try has submitted nothing" in str(run.errors[1])
    assert "nothing was paid" not in str(run.errors[1])


def test_a_retry_of_a_batch_does_not_say_that_nothing_was_paid(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE")
    with DAG("batch") as dag:
        OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=[{"prompt": "{{ 'Blue' if ti.try_number == 1 else '' }}", "images": str(pictures / "coffee.png")}],
            output_path=str(tmp_path),
            deferrable=False,
            poll_interval=0.1,
            retries=1,
            retry_delay=timedelta(0),
        )
    run = run_dag(dag)
    assert spent(sandbox) == (1, 0)
    assert "this try has submitted nothing" in str(run.errors[1])
    assert "nothing was paid" not in str(run.errors[1])
