"""Real Airflow in this process: a database, and Dags that run to their end with ``dag.test()``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.sdk import DAG
from airflow.sdk.execution_time import task_runner

from airflow_provider_odirouter.compat import TaskDeferred
from airflow_provider_odirouter.sandbox import Sandbox


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's tables, in this test process's own home."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)


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


def kill_task() -> None:
    """Do what Airflow's supervisor does to a task that is marked or cleared."""
    handler = signal.getsignal(signal.SIGTERM)
    assert getattr(handler, "__module__", "").startswith("airflow"), "Airflow does not listen: pytest would end"
    os.kill(os.getpid(), signal.SIGTERM)


def actions(sandbox: Sandbox) -> list[str]:
    """What was called, in order."""
    return [entry.action for entry in sandbox.journal]
