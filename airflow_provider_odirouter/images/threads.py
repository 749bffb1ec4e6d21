"""
A few jobs at a time, beside the main thread.

Signal handlers run in the main thread. What they raise there (a kill, a time-out) cannot be among what a job raises, so
that a job may catch whatever a store's client throws; and it ends the wait for the jobs at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

WORKERS = 4
"""Jobs at a time: enough to hide a store's latency, few enough for the memory that each one needs."""
HEARTBEAT = 0.5
"""Seconds until a signal is handled at the latest."""


class StoppedError(Exception):
    """A job is not wanted any more: another one has failed, or the task was killed."""


class TooSlowError(Exception):
    """The jobs did not end in time."""


def side_by_side(
    jobs: Sequence[Callable[[], T]],
    *,
    stop: threading.Event | None = None,
    seconds: float = math.inf,
    workers: int | None = None,
) -> list[T]:
    """
    Run jobs, a few at a time, and return their results in order.

    The first error wins: jobs that have not begun never do, those that run are told to stop and waited for. What a
    signal handler raises does not wait for them.

    :param stop: Set when the jobs that still run are not wanted any more.
    :param seconds: How long to wait for all of them together.
    :param workers: How many at a time; as many as :data:`WORKERS` says.
    :raises TooSlowError: If they take longer. They go on where they cannot be stopped.
    """
    stop = stop or threading.Event()
    pool = ThreadPoolExecutor(workers or WORKERS, thread_name_prefix="odirouter-images")
    try:
        futures = [pool.submit(copy_context().run, job) for job in jobs]
        unfinished = _wait_for(futures, FIRST_EXCEPTION, seconds)
        # Chosen before the others are stopped, so that it is none of their errors.
        failed = [future for future in futures if future not in unfinished and future.exception()]
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    if unfinished and not failed:
        raise TooSlowError(f"there is no answer within {seconds:g} s")
    _wait_for([future for future in unfinished if not future.cancelled()], ALL_COMPLETED)
    return [future.result() for future in failed or futures]


def aside(job: Callable[[], T], *, seconds: float = math.inf) -> T:
    """Run one job beside the main thread, and return its result."""
    (result,) = side_by_side([job], seconds=seconds)
    return result


def tried_aside(job: Callable[[], T], *, seconds: float = math.inf) -> T | Exception:
    """
    Run one job that may raise whatever a store's client does, and return its result or that.

    What a signal handler raises in the main thread meanwhile, and that the job takes too long, is raised.
    """

    def attempt() -> T | Exception:
        try:
            return job()
        except Exception as error:  # noqa: BLE001 - of any store's client
            return error

    return aside(attempt, seconds=seconds)


def _wait_for(futures: Collection[Future[T]], return_when: str, seconds: float = math.inf) -> Collection[Future[T]]:
    """Wait for jobs as long as that is wanted, and return those that have not ended."""
    end = time.monotonic() + seconds
    while True:
        # A signal that comes just before a wait begins is handled when that wait ends: so no wait is a long one.
        done, futures = wait(futures, max(0.0, min(HEARTBEAT, end - time.monotonic())), return_when)
        failed = return_when is FIRST_EXCEPTION and any(future.exception() for future in done)
        if failed or not futures or time.monotonic() >= end:
            return futures
