"""The trigger that waits for all requests of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import BatchEvent, RequestEvent
from airflow_provider_odirouter.polling import FIRST_LOOK_IN_TRIGGER, Wait, may_be_alive
from airflow_provider_odirouter.records import WAVE_XCOM
from airflow_provider_odirouter.triggers.base import WaitingTrigger
from airflow_provider_odirouter.triggers.waiting import wait_for_all


class OdiRouterBatchTrigger(WaitingTrigger):
    """
    Wait for many requests, without a worker, and tell in one event how they ended.

    The event is a :class:`~airflow_provider_odirouter.models.BatchEvent` as JSON.

    :param odirouter_conn_id: The Airflow connection.
    :param endpoint: The model.
    :param wave: Names these requests; the task has pushed it as an XCom.
    :param request_ids: The requests.
    :param deadline: Epoch seconds, absolute: a trigger moves between processes, and its budget must not start again.
    :param poll_interval: Seconds between looks at one request.
    :param cancel_on_kill: Whether the requests are cancelled when nobody waits for them any more.
    :param cancel_on_timeout: Whether those that have not ended are cancelled when the deadline passes.
    """

    owner_key = deadline_key = WAVE_XCOM

    def __init__(
        self,
        *,
        odirouter_conn_id: str,
        endpoint: str,
        wave: str,
        request_ids: Sequence[str],
        deadline: float,
        poll_interval: float = 5.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
    ) -> None:
        super().__init__(odirouter_conn_id=odirouter_conn_id, endpoint=endpoint, cancel_on_kill=cancel_on_kill)
        self.wave = wave
        self.request_ids = list(request_ids)
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.cancel_on_timeout = cancel_on_timeout
        self._alive = dict.fromkeys(request_ids)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            "airflow_provider_odirouter.triggers.batch.OdiRouterBatchTrigger",
            {
                "odirouter_conn_id": self.odirouter_conn_id,
                "endpoint": self.endpoint,
                "wave": self.wave,
                "request_ids": self.request_ids,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
                "cancel_on_kill": self.cancel_on_kill,
                "cancel_on_timeout": self.cancel_on_timeout,
            },
        )

    def owner_value(self) -> str:
        """Return the name of these requests."""
        return self.wave

    def is_own_deadline(self, pushed: Any) -> bool:
        """Return whether it is the name of these requests: each wait has one of its own."""
        return bool(pushed == self.wave)

    def alive(self) -> Sequence[str]:
        """Return the requests that have not ended."""
        return tuple(self._alive)

    async def wait(self, hook: OdiRouterHook) -> BatchEvent:
        """Wait for all requests."""
        waits = [
            Wait(
                endpoint=self.endpoint,
                request_id=request_id,
                poll_interval=self.poll_interval,
                deadline=self.deadline,
                cancel_on_timeout=self.cancel_on_timeout,
            )
            for request_id in self.request_ids
        ]
        events = await wait_for_all(
            hook,
            waits,
            first_look=FIRST_LOOK_IN_TRIGGER,
            note=self.log.info,
            on_end=self._note_end,
            before_cancel=self.check_deadline,
        )
        # The task sees to those that may be alive yet. Airflow can call on_kill for about 2 s after the event is out.
        self._alive.clear()
        return BatchEvent.of(events)

    def _note_end(self, event: RequestEvent) -> None:
        if not may_be_alive(event):
            self._alive.pop(event.request_id, None)
