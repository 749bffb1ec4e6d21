"""Secrets in all spellings that a host may echo, in the frames of errors, and in the URLs of proxies."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from airflow.sdk import Connection

from airflow_provider_odirouter.errors import (
    ConnectionSettingsError,
    LandingError,
    LostSubmitError,
    NoAnswerError,
    OdiRouterError,
)
from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.models import RequestResult
from airflow_provider_odirouter.protocol import DEFAULT_BASE_URL
from tests.hooks.conftest import Connect, Logs, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange
from tests.hooks.test_key import ASYNC_CALLS, CALLS, ENDPOINT, ID
from tests.shown import all_shown, chain_of

KEY = "sk-the/xyzzyq+key=of-these-tests"
PARTS = ("xyzzyq", "78797a7a7971", "\\u0078\\u0079", "%78%79", "&#120;&#121;", "eHl6enlx", "h5enp5c", "4eXp6eX")
"""Parts of the key in each spelling, which must not be left over."""


def as_json(document: object) -> bytes:
    """JSON with the characters of the key as numeric escapes, where JSON allows them."""
    numbers = "".join(f"\\u{ord(sign):04x}" for sign in KEY)
    return json.dumps(document).replace(KEY, numbers).encode()


BODIES: dict[str, tuple[str, bytes]] = {
    "JSON's slashes": ("401 No", json.dumps({"error": {"message": KEY}}).replace("/", "\\/").encode()),
    "JSON's numbers": ("400 No", as_json({"detail": f"Bearer {KEY}"})),
    "JSON's numbers, in a key": ("200 OK", as_json({KEY: 1, "status": "COMPLETED", "outputs": []})),
    "JSON's numbers, in a failure": ("200 OK", as_json({"status": "COMPLETED", "error": KEY, "error_type": KEY})),
    "JSON's numbers, of a provider": (
        "200 OK",
        as_json({"status": "FAILED", "error": {"code": 5}, "provider_error": {"code": KEY, "message": f"x{KEY}y"}}),
    ),
    "JSON's numbers, in a status": ("200 OK", as_json({"status": f"GONE {KEY}", "request_id": ID})),
    "JSON in JSON": ("422 No", json.dumps({"detail": as_json({"header": KEY}).decode()}).encode()),
    "percent": ("403 No", json.dumps({"detail": quote(KEY, safe="")}).encode()),
    "base64": ("401 No", json.dumps({"error": base64.b64encode(f"Bearer {KEY}".encode()).decode()}).encode()),
    "hexadecimal": ("401 No", json.dumps({"error": KEY.encode().hex()}).encode()),
    "a page": ("502 No", f"<p>{html.escape(KEY)}".encode()),
    "a page in numbers": ("200 OK", "".join(f"&#{ord(sign)};" for sign in KEY).encode()),
    "a page in UTF-16": ("200 OK", f"<p>{KEY}".encode("utf-16")),
    "an answer in UTF-16": ("401 No", json.dumps({"error": KEY}).encode("utf-16-le")),
    "half a document": ("200 OK", as_json({"status": KEY})[:-4]),
    "capitals": ("401 No", json.dumps({"error": f"AUTHORIZATION: BEARER {KEY.upper()}"}).encode()),
}
SPLIT: dict[str, tuple[bytes, bytes]] = {
    "a status line": (f"HTTP/1.1 {KEY[:16]}".encode(), f"{KEY[16:]} OK\r\n\r\n".encode()),
    "a header": (f"HTTP/1.1 200 OK\r\n{KEY[:16]}".encode(), f"{KEY[16:]}\r\n\r\n".encode()),
    "a length": (f"HTTP/1.1 200 OK\r\nContent-Length: {KEY[:16]}".encode(), f"{KEY[16:]}\r\n\r\n".encode()),
    "a chunk": (f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY[:16]}".encode(), b"\r\n\r\n"),
}


def left_of_key(shown: str) -> list[str]:
    return [part for part in PARTS if part in shown.lower() or part in shown]


def shown_of(call: Callable[[], object]) -> str:
    """Everything that shows the outcome of a call."""
    try:
        return repr(call())
    except OdiRouterError as error:
        return all_shown(error)


async def ashown_of(call: Awaitable[object]) -> str:
    try:
        return repr(await call)
    except OdiRouterError as error:
        return all_shown(error)


def answering(status: str, body: bytes) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.answer(body, status=status)


class TestAnswers:
    @pytest.mark.parametrize("body", BODIES)
    @pytest.mark.parametrize("name", CALLS)
    def test_no_answer_shows_the_key_in_any_spelling(
        self, connect: Connect, serve: Serve, pauses: Pauses, logs: Logs, name: str, body: str
    ) -> None:
        server = serve(answering(*BODIES[body]))

        shown = shown_of(lambda: CALLS[name](connect(server.base_url, KEY)))

        assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert left_of_key(shown + str(logs())) == []

    @pytest.mark.parametrize("body", BODIES)
    @pytest.mark.parametrize("name", ASYNC_CALLS)
    async def test_it_is_not_shown_in_the_triggerer(
        self, connect: Connect, serve: Serve, pauses: Pauses, logs: Logs, name: str, body: str
    ) -> None:
        server = serve(answering(*BODIES[body]))

        shown = await ashown_of(ASYNC_CALLS[name](connect(server.base_url, KEY)))

        assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert left_of_key(shown + str(logs())) == []

    @pytest.mark.parametrize("place", SPLIT)
    async def test_half_a_key_at_the_end_of_a_packet_is_not_shown(
        self, connect: Connect, serve: Serve, pauses: Pauses, place: str
    ) -> None:
        def behave(exchange: Exchange) -> None:
            first, second = SPLIT[place]
            exchange.send(first)
            time.sleep(0.1)
            exchange.send(second)
            exchange.hang_up()

        hook = connect(serve(behave).base_url, KEY)

        with pytest.raises(NoAnswerError) as on_worker:
            hook.get_status(ENDPOINT, ID)
        with pytest.raises(NoAnswerError) as in_triggerer:
            await hook.aget_status(ENDPOINT, ID)

        for caught in (on_worker, in_triggerer):
            assert not [part for part in ("sk-the", "these-tests", "xyzzyq") if part in all_shown(caught.value)]

    @pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
    def test_no_log_line_of_a_library_shows_the_key(
        self, connect: Connect, serve: Serve, logs: Logs, caplog: pytest.LogCaptureFixture, level: int
    ) -> None:
        for name in ("httpx", "httpcore.http11"):
            caplog.set_level(level, name)
        server = serve(lambda exchange: exchange.answer_json(IN_QUEUE, status=f"200 {KEY}", x=KEY))

        connect(server.base_url, KEY).get_status(ENDPOINT, ID)

        assert "HTTP/1.1 200 ***" in str(logs())
        assert left_of_key(str(logs())) == []

    def test_log_lines_of_other_calls_are_not_changed(
        self, serve: Serve, logs: Logs, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "httpx")
        server = serve(lambda exchange: exchange.answer_json(IN_QUEUE, status=f"200 {KEY}"))

        httpx.get(f"{server.origin}/?a=b")

        assert f'GET {server.origin}/?a=b "HTTP/1.1 200 {KEY}"' in str(logs())

    def test_an_answer_without_a_secret_is_not_changed(self, connect: Connect, serve: Serve) -> None:
        document = {
            "outputs": [{"url": "https://cdn.example/a%20b.png?s=a%2Fb&t=1"}],
            "metadata": {"a": "1 &amp; 2\\n"},
        }
        server = serve(lambda exchange: exchange.answer_json(document))

        result = connect(server.base_url, KEY).get_result(ENDPOINT, ID)

        assert isinstance(result, RequestResult)
        assert result.outputs[0].url == "https://cdn.example/a%20b.png?s=a%2Fb&t=1"
        assert result.metadata == {"a": "1 &amp; 2\\n"}

    async def test_a_too_large_answer_to_a_poll_is_unreadable(self, connect: Connect, serve: Serve) -> None:
        body = json.dumps({"status": "IN_QUEUE", "logs": "x" * 2**20}).encode()
        hook = connect(serve(lambda exchange: exchange.answer(body)).base_url, KEY)

        with pytest.raises(OdiRouterError, match="is not OdiRouter's"):
            await hook.aget_status(ENDPOINT, ID)


class TestValuesThatAreUsed:
    """A redacted value cannot be used: it is refused."""

    def test_a_request_id_with_the_key_is_a_lost_submit(self, connect: Connect, serve: Serve, pauses: Pauses) -> None:
        server = serve(lambda exchange: exchange.answer(as_json({"request_id": f"mmsu_{KEY}"})))

        with pytest.raises(LostSubmitError, match=r"request id in the answer .* holds a secret") as caught:
            connect(server.base_url, KEY).submit(ENDPOINT, {})

        assert len(server.received) == 1
        assert left_of_key(all_shown(caught.value)) == []

    def test_a_link_with_the_key_is_not_followed(self, connect: Connect, serve: Serve, pauses: Pauses) -> None:
        document = {"outputs": [{"url": f"http://127.0.0.1:1/a.png?key={KEY}"}], "metadata": {"key": KEY}}
        server = serve(lambda exchange: exchange.answer(as_json(document)))
        hook = connect(server.base_url, KEY)

        result = hook.get_result(ENDPOINT, ID)
        assert isinstance(result, RequestResult)
        assert left_of_key(repr(result)) == []
        with pytest.raises(LandingError, match="holds a secret of the connection") as caught:
            hook.download(ENDPOINT, ID, result.outputs[0].url, io.BytesIO())

        assert not caught.value.is_transient
        assert pauses.taken == []

    @pytest.mark.parametrize("spelled", [KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode()])
    def test_a_redirect_with_the_key_is_not_followed(self, connect: Connect, serve: Serve, spelled: str) -> None:
        elsewhere = serve(lambda exchange: exchange.answer(b"file"))
        server = serve(
            lambda exchange: exchange.answer(status="302 Found", location=f"{elsewhere.origin}/?key={spelled}")
        )

        with pytest.raises(LandingError, match="holds a secret of the connection") as caught:
            connect(server.base_url, KEY).download(ENDPOINT, ID, f"{server.origin}/a.png", io.BytesIO())

        assert elsewhere.connections == 0
        assert left_of_key(all_shown(caught.value)) == []

    @pytest.mark.parametrize("link", [f"ftp://{KEY}/", f"x{KEY}", "ftp://user:a-password@host/"])
    def test_the_error_of_an_invalid_link_shows_no_secret(self, connect: Connect, link: str) -> None:
        with pytest.raises(LandingError) as caught:
            connect("", KEY).download(ENDPOINT, ID, link, io.BytesIO())

        assert "sk-the" not in str(caught.value)
        assert "a-pass" not in str(caught.value)

    def test_cookies_of_the_service_do_not_go_to_other_hosts(self, connect: Connect, serve: Serve) -> None:
        document = {"status": "IN_QUEUE"}
        server = serve(lambda exchange: exchange.answer_json(document, set_cookie=f"key={KEY}; Path=/"))
        hook = connect(server.base_url, KEY)

        hook.get_status(ENDPOINT, ID)
        hook.download(ENDPOINT, ID, f"{server.origin}/a.png", io.BytesIO())

        assert "cookie" not in server.received[1].headers
        assert KEY not in str(server.received[1])

    def test_no_log_and_no_error_shows_the_query_of_a_link(
        self, connect: Connect, serve: Serve, pauses: Pauses, logs: Logs, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "httpx")
        server = serve(lambda exchange: exchange.answer(b"file"))
        hook = connect(server.base_url, KEY)

        hook.download(ENDPOINT, ID, f"{server.origin}/a.png?signature=the-signature", io.BytesIO())
        for status in ("403 Forbidden", "500 Oops", "418 Teapot"):
            refusing = serve(lambda exchange, status=status: exchange.answer(status=status))
            link = refusing.origin.replace("://", "://user:the-password@")
            with pytest.raises(OdiRouterError) as caught:
                hook.download(ENDPOINT, ID, f"{link}/a.png?signature=the-signature", io.BytesIO())
            assert "the-" not in str(caught.value)

        assert server.received[0].target == "/a.png?signature=the-signature"
        assert f"GET {server.origin}/a.png?***" in str(logs())
        assert "the-signature" not in str(logs())


def break_off(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    exchange.hang_up()


FAILURES: dict[str, Callable[[Exchange], None]] = {
    "a refusal": lambda exchange: exchange.answer_json({"error": "no"}, status="401 No"),
    "a hang-up": lambda exchange: exchange.hang_up(),
    "garbage": lambda exchange: exchange.send(b"HTTP/1.1 OK 200\r\n\r\n"),
    "half an answer": lambda exchange: break_off(exchange),
    "a redirect": lambda exchange: exchange.answer(status="307 Moved", location="https://elsewhere.example/"),
    "an echo that never ends": lambda exchange: exchange.answer(KEY.encode() * (2**24 // len(KEY) + 1)),
    "silence": lambda exchange: exchange.wait_for_hang_up(),
}


class TestFrames:
    """An error reporter sends the local variables of all frames to its server."""

    @pytest.mark.parametrize("failure", FAILURES)
    @pytest.mark.parametrize("name", CALLS)
    def test_no_frame_of_a_failing_call_shows_the_key(
        self, connect: Connect, serve: Serve, pauses: Pauses, name: str, failure: str
    ) -> None:
        hook = connect(serve(FAILURES[failure]).base_url, KEY, timeout=0.5)

        assert left_of_key(shown_of(lambda: CALLS[name](hook))) == []

    @pytest.mark.parametrize("failure", FAILURES)
    @pytest.mark.parametrize("name", ASYNC_CALLS)
    async def test_it_is_not_shown_in_the_triggerer(
        self, connect: Connect, serve: Serve, pauses: Pauses, name: str, failure: str
    ) -> None:
        hook = connect(serve(FAILURES[failure]).base_url, KEY, timeout=0.5)

        assert left_of_key(await ashown_of(ASYNC_CALLS[name](hook))) == []

    def test_no_frame_of_a_killed_call_shows_the_key(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Killed(BaseException):
            pass

        def kill(*_: object) -> None:
            raise Killed

        hook = connect(serve(lambda exchange: exchange.answer_json(IN_QUEUE)).base_url, KEY)
        monkeypatch.setattr("airflow_provider_odirouter.hooks.odirouter.BoundedBody.write", kill)

        with pytest.raises(Killed) as caught:
            hook.get_status(ENDPOINT, ID)

        assert left_of_key(all_shown(caught.value)) == []

    @pytest.mark.parametrize(
        "fields", [{"host": "ftp://x"}, {"extra": '{"timeout": "soon"}'}, {"extra": "{"}, {"password": f"{KEY} ☃"}]
    )
    def test_no_frame_of_an_invalid_connection_shows_the_key(self, fields: dict[str, Any]) -> None:
        connection = Connection(conn_id="mine", conn_type="odirouter", **{"password": KEY, **fields})

        with pytest.raises(ConnectionSettingsError) as caught:
            ConnectionSettings.from_connection(connection)

        assert left_of_key(all_shown(caught.value)) == []
        assert list(chain_of(caught.value)) == [caught.value]

    def test_the_settings_hide_the_key_however_they_are_built(self) -> None:
        settings = ConnectionSettings(KEY)

        assert settings.api_key == KEY
        assert settings.authorization() == f"Bearer {KEY}"
        assert settings.base_url == DEFAULT_BASE_URL
        assert left_of_key(f"{settings} {settings.api_key} {vars(settings)}") == []


class TestProxies:
    PASSWORD = "p@ss/word+of=proxy"
    USERINFO = f"user:{quote(PASSWORD, safe='')}"

    def is_shown(self, text: str) -> bool:
        spellings = [
            self.PASSWORD,
            quote(self.PASSWORD, safe=""),
            base64.b64encode(f"user:{self.PASSWORD}".encode()).decode(),
        ]
        return any(spelling.lower() in text.lower() for spelling in spellings) or "word+of" in text

    @pytest.fixture(params=["http", "https"])
    def base_url(self, request: pytest.FixtureRequest) -> str:
        return f"{request.param}://api.example/model"

    @pytest.mark.parametrize("behaviour", ["none listens", "407", "403, and an echo", "hang-up", "a page"])
    async def test_no_error_and_no_log_shows_a_proxys_password(
        self,
        connect: Connect,
        serve: Serve,
        pauses: Pauses,
        logs: Logs,
        monkeypatch: pytest.MonkeyPatch,
        behaviour: str,
        base_url: str,
    ) -> None:
        def behave(exchange: Exchange) -> None:
            echo = exchange.received.headers.get("proxy-authorization", "")
            match behaviour:
                case "407":
                    exchange.answer(status="407 No", proxy_authenticate=f'Basic realm="{echo}"')
                case "403, and an echo":
                    exchange.answer_json({"detail": f"{echo} {self.PASSWORD}"}, status=f"403 {echo}")
                case "hang-up":
                    exchange.hang_up()
                case "a page":
                    exchange.answer(f"<p>{html.escape(self.PASSWORD)} {echo}".encode(), status="502 Bad")

        port = 1 if behaviour == "none listens" else serve(behave).port
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://{self.USERINFO}@127.0.0.1:{port}")
        hook = connect(base_url, KEY)

        for call in CALLS.values():
            with pytest.raises(OdiRouterError) as caught:
                call(hook)
            assert not self.is_shown(all_shown(caught.value))
        for acall in ASYNC_CALLS.values():
            with pytest.raises(OdiRouterError) as caught:
                await acall(hook)
            assert not self.is_shown(all_shown(caught.value))
        with pytest.raises(OdiRouterError) as caught:
            hook.download(ENDPOINT, ID, f"{base_url}/a.png", io.BytesIO())
        assert not self.is_shown(all_shown(caught.value))
        assert not self.is_shown(str(logs()))
