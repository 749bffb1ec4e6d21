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
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
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

    def __init__(self, settings: ConnectionSettings, proxy: str | None) -> None:
        ssl_context = settings.ssl_context()
        self.users = 0
        self.transport = AiohttpTransport(
            # Not used, but another one would be built: 20 ms of the loop.
            verify=ssl_context,
            client=lambda: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=ssl_context
                ),
                # One session serves many keys: what the service sets for one must not go out with another.
                cookie_jar=aiohttp.DummyCookieJar(),
                # With trust_env, aiohttp would look for it in a thread for each call, and refuse to send our key to
                # a host that ~/.netrc knows.
                proxy=proxy,
            ),
        )


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[bool | str, str | None], _Shared]]
_shared = WeakKeyDictionary()


@asynccontextmanager
async def shared_transport(settings: ConnectionSettings) -> AsyncIterator[AiohttpTransport]:
    """Lend the running loop's transport; the last user closes it, so that none is left open on a loop that ends."""
    of_loop = _shared.setdefault(asyncio.get_running_loop(), {})
    proxy = _proxy_to(settings.base_url)
    kind = settings.verify, proxy
    shared = of_loop.get(kind) or of_loop.setdefault(kind, _Shared(settings, proxy))
    shared.users += 1
    try:
        yield shared.transport
    finally:
        shared.users -= 1
        if not shared.users:
            del of_loop[kind]
            await shared.transport.aclose()


def _proxy_to(base_url: str) -> str | None:
    """Return the proxy that the environment names for a URL, as ``HTTPS_PROXY`` and ``NO_PROXY`` do."""
    url, proxies = urlsplit(base_url), getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


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
