"""
Builds the base URL from a connection's host, port and schema, in every form that Airflow accepts.

Airflow splits a URI such as ``odirouter://http://:KEY@[::1]:8088/model`` into the host ``http://::1``, the port 8088
and the schema ``model``. In its form and in JSON the user fills the fields, and ``http`` connections have the scheme in
the schema. So each part of the URL may be in more than one field. Parts that contradict each other are refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import unquote, urlsplit

import httpx

from airflow_provider_odirouter.hooks.bounded_io import is_link
from airflow_provider_odirouter.protocol import DEFAULT_BASE_URL

SCHEMES = ("http", "https")
BAD_HOST = f"its host must be a base URL such as {DEFAULT_BASE_URL}, without user, query or fragment."
HOST_NAME = re.compile(r"""[^\s\\@%?#,/:\[\]<>{}|^`"']+""")


def base_url_of(host: str | None, port: int | str | None, schema: str | None) -> str:
    """
    Return the base URL that a connection's fields name, encoded and without a slash at its end.

    :param host: A base URL, or its short form without scheme and path. Default scheme: ``https``; default path of the
        short form: ``model``; default if empty: the documented base URL.
    :param port: The port, which may be in the host instead.
    :param schema: ``http`` or ``https``, or the path; each may be in the host instead.
    :raises ValueError: If the fields contradict each other, or are not a base URL. The text shows neither host nor
        path: they may hold a key.
    """
    host, schema = (host or "").strip(), (schema or "").strip()
    scheme_of_host, has_scheme, rest = host.partition("://") if "://" in host else ("", "", host)
    scheme_of_host = scheme_of_host.lower()
    if has_scheme and scheme_of_host not in SCHEMES:
        raise ValueError(BAD_HOST)
    scheme_of_schema, path_of_schema = _scheme_and_path(schema)
    if not host and scheme_of_schema == "http":
        raise ValueError("its schema field says http, but its host field is empty, which means the https default.")
    authority, _, path_of_host = (rest if host else urlsplit(DEFAULT_BASE_URL).netloc).partition("/")
    name, port_of_host = _name_and_port(authority)

    scheme = _agree("its host and its schema field", scheme_of_host, scheme_of_schema) or "https"
    number = _agree("its host and its port field", port_of_host, _port(port))
    path = _agree("its host and its schema field", path_of_host.strip("/"), path_of_schema, shown=False)
    if not (path or has_scheme):
        path = urlsplit(DEFAULT_BASE_URL).path.strip("/")
    text = f"{scheme}://{name}{f':{number}' if number else ''}/{path}"
    if not _is_base_url(text):
        raise ValueError(BAD_HOST)
    return str(httpx.URL(text)).rstrip("/")


def _scheme_and_path(schema: str) -> tuple[str, str]:
    scheme = schema.rstrip(":/").lower()
    if scheme in SCHEMES:
        return scheme, ""
    if "://" in schema:
        raise ValueError("its schema field must be http, https or a path; put a URL into its host field.")
    return "", schema.strip("/")


def _name_and_port(authority: str) -> tuple[str, str]:
    """Split host and port. An IPv6 address from a URI has lost its brackets."""
    in_brackets = re.fullmatch(r"\[([^\[\]%]+)\](?::([0-9]+))?", authority)
    try:
        if in_brackets or authority.count(":") > 1:
            name, port = in_brackets.groups(default="") if in_brackets else (authority, "")
            return f"[{IPv6Address(name)}]", _port(port)
        name, colon, port = authority.partition(":")
        if HOST_NAME.fullmatch(name) and (port or not colon):
            return name, _port(port)
    except ValueError:
        pass  # not an address, or not a port
    raise ValueError(BAD_HOST)


def _port(port: int | str | None) -> str:
    text = "" if port is None else str(port).strip()
    if not text:
        return ""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**16):
        raise ValueError("its port must be a number from 1 to 65535.")
    return str(int(text))


def _agree(fields: str, one: str, other: str, *, shown: bool = True) -> str:
    if one and other and unquote(one) != unquote(other):
        what = f" ({one}, {other})" if shown else ""
        raise ValueError(f"{fields} contradict each other{what}; give it in one of them.")
    return one or other


def _is_base_url(text: str) -> bool:
    if not is_link(text) or not text.isprintable() or any(character.isspace() for character in text):
        return False
    url = httpx.URL(text)
    return not (url.userinfo or url.query or url.fragment or "?" in text or "#" in text or "\\" in text)
