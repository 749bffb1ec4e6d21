"""
Whether this process still acts for its task.

Airflow begins a new try beside a process that it takes for dead: one that was frozen (``SIGSTOP``, a suspended machine)
and wakes up, or one whose supervisor alone was killed. Both would go on to submit, cancel and write beside the new try,
and so pay twice. So the process knows that it is the owner before each call of the API and before each write:

- Its parent is Airflow's supervisor. If that is dead, it is not the owner: it can ask nothing, and Airflow tries again.
- A beat shows whether the process was frozen. If it was, it asks Airflow whether its task instance is still the one.
  Until there is an answer, it does nothing.

That suffices, since nothing else lets Airflow begin a new try while the process lives: a supervisor that is alive and
not frozen ends the process as soon as Airflow refuses its heartbeat, and before Airflow misses one for long. Even so, a
batch and a note that lie beside the outputs carry the mark of the try that owns them, which is read with each group of
writes; Airflow's own store takes nothing from an old task instance. What remains is what was under way at the moment
of the freeze, between the check and the end of the call: for a batch, at most ``max_concurrent_submits`` submits.

Nothing of this is armed in ``dag.test()``, where the parent is a shell and there is no heartbeat.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from airflow_provider_odirouter.compat import has_supervisor_process, is_current_instance
from airflow_provider_odirouter.errors import NotOwnerError

if TYPE_CHECKING:
    from uuid import UUID

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
FROZEN_SECONDS = 5.0
"""
Between two beats, after which the process counts as frozen. A busy machine may be as late, and one question more is all
that costs; Airflow takes a process for dead after ``[scheduler] task_instance_heartbeat_timeout``, 300 s by default.
"""
ANSWER_SECONDS = 10.0
"""For Airflow to answer, before it is asked again."""
PAUSE_SECONDS = 1.0
"""Between two questions that have no answer."""
HEARTBEAT = 0.2
"""Seconds until a signal is handled at the latest."""
SUPERVISOR_DIED = "Airflow's supervisor, which watches over it, is dead"


class TaskInstance(Protocol):
    """What is used of Airflow's task instance."""

    id: UUID


def elapsed() -> float:
    """Return the seconds of a clock that goes on while the machine is suspended, which a monotonic one may not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


class Ownership:
    """
    Tells whether this process still acts for its task; may be asked by many threads.

    :param is_current: Asks Airflow whether the task instance is still the one; ``None``: nothing is watched.
    :param patience: Seconds to go on asking while Airflow does not answer.
    """

    def __init__(
        self,
        is_current: Callable[[], bool] | None,
        *,
        patience: float,
        parent: Callable[[], int] = os.getppid,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._is_current = is_current
        self._patience = patience
        self._parent = parent
        self._clock = clock
        self._supervisor = parent()
        self._last_beat = clock()
        self._freezes = 0
        self._answered = 0
        """How many freezes there were when Airflow last said that this try is the current one."""
        self._lost: str | None = None
        self._asking = threading.Lock()
        self._question: _Question | None = None

    @classmethod
    def of(cls, ti: TaskInstance, *, patience: float) -> Self:
        """
        Return the ownership of a task instance that runs in this process.

        :param patience: Seconds to go on asking while Airflow does not answer.
        """
        return cls((lambda: is_current_instance(ti.id)) if has_supervisor_process() else None, patience=patience)

    def begin(self) -> None:
        """
        Begin to watch, and ask Airflow once: the process may have been frozen before its first beat.

        Without an answer, it goes on: it is not known to have been frozen.

        :raises NotOwnerError: If this process no longer acts for its task.
        """
        if self._is_current:
            threading.Thread(target=self._beat, name="odirouter-beat", daemon=True).start()
            if problem := self._ask(ANSWER_SECONDS):
                log.warning("Airflow does not say whether this try is the current one: %r. The task goes on.", problem)
        self.check()

    def check(self) -> None:
        """
        Return if this process acts for its task. After a freeze, wait for Airflow's answer.

        :raises NotOwnerError: If it does not, or if Airflow did not answer for too long.
        """
        if self._is_suspect():
            with self._asking:
                self._wait_for_answer()
        if self._lost:
            raise NotOwnerError(
                f"This process no longer acts for its task: {self._lost}. It leaves the requests as they are."
            )

    def is_owner_within(self, seconds: float) -> bool:
        """
        Tell in a bounded time whether this process acts for its task: for a signal handler.

        :return: False, too, if the process was frozen and there is no answer in time.
        """
        if self._is_suspect() and (problem := self._ask(seconds)):
            log.warning("Airflow does not say whether this try is the current one: %r.", problem)
        return not (self._is_suspect() or self._lost)

    def _beat(self) -> None:
        while not self._lost:  # else as long as the process lives
            time.sleep(BEAT_SECONDS)
            self._is_suspect()

    def _is_suspect(self) -> bool:
        """
        Look at parent and clock, and return whether Airflow has to be asked.

        Without a lock: a signal handler may interrupt this in the same thread.
        """
        if self._is_current is None:
            return False
        if self._parent() != self._supervisor:
            self.lose(SUPERVISOR_DIED)
        now, gap = self._clock(), self._clock() - self._last_beat
        if gap > FROZEN_SECONDS:
            # First this, then the beat: whoever sees the new beat sees the freeze.
            self._freezes += 1
            log.warning("This process did not run for %.0f s.", gap)
        self._last_beat = now
        return self._freezes != self._answered and not self._lost

    def _wait_for_answer(self) -> None:
        deadline = self._clock() + self._patience
        while self._is_suspect():
            problem = self._ask(ANSWER_SECONDS)
            if problem and self._clock() > deadline:
                self.lose(f"it was frozen, and Airflow does not say whether it is the current try: {problem!r}")
            elif problem:
                log.warning("Airflow does not say whether this try is the current one: %r. It is asked again.", problem)
                time.sleep(PAUSE_SECONDS)

    def _ask(self, seconds: float) -> BaseException | None:
        """
        Ask beside this thread: a supervisor that is frozen never answers.

        Nothing is caught here: what a signal handler raises meanwhile is no answer of Airflow's.

        :return: Why there is no answer. A question without one in time stays open, and is not asked twice.
        """
        question = self._question = self._question or self._begin_to_ask()
        end = time.monotonic() + seconds
        # A signal that another thread gets is handled when a wait of the main thread ends: so no wait is a long one.
        while not wait([question.answer], HEARTBEAT).done:
            if time.monotonic() > end:
                return TimeoutError(f"no answer within {seconds:g} s")
        self._question = None
        problem = question.answer.exception()
        if isinstance(problem, EOFError | ConnectionError):
            self.lose(SUPERVISOR_DIED)
        elif problem is None and question.answer.result():
            self._answered = question.freezes
        elif problem is None:
            self.lose("Airflow has begun another try of the task, or deleted it")
        return problem

    def _begin_to_ask(self) -> _Question:
        question = _Question(self._freezes, Future())

        def ask() -> None:
            try:
                question.answer.set_result(bool(self._is_current and self._is_current()))
            except Exception as error:  # noqa: BLE001 - raised where the answer is wanted
                question.answer.set_exception(error)

        threading.Thread(target=ask, name="odirouter-ownership", daemon=True).start()
        return question

    def lose(self, why: str) -> None:
        """
        Act for the task no more.

        :param why: Goes on after "This process no longer acts for its task:".
        """
        if not self._lost:
            self._lost = why
            log.error("This process no longer acts for its task: %s. It submits, cancels and writes nothing more.", why)


class _Question(NamedTuple):
    freezes: int
    """How many there were when it was asked: the answer says nothing about a later one."""
    answer: Future[bool]
