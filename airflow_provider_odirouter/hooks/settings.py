"""What an Airflow connection of type ``odirouter`` says, checked."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

import httpx

from airflow_provider_odirouter.errors import ConnectionSettingsError
from airflow_provider_odirouter.hooks.intake import is_link
from airflow_provider_odirouter.protocol import DEFAULT_BASE_URL
from airflow_provider_odirouter.redaction import Redactor, Secret, raises_bare, secrets_in_url

if TYPE_CHECKING:
    from airflow.sdk import Connection

DEFAULT_TIMEOUT = 60.0
"""Seconds for one call."""


@dataclass(frozen=True)
class ConnectionSettings:
    """
    A usable connection.

    :param base_url: Without a slash at its end, and encoded.
    :param timeout: Seconds for one call.
    :param verify: Whether TLS certificates are checked, or the path of a CA file that they are checked with.
    :param allow_private_downloads: Whether outputs may lie at addresses that are not public.
    """

    api_key: Secret | str
    """Kept as a secret, however it is given."""
    base_url: str = DEFAULT_BASE_URL
    timeout: float = DEFAULT_TIMEOUT
    verify: bool | str = True
    allow_private_downloads: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_key", Secret(self.api_key))

    def authorization(self) -> str:
        """Return the header that carries the key: for the very line that sends it."""
        return f"Bearer {Secret(self.api_key).reveal()}"

    @cached_property
    def redactor(self) -> Redactor:
        """What hides the key, and the passwords of the environment's proxies."""
        return Redactor([self.api_key, *chain.from_iterable(map(secrets_in_url, getproxies().values()))])

    @cached_property
    def account(self) -> int:
        """What stands for base URL and key, and tells neither."""
        return hash((self.base_url, self.api_key))

    @classmethod
    @raises_bare()  # Airflow shows all of a connection, wherever a frame holds one.
    def of(cls, connection: Connection) -> ConnectionSettings:
        """
        Read an Airflow connection.

        :raises ConnectionSettingsError: If it cannot be used. The API key is never part of the text.
        """
        extra = _extra(connection)
        return cls(
            api_key=_api_key(connection),
            base_url=_base_url(connection),
            timeout=_timeout(connection, extra.get("timeout")),
            verify=_verify(connection, extra.get("verify")),
        )

    def ssl_context(self) -> ssl.SSLContext:
        """
        Build the TLS settings: about 20 ms of work, so once for many calls.

        :raises ConnectionSettingsError: If the CA file holds no certificate.
        """
        if not isinstance(self.verify, str):
            return httpx.create_ssl_context(verify=self.verify)
        # In addition to the public ones: pictures lie on a host of their own.
        context = httpx.create_ssl_context()
        try:
            context.load_verify_locations(cafile=self.verify)
        except OSError as error:
            raise ConnectionSettingsError(f"The CA file {self.verify!r} cannot be used: {error}.") from error
        return context


def _unusable(connection: Connection, what: str) -> ConnectionSettingsError:
    return ConnectionSettingsError(f"The connection {connection.conn_id!r} cannot be used: {what}")


def _extra(connection: Connection) -> dict[str, Any]:
    # Connection.extra_dejson talks to Airflow's supervisor to mask secrets, which blocks the triggerer's event loop.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError as error:
        raise _unusable(connection, "its extra is no JSON.") from error
    if not isinstance(extra, dict):
        raise _unusable(connection, "its extra is no JSON object.")
    return extra


def _api_key(connection: Connection) -> Secret:
    key = (connection.password or "").strip()
    if not key:
        raise _unusable(connection, "it has no API key; put the key into its password field.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise _unusable(connection, "its API key (the password field) holds characters that no key has.")
    return Secret(key)


def _base_url(connection: Connection) -> str:
    host = (connection.host or "").strip()
    if not host:
        return DEFAULT_BASE_URL
    if "://" not in host:
        # The short form of a URI: odirouter://:KEY@api.odirouter.ai
        name, _, path = host.partition("/")
        port = f":{connection.port}" if connection.port else ""
        host = f"https://{name}{port}/{(path or connection.schema or 'model').strip('/')}"
    if not _is_base_url(host):
        # What it is instead is not shown: it may hold a key.
        raise _unusable(
            connection, f"its host must be a base URL such as {DEFAULT_BASE_URL}, without user, query or fragment."
        )
    # As it goes over the wire: percent-encoded, and the host's name in ASCII.
    return str(httpx.URL(host)).rstrip("/")


def _is_base_url(text: str) -> bool:
    if not is_link(text) or any(character.isspace() for character in text):
        return False
    url = httpx.URL(text)
    return not (url.userinfo or url.query or url.fragment)


def _timeout(connection: Connection, value: object) -> float:
    if value is None or value == "":
        return DEFAULT_TIMEOUT
    try:
        timeout = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        timeout = 0.0
    if not 0 < timeout <= 3600:
        raise _unusable(connection, f"its timeout must be seconds, above 0 and at most 3600, not {value!r}.")
    return timeout


def _verify(connection: Connection, value: object) -> bool | str:
    match str(value).strip().lower():
        case "none" | "" | "true" | "1" | "yes":
            return True
        case "false" | "0" | "no":
            return False
    if not Path(str(value)).is_file():
        raise _unusable(connection, f"its verify must be true, false or a CA file; there is no file {value!r}.")
    return str(value)
