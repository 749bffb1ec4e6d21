"""What the listener costs other tasks: nothing on workers and at Dag parse, little in the API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import BaseOperator

from tests.dags.conftest import airflow_db, serialize

pytestmark = pytest.mark.every_version

__all__ = ["airflow_db"]

HEAVY = ("httpx", "aiohttp", "PIL", "fsspec", "airflow.providers.")
LIGHT = "airflow.providers.common.compat."
"""The part of Airflow's own providers that ``compat.py`` needs."""
LISTENERS = "airflow_provider_odirouter.listeners"

LISTENERS_OF_PROCESS = """
from airflow.listeners.listener import get_listener_manager
import airflow_provider_odirouter.plugins.images_tab
print("REGISTERED", *(getattr(one, "__name__", one) for one in get_listener_manager().pm.get_plugins()))
print("LOADED", *(name for name in sys.modules if name.startswith("airflow_provider_odirouter.")))
"""

API_SERVER = """
from types import SimpleNamespace
from fastapi import APIRouter
sys.modules["airflow.api_fastapi.core_api.routes.public"] = SimpleNamespace(public_router=APIRouter())
sys.modules["airflow.api_fastapi.core_api.routes.ui"] = SimpleNamespace(ui_router=APIRouter())
import airflow.api_fastapi.main
"""
"""It has no routes of Airflow's own: they ask for no listeners, and take many seconds to build."""

PARSE = """
from airflow.sdk import DAG
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models.dagbag import DagBag
folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
with DAG("waits") as dag:
    DateTimeSensorAsync(task_id="wait", target_time="2026-01-01", end_from_trigger=True)
try:
    DagBag(dag_folder=folder, bundle_path=folder).bag_dag(dag)
    print("PARSED")
except Exception as error:
    print("REFUSED", error)
"""

IMPORT = """
from airflow.listeners import hookimpl
before = set(sys.modules)
import airflow_provider_odirouter.listeners.marked
print("IMPORTED", *sorted(set(sys.modules) - before))
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
marked.on_task_instance_failed("running", ti)
marked.on_task_instance_success("running", ti)
print("THREADS_OF_ENDED", threading.active_count() - 1)
print("LOADED_BY_ENDED", *sorted(set(sys.modules) - before))
run = SimpleNamespace(dag_id=ti.dag_id, run_id=ti.run_id)
marked.on_task_instance_failed(None, ti)
marked.on_task_instance_success(None, ti)
marked.on_dag_run_failed(run)
print("THREADS_OF_MARKED", threading.active_count() - 1)
while thread := marked._delay._thread:
    thread.join()
print("LOADED_BY_MARKED", *sorted(set(sys.modules) - before))
"""


def run_fresh(code: str, *arguments: str, **environment: str) -> dict[str, list[str]]:
    """Run code in a new process; return the words of each line that it prints, by the line's first word."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import gc, json, os, sys\ngc.disable()\n{code}", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if line.strip()}


@cache
def start(context: str) -> dict[str, list[str]]:
    """Start a process of Airflow's, which says whether it knows our listener, and parses a Dag."""
    return run_fresh(LISTENERS_OF_PROCESS + PARSE, _AIRFLOW_PROCESS_CONTEXT=context)


def ours(modules: list[str]) -> set[str]:
    return {name for name in modules if name.startswith("airflow_provider_odirouter.")}


@pytest.mark.parametrize("context", ["", "client"], ids=["a scheduler or a dag processor", "a task"])
def test_other_processes_do_not_register_the_listener(context: str, airflow_db: None) -> None:
    printed = start(context)
    assert LISTENERS + ".marked" not in printed["REGISTERED"]
    assert [name for name in printed["LOADED"] if name.startswith(LISTENERS)] == []


def test_the_api_server_registers_the_listener(airflow_db: None) -> None:
    assert LISTENERS + ".marked" in start("server")["REGISTERED"]


def test_the_api_server_sets_its_process_context_before_it_asks_for_listeners(airflow_db: None) -> None:
    code = API_SERVER + LISTENERS_OF_PROCESS
    environment = {
        "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64,
        "_AIRFLOW_PROCESS_CONTEXT": "",
        "AIRFLOW_API_APPS": "core",
    }
    assert LISTENERS + ".marked" in run_fresh(code, **environment)["REGISTERED"]


def test_a_dag_that_airflow_refuses_with_listeners_is_parsed_with_this_plugin(airflow_db: None) -> None:
    assert "PARSED" in start("client")
    # If Airflow parsed it here, too, the listener could be registered in every process.
    assert "REFUSED" in start("server")


class OtherTask(BaseOperator):
    """A task of another provider."""

    def execute(self, context: Any) -> str:
        context["ti"].xcom_push(key="request_id", value="mmsu_1")
        return "done"


def test_the_listener_itself_loads_nothing_heavy() -> None:
    loaded = run_fresh(IMPORT)["IMPORTED"]
    assert f"{LISTENERS}.marked" in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []


@pytest.fixture(scope="module")
def called(airflow_db: None) -> dict[str, list[str]]:
    """What a process says that calls the listener for another provider's task: it ends by itself, then it is marked."""
    from airflow.sdk import DAG

    with DAG("other") as dag:
        OtherTask(task_id="edit")
    serialize(dag)
    terminate = signal.getsignal(signal.SIGTERM)
    ti: TaskInstance = dag.test().get_task_instance("edit")
    # Airflow's task runner replaces the handler, and does not restore it.
    signal.signal(signal.SIGTERM, terminate)
    return run_fresh(CALL, json.dumps({"dag_id": ti.dag_id, "run_id": ti.run_id}))


def test_a_task_that_ends_by_itself_costs_nothing_at_all(called: dict[str, list[str]]) -> None:
    assert called["THREADS_OF_ENDED"] == ["0"]
    assert called["LOADED_BY_ENDED"] == called["IMPORTED"]


def test_marking_another_providers_task_costs_one_short_thread_and_loads_nothing(called: dict[str, list[str]]) -> None:
    light = {LISTENERS, f"{LISTENERS}.marked", f"{LISTENERS}.delay"}
    assert ours(called["IMPORTED"]) == light
    assert called["THREADS_OF_MARKED"] == ["1"]
    assert "Traceback" not in called
    for_query = {f"{LISTENERS}.instances"} | {
        f"airflow_provider_odirouter.{one}" for one in ("xcoms", "addresses", "compat", "errors", "redaction")
    }
    loaded = called["LOADED_BY_MARKED"]
    assert ours(loaded) == light | for_query
    assert [name for name in loaded if name.startswith(HEAVY) and not name.startswith(LIGHT)] == []
