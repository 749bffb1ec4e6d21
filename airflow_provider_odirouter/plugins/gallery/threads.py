"""
The gallery's own threads: a few for each store, which may not answer, and one that decodes pictures.

Airflow's API shares 40 threads among all its routes: a store that does not answer must not hold one of them, nor one of
another store.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_odirouter.storage.threads import TooSlowError

T = TypeVar("T")

MAX_SECONDS = 20.0
"""For a job, with the time that it waits for a thread."""

READERS_PER_STORE = 2
"""Threads of one store: all of them may hang while the other stores answer."""
MAX_STORES = 16
"""Stores that are read at the same time."""
MAX_JOBS_PER_STORE = 500
"""A page has at most 60 pictures; what waits for a store that does not answer must not pile up."""

decoder = ThreadPoolExecutor(1, thread_name_prefix="odirouter-decoder")
"""A single thread: a decode takes memory that the rest of the API server needs, too."""
_readers: dict[str, ThreadPoolExecutor] = {}
_jobs: Counter[str] = Counter()
"""The jobs of each store that have not ended."""
_lock = threading.Lock()


def submit_read(store: str, job: Callable[[], T]) -> Future[T]:
    """
    Run a job that waits for a store in one of the store's own threads.

    :param store: Its name: jobs with the same name share their threads.
    :raises TooSlowError: If this store has too many jobs, or too many others do not answer.
    """
    with _lock:
        if _jobs[store] >= MAX_JOBS_PER_STORE:
            raise TooSlowError("too many jobs wait for this store")
        if store not in _readers:
            _remove_idle_reader()
            _readers[store] = ThreadPoolExecutor(READERS_PER_STORE, thread_name_prefix="odirouter-reader")
        _jobs[store] += 1
        future = _readers[store].submit(job)
    future.add_done_callback(lambda _: _count_ended(store))
    return future


def _count_ended(store: str) -> None:
    with _lock:
        _jobs[store] -= 1


def _remove_idle_reader() -> None:
    """Make space for another store."""
    if len(_readers) < MAX_STORES:
        return
    idle = next((store for store in _readers if not _jobs[store]), None)
    if idle is None:
        raise TooSlowError("too many stores do not answer")
    _readers.pop(idle).shutdown(wait=False)
    del _jobs[idle]


async def run_read(store: str, job: Callable[[], T], *, discard: Callable[[T], object] | None = None) -> T:
    """
    Run a job that waits for a store, see :func:`submit_read`.

    :param discard: Called with a result that comes after the caller has stopped waiting.
    :raises TooSlowError: If the job takes longer than :data:`MAX_SECONDS`. A job that has begun continues.
    """
    future = submit_read(store, job)
    waiting = asyncio.wrap_future(future)
    try:
        done, _ = await asyncio.wait({waiting}, timeout=MAX_SECONDS)
        if not done:
            raise TooSlowError
        return waiting.result()
    finally:
        if not waiting.done():
            waiting.cancel()
            if discard and not future.cancelled():
                future.add_done_callback(lambda late: None if late.exception() else discard(late.result()))


async def wait_for_shared(future: Future[T]) -> T:
    """
    Wait for a job that other callers wait for, too.

    :raises TooSlowError: If it takes longer than :data:`MAX_SECONDS`. The job continues for the others.
    """
    waiting = asyncio.wrap_future(future)
    try:
        done, _ = await asyncio.wait({waiting}, timeout=MAX_SECONDS)
        if not done:
            raise TooSlowError
        return waiting.result()
    finally:
        if not waiting.done():
            # Cancelling it would cancel the job. Reading its error keeps asyncio from logging it as unhandled.
            waiting.add_done_callback(lambda late: late.cancelled() or late.exception())
