"""
One HTTP transport per event loop, shared by all triggers of a triggerer.

It uses aiohttp: a poll costs half the CPU of a poll over httpx, and a cancelled call leaks no connection. But aiohttp's
errors do not say whether a call arrived, so only calls that may be repeated use it: polls and cancels, never a submit.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
from yarl import URL

from airflow_provider_odirouter.hooks.bounded_io import MAX_ANSWER_BYTES, BoundedBody, map_transport_errors
from airflow_provider_odirouter.hooks.proxies import Proxy
from airflow_provider_odirouter.hooks.rate_limit import RateLimit, max_polls_per_second
from airflow_provider_odirouter.protocol import Action, Call

if TYPE_CHECKING:
    from airflow_provider_odirouter.hooks.connection import ConnectionSettings

MAX_CONNECTIONS = 100
"""For polls, and as many for cancels: a cancel must not wait until a hundred polls have timed out."""
KEEPALIVE_SECONDS = 15.0
MAX_STATUS_BYTES = 2**20
"""A status has a few hundred bytes. A longer answer is cut, and so unreadable: redacting it would take too long."""
MAX_QUEUE_SECONDS = 60.0
"""How long a call waits for a slot, in addition to the delay of the rate limit. A healthy service needs a few."""


class RawAnswer(NamedTuple):
    """An answer before its secrets are redacted."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes


class _Slots:
    """
    A slot for each connection that may be open at once.

    A call waits here for a slot before its time-out begins: of a thousand calls, the last one must not time out. The
    wait is bounded: a host that never answers must not delay a call far beyond its deadline.

    :param interval: Seconds between two calls that the rate limit lets pass, which hold a slot while they wait for it.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        self._waiting = 0

    async def acquire(self) -> None:
        """
        Wait for a free slot, and take it.

        :raises TimeoutError: If none is free for too long.
        """
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(MAX_QUEUE_SECONDS + self._interval * (self._waiting + MAX_CONNECTIONS)):
                await self._free.acquire()
        finally:
            self._waiting -= 1

    def release(self) -> None:
        """Free the slot."""
        self._free.release()


class Transport:
    """
    The connections of one event loop that share a proxy and TLS settings.

    :param rate_limit: Limits the polls of the whole event loop.
    """

    def __init__(self, settings: ConnectionSettings, proxy: Proxy | None, rate_limit: RateLimit) -> None:
        self.users = 0
        self._proxy = proxy
        self.rate_limit = rate_limit
        self._slots = {Action.STATUS: _Slots(rate_limit.interval), Action.CANCEL: _Slots(0.0)}
        self._session = aiohttp.ClientSession(
            # No limit: calls wait for a slot instead, before their time-out begins.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=settings.ssl_context()),
            # One session serves many keys: a cookie of one must not be sent with another.
            cookie_jar=aiohttp.DummyCookieJar(),
            # Not trust_env: aiohttp would then read the proxies in a thread for each call, and refuse to send our key
            # to a host in ~/.netrc.
            proxy=proxy.url if proxy else None,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=["Content-Type"],  # a cancel has no content
        )

    async def send(self, call: Call, headers: Mapping[str, str], settings: ConnectionSettings) -> RawAnswer:
        """
        Send a call as soon as a slot is free, and a poll as soon as the rate limit allows it, too.

        :raises NoAnswerError: If no complete answer came; the call may have arrived or not.
        :raises RateLimitedError: If a poll was not sent because an earlier ``Retry-After`` still holds.
        """
        slots = self._slots[call.action]
        with map_transport_errors(call, settings.redactor, no_answer=(aiohttp.ClientError, OSError)):
            await slots.acquire()
            try:
                if call.action is Action.STATUS:
                    await self.rate_limit.acquire(call, settings)
                async with asyncio.timeout(settings.timeout):
                    return await self._exchange(call, headers, settings)
            finally:
                slots.release()

    async def _exchange(self, call: Call, headers: Mapping[str, str], settings: ConnectionSettings) -> RawAnswer:
        body = io.BytesIO()
        bounded_body = BoundedBody(call, body, seconds=settings.timeout, max_bytes=MAX_ANSWER_BYTES)
        url = URL(call.url, encoded=True)
        # aiohttp's errors quote the proxy's URL, so the password is not in it. Each secret is added on the line that
        # sends it, so that no local variable of ours holds it.
        async with self._session.request(
            call.method,
            url,
            headers={**headers, **self._proxy_headers(url, "http"), "Authorization": settings.authorization()},
            proxy_headers=self._proxy_headers(url, "https"),
            allow_redirects=False,
        ) as answer:
            async for chunk in answer.content.iter_any():
                bounded_body.write(chunk)
            return RawAnswer(answer.status, answer.headers, body.getvalue()[:MAX_STATUS_BYTES])

    def _proxy_headers(self, url: URL, scheme: str) -> Mapping[str, str]:
        """Return the proxy's headers for a URL of this scheme: of the call itself, or of the ``CONNECT`` before it."""
        return self._proxy.headers if self._proxy and url.scheme == scheme else {}

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


class _LoopState:
    """The rate limit and the transports of one event loop."""

    def __init__(self) -> None:
        self.rate_limit = RateLimit(max_polls_per_second())
        self.transports: dict[tuple[bool | str, Proxy | None], Transport] = {}


_shared: dict[asyncio.AbstractEventLoop, _LoopState] = {}
"""By event loop: a forked process has a new one, and so has each ``asyncio.run``."""


@asynccontextmanager
async def shared_transport(settings: ConnectionSettings) -> AsyncIterator[Transport]:
    """Return the running loop's transport. Its last user closes it, so that none stays open on a loop that ends."""
    loop = asyncio.get_running_loop()
    loop_state = _shared.get(loop) or _LoopState()
    proxy = settings.proxies.proxy_for(settings.base_url)
    key = settings.verify, proxy
    transport = loop_state.transports.get(key) or Transport(settings, proxy, loop_state.rate_limit)
    loop_state.transports[key] = transport
    _shared[loop] = loop_state
    transport.users += 1
    try:
        yield transport
    finally:
        transport.users -= 1
        if not transport.users:
            del loop_state.transports[key]
            if not loop_state.transports:
                del _shared[loop]
            await transport.close()
