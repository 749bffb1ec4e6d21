"""Whether anybody still waits for a request: the check before a trigger cancels anything."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom
from asgiref.sync import sync_to_async

CHECK_TIMEOUT = 4.0
"""Seconds. A triggerer that stops waits for its triggers, and answers no question meanwhile (Airflow 3.2)."""


class WaitingTask(Protocol):
    """What the check needs of a task instance."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int


async def is_orphaned(task: WaitingTask, request_id: str) -> bool:
    """
    Tell whether a task instance no longer waits for a request.

    A trigger is cancelled not only when its task is killed: also when the triggerer stops, when another triggerer has
    taken over, or when it was frozen for a while. Then the task is still deferred, and its ``request_id`` is this one.

    :raises Exception: Whatever keeps Airflow from telling; the caller must then leave the request alone.
    """
    async with asyncio.timeout(CHECK_TIMEOUT):
        state = await sync_to_async(_state, thread_sensitive=False)(task)
        if state != "deferred":
            return True
        return bool(await sync_to_async(_request_id, thread_sensitive=False)(task) != request_id)


def _state(task: WaitingTask) -> str | None:
    mapped = task.map_index >= 0
    states: dict[str, Any] = RuntimeTaskInstance.get_task_states(
        dag_id=task.dag_id,
        task_ids=[task.task_id],
        run_ids=[task.run_id],
        map_index=task.map_index if mapped else None,
    )
    key = f"{task.task_id}_{task.map_index}" if mapped else task.task_id
    state = states.get(task.run_id, {}).get(key)
    return None if state is None else str(state)


def _request_id(task: WaitingTask) -> Any:
    return XCom.get_one(
        key="request_id",
        dag_id=task.dag_id,
        task_id=task.task_id,
        run_id=task.run_id,
        map_index=task.map_index,
    )
