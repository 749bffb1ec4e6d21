"""
A live request in the hands of a worker: however the try ends, somebody sees to the request.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from airflow_provider_odirouter.compat import AirflowTaskTimeout, TaskDeferred
from airflow_provider_odirouter.operators.steps import by_hand, cancel
from airflow_provider_odirouter.polling import OVER_AFTER_CANCEL
from airflow_provider_odirouter.triggers.ownership import WaitingTask, task_state

if TYPE_CHECKING:
    from airflow_provider_odirouter.durability import Memory
    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

log = logging.getLogger(__name__)

NOT_KILLED = frozenset({"running", "deferred", "up_for_retry", "scheduled", "queued"})
"""The states of a task instance that Airflow still wants to succeed: it is only this process that has to end."""
STATE_TIMEOUT = 2.0
"""Seconds for Airflow to tell the state while it kills the task: 5 s later it uses SIGKILL."""


class Custody:
    """
    What a worker does about its request when its try is killed or fails.

    :param task: The task instance.
    :param memory: What a new try will know.
    :param tried_again: Whether Airflow tries again if this try fails.
    """

    def __init__(
        self,
        hook: OdiRouterHook,
        endpoint: str,
        task: WaitingTask,
        memory: Memory,
        *,
        cancel_on_kill: bool,
        cancel_on_timeout: bool,
        tried_again: bool,
    ) -> None:
        self._hook = hook
        self._endpoint = endpoint
        self._task = task
        self._memory = memory
        self._cancel_on_kill = cancel_on_kill
        self._cancel_on_timeout = cancel_on_timeout
        self._tried_again = tried_again
        self._request_id: str | None = None
        self._is_over = False
        self._killed = False

    def on_kill(self) -> None:
        """
        See to the request, and stop what waits for it. Airflow calls this from a signal handler.

        :raises RuntimeError: Wherever the task just is: Airflow itself would let it go on until it uses SIGKILL.
        """
        if self._killed:
            return
        self._killed = True
        if self._request_id is None:
            log.warning("The task is killed. If it was just submitting, its request may be running and may be paid.")
            return
        if self._cancel_on_kill and not self._outlives_process():
            # Said before it is tried: the process may not live to say how it ended.
            log.warning(
                "The task is killed, and cancels request %s. If nothing more is said of it, cancel it by hand: %s",
                self._request_id,
                by_hand(self._hook, self._endpoint, self._request_id),
            )
            self._cancel()
        self.stop_if_killed()

    def stop_if_killed(self) -> None:
        """
        Stop what was interrupted by a kill.

        :raises RuntimeError: If the task was killed.
        """
        if self._killed:
            raise RuntimeError("The task was killed.")

    def stop_if_ended(self) -> None:
        """
        Stop if Airflow has ended the task without having told so: it does with the next heartbeat, 5 s later.

        Until then a deferral would be refused where nobody notices, and leave the request alone.

        :raises RuntimeError: If the task was killed.
        """
        try:
            self._killed = self._killed or task_state(self._task) != "running"
        except Exception as error:  # noqa: BLE001 - then it is as it was before the question
            log.warning("Airflow could not tell whether the task is still wanted: %r", error)
        self.stop_if_killed()

    @contextmanager
    def of(self, request_id: str) -> Iterator[None]:
        """Keep a request until it is a trigger's, has ended, or is another task's."""
        self._request_id = request_id
        try:
            self.stop_if_killed()
            yield
            self.stop_if_killed()
        except TaskDeferred:
            if self._request_id is None:
                raise RuntimeError("The task was killed.") from None
            self._request_id = None
            raise
        except BaseException as error:
            if self._request_id and self._is_cancelled_after(error):
                self._cancel()
            elif self._request_id:
                fate = "a new try goes on with it" if self._is_left_to_a_new_try() else "nobody waits for it"
                log.warning("Request %s is left alone: %s.", request_id, fate)
            # Airflow calls on_kill after its time-out, too.
            self._request_id = None
            if self._is_over:
                self._memory.forget()
            raise
        self._request_id = None

    def _is_cancelled_after(self, error: BaseException) -> bool:
        if self._killed:
            return self._cancel_on_kill and not self._outlives_process()
        if isinstance(error, AirflowTaskTimeout):
            return self._cancel_on_timeout
        return not self._is_left_to_a_new_try()

    def _is_left_to_a_new_try(self) -> bool:
        return self._memory.lasts and self._tried_again

    def _outlives_process(self) -> bool:
        """
        Tell whether a new try goes on with the request: a worker that stops, or was frozen for a while, kills no task.

        Asked from a thread: a signal handler may have interrupted another question, which then holds the line.
        """
        if not self._is_left_to_a_new_try():
            return False
        states: list[str | None] = []

        def ask() -> None:
            with suppress(Exception):  # without an answer, it is taken for a kill
                states.append(task_state(self._task))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(STATE_TIMEOUT)
        return bool(states) and states[0] in NOT_KILLED

    def _cancel(self) -> None:
        request_id, self._request_id = str(self._request_id), None
        self._is_over = cancel(self._hook, self._endpoint, request_id) in OVER_AFTER_CANCEL
