"""Finds the proxy for a URL, by the same rule for the worker's and the triggerer's HTTP client."""

from __future__ import annotations

import base64
import fnmatch
import ipaddress
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

import httpx

from airflow_provider_odirouter.errors import EnvironmentSettingsError
from airflow_provider_odirouter.hooks.bounded_io import is_link

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """
    A proxy that both HTTP clients can use.

    :param url: The proxy's URL without user and password.
    :param auth: User and password. Default: none.
    """

    url: str
    auth: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that only the proxy may get."""
        if self.auth is None:
            return {}
        token = base64.b64encode(":".join(self.auth).encode()).decode()
        return {"Proxy-Authorization": f"Basic {token}"}


class Proxies:
    """
    The proxies that an environment names, read once.

    ``HTTPS_PROXY`` and ``HTTP_PROXY`` are for URLs of these schemes, ``ALL_PROXY`` is for a scheme without its own
    variable. Names in lower case take precedence. ``NO_PROXY`` lists the exceptions, separated by commas: a host and
    its subdomains (``example.com``, ``.example.com``), a pattern (``10.*``), an address, a network (``10.0.0.0/8``,
    ``fd00::/8``), each with an optional scheme and port; ``*`` is every host.

    :param environment: The variables. Default: the environment of the process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(os.environ if environment is None else environment)

    def proxy_for(self, url: str) -> Proxy | None:
        """
        Return the proxy for a URL; ``None``: it is reached without a proxy.

        :raises EnvironmentSettingsError: If the proxy cannot be used. The text shows no password.
        """
        target = httpx.URL(url)
        named = self._setting(f"{target.scheme}_proxy") or self._setting("all_proxy")
        if named is None or self._is_exempt(target):
            return None
        return _proxy(*named)

    def check(self, base_url: str) -> None:
        """
        Check, before anything is paid, that the proxies can be used.

        If the base URL has a proxy, this also checks the proxies for ``http`` and ``https``: the links to the pictures
        come only after the payment, and may need either.

        :raises EnvironmentSettingsError: If a proxy cannot be used.
        """
        if self.proxy_for(base_url):
            for scheme in DEFAULT_PORTS:
                self.proxy_for(base_url.replace(httpx.URL(base_url).scheme, scheme, 1))

    def _setting(self, name: str) -> tuple[str, str] | None:
        """Return a variable's spelling and value; an empty value counts as not set."""
        # In a CGI process, HTTP_PROXY is a header that any client can send.
        is_header = name == "http_proxy" and "REQUEST_METHOD" in self._environment
        for spelling in (name, name.upper()):
            if spelling in self._environment and not (is_header and spelling.isupper()):
                value = self._environment[spelling].strip()
                return (spelling, value) if value else None
        return None

    def _is_exempt(self, target: httpx.URL) -> bool:
        setting = self._setting("no_proxy")
        if setting is None:
            return False
        variable, value = setting
        # Every entry is read, so that check() finds a wrong one before the payment, whatever the host.
        covered = [_covers(entry, target, variable) for entry in re.split(r"[,\s]+", value.lower()) if entry]
        return any(covered)


def _covers(entry: str, target: httpx.URL, variable: str) -> bool:
    """Return whether an entry of ``NO_PROXY`` applies to a URL."""
    scheme, has_scheme, rest = entry.partition("://") if "://" in entry else ("", "", entry)
    host, port = _host_and_port(rest, variable)
    if has_scheme and scheme not in {"all", target.scheme}:
        return False
    if port and port != (target.port or DEFAULT_PORTS.get(target.scheme)):
        return False
    name = target.raw_host.decode().lower().rstrip(".").strip("[]")
    with suppress(ValueError):
        return ipaddress.ip_address(name) in ipaddress.ip_network(host, strict=False)
    if "/" in host:
        with suppress(ValueError):
            ipaddress.ip_network(host, strict=False)
            return False
        raise EnvironmentSettingsError(f"{variable} has an entry that is not a network: {host!r}.")
    suffix = host.removeprefix("*").strip(".")
    if host == "*" or ("*" in suffix and fnmatch.fnmatchcase(name, suffix)):
        return True
    return bool(suffix) and (name == suffix or name.endswith(f".{suffix}"))


def _host_and_port(text: str, variable: str) -> tuple[str, int | None]:
    if text.count(":") > 1:
        with suppress(ValueError):
            ipaddress.ip_network(text, strict=False)
            return text, None  # an IPv6 address without brackets, or an IPv6 network
    found = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?|([^\[\]:@\s]+)(?::([0-9]{1,5}))?", text)
    if found is None:
        raise EnvironmentSettingsError(f"{variable} has an entry that is not a host: {text.rpartition('@')[2]!r}.")
    in_brackets, its_port, name, port = found.groups()
    number = its_port or port
    return in_brackets or name, int(number) if number else None


def _proxy(variable: str, text: str) -> Proxy:
    scheme = text.partition("://")[0].lower() if "://" in text else "http"
    if scheme.startswith("socks"):
        raise EnvironmentSettingsError(
            f"{variable} names a SOCKS proxy, which the triggerer's HTTP client does not support.",
            advice=f"Name an HTTP proxy instead, or list the hosts in NO_PROXY. {EnvironmentSettingsError.advice}",
            last_advice=(
                f"Name an HTTP proxy instead, or list the hosts in NO_PROXY. {EnvironmentSettingsError.last_advice}"
            ),
        )
    text = text if "://" in text else f"http://{text}"
    # The text must not quote the value: it may hold a password.
    if scheme not in DEFAULT_PORTS or not is_link(text) or not text.isprintable() or " " in text:
        raise EnvironmentSettingsError(
            f"{variable} names a proxy that cannot be used: it must be a percent-encoded URL such as "
            "http://user:password@proxy:3128.",
        )
    url = httpx.URL(text)
    user, _, password = url.userinfo.decode().partition(":")
    auth = (unquote(user), unquote(password)) if url.userinfo else None
    return Proxy(f"{url.scheme}://{url.netloc.decode()}", auth)
