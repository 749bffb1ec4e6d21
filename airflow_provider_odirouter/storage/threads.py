"""
Jobs in threads beside the main thread, a few at a time.

Signal handlers run in the main thread, and what they raise there (a kill, a time-out) ends the wait for the jobs at
once. It is never raised in a job, so that a job may catch every exception of a store's client.

The threads are our own, and not those of a ``ThreadPoolExecutor``: that one holds a lock of the whole process while it
starts a thread. A signal handler that interrupts it, and cancels a request, would wait for that lock for ever, since
the event loop of the cancel resolves its host's name in such a pool, too.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, Future, wait
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import NoReturn, TypeAlias, TypeVar

T = TypeVar("T")

MAX_WORKERS = 4
"""Jobs at a time: enough to hide a store's latency, few enough for the memory that each one needs."""
MAX_SIGNAL_DELAY = 0.5
"""Seconds until a signal is handled."""


Then: TypeAlias = Callable[[], object]
"""What the main thread does when a job has ended."""


class StoppedError(Exception):
    """A job was stopped: another one has failed, or the task was killed."""


class TooSlowError(Exception):
    """The jobs did not end in time; the text says so."""


def run_parallel(
    jobs: Sequence[Callable[[], T]],
    *,
    stop: threading.Event | None = None,
    seconds: float = math.inf,
    workers: int | None = None,
) -> list[T]:
    """
    Run jobs, a few at a time, and return their results in order.

    The first error is raised: pending jobs are dropped, and running ones are asked to stop and waited for. An exception
    of a signal handler does not wait for them.

    :param stop: Set when the jobs that still run should stop.
    :param seconds: How long to wait for all of them together.
    :param workers: Jobs at a time. Default: :data:`MAX_WORKERS`.
    :raises TooSlowError: If they take longer; jobs that cannot be stopped continue.
    """
    stop = stop or threading.Event()
    context = copy_context()
    pending = deque(enumerate(jobs))
    results: dict[int, T] = {}

    def work() -> None:
        while pending:
            try:
                index, job = pending.popleft()
            except IndexError:  # another thread was faster
                return
            results[index] = context.copy().run(job)

    # One for each thread, and not for each job: there may be thousands.
    futures: list[Future[None]] = [Future() for _ in range(min(workers or MAX_WORKERS, len(jobs)))]
    try:
        for future in futures:
            threading.Thread(target=_run, args=(work, future), name="odirouter-job", daemon=True).start()
        unfinished = _wait_for(futures, FIRST_EXCEPTION, seconds)
        # Before the others are stopped, so that their errors of that do not count.
        failed = [future for future in futures if future not in unfinished and future.exception()]
    finally:
        pending.clear()
        stop.set()
    if unfinished and not failed:
        raise TooSlowError(f"no answer within {seconds:g} s")
    _wait_for(unfinished, ALL_COMPLETED)
    if failed:
        failed[0].result()  # raises its error
    return [results[index] for index in range(len(jobs))]


def run_in_thread(job: Callable[[], T], *, seconds: float = math.inf) -> T:
    """
    Run one job beside the main thread, and return its result.

    No signal handler interrupts another thread: called there without a limit of time, it runs the job right away.
    """
    if seconds == math.inf and threading.current_thread() is not threading.main_thread():
        return job()
    (result,) = run_parallel([job], seconds=seconds)
    return result


def try_in_thread(job: Callable[[], T], *, seconds: float = math.inf) -> T | Exception:
    """
    Run one job, and return its result or the exception that it raised.

    What a signal handler raises in the main thread is raised here, too.

    :raises TooSlowError: If the job takes longer.
    """

    def attempt() -> T | Exception:
        try:
            return job()
        except Exception as error:  # noqa: BLE001 - any error of a store's client
            return error

    return run_in_thread(attempt, seconds=seconds)


class Jobs:
    """
    Jobs beside the main thread that end one by one, in any order.

    Each one returns what the main thread then does: so all that the jobs share is changed in one thread only.

    :param workers: Jobs at a time; further ones wait. Each has a thread, which is kept for the next job: a new thread
        may use another part of the heap, where the memory that earlier jobs have freed is not.
    """

    def __init__(self, workers: int = MAX_WORKERS) -> None:
        self._ended: SimpleQueue[Then] = SimpleQueue()
        self._pending: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._workers = workers
        self._threads = 0

    def start(self, job: Callable[[], Then]) -> None:
        """
        Start a job. What it raises is raised where its end is handled.

        :raises RuntimeError: If the system has no thread left.
        """
        if self._threads < self._workers:
            self._threads += 1  # first: a signal may interrupt the start
            threading.Thread(target=self._work, name="odirouter-job", daemon=True).start()
        self._pending.put(partial(copy_context().run, self._run, job))

    def close(self) -> None:
        """Let the threads end, each after the job that it does."""
        self._pending.put(None)

    def _work(self) -> None:
        while run := self._pending.get():
            run()
        self._pending.put(None)  # for the next thread

    def _run(self, job: Callable[[], Then]) -> None:
        try:
            self.report(job())
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self.report_error(error)

    def report(self, then: Then) -> None:
        """Report an end, from any thread."""
        self._ended.put(then)

    def report_error(self, error: BaseException) -> None:
        """Report an error, from any thread; it is raised in the main thread."""
        self._ended.put(partial(_raise, error))

    def handle_next(self) -> None:
        """Wait for a job to end, for :data:`MAX_SIGNAL_DELAY`, and do what it has returned."""
        try:
            then = self._ended.get(timeout=MAX_SIGNAL_DELAY)
        except Empty:
            return
        then()

    def handle_ended(self) -> None:
        """Do what all jobs that have ended have returned."""
        while not self._ended.empty():
            self._ended.get()()


def start_or_error(thread: threading.Thread) -> RuntimeError | None:
    """
    Start a thread, and return the error if the system has none left.

    A kill that comes meanwhile is a :class:`RuntimeError`, too, and is raised.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        return error
    return None


def _raise(error: BaseException) -> NoReturn:
    raise error


def _run(work: Callable[[], None], future: Future[None]) -> None:
    try:
        work()
        future.set_result(None)
    except BaseException as error:  # noqa: BLE001 - raised where the results are read
        future.set_exception(error)


def _wait_for(
    futures: Collection[Future[None]], return_when: str, seconds: float = math.inf
) -> Collection[Future[None]]:
    """Wait until all jobs have ended, one has failed or the time is over; return the jobs that have not ended."""
    end = time.monotonic() + seconds
    while True:
        # A signal that comes just before a wait is handled only when that wait ends: keep each wait short.
        done, futures = wait(futures, max(0.0, min(MAX_SIGNAL_DELAY, end - time.monotonic())), return_when)
        failed = return_when is FIRST_EXCEPTION and any(future.exception() for future in done)
        if failed or not futures or time.monotonic() >= end:
            return futures
