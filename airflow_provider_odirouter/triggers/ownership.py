"""Whether anybody still waits for a request: the check before a trigger cancels anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom
from asgiref.sync import sync_to_async

log = logging.getLogger(__name__)

_first_questions: set[asyncio.Task[None]] = set()
_asked = False


class WaitingTask(Protocol):
    """What the check needs of a task instance."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int | None


def ask_early(task: WaitingTask) -> None:
    """
    Ask Airflow one question in the background, once in a process.

    Its supervisor builds a whole API for the first one, which took 8 s on two cores: a kill must not wait for that.
    Not awaited, since a trigger that is cancelled inside ``sync_to_async`` is never told that it was a kill
    (Airflow 3.3).
    """
    global _asked
    if not _asked:
        _asked = True
        question = asyncio.create_task(_ask(task))
        _first_questions.add(question)
        question.add_done_callback(_first_questions.discard)


async def _ask(task: WaitingTask) -> None:
    try:
        await sync_to_async(task_state, thread_sensitive=False)(task)
    except Exception as error:  # noqa: BLE001 - nobody waits for the answer
        log.debug("Airflow could not tell the state of %s: %r", task, error)


async def is_orphaned(task: WaitingTask, key: str, value: str, *, seconds: float) -> bool:
    """
    Tell whether a task instance no longer waits for what a trigger waits for.

    A trigger is cancelled not only when its task is killed: also when the triggerer stops, when another triggerer has
    taken over, or when it was frozen for a while. Then the task is still deferred, and its XCom is this trigger's.

    :param key: Of the XCom that names what the task waits for, such as ``request_id``.
    :param value: What it is as long as the task waits for the trigger's.
    :param seconds: How long Airflow has to tell.
    :raises Exception: Whatever keeps Airflow from telling; the caller must then leave the request alone.
    """
    async with asyncio.timeout(seconds):
        state = await sync_to_async(task_state, thread_sensitive=False)(task)
        if state != "deferred":
            return True
        return bool(await sync_to_async(_pushed, thread_sensitive=False)(task, key) != value)


async def is_another_trys(task: WaitingTask, key: str, is_own: Callable[[Any], bool], *, seconds: float) -> bool:
    """
    Tell whether a newer try of the task waits for what a trigger waits for, until a deadline of its own.

    :param key: Of the XCom in which the task notes what it waits for, and until when.
    :param is_own: Whether a value of that XCom is what this trigger's try has noted.
    :param seconds: How long Airflow has to tell.
    :raises Exception: Whatever keeps Airflow from telling.
    """
    async with asyncio.timeout(seconds):
        pushed = await sync_to_async(_pushed, thread_sensitive=False)(task, key)
    return pushed is not None and not is_own(pushed)


def task_state(task: WaitingTask) -> str | None:
    """Return a task instance's state as Airflow's database has it; ``None``: there is no such instance, or no state."""
    mapped = task.map_index is not None and task.map_index >= 0
    states: dict[str, Any] = RuntimeTaskInstance.get_task_states(
        dag_id=task.dag_id,
        task_ids=[task.task_id],
        run_ids=[task.run_id],
        map_index=task.map_index if mapped else None,
    )
    key = f"{task.task_id}_{task.map_index}" if mapped else task.task_id
    state = states.get(task.run_id, {}).get(key)
    return None if state is None else str(state)


def _pushed(task: WaitingTask, key: str) -> Any:
    return XCom.get_one(
        key=key,
        dag_id=task.dag_id,
        task_id=task.task_id,
        run_id=task.run_id,
        map_index=task.map_index,
    )
