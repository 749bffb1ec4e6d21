"""
Threads of the gallery's own, for whatever waits for a store.

Airflow's API lends 40 threads to all its routes together: a store that hangs must hold none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds for a job, and for its turn before."""

making = ThreadPoolExecutor(2, thread_name_prefix="odirouter-making")
"""Makes small pictures: a decoded one takes memory, which the API server needs for others too."""
reading = ThreadPoolExecutor(4, thread_name_prefix="odirouter-reading")
"""Reads whole pictures."""
listing = ThreadPoolExecutor(2, thread_name_prefix="odirouter-listing")
"""Reads the manifests of batches."""


class TooSlowError(Exception):
    """The job did not end in time. One that had begun goes on."""


async def in_turn(
    pool: ThreadPoolExecutor, job: Callable[[], T], *, unwanted: Callable[[T], object] | None = None
) -> T:
    """
    Run a job in one of the gallery's threads.

    :param unwanted: What to do with a result that comes when nobody waits for it any more.
    :raises TooSlowError: If it takes too long.
    """
    future = pool.submit(job)
    waiting = asyncio.wrap_future(future)
    try:
        done, _ = await asyncio.wait({waiting}, timeout=PATIENCE)
        if not done:
            raise TooSlowError
        return waiting.result()
    finally:
        if not waiting.done():
            waiting.cancel()
            if unwanted and not future.cancelled():
                future.add_done_callback(lambda late: None if late.exception() else unwanted(late.result()))


async def patiently(future: Future[T]) -> T:
    """
    Wait for a job that others wait for too.

    :raises TooSlowError: If it takes too long. It goes on for the others.
    """
    waiting = asyncio.wrap_future(future)
    try:
        done, _ = await asyncio.wait({waiting}, timeout=PATIENCE)
        if not done:
            raise TooSlowError
        return waiting.result()
    finally:
        if not waiting.done():
            # To cancel it would cancel the job. But its error, if there will be one, is nobody's.
            waiting.add_done_callback(lambda late: late.cancelled() or late.exception())
