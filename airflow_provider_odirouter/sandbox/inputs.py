"""Downloads input pictures that a submit names by their URL."""

from __future__ import annotations

import time
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from airflow_provider_odirouter.sandbox.parameters import MAX_BYTES, check_picture
from airflow_provider_odirouter.sandbox.pictures import UnreadablePictureError

_TIMEOUT = 5.0


class InputError(Exception):
    """An input could not be downloaded, or is not a picture."""


def is_loopback(host: str | None) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def fetch(url: str, *, any_host: bool) -> bytes | str:
    """
    Fetch an input picture.

    :param any_host: Also fetch it from another machine.
    :return: The picture's bytes; or the URL itself, if it is on another machine and ``any_host`` is not set.
    :raises InputError: With the reason.
    """
    if not (any_host or is_loopback(urlsplit(url).hostname)):
        return url
    try:
        data = _download(url, any_host=any_host)
        check_picture(data)
    except (httpx.HTTPError, httpx.InvalidURL, UnreadablePictureError) as error:
        raise InputError(f"The input {url} could not be used: {error or type(error).__name__}") from error
    return data


def _download(url: str, *, any_host: bool) -> bytes:
    until = time.monotonic() + _TIMEOUT
    data = bytearray()
    # The environment's proxies and redirects could lead away from loopback. On loopback, a certificate proves nothing.
    with (
        httpx.Client(timeout=_TIMEOUT, verify=any_host, trust_env=any_host, follow_redirects=any_host) as client,
        client.stream("GET", url) as response,
    ):
        if not response.is_success:
            raise UnreadablePictureError(f"answered {response.status_code}")
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > MAX_BYTES:
                raise UnreadablePictureError(f"has more than {MAX_BYTES} bytes")
            if time.monotonic() > until:
                raise UnreadablePictureError(f"took longer than {_TIMEOUT:g} seconds")
    return bytes(data)
