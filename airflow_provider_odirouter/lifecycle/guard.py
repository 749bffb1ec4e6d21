"""
A worker's hold on live requests: however the try ends, each request is cancelled, left to the next try, or named.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Protocol

from airflow_provider_odirouter.compat import AirflowTaskTimeout, TaskDeferred
from airflow_provider_odirouter.errors import NotOwnerError, SubmitStoppedError
from airflow_provider_odirouter.lifecycle.cancel import (
    SECONDS_IN_A_KILL,
    cancel_command,
    cancel_on_worker,
    cancel_request,
)
from airflow_provider_odirouter.lifecycle.ownership import ANSWER_SECONDS_IN_A_KILL, TaskKey, ask_task_state
from airflow_provider_odirouter.lifecycle.polling import OVER_AFTER_CANCEL
from airflow_provider_odirouter.storage.threads import start_or_error

if TYPE_CHECKING:
    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
    from airflow_provider_odirouter.lifecycle.ownership import Ownership
    from airflow_provider_odirouter.lifecycle.state import RequestStore

log = logging.getLogger(__name__)

NOT_KILLED = frozenset({"running", "deferred", "up_for_retry", "scheduled", "queued"})
"""The states of a task instance that Airflow still wants to succeed: only this process has to end."""


SUBMIT_UNDER_WAY = (
    "Its submit is under way: a line below says what happens to the request. If there is none, the request may be "
    "running and may be paid."
)
NOTHING_SUBMITTED = "This try has submitted nothing."


class Stage(IntEnum):
    """What the guard lets the task do. It only ever moves on to a later stage."""

    OPEN = auto()
    """Requests may be submitted."""
    STOPPED = auto()
    """No further request is submitted; the task goes on with those that it has."""
    KILLED = auto()
    """The task is killed, and ends; its requests are left to the next try, unless they are cancelled."""
    RELEASED = auto()
    """The requests belong to a trigger, to another task or to the next try, or have ended."""
    CANCELLED = auto()
    """The requests are cancelled, and so is one that a late submit brings."""


class Cancellable(Protocol):
    """What the guard holds: one request, or all requests of a batch."""

    def request_ids(self) -> Sequence[str]:
        """Return the requests that may be running."""

    def forget(self, request_ids: Collection[str]) -> None:
        """Note for the next try that these requests are over. Not called from a signal handler."""


class SingleRequest:
    """The request of a single edit."""

    def __init__(self, request_id: str, store: RequestStore) -> None:
        self._request_id = request_id
        self._store = store

    def request_ids(self) -> Sequence[str]:
        """Return the request."""
        return (self._request_id,)

    def forget(self, request_ids: Collection[str]) -> None:
        """Forget the request: the next try submits."""
        if self._request_id in request_ids:
            self._store.forget()


class RequestGuard:
    """
    Decides what happens to a task's live requests when its process ends; in one object, with one state.

    :param task: The task instance.
    :param survives_retry: Whether a new try will know of the requests.
    :param ownership: Whether this process still acts for the task.
    :param will_be_retried: Whether Airflow tries again if this try fails.
    """

    def __init__(
        self,
        hook: OdiRouterHook,
        endpoint: str,
        task: TaskKey,
        ownership: Ownership,
        *,
        survives_retry: Callable[[], bool],
        cancel_on_kill: bool,
        cancel_on_timeout: bool,
        will_be_retried: bool,
    ) -> None:
        self._hook = hook
        self._endpoint = endpoint
        self._task = task
        self._ownership = ownership
        self._survives_retry = survives_retry
        self._cancel_on_kill = cancel_on_kill
        self._cancel_on_timeout = cancel_on_timeout
        self._will_be_retried = will_be_retried
        self._stage = Stage.OPEN
        self._held: Cancellable | None = None
        self._has_submitted = False
        """Whether a submit was let through, so that its request may exist before it is held."""
        self._over: set[str] = set()
        """Requests that were cancelled in time."""
        # A signal handler may come while its own thread moves the stage on.
        self._moving = threading.RLock()

    # --- What the task asks, and says

    @property
    def may_submit(self) -> bool:
        """Whether a further request may be submitted."""
        return self._stage is Stage.OPEN

    def stop_submitting(self) -> None:
        """Let no further request be submitted."""
        self._move_on(Stage.STOPPED)

    def check_submit(self) -> None:
        """
        Keep a submit from being sent, be it for the first time or after a pause.

        :raises SubmitStoppedError: If no further request may be submitted.
        """
        if not self.may_submit:
            raise SubmitStoppedError("The submit was not sent: the task is ending.")
        self._has_submitted = True

    def add(self, request_id: str) -> None:
        """Hold one more request. It is cancelled if all others were while it was submitted."""
        if self._stage is Stage.CANCELLED:
            self._note_over({request_id: cancel_request(self._hook, self._endpoint, request_id, cause="killed")})

    def stop_if_killed(self) -> None:
        """
        Stop what a kill has interrupted.

        :raises RuntimeError: If the task was killed.
        """
        if self._stage in {Stage.KILLED, Stage.CANCELLED}:
            raise RuntimeError("The task was killed.")

    def stop_if_not_running(self) -> None:
        """
        Stop if Airflow has ended the task, which it only tells the process with the next heartbeat, 5 s later.

        Until then Airflow would refuse a deferral without a trace, and no process would hold the requests.

        :raises RuntimeError: If the task was killed.
        :raises NotOwnerError: If another try has begun.
        """
        self._ownership.check()
        try:
            if ask_task_state(self._task) != "running":
                self._move_on(Stage.KILLED)
        except Exception as error:  # noqa: BLE001 - then it is as it was before the question
            log.warning("Airflow could not tell whether the task is still running: %r", error)
        self.stop_if_killed()

    # --- How a try ends

    @contextmanager
    def hold(self, requests: Cancellable, *, note: Callable[[], object] = lambda: None) -> Iterator[None]:
        """
        Hold requests until they are a trigger's, have ended, or are another task's.

        :param note: Notes them for the next try; called first, since a kill may have come during their submit.
        """
        self._held = requests
        try:
            self._ownership.check()
            note()
            self.stop_if_killed()
            yield
            self.stop_if_killed()
        except TaskDeferred:
            self.stop_if_killed()
            raise
        except BaseException as error:
            self._end(requests, error)
            raise
        finally:
            # Airflow calls on_kill after its time-out, too.
            self._held = None
            self._move_on(Stage.RELEASED)

    def on_kill(self) -> None:
        """
        Handle the requests, and stop what waits for them. Airflow calls this from a signal handler.

        :raises RuntimeError: Wherever the task is: Airflow itself would let it run until it uses SIGKILL.
        """
        if self._stage >= Stage.KILLED:
            return
        self._move_on(Stage.KILLED)
        self._hook.freeze_connection()
        if self._held is None:
            log.warning("The task is killed. %s", SUBMIT_UNDER_WAY if self._has_submitted else NOTHING_SUBMITTED)
            return
        if (
            self._cancel_on_kill
            and self._ownership.is_owner_within(ANSWER_SECONDS_IN_A_KILL)
            and not self._next_try_takes_over()
        ):
            request_ids = self._held.request_ids()
            if not request_ids:
                log.warning("The task is killed. It has no live request; if a submit brings one now, it is cancelled.")
            else:
                # Said before it is tried: the process may not live to say how it ended.
                log.warning(
                    "The task is killed. %s cancelled now; if no line below says how that ended, cancel by hand: %s",
                    _describe(request_ids),
                    cancel_command(self._hook.odirouter_conn_id, self._endpoint, request_ids[0]),
                )
            self._cancel(self._held, cause="killed", seconds=SECONDS_IN_A_KILL)
        self.stop_if_killed()

    def _end(self, requests: Cancellable, error: BaseException) -> None:
        """Decide about requests whose try fails."""
        self.stop_submitting()
        if isinstance(error, NotOwnerError) or not self._ownership.is_owner_within(ANSWER_SECONDS_IN_A_KILL):
            self._leave(requests.request_ids())
            return
        if self._stage is not Stage.CANCELLED:
            if self._is_cancelled_after(error):
                self._cancel(requests, cause=self._cause_of(error))
            elif request_ids := requests.request_ids():
                then = "the next try keeps waiting" if self._has_next_try() else "no other try follows"
                log.warning("%s not cancelled: %s.", _describe(request_ids), then)
        if self._over:
            requests.forget(self._over)

    def _is_cancelled_after(self, error: BaseException) -> bool:
        if self._stage is Stage.KILLED:
            return self._cancel_on_kill and not self._next_try_takes_over()
        if isinstance(error, AirflowTaskTimeout):
            return self._cancel_on_timeout
        return not (self._has_next_try() and getattr(error, "retry_helps", True))

    def _has_next_try(self) -> bool:
        return self._survives_retry() and self._will_be_retried

    def _next_try_takes_over(self) -> bool:
        """
        Tell whether Airflow tries again after this kill: a worker that stops, or was frozen for a while, kills no task.

        Asked from a thread: a signal handler may have interrupted another question, which then holds the line.
        """
        if not self._has_next_try():
            return False
        states: list[str | None] = []

        def ask() -> None:
            with suppress(Exception):  # without an answer, it is taken for a kill
                states.append(ask_task_state(self._task))

        asking = threading.Thread(target=ask, daemon=True)
        if not start_or_error(asking):
            asking.join(ANSWER_SECONDS_IN_A_KILL)
        return bool(states) and states[0] in NOT_KILLED

    def _leave(self, request_ids: Sequence[str]) -> None:
        if request_ids:
            log.warning(
                "%s not cancelled: this process no longer acts for the task, and a newer try may keep waiting. To "
                "cancel by hand what no newer try names in its log: %s",
                _describe(request_ids),
                cancel_command(self._hook.odirouter_conn_id, self._endpoint, request_ids[-1]),
            )

    def _cause_of(self, error: BaseException) -> str:
        if self._stage is Stage.KILLED:
            return "killed"
        return "timeout" if isinstance(error, AirflowTaskTimeout) else "task_failed"

    def _cancel(self, requests: Cancellable, *, cause: str, seconds: float | None = None) -> None:
        # First the stage, then the ids: a request that a submit brings meanwhile is cancelled by one or the other.
        self._move_on(Stage.CANCELLED)
        if request_ids := requests.request_ids():
            why = "The task ends."
            outcomes = cancel_on_worker(self._hook, self._endpoint, request_ids, cause=cause, why=why, seconds=seconds)
            self._note_over(outcomes)

    def _note_over(self, outcomes: Mapping[str, object]) -> None:
        self._over.update(one for one, outcome in outcomes.items() if outcome in OVER_AFTER_CANCEL)

    def _move_on(self, stage: Stage) -> None:
        with self._moving:
            self._stage = max(self._stage, stage)


def _describe(request_ids: Sequence[str]) -> str:
    return f"Request {request_ids[0]} is" if len(request_ids) == 1 else f"{len(request_ids):,} requests are"
