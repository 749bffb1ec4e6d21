"""The names that Airflow moved between 3.1 and 3.2, and what only newer versions can do."""

from __future__ import annotations

import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.triggers.base import BaseTrigger

try:
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferred,
    )
except ImportError:  # Airflow 3.1
    from airflow.exceptions import (  # type: ignore[no-redef,attr-defined]
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferred,
    )

try:
    from airflow.sdk.bases.decorator import determine_kwargs
except ImportError:  # Airflow 3.1
    from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]

try:
    from airflow.sdk.configuration import conf
except ImportError:  # Airflow 3.1
    from airflow.configuration import conf

if TYPE_CHECKING:
    from uuid import UUID

TRIGGERER_CALLS_ON_KILL = hasattr(BaseTrigger, "on_kill")
"""Whether Airflow calls a trigger's ``on_kill`` (3.3 and later); before, a kill is only a ``CancelledError``."""


def has_supervisor_process() -> bool:
    """Return whether Airflow's supervisor is this process's parent, as on a worker; in ``dag.test()``, a shell is."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), CommsDecoder)


def is_current_instance(ti_id: UUID) -> bool:
    """
    Ask Airflow whether a task instance's id is still the one that its task has: each retry and each clear changes it.

    Airflow has no question for just that. This one reads, changes nothing, and is answered ``404`` for an old id; the
    state of a task instance is asked for by its names, and so is that of the newest try.

    :raises Exception: Whatever keeps Airflow from telling.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import InactiveAssetsResult, ValidateInletsAndOutlets

    try:
        answer = task_runner.SUPERVISOR_COMMS.send(ValidateInletsAndOutlets(ti_id=ti_id))
    except AirflowRuntimeError as error:
        detail: dict[str, Any] = error.error.detail or {}
        # A gateway's 404 has other words.
        if detail.get("status_code") == HTTPStatus.NOT_FOUND and "not_found" in str(detail.get("detail")):
            return False
        raise
    if not isinstance(answer, InactiveAssetsResult):
        # Airflow 3.1 gives an answer to whichever thread reads it first.
        raise TypeError(f"the answer to another question came: {type(answer).__name__}")
    return True


def asks_in_thread() -> bool:
    """
    Return whether an event loop's question to Airflow has to be asked in a thread, by the synchronous call.

    Only a triggerer's supervisor takes asynchronous questions on all versions. That of ``dag.test()`` has no ``asend``
    at all, which Airflow's secrets backend takes for "not found"; a worker's raises in Airflow 3.1.
    """
    comms = getattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS", None)
    if comms is None:
        return False
    from airflow.sdk.execution_time.comms import CommsDecoder

    return not hasattr(comms, "asend") or type(comms) is CommsDecoder


__all__ = [
    "TRIGGERER_CALLS_ON_KILL",
    "TRIGGER_FAIL_REPR",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "TaskDeferred",
    "TriggerFailureReason",
    "asks_in_thread",
    "conf",
    "determine_kwargs",
    "has_supervisor_process",
    "is_current_instance",
]
