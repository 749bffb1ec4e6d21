"""Reads and checks an Airflow connection of type ``odirouter``."""

from __future__ import annotations

import difflib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

from airflow_provider_odirouter.errors import ConnectionSettingsError
from airflow_provider_odirouter.get_provider_info import CONNECTION_TYPE, MAX_TIMEOUT
from airflow_provider_odirouter.hooks.base_url import base_url_of
from airflow_provider_odirouter.hooks.proxies import Proxies
from airflow_provider_odirouter.hooks.tls import tls_context
from airflow_provider_odirouter.models import Prices
from airflow_provider_odirouter.protocol import DEFAULT_BASE_URL
from airflow_provider_odirouter.redaction import Redactor, Secret, raises_without_traceback, secrets_in_url

if TYPE_CHECKING:
    from airflow.sdk import Connection

DEFAULT_TIMEOUT = 60.0
"""Seconds for one call."""
EXTRAS = tuple(CONNECTION_TYPE["conn-fields"])
AIRFLOWS_EXTRA = "__extra__"
"""Airflow's name for the extra in a URI, if its values are not all texts."""
AIRFLOWS_PREFIX = "extra__odirouter__"
"""Airflow's prefix for the fields of a form."""


@dataclass(frozen=True)
class ConnectionSettings:
    """
    The checked settings of a connection.

    :param api_key: It becomes a :class:`Secret` if it is a text.
    :param base_url: Encoded, without a slash at its end. Default: the documented base URL.
    :param timeout: Seconds for one call. Default: 60.
    :param verify: Whether TLS certificates are checked, or the path of a CA file to check them with. Default: true.
    :param allow_private_downloads: Whether outputs may be at addresses that are not public. Default: false.
    :param prices: What an output costs. They do not count when settings are compared: no call depends on them.
    """

    api_key: Secret | str
    base_url: str = DEFAULT_BASE_URL
    timeout: float = DEFAULT_TIMEOUT
    verify: bool | str = True
    allow_private_downloads: bool = False
    prices: Prices = field(default=Prices(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_key", Secret(self.api_key))

    def authorization(self) -> str:
        """Return the header with the API key. Call it only on the line that sends it."""
        return f"Bearer {Secret(self.api_key).reveal()}"

    @cached_property
    def redactor(self) -> Redactor:
        """Hides the API key and the passwords of the environment's proxies."""
        return Redactor([self.api_key, *chain.from_iterable(map(secrets_in_url, getproxies().values()))])

    @cached_property
    def account(self) -> int:
        """Identifies base URL and API key without showing them."""
        return hash((self.base_url, self.api_key))

    @classmethod
    @raises_without_traceback()  # A traceback with local variables would show the whole connection.
    def from_connection(cls, connection: Connection) -> ConnectionSettings:
        """
        Read an Airflow connection.

        :raises ConnectionSettingsError: If the connection cannot be used. The text never shows the API key.
        """
        _check_type(connection)
        extra = _extra(connection)
        return cls(
            api_key=_api_key(connection),
            base_url=_base_url(connection),
            timeout=_timeout(connection, extra.get("timeout")),
            verify=_verify(connection, extra.get("verify")),
            allow_private_downloads=_private_downloads(connection, extra.get("allow_private_downloads")),
            prices=_prices(connection, extra.get("prices")),
        )

    def ssl_context(self) -> ssl.SSLContext:
        """
        Return the TLS settings. They are built once, for all hooks with these connection settings.

        :raises ConnectionSettingsError: If the CA file cannot be used.
        :raises EnvironmentSettingsError: If the environment's TLS settings cannot be used.
        """
        return self._ssl_context

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        return tls_context(self.verify)

    @cached_property
    def proxies(self) -> Proxies:
        """The environment's proxies, read once: a cancel uses the same proxy as its submit."""
        return Proxies()


def _unusable(connection: Connection, what: str) -> ConnectionSettingsError:
    return ConnectionSettingsError(f"The connection {connection.conn_id!r} cannot be used: {what}")


def _check_type(connection: Connection) -> None:
    kind = connection.conn_type or ""
    if kind != "odirouter" and kind.startswith(("odirouter", "http")):
        # As in odirouter+http://…: the scheme would be ignored.
        raise _unusable(
            connection, f"its type is {kind!r}; a URI for plain HTTP is odirouter://http://:KEY@host/model."
        )
    if kind not in {"odirouter", "generic", ""}:
        # The secret of another service must not be sent to this one.
        raise _unusable(connection, f"its type is {kind!r}, not 'odirouter'.")


def _extra(connection: Connection) -> dict[str, Any]:
    # Not Connection.extra_dejson: it calls Airflow's supervisor to mask secrets, which blocks a triggerer's event loop.
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
        raise _unusable(connection, "its extra is not JSON.") from error
    if not isinstance(extra, Mapping):  # Airflow 3.2 returns an object if it has read a URI
        raise _unusable(connection, "its extra is not a JSON object.")
    return dict(extra)


def _unknown_extra(name: str, key: str) -> str:
    has_key = key and key in name
    what = "the name of an extra contains the API key" if has_key else f"its extra {name[:40]!r} is not known"
    nearest = difflib.get_close_matches(name.strip().lower().replace("-", "_"), EXTRAS, n=1)
    meant = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"{what}{meant} Known extras: {', '.join(EXTRAS)}."


def _api_key(connection: Connection) -> Secret:
    key = (connection.password or "").strip()
    if (connection.login or "").strip():
        raise _unusable(connection, "it has a login, but OdiRouter has none; put the API key into its password field.")
    if not key:
        raise _unusable(connection, "it has no API key; put the key into its password field.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise _unusable(connection, "its API key (the password field) has characters that an API key cannot have.")
    return Secret(key)


def _base_url(connection: Connection) -> str:
    try:
        return base_url_of(connection.host, connection.port, connection.schema)
    except ValueError as error:
        # The text must not quote the field: it may hold a key.
        raise _unusable(connection, str(error)) from error


def _timeout(connection: Connection, value: object) -> float:
    if value is None or value == "":
        return DEFAULT_TIMEOUT
    try:
        timeout = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        timeout = 0.0
    if not 0 < timeout <= MAX_TIMEOUT:
        raise _unusable(connection, f"its timeout must be seconds, above 0 and at most {MAX_TIMEOUT}, not {value!r}.")
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


def _prices(connection: Connection, value: object) -> Prices:
    try:
        return Prices.parse(value)
    except ValueError as error:
        raise _unusable(connection, f"its prices {error}.") from error


def _boolean(value: object, *, default: bool) -> bool | None:
    """Read a boolean in its usual spellings, also as the text of a URI; ``None``: it is not a boolean."""
    match str(value).strip().lower():
        case "none" | "null" | "":
            return default
        case "true" | "1" | "yes" | "on" | "t" | "y":
            return True
        case "false" | "0" | "no" | "off" | "f" | "n":
            return False
    return None
