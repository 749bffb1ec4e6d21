"""
Whether a worker's process, or a trigger, still acts for its task.

**A worker's process.** Airflow begins a new try beside a process that it takes for dead: one that was frozen
(``SIGSTOP``, a suspended machine) and wakes up, or one whose supervisor alone was killed. Both would submit, cancel and
write beside the new try, and so pay twice. So the process checks that it is the owner before each call of the API and
before each write:

- Its parent is Airflow's supervisor. If that is dead, it is not the owner: it can ask nothing, and Airflow tries again.
- A heartbeat of its own shows whether the process was frozen. If it was, it asks Airflow whether its task instance is
  still the current one. Until Airflow answers, it does nothing.

That suffices, since in no other case does Airflow begin a new try while the process lives: a supervisor that is alive
and not frozen ends the process as soon as Airflow refuses its heartbeat, and before Airflow misses one for long. Even
so, a batch's state and a note beside the outputs name the try that owns them, which is read with each group of writes;
Airflow's own store takes nothing from an old task instance. What remains are the calls that were under way at the
moment of the freeze, between the check and the end of a call: for a batch, at most ``max_concurrent_submits`` submits.

In ``dag.test()`` nothing of this is done: there the parent is a shell, and there is no supervisor to ask.

**A trigger.** Airflow cancels a trigger not only when its task is killed. Before the trigger cancels requests, it asks
Airflow whether the task is still deferred for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from asgiref.sync import sync_to_async

from airflow_provider_odirouter.compat import get_task_state, get_xcom, has_supervisor_process, is_current_instance
from airflow_provider_odirouter.errors import NotOwnerError
from airflow_provider_odirouter.storage.threads import start_or_error

if TYPE_CHECKING:
    from uuid import UUID

log = logging.getLogger(__name__)

_first_questions: set[asyncio.Task[None]] = set()
_asked = False

BEAT_SECONDS = 1.0

FROZEN_SECONDS = 5.0
"""
Between two beats, after which the process counts as frozen. A busy machine may be as late, which costs one question
more; Airflow takes a process for dead after ``[scheduler] task_instance_heartbeat_timeout``, 300 s by default.
"""

ANSWER_SECONDS = 10.0
"""For Airflow to answer, before it is asked again."""

ANSWER_SECONDS_IN_A_KILL = 2.0
"""For Airflow to answer while it kills the task: 5 s later it uses SIGKILL."""

PAUSE_SECONDS = 1.0
"""Between two questions without an answer."""

HEARTBEAT = 0.2
"""Seconds after which a signal is handled at the latest."""

SUPERVISOR_DIED = "Airflow's supervisor of it is dead"


class TaskInstance(Protocol):
    """What is used of Airflow's task instance."""

    id: UUID


class TaskKey(Protocol):
    """What names a task instance, whatever its try."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int | None


def elapsed() -> float:
    """Return the seconds of a clock that goes on while the machine is suspended, which a monotonic one may not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


class Ownership:
    """
    Whether this process still acts for its task; may be asked by many threads.

    :param is_current: Asks Airflow whether the task instance is still the current one; ``None``: nothing is checked.
    :param patience: Seconds to ask again while Airflow does not answer.
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
        """How many freezes there had been when Airflow last said that this try is the current one."""
        self._lost: str | None = None
        self._asking = threading.Lock()
        self._question: _Question | None = None

    @classmethod
    def of(cls, ti: TaskInstance, *, patience: float) -> Self:
        """
        Return the ownership of a task instance that runs in this process.

        :param patience: Seconds to ask again while Airflow does not answer.
        """
        return cls((lambda: is_current_instance(ti.id)) if has_supervisor_process() else None, patience=patience)

    def begin(self) -> None:
        """
        Start the heartbeat, and ask Airflow once: the process may have been frozen before its first beat.

        Without an answer, the task continues: nothing says that it was frozen.

        :raises NotOwnerError: If this process no longer acts for its task.
        """
        if self._is_current:
            threading.Thread(target=self._beat, name="odirouter-beat", daemon=True).start()
            if problem := self._ask(ANSWER_SECONDS):
                log.warning(
                    "Airflow does not say whether this try is the current one: %r. The task continues.", problem
                )
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
                f"This process no longer acts for its task: {self._lost}. It does not cancel its requests."
            )

    def is_owner_within(self, seconds: float) -> bool:
        """
        Return in a bounded time whether this process acts for its task: for a signal handler.

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
        Check parent and clock, and return whether Airflow has to be asked.

        Without a lock: a signal handler may interrupt this in the same thread.
        """
        if self._is_current is None:
            return False
        if self._parent() != self._supervisor:
            self.lose(SUPERVISOR_DIED)
        now, gap = self._clock(), self._clock() - self._last_beat
        if gap > FROZEN_SECONDS:
            # First this, then the beat: a thread that sees the new beat must see the freeze.
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
        Ask in another thread: a supervisor that is frozen never answers.

        Nothing is caught here: an error that a signal handler raises meanwhile is not an answer of Airflow's.

        :return: Why there is no answer. A question without one in time stays open, and is not asked twice.
        """
        question = self._question = self._question or self._begin_to_ask()
        end = time.monotonic() + seconds
        # A signal that another thread gets is handled when a wait of the main thread ends: so each wait is short.
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
            except Exception as error:  # noqa: BLE001 - raised where the answer is read
                question.answer.set_exception(error)

        if error := start_or_error(threading.Thread(target=ask, name="odirouter-ownership", daemon=True)):
            question.answer.set_exception(error)
        return question

    def lose(self, why: str) -> None:
        """
        Stop acting for the task.

        :param why: Continues "This process no longer acts for its task:".
        """
        if not self._lost:
            self._lost = why
            log.error("This process no longer acts for its task: %s. It submits, cancels and writes nothing more.", why)


class _Question(NamedTuple):
    freezes: int
    """How many there had been when it was asked: the answer says nothing about a later one."""
    answer: Future[bool]


def ask_early(task: TaskKey) -> None:
    """
    Ask Airflow one question in the background, once in a process.

    Its supervisor builds a whole API for the first one, which took 8 s on two cores: a kill must not wait for that.
    Not awaited, since Airflow 3.3 does not call ``on_kill`` of a trigger that is cancelled inside ``sync_to_async``.
    """
    global _asked
    if not _asked:
        _asked = True
        question = asyncio.create_task(_ask(task))
        _first_questions.add(question)
        question.add_done_callback(_first_questions.discard)


async def _ask(task: TaskKey) -> None:
    try:
        await sync_to_async(ask_task_state, thread_sensitive=False)(task)
    except Exception as error:  # noqa: BLE001 - the answer is not needed
        log.debug("Airflow could not tell the state of %s: %r", task, error)


async def is_abandoned(task: TaskKey, key: str, value: str, *, seconds: float) -> bool:
    """
    Return whether a task instance no longer waits for the requests of a trigger.

    A trigger is cancelled not only when its task is killed: also when the triggerer stops, when another triggerer has
    taken over, or when it was frozen for a while. Then the task is still deferred, and its XCom is this trigger's.

    :param key: Of the XCom that names what the task waits for, such as ``request_id``.
    :param value: Of that XCom as long as the task waits for this trigger.
    :param seconds: For Airflow to answer.
    :raises Exception: If Airflow does not answer; the caller must then not cancel.
    """
    async with asyncio.timeout(seconds):
        state = await sync_to_async(ask_task_state, thread_sensitive=False)(task)
        if state != "deferred":
            return True
        return bool(await sync_to_async(_pushed, thread_sensitive=False)(task, key) != value)


async def has_newer_deadline(task: TaskKey, key: str, is_own: Callable[[Any], bool], *, seconds: float) -> bool:
    """
    Return whether a newer try of the task waits for the requests of a trigger, until its own deadline.

    :param key: Of the XCom in which the task notes what it waits for, and until when.
    :param is_own: Whether a value of that XCom was pushed by this trigger's try.
    :param seconds: For Airflow to answer.
    :raises Exception: If Airflow does not answer.
    """
    async with asyncio.timeout(seconds):
        pushed = await sync_to_async(_pushed, thread_sensitive=False)(task, key)
    return pushed is not None and not is_own(pushed)


def ask_task_state(task: TaskKey) -> str | None:
    """Return a task instance's state in Airflow's database; ``None``: there is no such instance, or it has no state."""
    return get_task_state(task.dag_id, task.task_id, task.run_id, task.map_index)


def _pushed(task: TaskKey, key: str) -> Any:
    return get_xcom(task.dag_id, task.task_id, task.run_id, task.map_index, key)
