"""Downloads outputs: without the API key, from public addresses only, with the same checks for each redirect."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_odirouter import protocol
from airflow_provider_odirouter.errors import LandingError
from airflow_provider_odirouter.hooks.bounded_io import (
    BoundedBody,
    HeaderTimeout,
    is_link,
    map_transport_errors,
    redirect_target,
)
from airflow_provider_odirouter.hooks.destinations import PeerCheck, is_private_host
from airflow_provider_odirouter.protocol import Answer, Call
from airflow_provider_odirouter.redaction import MASK, without_password

if TYPE_CHECKING:
    import httpx

    from airflow_provider_odirouter.hooks.connection import ConnectionSettings

MAX_REDIRECTS = 10


class Downloader:
    """
    Downloads files.

    :param client: A client that does not send the API key.
    :param headers: Sent to every host.
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
        Download a file once, and follow the redirects of its link.

        :raises OdiRouterError: If the download fails; see :meth:`~.odirouter.OdiRouterHook.download`.
        """
        into.seek(0)
        into.truncate()
        check_link(call.url, "The result's link", call.request_id, self._settings)
        hop: Call | None = call
        for _ in range(1 + MAX_REDIRECTS):
            if hop:
                hop = self._receive_or_redirect(hop, into)
        if hop:
            what = f"{_host(call)} redirects the download more than {MAX_REDIRECTS} times."
            raise LandingError(what, request_id=call.request_id)

    def _receive_or_redirect(self, call: Call, into: IO[bytes]) -> Call | None:
        """Receive a file, or return the call that its host redirects to."""
        check_peer, limit_headers = PeerCheck(call, self._may_be_private), HeaderTimeout(self._settings.timeout + 1)

        def trace(event: str, info: Mapping[str, Any]) -> None:
            check_peer(event, info)
            limit_headers(event, info)

        with (
            # The query of a link may give access to the file, like a key.
            map_transport_errors(call, self._settings.redactor.with_secrets(urlsplit(call.url).query)),
            self._client.stream("GET", call.url, headers=self._headers, extensions={"trace": trace}) as response,
        ):
            if response.has_redirect_location:
                return self._redirected(call, response.headers["Location"])
            if not response.is_success:
                answer = Answer(response.status_code, {}, b"", received_at=time.time())
                raise protocol.file_error_from_answer(call, answer)
            bounded_body = BoundedBody(call, into, seconds=self._seconds, max_bytes=self._max_bytes)
            bounded_body.expect(response.headers.get("Content-Length", ""))
            for chunk in response.iter_bytes():
                bounded_body.write(chunk)
        return None

    def _redirected(self, call: Call, location: str) -> Call:
        url, what = redirect_target(call.url, location), f"{_host(call)} redirects the download, and the link"
        check_link(url, what, call.request_id, self._settings)
        if urlsplit(call.url).scheme == "https" and urlsplit(url).scheme == "http":
            raise LandingError(f"{what} is not encrypted: it is not an https URL.", request_id=call.request_id)
        return replace(call, url=url)

    def _may_be_private(self) -> bool:
        base_url = self._settings.base_url
        return self._settings.allow_private_downloads or is_private_host(urlsplit(base_url).hostname or "")


def check_link(url: str, what: str, request_id: str | None, settings: ConnectionSettings) -> None:
    """
    Check a link before it is followed.

    :param what: The beginning of the error's sentence, such as ``The result's link``.
    :raises LandingError: If it is not an ``http(s)`` URL, or holds a secret, which only OdiRouter's own host may get.
    """
    redacted = settings.redactor.redact_text(url)
    if MASK in redacted:  # The secret was redacted when the result was read, or is redacted now.
        raise LandingError(
            f"{what} holds a secret of the connection, and is not followed.",
            request_id=request_id,
            advice="Report this to OdiRouter with the request's id.",
        )
    if not is_link(url):
        shown = without_password(redacted)[:20]
        raise LandingError(f"{what} {shown!r}… is not an http(s) URL.", request_id=request_id)


def _host(call: Call) -> str | None:
    return urlsplit(call.url).hostname
