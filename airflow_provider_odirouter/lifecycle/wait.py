"""
Waiting for requests: the one driver of the decisions in :mod:`~airflow_provider_odirouter.lifecycle.polling`.

A trigger awaits it on the triggerer's event loop. A worker runs it on an event loop beside its main thread.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from airflow_provider_odirouter import metrics
from airflow_provider_odirouter.compat import TRIGGERER_CALLS_ON_KILL, TriggerFailureReason
from airflow_provider_odirouter.errors import NotOwnerError, OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.polling import Cancel, Pause, Poll, Seen, Wait, poll_until_done
from airflow_provider_odirouter.models import CancelOutcome, Ending, RequestEvent, RequestStatus
from airflow_provider_odirouter.storage.threads import Jobs

if TYPE_CHECKING:
    from airflow.sdk import Context

T = TypeVar("T")

log = logging.getLogger(__name__)

REPORT_SECONDS = 30.0
"""Between two lines of the log about many requests."""
LOOP_END_SECONDS = 5.0
"""For a worker's event loop to end: a call that hangs must not keep the task."""


async def wait_for(
    hook: OdiRouterHook,
    wait: Wait,
    *,
    first_poll_delay: float,
    note: Callable[[str], object],
    on_status: Callable[[RequestStatus], object] = lambda _: None,
    before_cancel: Callable[[], Awaitable[object]] | None = None,
) -> RequestEvent:
    """
    Wait for a request.

    :param first_poll_delay: Seconds before which no poll is sent.
    :param note: Called with each line for the log.
    :param on_status: Called with each status of another state than the one before, unless it ends the wait.
    :param before_cancel: Awaited before the request is cancelled at its deadline; our errors prevent the cancel.
    """
    # The wall clock read once, then a steady one: a clock that is set meanwhile must not end the wait.
    offset = time.time() - time.monotonic()
    steps = poll_until_done(
        wait, now=lambda: offset + time.monotonic(), random=random.random, first_poll_delay=first_poll_delay
    )
    seen: Seen = None
    state = None
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
            case Poll(is_final):
                seen = await _or_error(hook.aget_status(wait.endpoint, wait.request_id, is_final=is_final))
                if isinstance(seen, RequestStatus) and not seen.state.is_terminal and seen.state != state:
                    state = seen.state
                    on_status(seen)
            case Cancel():
                seen = await _or_error(_cancel_at_deadline(hook, wait, before_cancel))


async def _cancel_at_deadline(
    hook: OdiRouterHook, wait: Wait, before_cancel: Callable[[], Awaitable[object]] | None
) -> CancelOutcome:
    if before_cancel:
        await before_cancel()
    try:
        outcome = await hook.acancel(wait.endpoint, wait.request_id)
    except OdiRouterError as error:
        hook.metrics.cancelled(wait.endpoint, "timeout", error)
        raise
    hook.metrics.cancelled(wait.endpoint, "timeout", outcome)
    return outcome


async def wait_for_all(
    hook: OdiRouterHook,
    waits: Sequence[Wait],
    *,
    first_poll_delay: float,
    note: Callable[[str], object],
    on_end: Callable[[RequestEvent], object] = lambda _: None,
    before_cancel: Callable[[], Awaitable[object]] | None = None,
) -> list[RequestEvent]:
    """
    Wait for many requests side by side.

    :param first_poll_delay: Seconds before which no poll is sent.
    :param note: Called with the progress every :data:`REPORT_SECONDS`; single polls are not in the log.
    :param on_end: Called with the event of each request as soon as it has ended.
    :param before_cancel: As for :func:`wait_for`.
    :return: The events, in the order of the waits.
    """
    progress = Progress("Requests", "finished", len(waits))

    async def wait(one: Wait) -> RequestEvent:
        event = await wait_for(hook, one, first_poll_delay=first_poll_delay, note=_ignore, before_cancel=before_cancel)
        progress.count(succeeded=event.ending is Ending.SUCCEEDED)
        on_end(event)
        return event

    reporting = asyncio.create_task(_report(progress, note))
    try:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(wait(one)) for one in waits]
        return [one.result() for one in waiting]
    finally:
        reporting.cancel()
        note(progress.line())


def wait_on_worker(hook: OdiRouterHook, waits: Sequence[Wait]) -> list[RequestEvent]:
    """
    Wait for requests on a worker.

    The log has each state of a single request (:func:`wait_for`), or the progress of many (:func:`wait_for_all`).

    :return: The events, in the order of the waits.
    """
    jobs = Jobs()
    ended: list[list[RequestEvent]] = []

    async def wait(client: OdiRouterHook) -> None:
        if len(waits) == 1:
            events = [await wait_for(client, waits[0], first_poll_delay=0.0, note=log.info)]
        else:
            events = await wait_for_all(client, waits, first_poll_delay=0.0, note=log.info)
        jobs.report(partial(ended.append, events))

    with WorkerLoop(hook, jobs.report_error) as loop:
        loop.start(wait)
        while not ended:
            jobs.handle_next()
    return ended[0]


class WorkerLoop:
    """
    An event loop beside the main thread of a worker, with a client of its own.

    What signal handlers raise in the main thread (a kill, a time-out) could be swallowed by a loop there.

    :param on_error: Called, in the loop's thread, with each error of what runs on it.
    """

    def __init__(self, hook: OdiRouterHook, on_error: Callable[[BaseException], object]) -> None:
        self._client = hook.with_own_client()
        self._on_error = on_error
        self._loop = asyncio.new_event_loop()
        self._is_open = asyncio.Event()
        self._ends = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="odirouter-loop", daemon=True
        )

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what runs on the loop, and wait a moment for its end."""
        self._call(self._ends.set)
        self._thread.join(LOOP_END_SECONDS)
        metrics.flush()

    def start(self, work: Callable[[OdiRouterHook], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine, with the loop's client. A loop that has ended has reported why, and runs nothing more."""
        self._call(partial(self._begin, work))

    def _call(self, callback: Callable[[], object]) -> None:
        """Call something on the loop. A kill that comes meanwhile is a :class:`RuntimeError`, too, and is raised."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._on_error(error)

    async def _serve(self) -> None:
        async with self._client:
            self._is_open.set()
            await self._ends.wait()
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self, work: Callable[[OdiRouterHook], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            await self._is_open.wait()
            try:
                await work(self._client)
            except ExceptionGroup as group:
                not_owner = group.subgroup(NotOwnerError)
                self._on_error(not_owner.exceptions[0] if not_owner else group)  # all of them say the same
            except Exception as error:  # noqa: BLE001 - the main thread raises it
                self._on_error(error)

        task = asyncio.get_running_loop().create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def final_polls(
    hook: OdiRouterHook, waits: Sequence[Wait], error: str, traceback: Sequence[str] | None
) -> list[RequestEvent]:
    """
    Poll requests once more on a worker: their trigger has crashed, or did not end in time.

    :param waits: Their deadline has passed.
    :param error: Airflow's reason.
    :param traceback: Of the trigger's crash.
    """
    which = f"request {waits[0].request_id}" if len(waits) == 1 else f"{len(waits):,} requests"
    log.error(
        "The trigger has ended (%s). The worker polls %s once more.\n%s", error, which, "\n".join(traceback or ())
    )
    if error == TriggerFailureReason.TRIGGER_TIMEOUT:
        events = wait_on_worker(hook, waits)
        return [_as_timed_out(wait, event) for wait, event in zip(waits, events, strict=True)]
    crashed = {"ending": Ending.UNREACHABLE, "reason": "its trigger has crashed (see the log)."}
    events = wait_on_worker(hook, [replace(wait, cancel_on_timeout=False) for wait in waits])
    return [event.model_copy(update=crashed) if event.ending is Ending.TIMED_OUT else event for event in events]


def end_of_execution(context: Context, execution_timeout: timedelta | None) -> datetime | None:
    """
    Return the end of ``execution_timeout``, if there is one.

    Airflow does not enforce it while a task is deferred.
    """
    started_at: datetime | None = context["ti"].start_date
    if not execution_timeout or not started_at:
        return None
    try:
        return started_at + execution_timeout
    except OverflowError:
        return None  # in more years than there are


class Progress:
    """
    How far many requests or edits have come, in one line for the log. Counted by any thread.

    :param noun: What is counted, such as ``Requests``.
    :param verb: What happens to each, such as ``finished``.
    :param total: How many there are.
    :param clock: Seconds of a steady clock.
    """

    def __init__(self, noun: str, verb: str, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._noun = noun
        self._verb = verb
        self._total = total
        self._clock = clock
        self._began = self._reported = clock()
        self._done = self._failed = 0
        self._lock = threading.Lock()

    def count(self, *, succeeded: bool = True) -> bool:
        """Count one, and return whether the last line of the log is :data:`REPORT_SECONDS` old."""
        with self._lock:
            self._done += 1
            self._failed += not succeeded
            is_due = self._clock() >= self._reported + REPORT_SECONDS
            if is_due:
                self._reported = self._clock()
            return is_due

    def line(self) -> str:
        """Return the counts, the rate and the time that is left."""
        pending = self._total - self._done
        text = (
            f"{self._noun}: {self._done:,}/{self._total:,} {self._verb} ({self._failed:,} failed), {pending:,} pending"
        )
        rate = self._done / max(self._clock() - self._began, 1.0)
        if not (pending and rate):
            return f"{text}."
        per = f"{rate:.1f} per second" if rate >= 1 else f"{rate * 60:.1f} per minute"
        return f"{text}; {per}, about {in_words(pending / rate)} left."


def in_words(seconds: float) -> str:
    """Return a time for people: ``"40 s"``, ``"6 min"``, ``"2.5 h"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


async def _or_error(call: Awaitable[T]) -> T | OdiRouterError:
    try:
        return await call
    except OdiRouterError as error:
        return error


def _ignore(_: str) -> None:
    """Drop a line: among a thousand requests, a single poll is not worth one."""


async def _report(progress: Progress, note: Callable[[str], object]) -> None:
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        note(progress.line())


def _as_timed_out(wait: Wait, event: RequestEvent) -> RequestEvent:
    """Before Airflow 3.3, the trigger that Airflow ends with the deferral may have cancelled the request already."""
    if TRIGGERER_CALLS_ON_KILL or not wait.cancel_on_timeout or event.ending is not Ending.CANCELED:
        return event
    late = {"ending": Ending.TIMED_OUT, "cancel": CancelOutcome.REQUESTED, "failure": None}
    return event.model_copy(update=late)
