"""The trigger that waits for one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import RequestEvent
from airflow_provider_odirouter.polling import FIRST_LOOK_IN_TRIGGER, Wait
from airflow_provider_odirouter.records import REQUEST_XCOM, RequestRecord
from airflow_provider_odirouter.triggers.base import WaitingTrigger
from airflow_provider_odirouter.triggers.waiting import wait_for


class OdiRouterRequestTrigger(WaitingTrigger):
    """
    Wait for a request, without a worker, and tell in one event how it ended.

    The event is a :class:`~airflow_provider_odirouter.models.RequestEvent` as JSON.

    :param odirouter_conn_id: The Airflow connection.
    :param endpoint: The model.
    :param request_id: The request.
    :param deadline: Epoch seconds, absolute: a trigger moves between processes, and its budget must not start again.
    :param poll_interval: Seconds between looks.
    :param cancel_on_kill: Whether the request is cancelled when nobody waits for it any more.
    :param cancel_on_timeout: Whether the request is cancelled when the deadline passes.
    :param submitted_at: Epoch seconds, for the manifest; ``None``: another task has submitted the request.
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
    ) -> None:
        super().__init__(odirouter_conn_id=odirouter_conn_id, endpoint=endpoint, cancel_on_kill=cancel_on_kill)
        self.request_id = request_id
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.cancel_on_timeout = cancel_on_timeout
        self.submitted_at = submitted_at
        self._ended = False

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

    def owner_value(self) -> str:
        """Return the request's id."""
        return self.request_id

    def is_own_deadline(self, pushed: Any) -> bool:
        """Return whether the record has this trigger's deadline: each try has one of its own."""
        deadline = RequestRecord.model_validate(pushed).deadline
        return deadline is not None and abs(deadline.timestamp() - self.deadline) < 1.0

    def alive(self) -> Sequence[str]:
        """Return the request, until it has ended."""
        # Airflow can call on_kill for about 2 s after the event is out; there is nothing to cancel any more.
        return () if self._ended else (self.request_id,)

    async def wait(self, hook: OdiRouterHook) -> RequestEvent:
        """Wait for the request."""
        wait = Wait(
            endpoint=self.endpoint,
            request_id=self.request_id,
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            cancel_on_timeout=self.cancel_on_timeout,
            submitted_at=self.submitted_at,
        )
        event = await wait_for(
            hook,
            wait,
            first_look=FIRST_LOOK_IN_TRIGGER,
            note=self.log.info,
            before_cancel=self.check_deadline,
        )
        self._ended = True
        return event
