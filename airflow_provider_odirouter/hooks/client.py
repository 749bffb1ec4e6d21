"""The worker's HTTP client: for calls, submits among them, and for downloads."""

from __future__ import annotations

import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from airflow_provider_odirouter.hooks.proxies import Proxies, Proxy
from airflow_provider_odirouter.hooks.settings import ConnectionSettings

# No connection is kept: one that the service has just closed would leave the fate of a submit open.
NO_KEEPALIVE = httpx.Limits(max_keepalive_connections=0)


class TransportByProxy(httpx.BaseTransport):
    """Sends each request, each hop of a redirect among them, through the proxy that its URL needs."""

    def __init__(self, context: ssl.SSLContext, proxies: Proxies) -> None:
        self._context = context
        self._proxies = proxies
        self._transports: dict[Proxy | None, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        proxy = self._proxies.to(str(request.url))
        transport = self._transports.get(proxy) or self._transports.setdefault(proxy, self._transport(proxy))
        return transport.handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()

    def _transport(self, proxy: Proxy | None) -> httpx.HTTPTransport:
        through = None
        if proxy:
            context = self._context if proxy.url.startswith("https:") else None
            through = httpx.Proxy(proxy.url, auth=proxy.auth, ssl_context=context)
        return httpx.HTTPTransport(verify=self._context, proxy=through, limits=NO_KEEPALIVE, trust_env=False)


def worker_client(settings: ConnectionSettings) -> httpx.Client:
    """
    Build a client. The network is not needed for it.

    :raises ConnectionSettingsError: If the connection, or the environment, has TLS settings that cannot be used.
    """
    transport = TransportByProxy(settings.ssl_context(), settings.proxies)
    # What the service sets goes to no host of files.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.Client(transport=transport, timeout=settings.timeout, cookies=no_cookies, trust_env=False)
