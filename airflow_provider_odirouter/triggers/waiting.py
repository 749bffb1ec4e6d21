"""Waiting on an event loop: for one request, or for many at once. Doing what :func:`~…polling.watch` says."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import CancelOutcome, Ending, RequestEvent
from airflow_provider_odirouter.polling import Cancel, Look, Pause, Seen, Wait, watch
from airflow_provider_odirouter.progress import Progress

T = TypeVar("T")

REPORT_SECONDS = 30.0
"""Between two lines in the log about many requests."""


async def wait_for(
    hook: OdiRouterHook,
    wait: Wait,
    *,
    first_look: float,
    note: Callable[[str], object],
    before_cancel: Callable[[], Awaitable[object]] | None = None,
) -> RequestEvent:
    """
    Wait for a request.

    :param first_look: Seconds before which no look comes.
    :param note: Told what is worth a line in the log.
    :param before_cancel: Awaited before the request is cancelled at its deadline; one of our errors keeps it from that.
    """

    async def cancel() -> CancelOutcome:
        if before_cancel:
            await before_cancel()
        return await hook.acancel(wait.endpoint, wait.request_id)

    # The wall clock read once, then a steady one: a clock that is set meanwhile must not end the wait.
    offset = time.time() - time.monotonic()
    steps = watch(wait, now=lambda: offset + time.monotonic(), luck=random.random, first_look=first_look)
    seen: Seen = None
    while True:
        try:
            step, seen = steps.send(seen), None
        except StopIteration as stop:
            event: RequestEvent = stop.value
            return event
        match step:
            case Pause(seconds, remark):
                if remark:
                    note(remark)
                await asyncio.sleep(seconds)
            case Look():
                seen = await or_error(hook.aget_status(wait.endpoint, wait.request_id))
            case Cancel():
                seen = await or_error(cancel())


async def wait_for_all(
    hook: OdiRouterHook,
    waits: Sequence[Wait],
    *,
    first_look: float,
    note: Callable[[str], object],
    on_end: Callable[[RequestEvent], object] = lambda _: None,
    before_cancel: Callable[[], Awaitable[object]] | None = None,
) -> list[RequestEvent]:
    """
    Wait for many requests side by side.

    :param first_look: Seconds before which no look comes.
    :param note: Told now and then how far they have come, and not of each look.
    :param on_end: Told of each request that has ended.
    :param before_cancel: As for :func:`wait_for`.
    :return: How they ended, in order.
    """
    progress = Progress(len(waits), now=time.monotonic())

    async def wait(one: Wait) -> RequestEvent:
        event = await wait_for(hook, one, first_look=first_look, note=_unsaid, before_cancel=before_cancel)
        progress.end(well=event.ending is Ending.SUCCEEDED)
        on_end(event)
        return event

    reporting = asyncio.create_task(_report(progress, note))
    try:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(wait(one)) for one in waits]
        return [one.result() for one in waiting]
    finally:
        reporting.cancel()
        note(progress.line(now=time.monotonic()))


async def or_error(call: Awaitable[T]) -> T | OdiRouterError:
    """Return what a call came to, our errors included."""
    try:
        return await call
    except OdiRouterError as error:
        return error


def _unsaid(_: str) -> None:
    """Say nothing: among a thousand requests, one's look is not worth a line."""


async def _report(progress: Progress, note: Callable[[str], object]) -> None:
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        note(progress.line(now=time.monotonic()))
