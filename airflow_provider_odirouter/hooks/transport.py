"""
One HTTP transport per event loop, shared by all triggers of a triggerer.

Over aiohttp's connections: a look costs half the CPU of one over httpx's own pool, and a request that is cancelled in
the middle leaks no connection there. Its errors do not tell whether a request has arrived, so only calls that may be
repeated go over it: looks and cancels, never a submit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

if TYPE_CHECKING:
    from airflow_provider_odirouter.hooks.settings import ConnectionSettings

MAX_CONNECTIONS = 100
KEEPALIVE_SECONDS = 15.0


class _Shared:
    """A transport and how many use it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        ssl_context = settings.ssl_context()
        self.users = 0
        self.transport = AiohttpTransport(
            client=lambda: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=ssl_context
                ),
                # One session serves many keys: what the service sets for one must not go out with another.
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
            )
        )


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool | str, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_transport(settings: ConnectionSettings) -> AsyncIterator[AiohttpTransport]:
    """Lend the running loop's transport; the last user closes it, so that none is left open on a loop that ends."""
    of_loop = _shared.setdefault(asyncio.get_running_loop(), {})
    shared = of_loop.get(settings.verify) or of_loop.setdefault(settings.verify, _Shared(settings))
    shared.users += 1
    try:
        yield shared.transport
    finally:
        shared.users -= 1
        if not shared.users:
            del of_loop[settings.verify]
            await shared.transport.aclose()


@contextmanager
def inexact_errors() -> Iterator[None]:
    """
    Give all of this transport's errors one name, since those that it uses are wrong.

    httpx-aiohttp calls a server that hangs up after the request ``ConnectTimeout``, and lets some of aiohttp's escape.
    """
    try:
        yield
    except (httpx.TransportError, aiohttp.ClientError) as error:
        raise httpx.ReadError(f"{type(error.__cause__ or error).__name__}: {error}") from error
