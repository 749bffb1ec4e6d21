"""Runs that have abandoned their requests, and the calls that Airflow's API server makes when a person marks them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.listeners.listener import get_listener_manager
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG
from airflow.utils.session import create_session

from airflow_provider_odirouter.compat import TaskDeferred
from airflow_provider_odirouter.listeners import marked
from airflow_provider_odirouter.listeners.delay import Delay
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import Sandbox
from tests.dags.batches import THREE, batch
from tests.dags.conftest import Run, RunDag, airflow_db, edit, run_dag

__all__ = ["airflow_db", "run_dag"]


class WorkerDiedError(Exception):
    """Raised after all that the operator does."""


class DyingWorker:
    """Its worker dies: right after the task has deferred, before its trigger begins, or right after the task's end."""

    def execute(self, context: Any) -> Any:
        task: Any = super()
        with suppress(TaskDeferred):
            task.execute(context)
        raise WorkerDiedError


class ShopEdit(DyingWorker, OdiRouterImageEditOperator):
    """A user's own class."""


class ShopBatch(DyingWorker, OdiRouterImageEditBatchOperator):
    """A user's own class."""


def dying_edit(pictures: Path, dag_id: str = "edit", **arguments: Any) -> DAG:
    return edit(pictures, ShopEdit, dag_id, **{"deferrable": True, "retries": 0} | arguments)


def dying_batch(output: Path, **arguments: Any) -> DAG:
    return batch(THREE, output, ShopBatch, **{"deferrable": True, "retries": 0} | arguments)


Abandon = Callable[[DAG], Run]


@pytest.fixture
def abandon(run_dag: RunDag, sandbox: Sandbox) -> Abandon:
    """Run a Dag whose worker dies, so that no process waits for its requests."""

    def run(dag: DAG) -> Run:
        sandbox.configure(run_seconds=3600)
        return run_dag(dag)

    return run


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> Delay:
    """Marks are handled without a delay, but in their thread as always."""
    delay = Delay(marked._cancel, seconds=0.0)
    monkeypatch.setattr(marked, "_delay", delay)
    return delay


def finish(delay: Delay) -> None:
    """Wait until all marks have been handled."""
    while thread := delay._thread:
        thread.join(30)
        assert not thread.is_alive()


def call(hook: str, **arguments: Any) -> None:
    """
    Call the listener as Airflow does.

    It is registered only for this call: in this process, Airflow also ends runs by itself.
    """
    manager = get_listener_manager()
    manager.add_listener(marked)
    try:
        getattr(manager.hook, hook)(**arguments)
    finally:
        manager.pm.unregister(marked)


def call_for_task(run: Run, state: str, previous_state: str | None = None, map_index: int = -1) -> None:
    error = {"error": "It was marked."} if state == "failed" else {}
    ti = instance(run, map_index)
    call(f"on_task_instance_{state}", previous_state=previous_state, task_instance=ti, **error)


def call_for_run(run: Run, state: str) -> None:
    call(f"on_dag_run_{state}", dag_run=run.run, msg="")


def instance(run: Run, map_index: int = -1) -> Any:
    return run.run.get_task_instance("edit", map_index=map_index)


def change(run: Run, **values: Any) -> None:
    """Change the task's only instance in the database."""
    with create_session() as session:
        ti = session.query(TaskInstance).filter_by(dag_id=run.run.dag_id, run_id=run.run.run_id).one()
        for name, value in values.items():
            setattr(ti, name, value)


def clear(run: Run) -> None:
    """Change the task instance as a user's clear does."""
    old = instance(run).id
    change(run, state=None, id=type(old)(str(uuid.uuid4())))


Mark = Callable[..., None]


@pytest.fixture
def mark(no_delay: Delay) -> Mark:
    """Mark the task of a run, and wait until the mark has been handled."""

    def mark(run: Run, state: str = "failed") -> None:
        change(run, state=state)
        call_for_task(run, state)
        finish(no_delay)

    return mark
