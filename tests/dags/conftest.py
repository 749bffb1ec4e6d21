"""Real Airflow in this process: a database, and Dags that run to their end with ``dag.test()``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.sdk import DAG
from airflow.sdk.execution_time import context, supervisor, task_runner

from airflow_provider_odirouter.compat import TaskDeferred
from airflow_provider_odirouter.durability import KEY
from airflow_provider_odirouter.operators import steps
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator

HAS_STORE = hasattr(context, "TaskStateStoreAccessor")
anywhere = pytest.mark.parametrize("deferrable", [True, False], ids=["in the triggerer", "on the worker"])
needs_store = pytest.mark.skipif(not HAS_STORE, reason="before Airflow 3.3 there is no task state store")


@pytest.fixture(scope="session")
def airflow_db() -> Iterator[None]:
    """Airflow's tables, in this test process's own home."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        # As Airflow 3.3 does itself: before, it builds its API anew for each task, for four seconds.
        patch.setattr(supervisor, "in_process_api_server", cache(supervisor.in_process_api_server))
        yield


@dataclass(frozen=True)
class Run:
    """A run of a Dag that has ended."""

    state: str
    run: Any
    errors: list[BaseException]
    """What the tries of its tasks raised, in order."""

    def state_of(self, task_id: str) -> list[str]:
        """The states of a task's instances, in the order of their map index."""
        instances = [ti for ti in self.run.get_task_instances() if ti.task_id == task_id]
        return [str(ti.state) for ti in sorted(instances, key=lambda ti: ti.map_index)]

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task pushed."""
        ti = self.run.get_task_instance(task_id, map_index=map_index)
        return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index if map_index >= 0 else None)

    def note(self, task_id: str = "edit", map_index: int = -1) -> Any:
        """What Airflow keeps of a task instance for its next try: ``None``, if that is nothing."""
        from airflow._shared.state import TaskScope
        from airflow.state import get_state_backend

        scope = TaskScope(self.run.dag_id, self.run.run_id, task_id, map_index)
        value = get_state_backend().get(scope, KEY)
        return None if value is None else json.loads(value)

    @property
    def error(self) -> str:
        """The text of the only error."""
        [error] = self.errors
        return str(error)

    @property
    def is_final(self) -> bool:
        """Whether its only error told Airflow not to try again."""
        return [type(error).__name__ for error in self.errors] == ["AirflowFailException"]


def serialize(dag: DAG) -> None:
    """Bring a Dag into the database as the dag processor does, but without a file of its own."""
    try:
        from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    except ImportError:  # Airflow 3.1
        from airflow.models.dagbag import BundleDagBag, sync_bag_to_db  # type: ignore[no-redef]

    bundle = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    DagBundlesManager().sync_bundles_to_db()
    bag = BundleDagBag(dag_folder=bundle, bundle_path=bundle)
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
            errors.append(error)
            raise

    monkeypatch.setattr(task_runner, "_execute_task", noting_errors)

    def run(dag: DAG, **conf: Any) -> Run:
        serialize(dag)
        dag_run = dag.test(run_conf=conf)
        return Run(str(dag_run.state), dag_run, errors)

    terminate = signal.getsignal(signal.SIGTERM)
    yield run
    # Airflow's task runner takes the signal, and never gives it back.
    signal.signal(signal.SIGTERM, terminate)


Fail = Callable[..., None]


@pytest.fixture
def fail_after_submit(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Lets XCom fail, right after the submit, in these tries: ``fail_after_submit(1, 2)``."""
    publish = steps.publish

    def make(*tries: int) -> None:
        def failing(context: Any, *arguments: Any) -> None:
            if context["ti"].try_number in tries:
                raise OSError("no XCom today")
            publish(context, *arguments)

        monkeypatch.setattr(steps, "publish", failing)

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
    handler = signal.getsignal(signal.SIGTERM)
    assert getattr(handler, "__module__", "").startswith("airflow"), "Airflow does not listen: pytest would end"
    os.kill(os.getpid(), signal.SIGTERM)


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
    """Do what Airflow does to a task that a user marks, but for the kill."""
    from airflow.utils.session import create_session

    with create_session() as session:
        _instance(context, session).state = state


def _instance(context: Any, session: Any) -> Any:
    from airflow.models.taskinstance import TaskInstance

    ti = context["ti"]
    return session.query(TaskInstance).filter_by(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id).one()
