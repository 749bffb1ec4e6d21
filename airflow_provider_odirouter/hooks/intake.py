"""Taking in what a host sends: bounded in size and time, its failures under our names, without secrets."""

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

from airflow_provider_odirouter.errors import LandingError, NoAnswerError, NotSentError, UnreadableAnswerError
from airflow_provider_odirouter.protocol import Action, Call
from airflow_provider_odirouter.redaction import Redactor

NEVER_ARRIVED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""Errors of httpx's own transport that mean that the connection was never open."""
NO_ANSWER = (httpx.RequestError, httpx.InvalidURL, TimeoutError)
"""Errors that mean that a call may have arrived; httpx's reading of a redirect that is none is among them."""
MAX_ANSWER_BYTES = 16 * 2**20
CERTIFICATE_OR_END = (ssl.SSLCertVerificationError, ssl.SSLEOFError)
MAYBE_HTTP = (
    "If the host speaks plain HTTP, say so: with http:// before the host, in the host field or as in the URI "
    "odirouter://http://:KEY@host:8088/model. Else check the network; a retry may succeed."
)
QUOTE_OF_HOST = re.compile(r"\\n|\n|bytearray\(|\bb['\"]")
"""How parsers begin to quote what they could not read. It may be half of a secret, which no search finds."""
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
    """Return the URL that a ``Location`` means; what it says itself, if it means none."""
    try:
        return str(httpx.URL(url).join(location))
    except httpx.InvalidURL:
        return location


class Intake:
    """
    Takes in a body, chunk by chunk.

    :param sink: What the chunks are written to.
    :param seconds: How long it may take from now on: a host that trickles never runs into the client's own time-outs.
    :param most: How many bytes it may have.
    """

    def __init__(self, call: Call, sink: IO[bytes], *, seconds: float, most: int) -> None:
        self.call = call
        self.sink = sink
        self.seconds = seconds
        self.until = time.monotonic() + seconds
        self.room = self.most = most

    def take(self, chunk: bytes) -> None:
        """Write a chunk, or raise that there is too much of it or that it comes too late."""
        self.room -= len(chunk)
        if self.room < 0:
            what = f"The answer to the {self.call.action} of {self.call.endpoint} has more than {self.most:,} bytes."
            if self.call.action is Action.FILE:
                raise LandingError(what, request_id=self.call.request_id)
            raise UnreadableAnswerError(what, status_code=200, request_id=self.call.request_id)
        if time.monotonic() > self.until:
            what = f"The answer to the {self.call.action} of {self.call.endpoint} took longer than {self.seconds:g} s."
            raise NoAnswerError(what, request_id=self.call.request_id)
        self.sink.write(chunk)


class HeaderWatch:
    """
    Hangs up on a host that does not come to the end of its headers; a ``trace`` extension of httpx.

    The client's own time-out bounds the silence between two bytes only: a host that trickles would hold a worker for
    hours. Sending takes as long as it takes: a submit may carry 200 MiB.

    :param seconds: How long the headers may take: more than the client's time-out, which names silence better.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of where httpx is."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
        elif event.endswith(".receive_response_headers.started"):
            self._timer = threading.Timer(self._seconds, self._hang_up)
            self._timer.daemon = True
            self._timer.start()
        elif ".receive_response_headers." in event and self._timer:
            self._timer.cancel()

    def _hang_up(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                # Not the TLS socket's own method: it would take away what the reading thread reads with.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Redacted(logging.Filter):
    """
    Lets httpx log our calls without secrets.

    It logs each URL, and a link's query is as good as a key; and each reason phrase, where a host may echo one.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change what is logged of our own calls, and of no others."""
        if redactor := _of_this_call.get():
            record.msg, record.args = redactor.text(record.getMessage()), ()
        return True


_of_this_call: ContextVar[Redactor | None] = ContextVar("redactor", default=None)
for _name in LOGGERS_OF_CALLS:
    logging.getLogger(_name).addFilter(_Redacted())


@contextmanager
def as_our_errors(
    call: Call, redactor: Redactor, *, no_answer: tuple[type[Exception], ...] = NO_ANSWER
) -> Iterator[None]:
    """
    Turn the errors of a transport into ours. To be made bare: its own ones hold what was sent.

    :param redactor: Hides what no error may show, even if the host echoes it where HTTP has no place for it.
    :param no_answer: Errors after which a call may have arrived. httpx's own transport tells them from those of
        connections that were never open, which matters to a submit.
    """
    host = redactor.text(urlsplit(call.url).hostname or "")
    before = _of_this_call.set(redactor)
    try:
        yield
    except NEVER_ARRIVED as error:
        words = _words(error, redactor)
        what = f"No connection to {host} could be opened for the {call.action} of {call.endpoint} ({words})."
        raise NotSentError(what, request_id=call.request_id, advice=_advice(error)) from None
    except no_answer as error:
        words = _words(error, redactor)
        what = f"{host} gave no whole answer to the {call.action} of {call.endpoint} ({words})."
        raise NoAnswerError(what, request_id=call.request_id, advice=_advice(error)) from None
    finally:
        _of_this_call.reset(before)


def _advice(error: Exception) -> str | None:
    """Ask whether plain HTTP was meant, where no TLS comes about for another reason than a certificate."""
    # TLS can also end in the middle of an answer.
    others = ssl.SSLCertVerificationError if isinstance(error, NEVER_ARRIVED) else CERTIFICATE_OR_END
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return None if isinstance(cause, others) else MAYBE_HTTP
        cause = cause.__cause__ or cause.__context__
    return None


def _words(error: Exception, redactor: Redactor) -> str:
    """Return an error's name and words, but for what they quote of the host."""
    said = redactor.words(error)
    words = QUOTE_OF_HOST.split(said, maxsplit=1)[0]
    return ": ".join(filter(None, [type(error).__name__, words if words == said else f"{words.rstrip()}…"]))
