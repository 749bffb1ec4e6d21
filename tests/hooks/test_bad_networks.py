"""Hosts that hang, send slowly, break off or send garbage: each call ends in time with a fitting error."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_odirouter.errors import NoAnswerError, NotSentError, OdiRouterError, UnreadableAnswerError
from tests.hooks.conftest import Connect, Serve
from tests.hooks.raw_server import Exchange

REQUEST = ("nano_banana_2", "mmsu_1")
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
TIMEOUT = 0.3


def then_hang_up(data: bytes) -> Callable[[Exchange], None]:
    def behave(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.hang_up()

    return behave


def trickle_body(exchange: Exchange) -> None:
    exchange.send(HEADERS)
    exchange.trickle(b" " * 1000)


def trickle_headers(exchange: Exchange) -> None:
    exchange.trickle(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 1000)


def stop_in_the_body(exchange: Exchange) -> None:
    exchange.send(HEADERS + b"{")
    exchange.wait_for_hang_up()


def trickle_words_before_the_answer(exchange: Exchange) -> None:
    exchange.trickle(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


SLOW: dict[str, Callable[[Exchange], None]] = {
    "silence": lambda exchange: exchange.wait_for_hang_up(),
    "a trickling body": trickle_body,
    "half a body": stop_in_the_body,
    "trickling headers": trickle_headers,
    "interim answers without end": trickle_words_before_the_answer,
}

BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "half a status line": b"HTTP/1.",
    "half the headers": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": HEADERS + b"{",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "a status that is no number": b"HTTP/1.1 OK 200\r\n\r\n",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    "a wrong compression": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 200_000,
}

NOT_ITS_ANSWER: dict[str, bytes] = {
    "an empty body": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>",
    "half a document": b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"status"',
    "a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "no status": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a status that is not text": b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"status":1}',
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "a page that forbids": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno!!",
    "a page that is missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nno!!",
}


class TestOnAWorker:
    @pytest.mark.parametrize("name", SLOW)
    def test_a_slow_host_times_out(self, connect: Connect, serve: Serve, name: str) -> None:
        hook = connect(serve(SLOW[name]).base_url, timeout=TIMEOUT)

        with pytest.raises(NoAnswerError):
            hook.get_status(*REQUEST)

    @pytest.mark.parametrize("name", SLOW)
    def test_a_slow_host_times_out_over_tls(
        self, connect: Connect, serve: Serve, tls: ssl.SSLContext, name: str
    ) -> None:
        hook = connect(serve(SLOW[name], tls=tls).base_url, timeout=TIMEOUT, verify=False)

        with pytest.raises(NoAnswerError):
            hook.get_status(*REQUEST)

    @pytest.mark.parametrize("name", BROKEN)
    def test_an_incomplete_answer_is_a_no_answer_error(self, connect: Connect, serve: Serve, name: str) -> None:
        with pytest.raises(NoAnswerError, match=r"127\.0\.0\.1 gave no whole answer to the status of nano_banana_2"):
            connect(serve(then_hang_up(BROKEN[name])).base_url).get_status(*REQUEST)

    @pytest.mark.parametrize("name", NOT_ITS_ANSWER)
    def test_an_answer_that_is_not_the_apis_is_unreadable(self, connect: Connect, serve: Serve, name: str) -> None:
        with pytest.raises(UnreadableAnswerError, match="is not OdiRouter's"):
            connect(serve(then_hang_up(NOT_ITS_ANSWER[name])).base_url).get_status(*REQUEST)

    def test_a_refused_connection_is_a_not_sent_error(self, connect: Connect) -> None:
        with pytest.raises(NotSentError, match=r"No connection to 127\.0\.0\.1 could be opened for the status"):
            connect("http://127.0.0.1:1/model").get_status(*REQUEST)


class TestInTheTriggerer:
    @pytest.mark.parametrize("name", SLOW)
    async def test_a_slow_host_times_out(self, connect: Connect, serve: Serve, name: str) -> None:
        hook = connect(serve(SLOW[name]).base_url, timeout=TIMEOUT)

        with pytest.raises(NoAnswerError):
            await hook.aget_status(*REQUEST)

    @pytest.mark.parametrize("name", BROKEN)
    async def test_an_incomplete_answer_is_a_no_answer_error(self, connect: Connect, serve: Serve, name: str) -> None:
        with pytest.raises(NoAnswerError, match=r"127\.0\.0\.1 gave no whole answer to the status of nano_banana_2"):
            await connect(serve(then_hang_up(BROKEN[name])).base_url).aget_status(*REQUEST)

    @pytest.mark.parametrize("name", NOT_ITS_ANSWER)
    async def test_an_answer_that_is_not_the_apis_is_unreadable(
        self, connect: Connect, serve: Serve, name: str
    ) -> None:
        with pytest.raises(UnreadableAnswerError, match="is not OdiRouter's"):
            await connect(serve(then_hang_up(NOT_ITS_ANSWER[name])).base_url).aget_status(*REQUEST)

    @pytest.mark.parametrize("base_url", ["http://127.0.0.1:1/model", "http://nonexistent.invalid/model"])
    async def test_an_unreachable_host_is_a_transient_error(
        self, connect: Connect, base_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import socket

        def fail(*_: Any, **__: Any) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        if "invalid" in base_url:
            monkeypatch.setattr(socket, "getaddrinfo", fail)

        with pytest.raises(OdiRouterError) as caught:
            await connect(base_url).aget_status(*REQUEST)

        assert caught.value.is_transient
