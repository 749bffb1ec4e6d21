"""Taking in what a host sends: bounded in size and time, its failures under our names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import httpx

from airflow_provider_odirouter.errors import LandingError, NoAnswerError, NotSentError, UnreadableAnswerError
from airflow_provider_odirouter.protocol import Action, Call

NEVER_ARRIVED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""Errors of httpx's own transport that mean that the connection was never open."""


class Intake:
    """
    Takes in a body, chunk by chunk.

    :param sink: What the chunks are written to.
    :param seconds: How long it may take: a host that trickles never runs into the client's own time-outs.
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


@contextmanager
def as_our_errors(call: Call) -> Iterator[None]:
    """Turn the errors of an exact transport into ours: whether a call has arrived matters to a submit."""
    host = httpx.URL(call.url).host
    try:
        yield
    except NEVER_ARRIVED as error:
        what = f"No connection to {host} could be opened for the {call.action} of {call.endpoint} ({_name(error)})."
        raise NotSentError(what, request_id=call.request_id) from error
    except (httpx.RequestError, TimeoutError) as error:
        what = f"{host} gave no whole answer to the {call.action} of {call.endpoint} ({_name(error)})."
        raise NoAnswerError(what, request_id=call.request_id) from error


def _name(error: Exception) -> str:
    return ": ".join(filter(None, [type(error).__name__, str(error)]))
