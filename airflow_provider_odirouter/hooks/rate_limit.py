"""Limits the polls of a process: evenly, at most so many per second, and none while a ``Retry-After`` holds."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from functools import lru_cache

from airflow_provider_odirouter.compat import conf
from airflow_provider_odirouter.errors import RateLimitedError
from airflow_provider_odirouter.get_provider_info import CONFIG
from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.protocol import Call

log = logging.getLogger(__name__)

SECTION, OPTION = "odirouter", "max_polls_per_second"
DEFAULT_MAX_POLLS_PER_SECOND = CONFIG[SECTION]["options"][OPTION]["default"]
MIN_SLEEP_SECONDS = 0.002
"""Shorter sleeps are skipped: each would take this long, and delay all polls that wait."""


def max_polls_per_second() -> float:
    """Return the option ``[odirouter] max_polls_per_second``, or its default if the option is not a number above 0."""
    return _parse_rate(conf.get(SECTION, OPTION, fallback=DEFAULT_MAX_POLLS_PER_SECOND))


@lru_cache
def _parse_rate(text: str) -> float:
    # Cached, so that a thousand triggers log a wrong value once.
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if 0 < rate < math.inf:
        return rate
    log.error(
        "Airflow's option [%s] %s must be a number above 0, not %r; %s is used instead.",
        SECTION,
        OPTION,
        text,
        DEFAULT_MAX_POLLS_PER_SECOND,
    )
    return float(DEFAULT_MAX_POLLS_PER_SECOND)


class RateLimit:
    """
    The rate limit of all polls on one event loop.

    :param per_second: Polls per second, above 0.
    """

    def __init__(self, per_second: float) -> None:
        self.interval = 1 / per_second
        """Seconds between two polls."""
        self._next_poll_at = 0.0
        self._lock = asyncio.Lock()
        self._paused_until: dict[int, float] = {}

    async def acquire(self, call: Call, settings: ConnectionSettings) -> None:
        """
        Wait until a poll may be sent. A cancelled wait does not delay the others.

        :raises RateLimitedError: If a ``Retry-After`` for this API key still holds.
        """
        self._check_pause(call, settings)
        async with self._lock:  # first come, first served
            now = time.monotonic()
            if self._next_poll_at - now > MIN_SLEEP_SECONDS:
                await asyncio.sleep(self._next_poll_at - now)
            self._check_pause(call, settings)
            self._next_poll_at = max(self._next_poll_at, now) + self.interval

    def note_retry_after(self, error: RateLimitedError, settings: ConnectionSettings) -> None:
        """Pause all polls with this API key for as long as the service asks."""
        if error.retry_after:
            until = time.monotonic() + error.retry_after
            self._paused_until[settings.account] = max(until, self._paused_until.get(settings.account, 0.0))

    def _check_pause(self, call: Call, settings: ConnectionSettings) -> None:
        until = None if call.is_urgent else self._paused_until.get(settings.account)
        if until is not None and (seconds := until - time.monotonic()) > 0:
            what = f"OdiRouter's rate limit stops the {call.action} of {call.endpoint}: its Retry-After still holds."
            error = RateLimitedError(what, status_code=429, request_id=call.request_id)
            error.retry_after = seconds
            error.was_sent = False
            raise error
