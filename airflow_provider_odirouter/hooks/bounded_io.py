"""Receives answers within limits of size and time, and turns transport errors into ours, without secrets."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

from airflow_provider_odirouter.errors import (
    LandingError,
    NoAnswerError,
    NotSentError,
    OdiRouterError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.protocol import Action, Call
from airflow_provider_odirouter.redaction import Redactor

NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""Errors of httpx's transport after which the connection was certainly never open."""
NO_ANSWER = (httpx.RequestError, httpx.InvalidURL, TimeoutError)
"""Errors after which a call may have arrived. httpx raises InvalidURL for a redirect to a URL that it cannot read."""
MAX_ANSWER_BYTES = 16 * 2**20
MAX_RESULT_BYTES = 64 * 2**20
"""A result may hold the outputs themselves, in base64."""
PLAIN_HTTP_ADVICE = (
    "The host does not answer in TLS: should the host begin with http://? Write it so in the connection's host field, "
    "or as in the URI odirouter://http://:KEY@host:8088/model. If not, check the port and the network."
)
HTTPS_ADVICE = (
    "The host does not answer in HTTP: should the host begin with https://? Write it so in the connection's host field."
)
CERTIFICATE_ADVICE = (
    "Check that the connection's host is right. If its certificate is self-signed, or your own authority has signed "
    'it, name the file of the authority in the connection\'s extra: {"verify": "/path/to/ca.pem"}.'
)
ALERT_ADVICE = (
    "The host refuses the TLS connection with an alert. Check that the connection's host and port are the API's, and "
    "that no firewall answers in its place; a client certificate, which some hosts demand, cannot be sent. The "
    "connection's extra verify does not help against this."
)
PROXY_ADVICE = (
    "The proxy refuses the connection: check HTTPS_PROXY or HTTP_PROXY (with user and password, if it demands them), "
    "NO_PROXY, and which hosts the proxy allows."
)
PROXY_REFUSES = re.compile(r"407\b")
"""How the errors of httpx and aiohttp begin if a proxy demands a login before it connects."""
TLS_ALERT = re.compile(r"\[SSL: (?:TLSV1_|\w+_ALERT_)")
"""How OpenSSL names an alert of the host."""
NOT_HTTP = re.compile("illegal (request|status) line|Bad status line|Expected HTTP")
"""What httpx and aiohttp say of an answer that is not HTTP, such as the alert of a host that speaks TLS."""
QUOTE_OF_HOST = re.compile(r"\\n|\n|bytearray\(|\bb['\"]")
"""Where an error begins to quote the host's bytes. They may be half of a secret, which no redactor finds."""
LOGGERS_OF_CALLS = ("httpx", *(f"httpcore.{name}" for name in ("connection", "http11", "proxy", "socks")))


def is_link(text: str) -> bool:
    """Return whether a text is an ``http(s)`` URL that a call can be sent to."""
    try:
        url = httpx.URL(text)
        host, port = urlsplit(text).hostname and url.host, url.port or 443
    except (httpx.InvalidURL, ValueError):
        return False
    return url.scheme in {"http", "https"} and bool(host) and port < 2**16


def redirect_target(url: str, location: str) -> str:
    """Return the URL that a ``Location`` means, or the ``Location`` itself if it is not valid."""
    try:
        return str(httpx.URL(url).join(location))
    except httpx.InvalidURL:
        return location


class BoundedBody:
    """
    Receives a body, chunk by chunk.

    :param sink: The file that the chunks are written to.
    :param seconds: How long the body may take from now on: a host that sends a byte now and then never meets the
        client's own time-outs.
    :param max_bytes: How many bytes the body may have.
    """

    def __init__(self, call: Call, sink: IO[bytes], *, seconds: float, max_bytes: int) -> None:
        self.call = call
        self.sink = sink
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.bytes_left = self.max_bytes = max_bytes

    def expect(self, content_length: str) -> None:
        """
        Check the length that a host announces, so that a file that is too large is not received in part.

        :param content_length: The header's value; one that is no number says nothing.
        :raises LandingError: If a file is too large.
        :raises UnreadableAnswerError: If an answer of the API is too large.
        """
        if content_length.isdecimal() and int(content_length[:20]) > self.max_bytes:
            raise self._too_large()

    def write(self, chunk: bytes) -> None:
        """
        Write a chunk.

        :raises LandingError: If a file is too large.
        :raises UnreadableAnswerError: If an answer of the API is too large.
        :raises NoAnswerError: If the chunk comes too late.
        """
        self.bytes_left -= len(chunk)
        if self.bytes_left < 0:
            raise self._too_large()
        if time.monotonic() > self.deadline:
            what = f"The answer to the {self.call.action} of {self.call.endpoint} took longer than {self.seconds:g} s."
            raise NoAnswerError(what, request_id=self.call.request_id)
        self.sink.write(chunk)

    def _too_large(self) -> OdiRouterError:
        what = f"The answer to the {self.call.action} of {self.call.endpoint} has more than {self.max_bytes:,} bytes."
        if self.call.action is Action.FILE:
            return LandingError(what, request_id=self.call.request_id)
        return UnreadableAnswerError(what, status_code=200, request_id=self.call.request_id)


class HeaderTimeout:
    """
    Closes the connection if the headers of the answer take too long; a ``trace`` extension of httpx.

    The client's own time-out only limits the time between two bytes: a host that sends a byte now and then would hold a
    worker for hours. Sending the call is not limited: a submit may carry 200 MiB.

    :param seconds: How long the headers may take: more than the client's time-out, whose error describes a silent host
        better.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle an event of httpx: a connection opens, or headers begin or end."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
        elif event.endswith(".receive_response_headers.started"):
            self._timer = threading.Timer(self._seconds, self._close)
            self._timer.daemon = True
            self._timer.start()
        elif ".receive_response_headers." in event and self._timer:
            self._timer.cancel()

    def _close(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                # Not the TLS socket's own shutdown(): it discards the TLS state that the reading thread needs.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _RedactingFilter(logging.Filter):
    """
    Removes secrets from what httpx logs about our calls.

    It logs each URL, and the query of a link can be as good as a key, and each reason phrase, where a host may echo a
    key.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record if it is about a call of ours."""
        if redactor := _current_redactor.get():
            record.msg, record.args = redactor.redact_text(record.getMessage()), ()
        return True


_current_redactor: ContextVar[Redactor | None] = ContextVar("redactor", default=None)
for _name in LOGGERS_OF_CALLS:
    logging.getLogger(_name).addFilter(_RedactingFilter())


@contextmanager
def map_transport_errors(
    call: Call, redactor: Redactor, *, no_answer: tuple[type[Exception], ...] = NO_ANSWER
) -> Iterator[None]:
    """
    Turn a transport's errors into ours, without a cause: the transport's errors hold what was sent.

    :param redactor: Hides secrets in the errors' texts, even if the host echoes them in malformed HTTP.
    :param no_answer: Errors after which a call may have arrived. Default: httpx's. httpx also has errors of connections
        that were never open, which matters for a submit.
    :raises NotSentError: If the connection could not be opened.
    :raises NoAnswerError: If no complete answer came.
    """
    host = redactor.redact_text(urlsplit(call.url).hostname or "")
    before = _current_redactor.set(redactor)
    try:
        yield
    except NOT_CONNECTED as error:
        reason = _describe(error, redactor)
        what = f"No connection to {host} could be opened for the {call.action} of {call.endpoint} ({reason})."
        raise NotSentError(what, request_id=call.request_id, hint=_hint(error, call)) from None
    except no_answer as error:
        reason = _describe(error, redactor)
        what = f"{host} gave no whole answer to the {call.action} of {call.endpoint} ({reason})."
        raise NoAnswerError(what, request_id=call.request_id, hint=_hint(error, call)) from None
    finally:
        _current_redactor.reset(before)


def _hint(error: Exception, call: Call) -> str | None:
    """Return what to mend about TLS or a proxy; ``None``: they have nothing to do with the error."""
    if PROXY_REFUSES.match(str(error)):
        return PROXY_ADVICE
    if call.url.startswith("http://") and NOT_HTTP.search(str(error)):
        return HTTPS_ADVICE
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CERTIFICATE_ADVICE
        if isinstance(cause, ssl.SSLError):
            # TLS can also end in the middle of an answer.
            is_end = isinstance(cause, ssl.SSLEOFError) and not isinstance(error, NOT_CONNECTED)
            if is_end:
                return None
            return ALERT_ADVICE if TLS_ALERT.search(str(cause)) else PLAIN_HTTP_ADVICE
        cause = cause.__cause__ or cause.__context__
    return None


def _describe(error: Exception, redactor: Redactor) -> str:
    """Return an error's class and text, up to where it quotes the host's bytes."""
    text = redactor.redact_error(error)
    safe = QUOTE_OF_HOST.split(text, maxsplit=1)[0]
    return ": ".join(filter(None, [type(error).__name__, safe if safe == text else f"{safe.rstrip()}…"]))
