"""The trigger that waits for all requests of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.polling import Wait, may_be_alive
from airflow_provider_odirouter.lifecycle.wait import wait_for_all
from airflow_provider_odirouter.models import BatchEvent, RequestEvent, unpack_deadlines
from airflow_provider_odirouter.triggers.request import VERSION, WaitingTrigger, first_poll_delay
from airflow_provider_odirouter.xcoms import WAIT_XCOM


class _ShortInLogs(dict[str, Any]):
    """A batch's event: Airflow's log has each event whole, in one line."""

    def __repr__(self) -> str:
        return f"{len(self['endings']):,} requests: {self['endings'].count('S'):,} have succeeded"


class OdiRouterBatchTrigger(WaitingTrigger):
    """
    Wait for many requests, without a worker, and say in one event how they ended.

    The event is a :class:`~airflow_provider_odirouter.models.BatchEvent` as JSON.

    :param odirouter_conn_id: The Airflow connection.
    :param endpoint: The model.
    :param wait_id: Names these requests; the task has pushed it as an XCom.
    :param deadlines: The requests, and the end of the wait for each, see
        :func:`~airflow_provider_odirouter.models.pack_deadlines`. They are absolute: a trigger moves between
        processes, and its budget must not start again.
    :param poll_interval: Seconds between polls of one request. Default: 5.
    :param cancel_on_kill: Whether the requests are cancelled when their task no longer waits for them. Default: true.
    :param cancel_on_timeout: Whether those that have not ended are cancelled when the deadline passes. Default: true.
    :param version: Of these arguments.
    """

    owner_key = deadline_key = WAIT_XCOM

    def __init__(
        self,
        *,
        odirouter_conn_id: str,
        endpoint: str,
        wait_id: str,
        deadlines: str,
        poll_interval: float = 5.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        version: int = VERSION,
    ) -> None:
        super().__init__(
            odirouter_conn_id=odirouter_conn_id, endpoint=endpoint, cancel_on_kill=cancel_on_kill, version=version
        )
        self.wait_id = wait_id
        self.deadlines = deadlines
        try:
            self._deadlines = unpack_deadlines(deadlines)
        except ValueError as error:
            raise TypeError(str(error)) from error
        self.deadline = max(self._deadlines.values())
        self.poll_interval = poll_interval
        self.cancel_on_timeout = cancel_on_timeout
        self._pending = dict.fromkeys(self._deadlines)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            "airflow_provider_odirouter.triggers.batch.OdiRouterBatchTrigger",
            {
                "version": VERSION,
                "odirouter_conn_id": self.odirouter_conn_id,
                "endpoint": self.endpoint,
                "wait_id": self.wait_id,
                "deadlines": self.deadlines,
                "poll_interval": self.poll_interval,
                "cancel_on_kill": self.cancel_on_kill,
                "cancel_on_timeout": self.cancel_on_timeout,
            },
        )

    def owner_value(self) -> str:
        """Return the name of these requests."""
        return self.wait_id

    def is_own_deadline(self, pushed: Any) -> bool:
        """Return whether it is the name of these requests: each wait has one of its own."""
        return bool(pushed == self.wait_id)

    def pending(self) -> Sequence[str]:
        """Return the requests that have not ended."""
        return tuple(self._pending)

    async def wait(self, hook: OdiRouterHook) -> dict[str, Any]:
        """Wait for all requests."""
        events = await wait_for_all(
            hook,
            [
                Wait(self.endpoint, request_id, self.poll_interval, deadline, self.cancel_on_timeout)
                for request_id, deadline in self._deadlines.items()
            ],
            first_poll_delay=first_poll_delay(),
            note=self.log.info,
            on_end=self._note_end,
            before_cancel=self.check_deadline,
        )
        # The task handles those that may still run. Airflow can call on_kill for about 2 s after the event is sent.
        self._pending.clear()
        return _ShortInLogs(BatchEvent.from_events(events).model_dump(mode="json"))

    def _note_end(self, event: RequestEvent) -> None:
        if not may_be_alive(event):
            self._pending.pop(event.request_id, None)
