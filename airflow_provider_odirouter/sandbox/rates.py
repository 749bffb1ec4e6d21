"""The limit of calls per second."""

from __future__ import annotations

import math
from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING

from airflow_provider_odirouter.sandbox.refusals import RefusalError

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.settings import SandboxSettings


class RateLimit:
    """Counts the calls of a sliding window. Not locked: its owner does that."""

    def __init__(self) -> None:
        self._calls: deque[float] = deque()

    def check(self, settings: SandboxSettings, now: float) -> None:
        """
        Count a call.

        :param settings: Hold the limit.
        :param now: The clock's time.
        :raises RefusalError: The limit is reached.
        """
        if settings.rate_limit is None:
            return
        window = max(1.0, 1 / settings.rate_limit)
        while self._calls and self._calls[0] <= now - window:
            self._calls.popleft()
        if len(self._calls) < math.floor(settings.rate_limit * window):
            self._calls.append(now)
            return
        wait = self._calls[0] + window - now
        headers = {
            "seconds": {"retry-after": str(math.ceil(wait))},
            "date": {"retry-after": formatdate(math.ceil(now + wait), usegmt=True)},
            "absent": {},
        }[settings.retry_after_form]
        message = "Rate limit exceeded, please try again later"
        raise RefusalError(429, message, code="RATE_LIMIT_EXCEEDED", body="object", headers=headers)
