"""The worker's HTTP client, for all calls and for downloads."""

from __future__ import annotations

import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.hooks.proxies import Proxies, Proxy

# No connection is kept open: if the service had just closed it, it would be unknown whether a submit arrived.
NO_KEEPALIVE = httpx.Limits(max_keepalive_connections=0)


class TransportByProxy(httpx.BaseTransport):
    """Sends each HTTP request, each hop of a redirect included, through the proxy for its URL."""

    def __init__(self, context: ssl.SSLContext, proxies: Proxies) -> None:
        self._context = context
        self._proxies = proxies
        self._transports: dict[Proxy | None, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        proxy = self._proxies.proxy_for(str(request.url))
        transport = self._transports.get(proxy) or self._transports.setdefault(proxy, self._transport(proxy))
        return transport.handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()

    def _transport(self, proxy: Proxy | None) -> httpx.HTTPTransport:
        httpx_proxy = None
        if proxy:
            context = self._context if proxy.url.startswith("https:") else None
            httpx_proxy = httpx.Proxy(proxy.url, auth=proxy.auth, ssl_context=context)
        return httpx.HTTPTransport(verify=self._context, proxy=httpx_proxy, limits=NO_KEEPALIVE, trust_env=False)


def worker_client(settings: ConnectionSettings) -> httpx.Client:
    """
    Build a client, without any network access.

    :raises ConnectionSettingsError: If a TLS setting of the connection or of the environment cannot be used.
    """
    transport = TransportByProxy(settings.ssl_context(), settings.proxies)
    # A cookie of the service must not go to the hosts of files.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.Client(transport=transport, timeout=settings.timeout, cookies=no_cookies, trust_env=False)
