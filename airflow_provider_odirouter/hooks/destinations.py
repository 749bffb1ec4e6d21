"""
Restricts downloads to public addresses, unless OdiRouter itself is at an address that is not public.

The links come from the service, and redirects from any host that a link names. None of them may make a worker fetch a
resource that only the worker can reach: a cloud's metadata, a service on its own machine, a router.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx

from airflow_provider_odirouter.errors import PrivateAddressError
from airflow_provider_odirouter.protocol import Call

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
LOOKUP_SECONDS = 5.0
"""For the lookup of the base URL's host, which happens only if a download meets an address that is not public."""


def is_public(address: Address) -> bool:
    """Return whether an address belongs to one host on the public internet."""
    address = _real_address(address)
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or getattr(address, "is_site_local", False)
    )


def _real_address(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address embeds, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def literal_address(host: str) -> Address | None:
    """
    Return the address that a host's name spells; ``None``: the name has to be looked up.

    It reads all spellings that a resolver accepts, such as ``2130706433``, ``0x7f.1`` or ``localhost``.
    """
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    with suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return None


def is_private_host(host: str, *, seconds: float = LOOKUP_SECONDS) -> bool:
    """
    Return whether all known addresses of a host are not public. An unknown host counts as public.

    :param seconds: How long the lookup of its name may take. Default: 5; the system's own limit is longer.
    """
    if literal := literal_address(host):
        return not is_public(literal)
    found: list[Address] = []

    def look_up() -> None:
        with suppress(OSError, UnicodeError):
            found.extend({ipaddress.ip_address(str(one[4][0])) for one in socket.getaddrinfo(host, None)})

    thread = threading.Thread(target=look_up, name="odirouter-lookup", daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(found) and not any(map(is_public, found))


class PeerCheck:
    """
    Closes a connection to an address that is not public before anything is sent; a ``trace`` extension of httpx.

    It checks the address that the connection has reached: neither an earlier lookup nor the spelling of an address can
    deceive it. With a proxy, the proxy looks names up, and its own rules apply; only an address in the URL is checked.

    :param call: The download, or one of its redirects.
    :param may_be_private: Returns whether addresses that are not public are allowed. Called only for such an address.
    """

    def __init__(self, call: Call, may_be_private: Callable[[], bool]) -> None:
        self._call = call
        self._may_be_private = may_be_private
        url = httpx.URL(call.url)
        self._host = url.raw_host.decode()
        self._port = url.port or {"http": 80, "https": 443}[url.scheme]
        self._is_proxied = False

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle an event of httpx: a connection is to be opened, or is open."""
        if event.endswith(".connect_tcp.started"):
            self._is_proxied = (info["host"], info["port"]) != (self._host, self._port)
            if self._is_proxied and (address := literal_address(self._host)):
                self._check(address)
        elif event.endswith(".connect_tcp.complete") and not self._is_proxied:
            stream = info["return_value"]
            try:
                self._check(ipaddress.ip_address(stream.get_extra_info("server_addr")[0]))
            except OSError as error:
                stream.close()
                raise httpx.ConnectError(str(error)) from error
            except PrivateAddressError:
                stream.close()
                raise

    def _check(self, address: Address) -> None:
        if not is_public(address) and not self._may_be_private():
            host = urlsplit(self._call.url).hostname
            raise PrivateAddressError(
                f"A file of the result is at {host} ({_real_address(address)}), which is not a public address, so it "
                "was not downloaded.",
                request_id=self._call.request_id,
            )
