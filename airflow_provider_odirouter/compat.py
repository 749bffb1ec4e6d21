"""
All differences between Airflow versions, and all private names of Airflow.

The imports at the top are needed when Dags are parsed; the functions import the rest when a task runs.
"""

from __future__ import annotations

import os
import sys
from http import HTTPStatus
from inspect import signature
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    DecoratedOperator,
    TaskDecorator,
    TaskDeferred,
    conf,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.definitions._internal.types import SET_DURING_EXECUTION
from airflow.sdk.definitions.asset import AssetRef
from airflow.triggers.base import BaseTrigger

if TYPE_CHECKING:
    from uuid import UUID

    from airflow.sdk import BaseOperator
    from airflow.sdk.lineage import HookLineageCollector

TRIGGERER_CALLS_ON_KILL = hasattr(BaseTrigger, "on_kill")
"""Whether Airflow calls a trigger's ``on_kill`` (3.3 and later). Earlier versions only raise ``CancelledError``."""


def is_mapped_on_worker(operator: BaseOperator) -> bool:
    """Return whether a worker is building the operator of a mapped task: its parameters are final then."""
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def takes_response_timeout(hitl_operator: type[BaseOperator]) -> bool:
    """Return whether ``HITLOperator`` has ``response_timeout``; with Airflow 3.1 it waits ``execution_timeout``."""
    return "response_timeout" in signature(hitl_operator.__init__).parameters


def get_task_state(dag_id: str, task_id: str, run_id: str, map_index: int | None) -> str | None:
    """
    Ask Airflow for a task instance's state; ``None``: it does not exist, or has no state.

    :raises Exception: If Airflow does not answer; the class depends on the reason.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    mapped = map_index is not None and map_index >= 0
    states: dict[str, Any] = RuntimeTaskInstance.get_task_states(
        dag_id=dag_id, task_ids=[task_id], run_ids=[run_id], map_index=map_index if mapped else None
    )
    state = states.get(run_id, {}).get(f"{task_id}_{map_index}" if mapped else task_id)
    return None if state is None else str(state)


def get_xcom(dag_id: str, task_id: str, run_id: str, map_index: int | None, key: str) -> Any:
    """
    Ask Airflow for an XCom; ``None``: it does not exist.

    :raises Exception: If Airflow does not answer; the class depends on the reason.
    """
    from airflow.sdk.execution_time.xcom import XCom

    return XCom.get_one(key=key, dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=map_index)


def set_xcom(dag_id: str, task_id: str, run_id: str, map_index: int | None, key: str, value: Any) -> None:
    """
    Let Airflow write an XCom of a task instance, from whatever process.

    :raises Exception: If Airflow does not answer; the class depends on the reason.
    """
    from airflow.sdk.execution_time.xcom import XCom

    index = -1 if map_index is None else map_index
    XCom.set(key, value, dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=index)


def has_custom_xcom_backend() -> bool:
    """Return whether a backend of the user's keeps the XComs, and not Airflow's database alone."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import XCom

    return XCom is not BaseXCom


def get_lineage_collector() -> HookLineageCollector:
    """Return the process's collector of the files that hooks read and write."""
    from airflow.providers.common.compat.sdk import get_hook_lineage_collector

    return get_hook_lineage_collector()


def is_api_server() -> bool:
    """Return whether this process is Airflow's API server."""
    return os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server"


def find_connections_in_database() -> None:
    """Let this process, a command outside of all tasks, find connections in Airflow's database, as Airflow's own do."""
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


def has_supervisor_process() -> bool:
    """Return whether Airflow's supervisor is the parent process: on a worker it is, in ``dag.test()`` it is not."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), CommsDecoder)


def is_current_instance(ti_id: UUID) -> bool:
    """
    Ask Airflow whether a task instance's id is current: each retry and each clear changes the id.

    Airflow has no call for exactly this. This call only reads, and Airflow answers ``404`` for an old id. The call for
    the state does not help: it takes the task's names, and so returns the state of the newest try.

    :raises Exception: If Airflow does not answer; the class depends on the reason.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import InactiveAssetsResult, ValidateInletsAndOutlets

    try:
        answer = task_runner.SUPERVISOR_COMMS.send(ValidateInletsAndOutlets(ti_id=ti_id))
    except Exception as error:
        if is_not_found(error):
            return False
        raise
    if not isinstance(answer, InactiveAssetsResult):
        # In Airflow 3.1, any thread may receive the answer to another thread's call.
        raise TypeError(f"Airflow returned the answer to another call: {type(answer).__name__}")
    return True


def is_not_found(error: Exception) -> bool:
    """Return whether an error is Airflow's ``404`` for a task instance that a retry or a clear has replaced."""
    from airflow.sdk.exceptions import AirflowRuntimeError

    if not isinstance(error, AirflowRuntimeError):
        return False
    detail: dict[str, Any] = error.error.detail or {}
    # A gateway's 404 does not say "not_found".
    return detail.get("status_code") == HTTPStatus.NOT_FOUND and "not_found" in str(detail.get("detail"))


def asks_in_thread() -> bool:
    """
    Return whether code on an event loop must call Airflow synchronously, in a thread.

    Only a triggerer's supervisor accepts asynchronous calls in all versions. The supervisor of ``dag.test()`` has no
    ``asend``, which Airflow's secrets backend reports as "not found"; a worker's supervisor raises in Airflow 3.1.
    """
    comms = _supervisor_comms()
    if comms is None:
        return False
    from airflow.sdk.execution_time.comms import CommsDecoder

    return is_dag_test() or type(comms) is CommsDecoder


def is_dag_test() -> bool:
    """Return whether ``dag.test()`` runs this task or trigger, in its own process: without executor and triggerer."""
    comms = _supervisor_comms()
    return comms is not None and not hasattr(comms, "asend")


def _supervisor_comms() -> Any:
    return getattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS", None)


def get_stats() -> Any:
    """
    Return Airflow's metrics as this process has set them up; ``None``: it has not.

    Airflow 3.2 and later have two copies: a task sets up that of the SDK, the triggerer and the API server the other.
    """
    for name in (
        "airflow.sdk._shared.observability.metrics.stats",
        "airflow._shared.observability.metrics.stats",
        "airflow.stats",  # Airflow 3.1
    ):
        module = sys.modules.get(name)
        if module is None:
            continue
        factory = getattr(module, "_factory", None)  # Airflow 3.3
        if factory is None and not hasattr(module, "initialize"):
            factory = getattr(module.Stats, "factory", None)
        if factory is not None and getattr(factory, "__name__", "") != "NoStatsLogger":
            return module.Stats
    return None


def deserialize_xcom(row: Any) -> Any:
    """
    Return the value of an XCom's row of the database, from wherever the XCom backend keeps it.

    :raises Exception: Whatever a custom backend raises.
    """
    from airflow.sdk.execution_time.xcom import XCom

    return XCom.deserialize_value(row)


__all__ = [
    "SET_DURING_EXECUTION",
    "TRIGGERER_CALLS_ON_KILL",
    "TRIGGER_FAIL_REPR",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "AssetRef",
    "DecoratedOperator",
    "TaskDecorator",
    "TaskDeferred",
    "TriggerFailureReason",
    "asks_in_thread",
    "conf",
    "context_merge",
    "deserialize_xcom",
    "determine_kwargs",
    "get_lineage_collector",
    "get_stats",
    "get_task_state",
    "get_xcom",
    "has_custom_xcom_backend",
    "has_supervisor_process",
    "is_api_server",
    "is_current_instance",
    "is_dag_test",
    "is_mapped_on_worker",
    "is_not_found",
    "set_xcom",
    "task_decorator_factory",
]
