"""A person marks a task that has left requests running: they are cancelled, unless another has a claim to them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.errors import RequestTimeoutError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.listeners.delay import Delay
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.records import REQUEST_XCOM
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from tests.conftest import Clock, Listener, actions, spent
from tests.dags.conftest import RunDag, edit
from tests.listeners.conftest import (
    Dies,
    Lonely,
    Mark,
    ShopEdit,
    WorkerDiedError,
    call,
    call_for_run,
    call_for_task,
    change,
    clear,
    finish,
    instance,
    lonely_batch,
    lonely_edit,
)
from tests.plugins.conftest import push

ENDPOINT = "gpt_image_1_edit"


class ShopSubmitter(Dies, OdiRouterQueueOperator):
    """A user's own class."""


class ShopSensor(Dies, OdiRouterRequestSensor):
    """A user's own class."""

    def poke(self, context: Any) -> bool:
        raise WorkerDiedError


class GivesUp(ShopEdit):
    """Fails by itself, and leaves its request running on purpose."""

    def execute(self, context: Any) -> Any:
        from airflow_provider_odirouter.operators import steps

        with steps.showing_failure(context, self.take_ownership(context)):
            try:
                super().execute(context)
            except Exception as error:
                raise RequestTimeoutError("It takes too long.") from error


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_an_edit_that_runs_alone_is_cancelled_when_its_task_is_marked(
    state: str, lonely: Lonely, mark: Mark, sandbox: Sandbox, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = lonely(lonely_edit(pictures))
    [request_id] = sandbox.alive
    with caplog.at_level(logging.INFO):
        mark(run, state)
    assert not sandbox.alive
    assert spent(sandbox) == (1, 1)
    [line] = [record.getMessage() for record in caplog.records if "listeners" in record.name]
    assert f"edit.edit of {run.run.run_id} was marked as {state}" in line
    assert f"Request {request_id}: It was cancelled." in line


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_all_requests_of_a_batch_that_run_alone_are_cancelled_when_its_task_is_marked(
    state: str, lonely: Lonely, mark: Mark, sandbox: Sandbox, tmp_path: Path
) -> None:
    run = lonely(lonely_batch(tmp_path))
    assert len(sandbox.alive) == 3
    mark(run, state)
    assert not sandbox.alive
    assert spent(sandbox) == (3, 3)


def test_a_batch_is_found_wherever_its_worker_thinks_that_its_folder_lies(
    lonely: Lonely, mark: Mark, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = lonely(lonely_batch(Path("out")))
    monkeypatch.chdir("/")
    mark(run)
    assert not sandbox.alive


@pytest.mark.parametrize("run_state", ["failed", "success"])
@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_what_runs_alone_is_cancelled_when_its_run_is_marked(
    run_state: str, state: str, lonely: Lonely, at_once: Delay, sandbox: Sandbox, pictures: Path
) -> None:
    run = lonely(lonely_edit(pictures))
    change(run, state=state)
    call_for_run(run, run_state)
    finish(at_once)
    assert not sandbox.alive


def test_a_mapped_instance_that_is_marked_has_its_own_request_cancelled(
    lonely: Lonely, at_once: Delay, sandbox: Sandbox, pictures: Path
) -> None:
    with DAG("mapped") as dag:
        ShopEdit.partial(task_id="edit", images=[str(pictures / "small.png")], retries=0).expand(prompt=["A", "B", "C"])
    run = lonely(dag)
    call_for_task(run, "failed", map_index=1)
    finish(at_once)
    canceled = [request.parameters["prompt"] for request in sandbox.requests if request.error_type == "CANCELED"]
    assert canceled == ["B"]


@pytest.mark.parametrize(
    ("arguments", "cancels"), [({"cancel_on_kill": False}, 0), ({"wait_for_completion": False}, 0), ({}, 1)]
)
def test_a_request_that_is_not_to_be_cancelled_or_is_another_tasks_is_left_alone(
    arguments: dict[str, Any], cancels: int, lonely: Lonely, mark: Mark, sandbox: Sandbox, pictures: Path
) -> None:
    mark(lonely(lonely_edit(pictures, **arguments)))
    assert spent(sandbox) == (1, cancels)
    assert "status" not in actions(sandbox) or cancels


def test_a_batch_that_is_not_to_be_cancelled_is_left_alone(
    lonely: Lonely, mark: Mark, sandbox: Sandbox, tmp_path: Path
) -> None:
    mark(lonely(lonely_batch(tmp_path, cancel_on_kill=False)))
    assert len(sandbox.alive) == 3


@pytest.mark.parametrize(
    ("arguments", "cancels"),
    [({}, 0), ({"cancel_on_kill": True}, 1), ({"cancel_on_kill": True, "deferrable": False, "mode": "reschedule"}, 0)],
)
def test_a_sensor_leaves_the_request_alone_unless_told_otherwise(
    arguments: dict[str, Any], cancels: int, lonely: Lonely, mark: Mark, sandbox: Sandbox, conn_id: str
) -> None:
    sandbox.configure(run_seconds=3600)
    parameters = {"prompt": "Blue", "images": ["https://example.com/cup.png"]}
    request_id = OdiRouterHook(conn_id).submit(ENDPOINT, parameters).request_id
    with DAG("sensor") as dag:
        ShopSensor(task_id="edit", request_id=request_id, retries=0, **arguments)
    mark(lonely(dag))
    assert spent(sandbox) == (1, cancels)


def test_an_endpoint_of_any_kind_is_cancelled(lonely: Lonely, mark: Mark, sandbox: Sandbox) -> None:
    parameters = {"prompt": "Blue", "images": ["https://example.com/cup.png"]}
    with DAG("queue") as dag:
        ShopSubmitter(task_id="edit", endpoint=ENDPOINT, parameters=parameters, retries=0)
    mark(lonely(dag))
    assert spent(sandbox) == (1, 1)


def test_a_request_that_its_trigger_has_cancelled_is_not_cancelled_again_and_nothing_is_said(
    lonely: Lonely, mark: Mark, sandbox: Sandbox, pictures: Path, conn_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = lonely(lonely_edit(pictures))
    OdiRouterHook(conn_id).cancel(ENDPOINT, sandbox.alive[0])
    with caplog.at_level(logging.INFO):
        mark(run)
    assert actions(sandbox) == ["submit", "cancel", "status"]
    assert not [record for record in caplog.records if "listeners" in record.name]


def test_a_request_that_has_ended_meanwhile_is_not_cancelled(
    lonely: Lonely, mark: Mark, sandbox: Sandbox, clock: Clock, pictures: Path
) -> None:
    run = lonely(lonely_edit(pictures))
    clock.skip(3600)
    mark(run, "success")
    assert spent(sandbox) == (1, 0)


def test_a_task_that_a_person_has_cleared_since_is_left_alone(
    lonely: Lonely, at_once: Delay, sandbox: Sandbox, pictures: Path
) -> None:
    run = lonely(lonely_edit(pictures))
    marked = instance(run)
    clear(run)
    call("on_task_instance_failed", previous_state=None, task_instance=marked, error="")
    call_for_run(run, "failed")
    finish(at_once)
    assert actions(sandbox) == ["submit"]


@pytest.mark.parametrize("meanwhile", ["cleared", "failed again", "another request", "marked otherwise"])
def test_a_task_that_changes_while_the_service_is_asked_is_left_alone(
    meanwhile: str, lonely: Lonely, mark: Mark, sandbox: Sandbox, listeners: list[Listener], pictures: Path
) -> None:
    run = lonely(lonely_edit(pictures))
    record = run.xcom("edit", REQUEST_XCOM)

    def listen(entry: JournalEntry) -> None:
        if entry.action != "status":
            return
        match meanwhile:
            case "cleared":
                clear(run)
            case "failed again":
                clear(run)
                change(run, state="failed")
            case "another request":
                push(run, REQUEST_XCOM, record | {"request_id": "mmsu_other"})
            case "marked otherwise":
                change(run, state="up_for_retry")

    listeners.append(listen)
    mark(run)
    assert actions(sandbox) == ["submit", "status"]


@pytest.mark.parametrize(("max_tries", "cancels"), [(0, 0), (1, 1)], ids=["its last try", "waits for its retry"])
def test_a_task_that_has_given_its_request_up_by_itself_leaves_it_running(
    max_tries: int, cancels: int, lonely: Lonely, mark: Mark, sandbox: Sandbox, pictures: Path
) -> None:
    with DAG("gives_up") as dag:
        GivesUp(task_id="edit", prompt="Blue", images=[str(pictures / "small.png")], retries=0)
    run = lonely(dag)
    change(run, max_tries=max_tries)
    mark(run, "success")
    assert spent(sandbox) == (1, cancels)


def test_a_task_that_has_ended_well_is_not_even_asked_for(
    run_dag: RunDag, mark: Mark, sandbox: Sandbox, pictures: Path
) -> None:
    run = run_dag(edit(pictures))
    assert run.state == "success"
    before = actions(sandbox)
    mark(run)
    assert actions(sandbox) == before


def test_a_task_that_ends_by_itself_is_none_of_the_listeners_business(
    lonely: Lonely, at_once: Delay, sandbox: Sandbox, pictures: Path
) -> None:
    run = lonely(lonely_edit(pictures))
    for state in ("failed", "success", "skipped"):
        call_for_task(run, state, previous_state="running")
    assert at_once._thread is None
    assert not at_once._marks
