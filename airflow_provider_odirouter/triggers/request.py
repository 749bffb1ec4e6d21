"""The trigger that waits for one request, and what it shares with that of a batch."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Self

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async
from pydantic import ValidationError

from airflow_provider_odirouter.compat import TRIGGERER_CALLS_ON_KILL, is_dag_test, set_xcom
from airflow_provider_odirouter.errors import RequestTimeoutError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.cancel import cancel_all, cancel_command, list_requests, log_outcomes
from airflow_provider_odirouter.lifecycle.ownership import TaskKey, ask_early, has_newer_deadline, is_abandoned
from airflow_provider_odirouter.lifecycle.polling import FIRST_POLL_DELAY, Wait
from airflow_provider_odirouter.lifecycle.wait import wait_for
from airflow_provider_odirouter.metrics import Metrics
from airflow_provider_odirouter.models import RequestStatus
from airflow_provider_odirouter.xcoms import REQUEST_XCOM, STATUS_XCOM, RequestRecord, StatusRecord

VERSION = 1
"""Of the triggers' arguments, which outlive an upgrade of this provider in Airflow's database."""
CANCEL_TIMEOUT = 30.0
"""Seconds for the whole cancel of abandoned requests, the ownership check included."""
CHECK_TIMEOUT = 20.0 if TRIGGERER_CALLS_ON_KILL else 4.0
"""
Seconds for the ownership check. Before Airflow 3.3 it is made when a triggerer stops, too, which then waits for its
triggers, and answers no question meanwhile.
"""
ANSWER_HOLDS_SECONDS = 5.0
"""How long the answer holds that no newer try waits."""

_under_way: set[asyncio.Task[None]] = set()
"""Cancels, and pushes of statuses: asyncio itself holds a task only weakly."""
_one_push = asyncio.Semaphore(1)
"""For all triggers of the process: a thousand pushes at once would hold up the ownership check of a kill."""


def first_poll_delay() -> float:
    """Return the seconds before the first poll: none in ``dag.test()``, where no executor reports late."""
    return 0.0 if is_dag_test() else FIRST_POLL_DELAY


class WaitingTrigger(BaseTrigger):
    """
    Waits for requests, without a worker, and says in one event how they ended.

    Its arguments lie in Airflow's database as plain JSON; the API key is never among them.

    :raises TypeError: If the arguments are those of another version of this provider. No other error: Airflow's
        triggerer takes that one for a failure of this trigger, and any other ends all of its triggers.
    """

    owner_key: str
    """Key of the XCom that names what the task waits for."""
    deadline_key: str
    """Key of the XCom in which the task notes until when it waits."""
    deadline: float
    """Epoch seconds."""
    cancel_on_timeout: bool

    def __init__(self, *, odirouter_conn_id: str, endpoint: str, cancel_on_kill: bool, version: int) -> None:
        super().__init__()
        if version != VERSION:
            raise TypeError(f"This trigger was made by another version of the provider: {version}, not {VERSION}.")
        self.odirouter_conn_id = odirouter_conn_id
        self.endpoint = endpoint
        self.cancel_on_kill = cancel_on_kill
        self._deadline_check: asyncio.Task[bool] | None = None
        self._checked_at = 0.0

    @abstractmethod
    def owner_value(self) -> str:
        """Return the value of the owner's XCom as long as the task waits for this trigger."""

    @abstractmethod
    def is_own_deadline(self, pushed: Any) -> bool:
        """Return whether the deadline's XCom was pushed by the try that this trigger waits for."""

    @abstractmethod
    def pending(self) -> Sequence[str]:
        """Return the ids of the requests that have not ended, as far as the trigger has seen."""

    @abstractmethod
    async def wait(self, hook: OdiRouterHook) -> dict[str, Any]:
        """Wait, and return the event, as JSON."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event, as JSON."""
        if self.task_instance is not None and self.cancel_on_kill:
            ask_early(self.task_instance)
        try:
            async with self._make_hook() as hook:
                payload = await self.wait(hook)
        except asyncio.CancelledError:
            # After the deadline, it is taken for Airflow's end of a late deferral, and not for a kill.
            if not TRIGGERER_CALLS_ON_KILL and (self.cancel_on_timeout or time.time() < self.deadline):
                await self._cancel_if_abandoned()
            raise
        yield TriggerEvent(payload)

    async def on_kill(self) -> None:
        """Cancel the requests if the task was killed while deferred. Airflow 3.3 and later calls this."""
        await self._cancel_if_abandoned()

    async def check_deadline(self) -> None:
        """
        Return if the deadline that has passed is still the task's.

        A triggerer that was frozen may find that a newer try waits for the same request, until a later deadline.

        :raises RequestTimeoutError: If it does.
        """
        # One question for a thousand requests, and another one after a time in which the process may have been frozen.
        if self._deadline_check is None or abs(time.time() - self._checked_at) > ANSWER_HOLDS_SECONDS:
            self._checked_at = time.time()
            self._deadline_check = asyncio.create_task(self._has_newer_deadline())
        if await asyncio.shield(self._deadline_check):
            raise RequestTimeoutError("A newer try of the task waits for it, until a later deadline.", advice="")

    async def _has_newer_deadline(self) -> bool:
        if self.task_instance is None:
            return False
        try:
            return await has_newer_deadline(
                self.task_instance, self.deadline_key, self.is_own_deadline, seconds=CHECK_TIMEOUT
            )
        except Exception as error:  # noqa: BLE001 - without an answer, the deadline counts
            self.log.warning("Airflow could not tell whether a newer try waits for the request: %r", error)
            return False

    async def _cancel_if_abandoned(self) -> None:
        """
        Cancel the requests if their task no longer waits for them, and finish that even if this coroutine is cancelled.

        Airflow 3.3 cancels a trigger again in each of its loops, so that ``on_kill`` itself has about one second.
        """
        if not self.cancel_on_kill or not self.pending():
            return
        cancel = asyncio.create_task(self._cancel_abandoned())
        _hold(cancel)
        while not cancel.done():
            try:
                await asyncio.shield(cancel)
            except asyncio.CancelledError:
                continue

    async def _is_abandoned(self) -> bool:
        task = self.task_instance
        if task is None:
            return False
        seconds = min(CHECK_TIMEOUT, CANCEL_TIMEOUT)
        return await is_abandoned(task, self.owner_key, self.owner_value(), seconds=seconds)

    async def _cancel_abandoned(self) -> None:
        request_ids = self.pending()
        began = asyncio.get_running_loop().time()
        try:
            if not await self._is_abandoned():
                self.log.info("%s still waits. Not cancelled: %s.", self._task_name(), list_requests(request_ids))
                return
        except Exception:
            self.log.exception(
                "Airflow does not say whether %s still waits. Not cancelled: %s. To cancel by hand, if the task was "
                "killed: %s",
                self._task_name(),
                list_requests(request_ids),
                cancel_command(self.odirouter_conn_id, self.endpoint, request_ids[0]),
            )
            return
        left = CANCEL_TIMEOUT - (asyncio.get_running_loop().time() - began)
        outcomes = await cancel_all(self._make_hook(), self.endpoint, request_ids, seconds=left, cause="killed")
        log_outcomes(
            outcomes,
            conn_id=self.odirouter_conn_id,
            endpoint=self.endpoint,
            log=self.log.log,
            why=f"{self._task_name()} is no longer deferred for this trigger: it was killed, cleared, or marked.",
        )

    def _make_hook(self) -> OdiRouterHook:
        hook = OdiRouterHook(self.odirouter_conn_id)
        hook.metrics = Metrics.of(self.task_instance)
        return hook

    def _task_name(self) -> str:
        task = self.task_instance
        return f"Task {task.dag_id}.{task.task_id} of run {task.run_id}" if task else "The task"


class OdiRouterRequestTrigger(WaitingTrigger):
    """
    Wait for a request, without a worker, and say in one event how it ended.

    The event is a :class:`~airflow_provider_odirouter.models.RequestEvent` as JSON.

    :param odirouter_conn_id: The Airflow connection.
    :param endpoint: The model.
    :param request_id: The request.
    :param deadline: Epoch seconds, absolute: a trigger moves between processes, and its budget must not start again.
    :param poll_interval: Seconds between polls. Default: 5.
    :param cancel_on_kill: Whether the request is cancelled when its task no longer waits for it. Default: true.
    :param cancel_on_timeout: Whether the request is cancelled when the deadline passes. Default: true.
    :param submitted_at: Epoch seconds, for the manifest; ``None``: another task has submitted the request.
    :param version: Of these arguments.
    """

    owner_key = "request_id"
    deadline_key = REQUEST_XCOM

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
        version: int = VERSION,
    ) -> None:
        super().__init__(
            odirouter_conn_id=odirouter_conn_id, endpoint=endpoint, cancel_on_kill=cancel_on_kill, version=version
        )
        self.request_id = request_id
        self.deadline = deadline
        self.cancel_on_timeout = cancel_on_timeout
        self._wait = Wait(endpoint, request_id, poll_interval, deadline, cancel_on_timeout, submitted_at)
        self._has_ended = False

    @classmethod
    def for_wait(cls, wait: Wait, *, odirouter_conn_id: str, cancel_on_kill: bool) -> Self:
        """Return the trigger of a wait."""
        return cls(odirouter_conn_id=odirouter_conn_id, cancel_on_kill=cancel_on_kill, **asdict(wait))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            "airflow_provider_odirouter.triggers.request.OdiRouterRequestTrigger",
            {
                "version": VERSION,
                "odirouter_conn_id": self.odirouter_conn_id,
                "cancel_on_kill": self.cancel_on_kill,
                **asdict(self._wait),
            },
        )

    def owner_value(self) -> str:
        """Return the request's id."""
        return self.request_id

    def is_own_deadline(self, pushed: Any) -> bool:
        """Return whether the record has this trigger's deadline: each try has one of its own."""
        try:
            deadline = RequestRecord.model_validate(pushed).deadline
        except ValidationError:
            return False  # another version of this provider has written it, and so another try
        return deadline is not None and abs(deadline.timestamp() - self.deadline) < 1.0

    def pending(self) -> Sequence[str]:
        """Return the request, until it has ended."""
        # Airflow can call on_kill for about 2 s after the event is sent; there is nothing to cancel any more.
        return () if self._has_ended else (self.request_id,)

    async def wait(self, hook: OdiRouterHook) -> dict[str, Any]:
        """Wait for the request."""
        event = await wait_for(
            hook,
            self._wait,
            first_poll_delay=first_poll_delay(),
            note=self.log.info,
            on_status=self._show_status,
            before_cancel=self.check_deadline,
        )
        self._has_ended = True
        return event.model_dump(mode="json")

    def _show_status(self, status: RequestStatus) -> None:
        """
        Push a status for the gallery, in the background.

        Not awaited: the wait does not depend on it, and Airflow 3.3 does not call ``on_kill`` of a trigger that is
        cancelled inside ``sync_to_async``.
        """
        if self.task_instance is not None:
            record = StatusRecord(request_id=self.request_id, raw_status=status.raw_status, seen_at=datetime.now(UTC))
            _hold(asyncio.create_task(self._push_status(self.task_instance, record)))

    async def _push_status(self, task: TaskKey, record: StatusRecord) -> None:
        try:
            async with _one_push, asyncio.timeout(CHECK_TIMEOUT):
                await sync_to_async(set_xcom, thread_sensitive=False)(
                    task.dag_id, task.task_id, task.run_id, task.map_index, STATUS_XCOM, record.to_xcom()
                )
        except Exception as error:  # noqa: BLE001 - of Airflow's; the log has the status anyway
            self.log.debug("The status could not be pushed: %r", error)


def _hold(task: asyncio.Task[None]) -> None:
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
