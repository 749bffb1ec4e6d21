"""The trigger that waits for one request."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_odirouter.compat import TRIGGERER_CALLS_ON_KILL
from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import CancelOutcome
from airflow_provider_odirouter.polling import (
    CANCEL_FATES,
    FIRST_LOOK_IN_TRIGGER,
    Cancel,
    Look,
    Pause,
    Seen,
    Wait,
    watch,
)
from airflow_provider_odirouter.triggers.ownership import ask_early, is_orphaned

if TYPE_CHECKING:
    from airflow_provider_odirouter.models import RequestEvent

T = TypeVar("T")

CANCEL_TIMEOUT = 30.0
"""Seconds for the whole cancel of an orphaned request, the ownership check included."""
CHECK_TIMEOUT = 20.0 if TRIGGERER_CALLS_ON_KILL else 4.0
"""
Seconds for the ownership check. Before Airflow 3.3 it is made when a triggerer stops, too, which then waits for its
triggers, and answers no question meanwhile.
"""

_cancels: set[asyncio.Task[None]] = set()
"""Cancels under way: asyncio itself holds a task only weakly."""


class OdiRouterRequestTrigger(BaseTrigger):
    """
    Wait for a request, without a worker, and tell in one event how it ended.

    Its arguments lie in Airflow's database as plain JSON; the API key is never among them.

    :param odirouter_conn_id: The Airflow connection.
    :param endpoint: The model.
    :param request_id: The request.
    :param deadline: Epoch seconds, absolute: a trigger moves between processes, and its budget must not start again.
    :param poll_interval: Seconds between looks.
    :param cancel_on_kill: Whether the request is cancelled when nobody waits for it any more.
    :param cancel_on_timeout: Whether the request is cancelled when the deadline passes.
    :param submitted_at: Epoch seconds, for the manifest; ``None``: another task has submitted the request.
    """

    def __init__(
        self,
        *,
        odirouter_conn_id: str,
        endpoint: str,
        request_id: str,
        deadline: float,
        poll_interval: float = 5.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        submitted_at: float | None = None,
    ) -> None:
        super().__init__()
        self.odirouter_conn_id = odirouter_conn_id
        self.endpoint = endpoint
        self.request_id = request_id
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.submitted_at = submitted_at
        self._settled = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            "airflow_provider_odirouter.triggers.request.OdiRouterRequestTrigger",
            {
                "odirouter_conn_id": self.odirouter_conn_id,
                "endpoint": self.endpoint,
                "request_id": self.request_id,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
                "cancel_on_kill": self.cancel_on_kill,
                "cancel_on_timeout": self.cancel_on_timeout,
                "submitted_at": self.submitted_at,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: a :class:`~airflow_provider_odirouter.models.RequestEvent` as JSON."""
        if self.task_instance is not None and self.cancel_on_kill:
            ask_early(self.task_instance)
        try:
            async with OdiRouterHook(self.odirouter_conn_id) as hook:
                event = await self._wait(hook)
        except asyncio.CancelledError:
            if not TRIGGERER_CALLS_ON_KILL:
                await self._cancel_if_orphaned()
            raise
        # Airflow can call on_kill for about 2 s after the event is out; there is nothing to cancel any more.
        self._settled = True
        yield TriggerEvent(event.model_dump(mode="json"))

    async def on_kill(self) -> None:
        """Cancel the request if the task was killed while deferred. Airflow 3.3 and later calls this."""
        await self._cancel_if_orphaned()

    async def _wait(self, hook: OdiRouterHook) -> RequestEvent:
        wait = Wait(
            endpoint=self.endpoint,
            request_id=self.request_id,
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            cancel_on_timeout=self.cancel_on_timeout,
            submitted_at=self.submitted_at,
        )
        # The wall clock read once, then a steady one: a clock that is set meanwhile must not end the wait.
        offset = time.time() - time.monotonic()
        steps = watch(
            wait,
            now=lambda: offset + time.monotonic(),
            luck=random.random,
            first_look=FIRST_LOOK_IN_TRIGGER,
        )
        seen: Seen = None
        while True:
            try:
                step = steps.send(seen)
            except StopIteration as stop:
                event: RequestEvent = stop.value
                return event
            match step:
                case Pause(seconds, note):
                    if note:
                        self.log.info(note)
                    await asyncio.sleep(seconds)
                    seen = None
                case Look():
                    seen = await _or_error(hook.aget_status(self.endpoint, self.request_id))
                case Cancel():
                    seen = await _or_error(hook.acancel(self.endpoint, self.request_id))

    async def _cancel_if_orphaned(self) -> None:
        """
        Cancel the request unless somebody waits for it, and finish that whatever is done to this task.

        Airflow 3.3 cancels a trigger again in each of its loops, so that ``on_kill`` itself has about one second.
        """
        if self._settled or not self.cancel_on_kill:
            return
        cancel = asyncio.create_task(self._cancel_orphan())
        _cancels.add(cancel)
        cancel.add_done_callback(_cancels.discard)
        while not cancel.done():
            try:
                await asyncio.shield(cancel)
            except asyncio.CancelledError:
                continue

    async def _is_orphaned(self) -> bool:
        task = self.task_instance
        return task is not None and await is_orphaned(task, self.request_id, seconds=CHECK_TIMEOUT)

    async def _cancel_orphan(self) -> None:
        by_hand = f"OdiRouterHook({self.odirouter_conn_id!r}).cancel({self.endpoint!r}, {self.request_id!r})"
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT), OdiRouterHook(self.odirouter_conn_id) as hook:
                if not await self._is_orphaned():
                    self.log.info("Request %s goes on: its task still waits for it.", self.request_id)
                    return
                outcome = await hook.acancel(self.endpoint, self.request_id)
        except Exception:
            self.log.exception(
                "Request %s may be running with nobody waiting for it, and be paid: it could not be cancelled. "
                "Cancel it by hand: %s",
                self.request_id,
                by_hand,
            )
        else:
            level = logging.ERROR if outcome is CancelOutcome.UNSUPPORTED else logging.INFO
            self.log.log(level, "The task was killed. Request %s: %s.", self.request_id, CANCEL_FATES[outcome])


async def _or_error(call: Awaitable[T]) -> T | OdiRouterError:
    try:
        return await call
    except OdiRouterError as error:
        return error
