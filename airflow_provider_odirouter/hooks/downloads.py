"""Downloads of outputs: without the key, from public addresses alone, each redirect checked as the first link was."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_odirouter import protocol
from airflow_provider_odirouter.errors import LandingError
from airflow_provider_odirouter.hooks.destinations import PeerCheck, is_private_host
from airflow_provider_odirouter.hooks.intake import HeaderWatch, Intake, as_our_errors, is_link, redirect_target
from airflow_provider_odirouter.protocol import Answer, Call
from airflow_provider_odirouter.redaction import MASK, without_password

if TYPE_CHECKING:
    import httpx

    from airflow_provider_odirouter.hooks.settings import ConnectionSettings

MAX_REDIRECTS = 10


class Downloader:
    """
    Receives files.

    :param client: Without the key.
    :param headers: What is sent to any host.
    :param seconds: How long the body of a file may take.
    :param max_bytes: How many bytes a file may have.
    """

    def __init__(
        self,
        client: httpx.Client,
        settings: ConnectionSettings,
        headers: Mapping[str, str],
        *,
        seconds: float,
        max_bytes: int,
    ) -> None:
        self._client = client
        self._settings = settings
        self._headers = headers
        self._seconds = seconds
        self._max_bytes = max_bytes

    def receive(self, call: Call, into: IO[bytes]) -> None:
        """
        Receive a file, once, wherever its link is redirected to.

        :raises OdiRouterError: If that fails; see :meth:`~.odirouter.OdiRouterHook.download`.
        """
        into.seek(0)
        into.truncate()
        check_link(call.url, "The result's link", call.request_id, self._settings)
        hop: Call | None = call
        for _ in range(1 + MAX_REDIRECTS):
            if hop:
                hop = self._receive_or_move(hop, into)
        if hop:
            what = f"{_host(call)} redirects the download more than {MAX_REDIRECTS} times."
            raise LandingError(what, request_id=call.request_id)

    def _receive_or_move(self, call: Call, into: IO[bytes]) -> Call | None:
        """Receive a file, or return the call that its host redirects to."""
        check, watch = PeerCheck(call, self._may_be_private), HeaderWatch(self._settings.timeout + 1)

        def trace(event: str, info: Mapping[str, Any]) -> None:
            check(event, info)
            watch(event, info)

        with (
            # Who has a link's query may fetch what lies there.
            as_our_errors(call, self._settings.redactor.also(urlsplit(call.url).query)),
            self._client.stream("GET", call.url, headers=self._headers, extensions={"trace": trace}) as got,
        ):
            if got.has_redirect_location:
                return self._moved(call, got.headers["Location"])
            if not got.is_success:
                raise protocol.file_error_of(call, Answer(got.status_code, {}, b"", received_at=time.time()))
            intake = Intake(call, into, seconds=self._seconds, most=self._max_bytes)
            for chunk in got.iter_bytes():
                intake.take(chunk)
        return None

    def _moved(self, call: Call, location: str) -> Call:
        url, what = redirect_target(call.url, location), f"{_host(call)} redirects the download, and the link"
        check_link(url, what, call.request_id, self._settings)
        if urlsplit(call.url).scheme == "https" and urlsplit(url).scheme == "http":
            raise LandingError(f"{what} gives up the encryption: it is no https URL.", request_id=call.request_id)
        return replace(call, url=url)

    def _may_be_private(self) -> bool:
        base_url = self._settings.base_url
        return self._settings.allow_private_downloads or is_private_host(urlsplit(base_url).hostname or "")


def check_link(url: str, what: str, request_id: str | None, settings: ConnectionSettings) -> None:
    """
    Check a link before it is followed.

    :param what: What the link is, as the beginning of a sentence.
    :raises LandingError: If it is none, or holds a secret, which no host but OdiRouter's own may get.
    """
    shown = settings.redactor.text(url)
    if MASK in shown:  # It was hidden when the result was read, or is to be hidden now.
        raise LandingError(
            f"{what} holds a secret of the connection, and is not followed.",
            request_id=request_id,
            advice="Report this to OdiRouter with the request's id.",
        )
    if not is_link(url):
        raise LandingError(f"{what} {without_password(shown)[:20]!r}… is no http(s) URL.", request_id=request_id)


def _host(call: Call) -> str | None:
    return urlsplit(call.url).hostname
