"""Many calls of the asynchronous hook on a worker: each on an event loop of its own, which ends with it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from airflow_provider_odirouter.errors import NotOwnerError
from airflow_provider_odirouter.hooks import transport  # noqa: F401 - a kill must not wait for this, nor for a lock on it
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.images.threads import aside
from airflow_provider_odirouter.models import RequestEvent
from airflow_provider_odirouter.polling import Wait
from airflow_provider_odirouter.triggers.canceling import Outcome, cancel_all, tell
from airflow_provider_odirouter.triggers.waiting import wait_for_all

T = TypeVar("T")

log = logging.getLogger(__name__)

CANCEL_SECONDS = 60.0


def wait_here(hook: OdiRouterHook, waits: Sequence[Wait]) -> list[RequestEvent]:
    """Wait on the worker, in the same steps as the trigger does."""

    async def wait() -> list[RequestEvent]:
        async with hook.twin() as twin:
            try:
                return await wait_for_all(twin, waits, first_look=0.0, note=log.info)
            except ExceptionGroup as group:
                if lost := group.subgroup(NotOwnerError):
                    raise lost.exceptions[0] from None  # all of them say the same
                raise

    return _on_a_loop(wait)


def cancel_here(hook: OdiRouterHook, endpoint: str, request_ids: Sequence[str], *, why: str) -> dict[str, Outcome]:
    """
    Cancel requests side by side, and say in the log what that came to.

    In a thread: a signal handler may have interrupted another event loop, and this thread can have but one.

    :param why: As a sentence.
    """
    outcomes: dict[str, Outcome] = {}

    def cancel() -> None:
        outcomes.update(asyncio.run(cancel_all(hook.twin(), endpoint, request_ids, seconds=CANCEL_SECONDS)))

    thread = threading.Thread(target=cancel, name="odirouter-cancel")
    thread.start()
    thread.join()
    tell(outcomes, conn_id=hook.odirouter_conn_id, endpoint=endpoint, log=log.log, why=why)
    return outcomes


def _on_a_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """
    Run a coroutine on an event loop beside the main thread.

    What signal handlers raise in the main thread (a kill, a time-out) could be swallowed by a loop there.
    """
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def run() -> T:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await work()

    try:
        return aside(lambda: asyncio.run(run()))
    except BaseException:
        for loop, task in running:
            if task:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(task.cancel)
        raise
