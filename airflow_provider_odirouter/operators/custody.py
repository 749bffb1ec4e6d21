"""
Live requests in the hands of a worker: however the try ends, somebody sees to them.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from airflow_provider_odirouter.compat import AirflowTaskTimeout, TaskDeferred
from airflow_provider_odirouter.errors import NotOwnerError, SubmitStoppedError
from airflow_provider_odirouter.operators.steps import cancel
from airflow_provider_odirouter.polling import OVER_AFTER_CANCEL
from airflow_provider_odirouter.triggers.canceling import by_hand
from airflow_provider_odirouter.triggers.ownership import WaitingTask, task_state

if TYPE_CHECKING:
    from airflow_provider_odirouter.durability import Memory
    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
    from airflow_provider_odirouter.lifecycle.ownership import Ownership

log = logging.getLogger(__name__)

NOT_KILLED = frozenset({"running", "deferred", "up_for_retry", "scheduled", "queued"})
"""The states of a task instance that Airflow still wants to succeed: it is only this process that has to end."""
STATE_TIMEOUT = 2.0
"""Seconds for Airflow to tell the state while it kills the task: 5 s later it uses SIGKILL."""


class Lasting(Protocol):
    """What is used of a task's memory."""

    @property
    def lasts(self) -> bool:
        """Whether a new try will know what this one notes."""


class Charge(Protocol):
    """What is in custody: one request, or all of a batch."""

    def request_ids(self) -> Sequence[str]:
        """Return the requests that may be running."""

    def begin_nothing_more(self) -> None:
        """Submit nothing from now on."""

    def cancel(self) -> None:
        """Cancel all; may be called from a signal handler."""

    def note_cancel(self) -> None:
        """Have a new try know it. Not called from a signal handler."""


class OneRequest:
    """A request in custody."""

    def __init__(self, hook: OdiRouterHook, endpoint: str, request_id: str, memory: Memory) -> None:
        self._hook = hook
        self._endpoint = endpoint
        self._request_id = request_id
        self._memory = memory
        self._is_over = False

    def request_ids(self) -> Sequence[str]:
        """Return the request."""
        return (self._request_id,)

    def begin_nothing_more(self) -> None:
        """Do nothing: it is submitted already."""

    def cancel(self) -> None:
        """Cancel it."""
        self._is_over = cancel(self._hook, self._endpoint, self._request_id) in OVER_AFTER_CANCEL

    def note_cancel(self) -> None:
        """Forget the request if nothing is left of it."""
        if self._is_over:
            self._memory.forget()


class Custody:
    """
    What a worker does about its requests when its try is killed or fails.

    :param task: The task instance.
    :param memory: What a new try will know.
    :param ownership: Whether this process still acts for the task.
    :param tried_again: Whether Airflow tries again if this try fails.
    """

    def __init__(
        self,
        hook: OdiRouterHook,
        endpoint: str,
        task: WaitingTask,
        memory: Lasting,
        ownership: Ownership,
        *,
        cancel_on_kill: bool,
        cancel_on_timeout: bool,
        tried_again: bool,
    ) -> None:
        self._hook = hook
        self._endpoint = endpoint
        self._task = task
        self._memory = memory
        self._ownership = ownership
        self._cancel_on_kill = cancel_on_kill
        self._cancel_on_timeout = cancel_on_timeout
        self._tried_again = tried_again
        self._charge: Charge | None = None
        self._cancelled: Charge | None = None
        self._killed = False

    def on_kill(self) -> None:
        """
        See to the requests, and stop what waits for them. Airflow calls this from a signal handler.

        :raises RuntimeError: Wherever the task just is: Airflow itself would let it go on until it uses SIGKILL.
        """
        if self._killed:
            return
        self._killed = True
        self._hook.ask_no_more()
        if self._charge is None:
            log.warning("The task is killed. If it was just submitting, its request may be running and may be paid.")
            return
        self._charge.begin_nothing_more()
        if self._cancel_on_kill and self._ownership.is_owner_within(STATE_TIMEOUT) and not self._outlives_process():
            if request_ids := self._charge.request_ids():
                # Said before it is tried: the process may not live to say how it ended.
                log.warning(
                    "The task is killed. %s cancelled now; if nothing more is said of it, cancel it by hand: %s",
                    _in_words(request_ids),
                    by_hand(self._hook.odirouter_conn_id, self._endpoint, request_ids[0]),
                )
            self._cancel()
        self.stop_if_killed()

    def refuse_if_killed(self) -> None:
        """
        Keep a submit from being sent, be it for the first time or after a pause.

        :raises SubmitStoppedError: If the task was killed.
        """
        if self._killed:
            raise SubmitStoppedError("The task was killed before its submit was sent.")

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

        Until then a deferral would be refused where nobody notices, and leave the requests alone.

        :raises RuntimeError: If the task was killed.
        :raises NotOwnerError: If another try has begun.
        """
        self._ownership.check()
        try:
            self._killed = self._killed or task_state(self._task) != "running"
        except Exception as error:  # noqa: BLE001 - then it is as it was before the question
            log.warning("Airflow could not tell whether the task is still wanted: %r", error)
        self.stop_if_killed()

    @contextmanager
    def of(self, charge: Charge, *, note: Callable[[], object] = lambda: None) -> Iterator[None]:
        """
        Keep requests until they are a trigger's, have ended, or are another task's.

        :param note: Has a new try know of them; called first, since a kill may have come during their submit.
        """
        self._charge = charge
        try:
            self._ownership.check()
            note()
            self.stop_if_killed()
            yield
            self.stop_if_killed()
        except TaskDeferred:
            if self._charge is None:
                raise RuntimeError("The task was killed.") from None
            self._charge = None
            raise
        except BaseException as error:
            charge.begin_nothing_more()
            if isinstance(error, NotOwnerError) or not self._ownership.is_owner_within(STATE_TIMEOUT):
                self._charge = None
                self._leave(charge.request_ids())
                raise
            if self._charge and self._is_cancelled_after(error):
                self._cancel()
            elif self._charge:
                fate = "a new try goes on with it" if self._is_left_to_a_new_try() else "nobody waits for it"
                if request_ids := charge.request_ids():
                    log.warning("%s left alone: %s.", _in_words(request_ids), fate)
            # Airflow calls on_kill after its time-out, too.
            self._charge = None
            if self._cancelled:
                self._cancelled.note_cancel()
            raise
        self._charge = None

    def _is_cancelled_after(self, error: BaseException) -> bool:
        if self._killed:
            return self._cancel_on_kill and not self._outlives_process()
        if isinstance(error, AirflowTaskTimeout):
            return self._cancel_on_timeout
        return not (self._is_left_to_a_new_try() and getattr(error, "retry_helps", True))

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

    def _leave(self, request_ids: Sequence[str]) -> None:
        if request_ids:
            log.warning(
                "%s left alone: this process no longer acts for the task. What no newer try names in its log may "
                "be paid for nothing; to cancel it by hand: %s",
                _in_words(request_ids),
                by_hand(self._hook.odirouter_conn_id, self._endpoint, request_ids[-1]),
            )

    def _cancel(self) -> None:
        if charge := self._charge:
            self._charge, self._cancelled = None, charge
            charge.cancel()


def _in_words(request_ids: Sequence[str]) -> str:
    return f"Request {request_ids[0]} is" if len(request_ids) == 1 else f"{len(request_ids):,} requests are"
