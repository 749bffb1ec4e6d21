"""What the triggers have in common: one event, and the cancel of what nobody waits for any more."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_odirouter.compat import TRIGGERER_CALLS_ON_KILL
from airflow_provider_odirouter.errors import RequestTimeoutError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.triggers.canceling import cancel_all, tell
from airflow_provider_odirouter.triggers.ownership import ask_early, is_another_trys, is_orphaned

if TYPE_CHECKING:
    from pydantic import BaseModel

CANCEL_TIMEOUT = 30.0
"""Seconds for the whole cancel of what is orphaned, the ownership check included."""
CHECK_TIMEOUT = 20.0 if TRIGGERER_CALLS_ON_KILL else 4.0
"""
Seconds for the ownership check. Before Airflow 3.3 it is made when a triggerer stops, too, which then waits for its
triggers, and answers no question meanwhile.
"""

_cancels: set[asyncio.Task[None]] = set()
"""Cancels under way: asyncio itself holds a task only weakly."""


class WaitingTrigger(BaseTrigger):
    """
    Waits for requests, without a worker, and tells in one event how they ended.

    Its arguments lie in Airflow's database as plain JSON; the API key is never among them.
    """

    owner_key: str
    """Key of the XCom that names what the task waits for."""
    deadline_key: str
    """Key of the XCom in which the task notes until when it waits."""
    deadline: float
    """Epoch seconds."""
    cancel_on_timeout: bool

    def __init__(self, *, odirouter_conn_id: str, endpoint: str, cancel_on_kill: bool) -> None:
        super().__init__()
        self.odirouter_conn_id = odirouter_conn_id
        self.endpoint = endpoint
        self.cancel_on_kill = cancel_on_kill
        self._deadline_check: asyncio.Task[bool] | None = None

    @abstractmethod
    def owner_value(self) -> str:
        """Return what that XCom is as long as the task waits for this trigger."""

    @abstractmethod
    def is_own_deadline(self, pushed: Any) -> bool:
        """Return whether that XCom was pushed by the try that this trigger waits for."""

    @abstractmethod
    def alive(self) -> Sequence[str]:
        """Return the ids of the requests that have not ended, as far as the trigger has seen."""

    @abstractmethod
    async def wait(self, hook: OdiRouterHook) -> BaseModel:
        """Wait, and return the event."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event, as JSON."""
        if self.task_instance is not None and self.cancel_on_kill:
            ask_early(self.task_instance)
        try:
            async with OdiRouterHook(self.odirouter_conn_id) as hook:
                event = await self.wait(hook)
        except asyncio.CancelledError:
            # After the deadline, it is taken for Airflow's end of a late deferral, and not for a kill.
            if not TRIGGERER_CALLS_ON_KILL and (self.cancel_on_timeout or time.time() < self.deadline):
                await self._cancel_if_orphaned()
            raise
        yield TriggerEvent(event.model_dump(mode="json"))

    async def on_kill(self) -> None:
        """Cancel the requests if the task was killed while deferred. Airflow 3.3 and later calls this."""
        await self._cancel_if_orphaned()

    async def check_deadline(self) -> None:
        """
        Return if the deadline that has passed is still the task's.

        A triggerer that was frozen may find that a newer try waits for the same request, until a later deadline.

        :raises RequestTimeoutError: If it does.
        """
        if self._deadline_check is None:  # once, for a thousand requests, too
            self._deadline_check = asyncio.create_task(self._is_deadline_of_another_try())
        if await asyncio.shield(self._deadline_check):
            raise RequestTimeoutError("A newer try of the task waits for it, until a later deadline.", advice="")

    async def _is_deadline_of_another_try(self) -> bool:
        if self.task_instance is None:
            return False
        try:
            return await is_another_trys(
                self.task_instance, self.deadline_key, self.is_own_deadline, seconds=CHECK_TIMEOUT
            )
        except Exception as error:  # noqa: BLE001 - without an answer, the deadline counts
            self.log.warning("Airflow could not tell whether a newer try waits for the request: %r", error)
            return False

    async def _cancel_if_orphaned(self) -> None:
        """
        Cancel the requests unless somebody waits for them, and finish that whatever is done to this task.

        Airflow 3.3 cancels a trigger again in each of its loops, so that ``on_kill`` itself has about one second.
        """
        if not self.cancel_on_kill or not self.alive():
            return
        cancel = asyncio.create_task(self._cancel_orphans())
        _cancels.add(cancel)
        cancel.add_done_callback(_cancels.discard)
        while not cancel.done():
            try:
                await asyncio.shield(cancel)
            except asyncio.CancelledError:
                continue

    async def _is_orphaned(self) -> bool:
        task = self.task_instance
        if task is None:
            return False
        seconds = min(CHECK_TIMEOUT, CANCEL_TIMEOUT)
        return await is_orphaned(task, self.owner_key, self.owner_value(), seconds=seconds)

    async def _cancel_orphans(self) -> None:
        request_ids = self.alive()
        began = asyncio.get_running_loop().time()
        outcomes: dict[str, Any]
        try:
            if not await self._is_orphaned():
                self.log.info("%s: goes on, its task still waits for it.", self.owner_value())
                return
        except Exception as error:
            self.log.exception("Airflow could not tell whether the task still waits: nothing is cancelled.")
            outcomes = dict.fromkeys(request_ids, error)
        else:
            left = CANCEL_TIMEOUT - (asyncio.get_running_loop().time() - began)
            outcomes = await cancel_all(OdiRouterHook(self.odirouter_conn_id), self.endpoint, request_ids, seconds=left)
        tell(
            outcomes,
            conn_id=self.odirouter_conn_id,
            endpoint=self.endpoint,
            log=self.log.log,
            why="Its task waits no longer.",
        )
