"""What an Airflow connection of type ``odirouter`` says, checked."""

from __future__ import annotations

import difflib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

from airflow_provider_odirouter.errors import ConnectionSettingsError
from airflow_provider_odirouter.get_provider_info import CONNECTION_TYPE
from airflow_provider_odirouter.hooks.base_url import base_url_of
from airflow_provider_odirouter.hooks.proxies import Proxies
from airflow_provider_odirouter.hooks.tls import tls_context
from airflow_provider_odirouter.protocol import DEFAULT_BASE_URL
from airflow_provider_odirouter.redaction import Redactor, Secret, raises_bare, secrets_in_url

if TYPE_CHECKING:
    from airflow.sdk import Connection

DEFAULT_TIMEOUT = 60.0
"""Seconds for one call."""
EXTRAS = tuple(CONNECTION_TYPE["conn-fields"])
AIRFLOWS_EXTRA = "__extra__"
"""Airflow's own name, in a URI, for extras that are more than texts."""
AIRFLOWS_PREFIX = "extra__odirouter__"
"""Airflow's own, for fields of a form."""


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
        _check_type(connection)
        extra = _extra(connection)
        return cls(
            api_key=_api_key(connection),
            base_url=_base_url(connection),
            timeout=_timeout(connection, extra.get("timeout")),
            verify=_verify(connection, extra.get("verify")),
            allow_private_downloads=_private_downloads(connection, extra.get("allow_private_downloads")),
        )

    def ssl_context(self) -> ssl.SSLContext:
        """
        Return the TLS settings, which are built once: all hooks with these settings share them.

        :raises ConnectionSettingsError: If the CA file, or what the environment names instead, cannot be used.
        """
        return self._ssl_context

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        return tls_context(self.verify)

    @cached_property
    def proxies(self) -> Proxies:
        """The environment's proxies, read once: a cancel goes the way that its submit went."""
        return Proxies()


def _unusable(connection: Connection, what: str) -> ConnectionSettingsError:
    return ConnectionSettingsError(f"The connection {connection.conn_id!r} cannot be used: {what}")


def _check_type(connection: Connection) -> None:
    kind = connection.conn_type or ""
    if kind != "odirouter" and kind.startswith(("odirouter", "http")):
        # As in odirouter+http://…: a scheme that would be passed over.
        raise _unusable(
            connection, f"its type is {kind!r}; a URI for plain HTTP is odirouter://http://:KEY@host/model."
        )


def _extra(connection: Connection) -> dict[str, Any]:
    # Connection.extra_dejson talks to Airflow's supervisor to mask secrets, which blocks the triggerer's event loop.
    given = _object(connection, connection.extra)
    given |= _object(connection, given.pop(AIRFLOWS_EXTRA, None))
    extra = {name.removeprefix(AIRFLOWS_PREFIX): value for name, value in given.items()}
    for name in extra:
        if name not in EXTRAS:
            raise _unusable(connection, _unknown_extra(name, connection.password or ""))
    return extra


def _object(connection: Connection, given: object) -> dict[str, Any]:
    try:
        extra = json.loads(given) if given and isinstance(given, str) else given or {}
    except ValueError as error:
        raise _unusable(connection, "its extra is no JSON.") from error
    if not isinstance(extra, Mapping):  # it is one already where Airflow 3.2 has read a URI
        raise _unusable(connection, "its extra is no JSON object.")
    return dict(extra)


def _unknown_extra(name: str, key: str) -> str:
    what = f"its extra {name[:40]!r} is not known" if not key or key not in name else "an extra has its key for a name"
    nearest = difflib.get_close_matches(name.strip().lower().replace("-", "_"), EXTRAS, n=1)
    meant = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"{what}{meant} Known extras: {', '.join(EXTRAS)}."


def _api_key(connection: Connection) -> Secret:
    key = (connection.password or "").strip()
    if (connection.login or "").strip():
        raise _unusable(connection, "it has a login, which OdiRouter has not; the API key is its password, alone.")
    if not key:
        raise _unusable(connection, "it has no API key; put the key into its password field.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise _unusable(connection, "its API key (the password field) holds characters that no key has.")
    return Secret(key)


def _base_url(connection: Connection) -> str:
    try:
        return base_url_of(connection.host, connection.port, connection.schema)
    except ValueError as error:
        # What it is instead is not shown: it may hold a key.
        raise _unusable(connection, str(error)) from error


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
    verify = _boolean(value, default=True)
    if verify is not None:
        return verify
    if not Path(str(value)).is_file():
        raise _unusable(connection, f"its verify must be true, false or a CA file; there is no file {value!r}.")
    return str(value)


def _private_downloads(connection: Connection, value: object) -> bool:
    allowed = _boolean(value, default=False)
    if allowed is None:
        raise _unusable(connection, f"its allow_private_downloads must be true or false, not {value!r}.")
    return allowed


def _boolean(value: object, *, default: bool) -> bool | None:
    """Read a switch in its usual spellings, among them the texts of a URI; ``None``: it is none."""
    match str(value).strip().lower():
        case "none" | "null" | "":
            return default
        case "true" | "1" | "yes" | "on" | "t" | "y":
            return True
        case "false" | "0" | "no" | "off" | "f" | "n":
            return False
    return None
