"""How fast a process looks: evenly, no faster than it may, and not at all while the service asks for quiet."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from functools import lru_cache

from airflow_provider_odirouter.compat import conf
from airflow_provider_odirouter.errors import RateLimitedError
from airflow_provider_odirouter.get_provider_info import CONFIG
from airflow_provider_odirouter.hooks.settings import ConnectionSettings
from airflow_provider_odirouter.protocol import Call

log = logging.getLogger(__name__)

SECTION, OPTION = "odirouter", "looks_per_second"
DEFAULT_LOOKS_PER_SECOND = CONFIG[SECTION]["options"][OPTION]["default"]
TIMER_SECONDS = 0.002
"""A shorter sleep is not slept: it would take as long as this, and hold up all who wait."""


def looks_per_second() -> float:
    """Return the option ``[odirouter] looks_per_second``; the default, if it cannot be used."""
    return _rate(conf.get(SECTION, OPTION, fallback=DEFAULT_LOOKS_PER_SECOND))


@lru_cache
def _rate(text: str) -> float:
    # Once for each text: a thousand triggers need not say the same.
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
        DEFAULT_LOOKS_PER_SECOND,
    )
    return float(DEFAULT_LOOKS_PER_SECOND)


class Pace:
    """
    The pace of all looks on one event loop.

    :param per_second: How many looks may be made.
    """

    def __init__(self, per_second: float) -> None:
        self.gap = 1 / per_second
        self._next = 0.0
        self._queue = asyncio.Lock()
        self._quiet_until: dict[int, float] = {}

    async def turn(self, call: Call, settings: ConnectionSettings) -> None:
        """
        Wait until a look may be made. Who is cancelled meanwhile takes no turn.

        :raises RateLimitedError: If the service has asked for quiet, of this look or of another with the same key.
        """
        self._heed(call, settings)
        async with self._queue:  # first come, first served
            now = time.monotonic()
            if self._next - now > TIMER_SECONDS:
                await asyncio.sleep(self._next - now)
            self._heed(call, settings)
            self._next = max(self._next, now) + self.gap

    def learn(self, error: RateLimitedError, settings: ConnectionSettings) -> None:
        """Take note of for how long the service wants no more looks with a key."""
        if error.retry_after:
            until = time.monotonic() + error.retry_after
            self._quiet_until[settings.account] = max(until, self._quiet_until.get(settings.account, 0.0))

    def _heed(self, call: Call, settings: ConnectionSettings) -> None:
        until = self._quiet_until.get(settings.account)
        if until is not None and (left := until - time.monotonic()) > 0:
            what = f"OdiRouter's rate limit stops the {call.action} of {call.endpoint}: it has asked for quiet."
            error = RateLimitedError(what, status_code=429, request_id=call.request_id)
            error.retry_after = left
            raise error
