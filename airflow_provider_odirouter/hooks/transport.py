"""
One HTTP transport per event loop, shared by all triggers of a triggerer.

Over aiohttp: a look costs half the CPU of one over httpx, and a request that is cancelled in the middle leaks no
connection there. Its errors do not tell whether a request has arrived, so only calls that may be repeated go over it:
looks and cancels, never a submit.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
from yarl import URL

from airflow_provider_odirouter.hooks.intake import MAX_ANSWER_BYTES, Intake, as_our_errors
from airflow_provider_odirouter.hooks.pace import Pace, looks_per_second
from airflow_provider_odirouter.hooks.proxies import Proxy
from airflow_provider_odirouter.protocol import Action, Call

if TYPE_CHECKING:
    from airflow_provider_odirouter.hooks.settings import ConnectionSettings

MAX_CONNECTIONS = 100
"""For looks, and as many for cancels: a cancel must not wait until a hundred looks have run into their time-out."""
KEEPALIVE_SECONDS = 15.0
MAX_STATUS_BYTES = 2**20
"""A status has a few hundred bytes. What has many more is cut, and so not read: looking for secrets would take long."""
LONGEST_QUEUE = 60.0
"""Seconds that a call waits for a connection, beyond what the pace explains. A service that works needs a few."""


class Received(NamedTuple):
    """What came back."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes


class _Places:
    """
    The connections that may be open at once.

    Whoever gets none waits here, before the call's time-out begins: the last of a thousand must not fail for that. But
    not for ever, since a host that answers nobody would hold up a waiter far beyond its deadline.

    :param pace: Seconds that may lie between two who take a place, however fast the host is.
    """

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        self._waiting = 0

    async def take(self) -> None:
        """
        Take a place, when there is one.

        :raises TimeoutError: If there is none for too long.
        """
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(LONGEST_QUEUE + self._pace * (self._waiting + MAX_CONNECTIONS)):
                await self._free.acquire()
        finally:
            self._waiting -= 1

    def give_back(self) -> None:
        """Let another one have the place."""
        self._free.release()


class Transport:
    """
    Connections to wherever the same proxy leads, with the same checks of certificates.

    :param pace: That of all looks of the event loop.
    """

    def __init__(self, settings: ConnectionSettings, proxy: Proxy | None, pace: Pace) -> None:
        self.users = 0
        self._proxy = proxy
        self.pace = pace
        self._places = {Action.STATUS: _Places(pace.gap), Action.CANCEL: _Places(0.0)}
        self._session = aiohttp.ClientSession(
            # No limit of its own, since who waits for a place waits here: before the call's time-out begins.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=settings.ssl_context()),
            # One session serves many keys: what the service sets for one must not go out with another.
            cookie_jar=aiohttp.DummyCookieJar(),
            # With trust_env, aiohttp would look for it in a thread for each call, and refuse to send our key to
            # a host that ~/.netrc knows.
            proxy=proxy.url if proxy else None,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=["Content-Type"],  # of a cancel, which has no content
        )

    async def send(self, call: Call, headers: Mapping[str, str], settings: ConnectionSettings) -> Received:
        """
        Send a call when there is a place for it; a look, when it is its turn, too.

        :raises NoAnswerError: Whether it has arrived or not.
        :raises RateLimitedError: If it was not sent, since the service wants no more looks for a while.
        """
        places = self._places[call.action]
        with as_our_errors(call, settings.redactor, no_answer=(aiohttp.ClientError, OSError)):
            await places.take()
            try:
                if call.action is Action.STATUS:
                    await self.pace.turn(call, settings)
                async with asyncio.timeout(settings.timeout):
                    return await self._exchange(call, headers, settings)
            finally:
                places.give_back()

    async def _exchange(self, call: Call, headers: Mapping[str, str], settings: ConnectionSettings) -> Received:
        body = io.BytesIO()
        intake = Intake(call, body, seconds=settings.timeout, most=MAX_ANSWER_BYTES)
        url = URL(call.url, encoded=True)
        # The proxy's password is no part of its URL, which stands in aiohttp's errors. Each secret is added on the line
        # that sends it, so that no frame of ours has it.
        async with self._session.request(
            call.method,
            url,
            headers={**headers, **self._to_proxy_of(url, "http"), "Authorization": settings.authorization()},
            proxy_headers=self._to_proxy_of(url, "https"),
            allow_redirects=False,
        ) as got:
            async for chunk in got.content.iter_any():
                intake.take(chunk)
            return Received(got.status, got.headers, body.getvalue()[:MAX_STATUS_BYTES])

    def _to_proxy_of(self, url: URL, scheme: str) -> Mapping[str, str]:
        """Return what the proxy to a URL of this scheme is sent, with the request itself or to open a tunnel."""
        return self._proxy.headers if self._proxy and url.scheme == scheme else {}

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


class _OfLoop:
    """What the hooks on one event loop share."""

    def __init__(self) -> None:
        self.pace = Pace(looks_per_second())
        self.transports: dict[tuple[bool | str, Proxy | None], Transport] = {}


_shared: dict[asyncio.AbstractEventLoop, _OfLoop] = {}
"""By event loop: a process that was forked has a new one, and so has whoever calls ``asyncio.run`` again."""


@asynccontextmanager
async def shared_transport(settings: ConnectionSettings) -> AsyncIterator[Transport]:
    """Lend the running loop's transport; the last user closes it, so that none is left open on a loop that ends."""
    loop = asyncio.get_running_loop()
    of_loop = _shared.get(loop) or _OfLoop()
    proxy = settings.proxies.to(settings.base_url)
    kind = settings.verify, proxy
    transport = of_loop.transports.get(kind) or Transport(settings, proxy, of_loop.pace)
    of_loop.transports[kind] = transport
    _shared[loop] = of_loop
    transport.users += 1
    try:
        yield transport
    finally:
        transport.users -= 1
        if not transport.users:
            del of_loop.transports[kind]
            if not of_loop.transports:
                del _shared[loop]
            await transport.close()
