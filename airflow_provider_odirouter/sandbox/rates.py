"""The limits of calls per second, and of requests that are alive at once."""

from __future__ import annotations

import math
from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING

from airflow_provider_odirouter.sandbox.refusals import RefusalError

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.engine import Queue
    from airflow_provider_odirouter.sandbox.settings import SandboxSettings


ALIVE_WAIT = 1.0
"""Seconds after which a submit beyond the limit of live requests may be tried again."""


class RateLimit:
    """Counts the calls of a sliding window. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self._calls: deque[float] = deque()

    def check(self, settings: SandboxSettings, now: float) -> None:
        """
        Count a call.

        :param settings: Their ``rate_limit`` is the limit.
        :param now: The clock's time.
        :raises RefusalError: If the limit is reached.
        """
        if settings.rate_limit is None:
            return
        window = max(1.0, 1 / settings.rate_limit)
        while self._calls and self._calls[0] <= now - window:
            self._calls.popleft()
        if len(self._calls) < math.floor(settings.rate_limit * window):
            self._calls.append(now)
            return
        raise _limit_reached(
            settings, "Rate limit exceeded, please try again later", now, self._calls[0] + window - now
        )


def check_alive(settings: SandboxSettings, queue: Queue, now: float) -> None:
    """
    Check that another request may live. It is not known when one ends, so the client shall ask again soon.

    :param settings: Their ``max_alive`` is the limit.
    :param queue: The requests.
    :param now: The clock's time.
    :raises RefusalError: If the limit is reached.
    """
    if settings.max_alive is not None and (alive := queue.count_alive(now)) >= settings.max_alive:
        raise _limit_reached(settings, f"Too many concurrent requests: {alive}", now, ALIVE_WAIT)


def _limit_reached(settings: SandboxSettings, message: str, now: float, wait: float) -> RefusalError:
    headers = {
        "seconds": {"retry-after": str(math.ceil(wait))},
        "date": {"retry-after": formatdate(math.ceil(now + wait), usegmt=True)},
        "absent": {},
    }[settings.retry_after_form]
    return RefusalError(429, message, code="RATE_LIMIT_EXCEEDED", body="object", headers=headers)
