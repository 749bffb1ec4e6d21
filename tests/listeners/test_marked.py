"""A person marks a task that has left requests running: they are cancelled, unless another try may need them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.errors import RequestTimeoutError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.failures import push_failure
from airflow_provider_odirouter.listeners.delay import Delay
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from airflow_provider_odirouter.xcoms import REQUEST_XCOM
from tests.conftest import Clock, Listener, actions, spent
from tests.dags.conftest import RunDag, edit
from tests.listeners.conftest import (
    Abandon,
    DyingWorker,
    Mark,
    ShopEdit,
    WorkerDiedError,
    call,
    call_for_run,
    call_for_task,
    change,
    clear,
    dying_batch,
    dying_edit,
    finish,
    instance,
)
from tests.plugins.conftest import push

pytestmark = pytest.mark.every_version

ENDPOINT = "gpt_image_1_edit"


class ShopSubmitter(DyingWorker, OdiRouterQueueOperator):
    """A user's own class."""


class ShopSensor(DyingWorker, OdiRouterRequestSensor):
    """A user's own class."""

    def poke(self, context: Any) -> bool:
        raise WorkerDiedError


class GivesUp(ShopEdit):
    """Fails by itself, and leaves its request running on purpose."""

    def execute(self, context: Any) -> Any:
        with push_failure(context, self.take_ownership(context)):
            try:
                super().execute(context)
            except Exception as error:
                raise RequestTimeoutError("It takes too long.") from error


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_an_abandoned_request_is_cancelled_when_its_task_is_marked(
    state: str, abandon: Abandon, mark: Mark, sandbox: Sandbox, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = abandon(dying_edit(pictures))
    [request_id] = sandbox.alive
    with caplog.at_level(logging.INFO):
        mark(run, state)
    assert not sandbox.alive
    assert spent(sandbox) == (1, 1)
    [line] = [record.getMessage() for record in caplog.records if "listeners" in record.name]
    assert f"edit.edit of {run.run.run_id} was marked as {state}" in line
    assert f"Cancelled: request {request_id}." in line


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_all_abandoned_requests_of_a_batch_are_cancelled_when_its_task_is_marked(
    state: str, abandon: Abandon, mark: Mark, sandbox: Sandbox, tmp_path: Path
) -> None:
    run = abandon(dying_batch(tmp_path))
    assert len(sandbox.alive) == 3
    mark(run, state)
    assert not sandbox.alive
    assert spent(sandbox) == (3, 3)


def test_a_batch_is_found_if_its_worker_had_a_relative_output_path(
    abandon: Abandon, mark: Mark, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = abandon(dying_batch(Path("out")))
    monkeypatch.chdir("/")
    mark(run)
    assert not sandbox.alive


@pytest.mark.parametrize("run_state", ["failed", "success"])
@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_an_abandoned_request_is_cancelled_when_its_run_is_marked(
    run_state: str, state: str, abandon: Abandon, no_delay: Delay, sandbox: Sandbox, pictures: Path
) -> None:
    run = abandon(dying_edit(pictures))
    change(run, state=state)
    call_for_run(run, run_state)
    finish(no_delay)
    assert not sandbox.alive


def test_marking_a_mapped_instance_cancels_only_its_own_request(
    abandon: Abandon, no_delay: Delay, sandbox: Sandbox, pictures: Path
) -> None:
    with DAG("mapped") as dag:
        ShopEdit.partial(task_id="edit", images=[str(pictures / "small.png")], retries=0).expand(prompt=["A", "B", "C"])
    run = abandon(dag)
    call_for_task(run, "failed", map_index=1)
    finish(no_delay)
    cancelled = [request.parameters["prompt"] for request in sandbox.requests if request.error_type == "CANCELED"]
    assert cancelled == ["B"]


@pytest.mark.parametrize(
    ("arguments", "cancels"), [({"cancel_on_kill": False}, 0), ({"wait_for_completion": False}, 0), ({}, 1)]
)
def test_a_request_without_cancel_on_kill_or_of_another_task_is_not_cancelled(
    arguments: dict[str, Any], cancels: int, abandon: Abandon, mark: Mark, sandbox: Sandbox, pictures: Path
) -> None:
    mark(abandon(dying_edit(pictures, **arguments)))
    assert spent(sandbox) == (1, cancels)
    assert "status" not in actions(sandbox) or cancels


def test_a_batch_without_cancel_on_kill_is_not_cancelled(
    abandon: Abandon, mark: Mark, sandbox: Sandbox, tmp_path: Path
) -> None:
    mark(abandon(dying_batch(tmp_path, cancel_on_kill=False)))
    assert len(sandbox.alive) == 3


@pytest.mark.parametrize(
    ("arguments", "cancels"),
    [({}, 0), ({"cancel_on_kill": True}, 1), ({"cancel_on_kill": True, "deferrable": False, "mode": "reschedule"}, 0)],
)
def test_a_sensors_request_is_cancelled_only_with_cancel_on_kill(
    arguments: dict[str, Any], cancels: int, abandon: Abandon, mark: Mark, sandbox: Sandbox, conn_id: str
) -> None:
    sandbox.configure(run_seconds=3600)
    parameters = {"prompt": "Blue", "images": ["https://example.com/cup.png"]}
    request_id = OdiRouterHook(conn_id).submit(ENDPOINT, parameters).request_id
    with DAG("sensor") as dag:
        ShopSensor(task_id="edit", request_id=request_id, retries=0, **arguments)
    mark(abandon(dag))
    assert spent(sandbox) == (1, cancels)


def test_an_endpoint_of_any_kind_is_cancelled(abandon: Abandon, mark: Mark, sandbox: Sandbox) -> None:
    parameters = {"prompt": "Blue", "images": ["https://example.com/cup.png"]}
    with DAG("queue") as dag:
        ShopSubmitter(task_id="edit", endpoint=ENDPOINT, parameters=parameters, retries=0)
    mark(abandon(dag))
    assert spent(sandbox) == (1, 1)


def test_a_request_that_its_trigger_cancelled_is_not_cancelled_again_or_logged(
    abandon: Abandon, mark: Mark, sandbox: Sandbox, pictures: Path, conn_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = abandon(dying_edit(pictures))
    OdiRouterHook(conn_id).cancel(ENDPOINT, sandbox.alive[0])
    with caplog.at_level(logging.INFO):
        mark(run)
    assert actions(sandbox) == ["submit", "cancel", "status"]
    assert not [record for record in caplog.records if "listeners" in record.name]


def test_a_request_that_has_ended_is_not_cancelled(
    abandon: Abandon, mark: Mark, sandbox: Sandbox, clock: Clock, pictures: Path
) -> None:
    run = abandon(dying_edit(pictures))
    clock.skip(3600)
    mark(run, "success")
    assert spent(sandbox) == (1, 0)


def test_no_request_is_cancelled_for_a_task_that_was_cleared_since(
    abandon: Abandon, no_delay: Delay, sandbox: Sandbox, pictures: Path
) -> None:
    run = abandon(dying_edit(pictures))
    marked = instance(run)
    clear(run)
    call("on_task_instance_failed", previous_state=None, task_instance=marked, error="")
    call_for_run(run, "failed")
    finish(no_delay)
    assert actions(sandbox) == ["submit"]


@pytest.mark.parametrize("meanwhile", ["cleared", "failed again", "another request", "marked otherwise"])
def test_no_request_is_cancelled_if_its_task_changes_during_the_poll(
    meanwhile: str, abandon: Abandon, mark: Mark, sandbox: Sandbox, listeners: list[Listener], pictures: Path
) -> None:
    run = abandon(dying_edit(pictures))
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
def test_a_request_that_its_task_gave_up_is_cancelled_only_before_a_retry(
    max_tries: int, cancels: int, abandon: Abandon, mark: Mark, sandbox: Sandbox, pictures: Path
) -> None:
    with DAG("gives_up") as dag:
        GivesUp(task_id="edit", prompt="Blue", images=[str(pictures / "small.png")], retries=0)
    run = abandon(dag)
    change(run, max_tries=max_tries)
    mark(run, "success")
    assert spent(sandbox) == (1, cancels)


def test_the_request_of_a_task_that_succeeded_is_not_even_polled(
    run_dag: RunDag, mark: Mark, sandbox: Sandbox, pictures: Path
) -> None:
    run = run_dag(edit(pictures))
    assert run.state == "success"
    before = actions(sandbox)
    mark(run)
    assert actions(sandbox) == before


def test_the_listener_ignores_a_task_that_ends_by_itself(
    abandon: Abandon, no_delay: Delay, sandbox: Sandbox, pictures: Path
) -> None:
    run = abandon(dying_edit(pictures))
    for state in ("failed", "success", "skipped"):
        call_for_task(run, state, previous_state="running")
    assert no_delay._thread is None
    assert not no_delay._marks
