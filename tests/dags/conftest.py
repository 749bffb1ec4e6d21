"""Real Airflow in this process: a database, and Dags that run to their end with ``dag.test()``."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.sdk import DAG
from airflow.sdk.execution_time import context, task_runner

from airflow_provider_odirouter import xcoms
from airflow_provider_odirouter.compat import TaskDeferred
from airflow_provider_odirouter.lifecycle.state import KEY
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.build_once import build_once, create_database
from tests.conftest import DictStore, Listener, actions

HAS_STORE = hasattr(context, "TaskStateStoreAccessor")
anywhere = pytest.mark.parametrize("deferrable", [True, False], ids=["in the triggerer", "on the worker"])
ONE_ENDED = {"version": 1, "submits": 1, "cost": None, "ended": True}
"""The note of a task whose only request has ended without a result to take."""
needs_store = pytest.mark.skipif(not HAS_STORE, reason="before Airflow 3.3 there is no task state store")


@cache
def prepare_airflow(folder: Path) -> None:
    """Make Airflow ready in this process, which has no other use for it: nothing is undone."""
    create_database(folder)
    patch = pytest.MonkeyPatch()
    # `dag.test()` would do that again in each run.
    patch.setattr(DagBundlesManager, "sync_bundles_to_db", lambda *_, **__: None)
    build_once(patch)


@pytest.fixture(scope="session")
def airflow_db(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """Airflow's tables, in this test process's own home; each module that imports this fixture has its own of it."""
    folder = tmp_path_factory.getbasetemp()
    prepare_airflow(folder if worker_id == "master" else folder.parent)


@dataclass(frozen=True)
class Outcome:
    """What has become of a task or a Dag."""

    state: str
    errors: list[BaseException]
    """What the tries raised, in order."""

    @property
    def error(self) -> str:
        """The text of the only error."""
        [error] = self.errors
        return str(error)

    @property
    def is_final(self) -> bool:
        """Whether its only error is one that Airflow does not retry."""
        return [type(error).__name__ for error in self.errors] == ["AirflowFailException"]


@dataclass(frozen=True)
class Try(Outcome):
    """A try of a task that has ended, without Airflow's database: that takes a tenth of the time of a Dag's run."""

    xcoms: dict[str, Any]


def run_once(dag: DAG) -> Try:
    """Run the only task of a Dag as a worker does: for what happens in ``execute()`` alone."""
    task: Any
    [task] = dag.tasks
    xcoms: dict[str, Any] = {}
    ti = SimpleNamespace(
        id=uuid4(),
        dag_id=dag.dag_id,
        task_id=task.task_id,
        run_id="run",
        map_index=-1,
        try_number=1,
        max_tries=task.retries,
        start_date=datetime.now(UTC),
        state="running",
        xcom_push=lambda key, value: xcoms.update({key: value}),
    )
    context: Any = {"ti": ti, "task": task, "dag": dag, "outlet_events": {}, "task_state_store": DictStore()}
    try:
        task.render_template_fields(context)
        task.pre_execute(context)
        task.execute(context)
    except Exception as error:  # noqa: BLE001 - the outcome, like any other
        return Try("failed", [error], xcoms)
    return Try("success", [], xcoms)


@dataclass(frozen=True)
class Run(Outcome):
    """A run of a Dag that has ended."""

    run: Any

    def state_of(self, task_id: str) -> list[str]:
        """The states of a task's instances, in the order of their map index."""
        instances = [ti for ti in self.run.get_task_instances() if ti.task_id == task_id]
        return [str(ti.state) for ti in sorted(instances, key=lambda ti: ti.map_index)]

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task pushed."""
        ti = self.run.get_task_instance(task_id, map_index=map_index)
        return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index if map_index >= 0 else None)

    def note(self, task_id: str = "edit", map_index: int = -1) -> Any:
        """The note in Airflow's store for the next try of a task instance; ``None``: there is none."""
        from airflow._shared.state import TaskScope
        from airflow.state import get_state_backend

        scope = TaskScope(self.run.dag_id, self.run.run_id, task_id, map_index)
        value = get_state_backend().get(scope, KEY)
        return None if value is None else json.loads(value)


def serialize(dag: DAG) -> None:
    """Write a Dag to the database as the Dag processor does, but without a file."""
    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag, sync_bag_to_db  # type: ignore[no-redef]

    bundle = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    bag = DagBag(dag_folder=bundle, bundle_path=bundle)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


RunDag = Callable[..., Run]


@pytest.fixture
def run_dag(airflow_db: None, conn_id: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDag]:
    """Run a Dag to its end, deferrals included, against the sandbox."""
    errors: list[BaseException] = []
    execute_task = task_runner._execute_task

    def noting_errors(*arguments: Any, **keywords: Any) -> Any:
        try:
            return execute_task(*arguments, **keywords)
        except TaskDeferred:
            raise
        except BaseException as error:
            if type(error).__name__ != "TaskAwaitingInput":  # Airflow 3.3: like a deferral
                errors.append(error)
            raise

    monkeypatch.setattr(task_runner, "_execute_task", noting_errors)
    # Or the first poll is up to an interval late.
    monkeypatch.setattr("airflow_provider_odirouter.lifecycle.wait.random", SimpleNamespace(random=lambda: 0.0))

    def run(dag: DAG, **conf: Any) -> Run:
        serialize(dag)
        dag_run = dag.test(run_conf=conf)
        return Run(str(dag_run.state), errors, dag_run)

    terminate = signal.getsignal(signal.SIGTERM)
    yield run
    # Airflow's task runner replaces the handler, and does not restore it.
    signal.signal(signal.SIGTERM, terminate)


@pytest.fixture
def poll_late(run_dag: RunDag, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the first poll of a request on a worker a whole interval after its submit."""
    monkeypatch.setattr("airflow_provider_odirouter.lifecycle.wait.random", SimpleNamespace(random=lambda: 0.99))


Fail = Callable[..., None]


@pytest.fixture
def fail_after_submit(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let the push of XComs fail, right after the submit, in these tries: ``fail_after_submit(1, 2)``."""
    push = xcoms.push_request

    def make(*tries: int) -> None:
        def failing(ti: Any, *arguments: Any) -> None:
            if ti.try_number in tries:
                raise OSError("no XCom today")
            push(ti, *arguments)

        monkeypatch.setattr(xcoms, "push_request", failing)

    return make


def edit(
    pictures: Path,
    operator: type[OdiRouterImageEditOperator] = OdiRouterImageEditOperator,
    dag_id: str = "edit",
    **arguments: Any,
) -> DAG:
    """A Dag of one edit on the worker, with one retry at once."""
    defaults: dict[str, Any] = {
        "prompt": "Blue",
        "images": [str(pictures / "coffee.png")],
        "deferrable": False,
        "poll_interval": 0.1,
        "retries": 1,
        "retry_delay": timedelta(0),
    }
    with DAG(dag_id) as dag:
        operator(task_id="edit", **(defaults | arguments))
    return dag


def kill_task() -> None:
    """Do what Airflow's supervisor does to a task that is marked or cleared."""
    _signal_airflow(signal.SIGTERM)


def _signal_airflow(number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    assert getattr(handler, "__module__", "").startswith("airflow"), (
        "Airflow has no handler: the signal would end pytest"
    )
    os.kill(os.getpid(), number)


def end_execution_timeout(sandbox: Sandbox, action: str) -> Listener:
    """Does what Airflow's timer does when ``execution_timeout`` has passed, at the first call of a kind."""

    def end(entry: JournalEntry) -> None:
        if entry.action == action and actions(sandbox).count(action) == 1:
            _signal_airflow(signal.SIGALRM)

    return end


def kill_in_second_try(context: Any) -> None:
    """Kill the task before its operator begins: for ``pre_execute``."""
    if context["ti"].try_number == 2:
        kill_task()


def clear(context: Any) -> None:
    """
    Do what Airflow does to a task that a user clears.

    It reads the Dag's retries from the database, where a Dag of the same id changes twice a minute at most.
    """
    from airflow.models.taskinstance import clear_task_instances
    from airflow.utils.session import create_session

    with create_session() as session:
        clear_task_instances([_instance(context, session)], session, dag_run_state=False)


def mark(context: Any, state: str) -> None:
    """Do what Airflow does to a task that a user marks, without the kill."""
    from airflow.utils.session import create_session

    with create_session() as session:
        _instance(context, session).state = state


def _instance(context: Any, session: Any) -> Any:
    from airflow.models.taskinstance import TaskInstance

    ti = context["ti"]
    return session.query(TaskInstance).filter_by(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id).one()
