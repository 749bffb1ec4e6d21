"""What the listener costs other tasks: nothing where they run and where Dags are parsed, little where people mark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import BaseOperator

from tests.dags.conftest import RunDag, airflow_db, run_dag

__all__ = ["airflow_db", "run_dag"]

HEAVY = ("httpx", "aiohttp", "PIL", "fsspec", "airflow.providers")
LISTENERS = "airflow_provider_odirouter.listeners"

LISTENERS_OF_PROCESS = """
from airflow.listeners.listener import get_listener_manager
import airflow_provider_odirouter.plugins.images_tab
print("KNOWN", *(getattr(one, "__name__", one) for one in get_listener_manager().pm.get_plugins()))
print("LOADED", *(name for name in sys.modules if name.startswith("airflow_provider_odirouter.")))
"""

PARSE = """
from airflow.sdk import DAG
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
try:
    from airflow.dag_processing.dagbag import BundleDagBag
except ImportError:
    from airflow.models.dagbag import BundleDagBag
folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
with DAG("waits") as dag:
    DateTimeSensorAsync(task_id="wait", target_time="2026-01-01", end_from_trigger=True)
try:
    BundleDagBag(dag_folder=folder, bundle_path=folder).bag_dag(dag)
    print("PARSED")
except Exception as error:
    print("REFUSED", error)
"""

CALL = """
import threading
from types import SimpleNamespace
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
with create_session() as session:
    ti = session.query(TaskInstance).filter_by(**json.loads(sys.argv[1])).one()
    session.expunge_all()
before = set(sys.modules)
from airflow_provider_odirouter.listeners import marked
print("IMPORTED", *sorted(set(sys.modules) - before))
marked._delay._seconds = 0.0
run = SimpleNamespace(dag_id=ti.dag_id, run_id=ti.run_id)
marked.on_task_instance_failed(sys.argv[2] or None, ti)
marked.on_task_instance_success(sys.argv[2] or None, ti)
if not sys.argv[2]:
    marked.on_dag_run_failed(run)
print("THREADS", threading.active_count() - 1)
while thread := marked._delay._thread:
    thread.join()
print("LOADED", *sorted(set(sys.modules) - before))
"""


def run_fresh(code: str, *arguments: str, **environment: str) -> dict[str, list[str]]:
    """Run code in a process of its own; return the words of its lines, by the first of each."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import json, os, sys\n{code}", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if line.strip()}


def ours(modules: list[str]) -> set[str]:
    return {name for name in modules if name.startswith("airflow_provider_odirouter.")}


@pytest.mark.parametrize("context", ["", "client"], ids=["a scheduler or a dag processor", "a task"])
def test_only_the_api_server_knows_of_the_listener(context: str, airflow_db: None) -> None:
    said = run_fresh(LISTENERS_OF_PROCESS, _AIRFLOW_PROCESS_CONTEXT=context)
    assert LISTENERS + ".marked" not in said["KNOWN"]
    assert [name for name in said["LOADED"] if name.startswith(LISTENERS)] == []


def test_the_api_server_knows_of_it(airflow_db: None) -> None:
    said = run_fresh(LISTENERS_OF_PROCESS, _AIRFLOW_PROCESS_CONTEXT="server")
    assert LISTENERS + ".marked" in said["KNOWN"]


def test_the_api_servers_application_says_that_it_is_one_before_it_asks_for_listeners(airflow_db: None) -> None:
    code = "import airflow.api_fastapi.main\n" + LISTENERS_OF_PROCESS
    environment = {"AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64, "_AIRFLOW_PROCESS_CONTEXT": ""}
    assert LISTENERS + ".marked" in run_fresh(code, **environment)["KNOWN"]


def test_a_dag_that_airflow_refuses_beside_listeners_is_parsed_beside_ours(airflow_db: None) -> None:
    assert "PARSED" in run_fresh(PARSE, _AIRFLOW_PROCESS_CONTEXT="client")
    # Otherwise there would be no reason to keep it from where Dags are parsed.
    assert "REFUSED" in run_fresh(PARSE, _AIRFLOW_PROCESS_CONTEXT="server")


class Foreign(BaseOperator):
    """None of ours."""

    def execute(self, context: Any) -> str:
        context["ti"].xcom_push(key="request_id", value="mmsu_1")
        return "done"


@pytest.fixture
def foreign(run_dag: RunDag) -> str:
    """A task instance that a person marks, as JSON."""
    from airflow.sdk import DAG

    with DAG("foreign") as dag:
        Foreign(task_id="edit")
    ti: TaskInstance = run_dag(dag).run.get_task_instance("edit")
    return json.dumps({"dag_id": ti.dag_id, "run_id": ti.run_id})


def test_a_foreign_task_that_is_marked_costs_one_thread_for_a_moment_and_loads_nothing(foreign: str) -> None:
    said = run_fresh(CALL, foreign, "")
    light = {LISTENERS, f"{LISTENERS}.marked", f"{LISTENERS}.delay"}
    assert ours(said["IMPORTED"]) == light
    assert said["THREADS"] == ["1"]
    assert "Traceback" not in said
    records = {f"{LISTENERS}.instances", "airflow_provider_odirouter.records", "airflow_provider_odirouter.errors"}
    assert {name for name in ours(said["LOADED"]) if ".errors." not in name} == light | records
    assert [name for name in said["LOADED"] if name.startswith(HEAVY)] == []


def test_a_task_that_ends_by_itself_costs_nothing_at_all(foreign: str) -> None:
    said = run_fresh(CALL, foreign, "running")
    assert said["THREADS"] == ["0"]
    assert said["LOADED"] == said["IMPORTED"]
