"""The API key: it is sent to the connection's base URL only, and no text shows it."""

from __future__ import annotations

import gzip
import io
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import LandingError, OdiRouterError, UnreadableAnswerError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import RequestResult
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.conftest import KEY, Connect, Logs, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange, RawServer

ENDPOINT = "nano_banana_2"
ID = "mmsu_1"

CALLS: dict[str, Callable[[OdiRouterHook], Any]] = {
    "submit": lambda hook: hook.submit(ENDPOINT, {"prompt": "A blue cup"}),
    "status": lambda hook: hook.get_status(ENDPOINT, ID),
    "result": lambda hook: hook.get_result(ENDPOINT, ID),
    "cancel": lambda hook: hook.cancel(ENDPOINT, ID),
}
ASYNC_CALLS: dict[str, Callable[[OdiRouterHook], Any]] = {
    "status": lambda hook: hook.aget_status(ENDPOINT, ID),
    "cancel": lambda hook: hook.acancel(ENDPOINT, ID),
}


def all_text(error: BaseException) -> str:
    """Everything that a log, a traceback or a debugger might show of an error and of its causes."""
    texts = ["".join(traceback.format_exception(error))]
    seen: BaseException | None = error
    while seen:
        texts += [str(seen), repr(seen), repr(seen.args)]
        seen = seen.__cause__
    return "\n".join(texts)


@pytest.fixture
def elsewhere(serve: Serve) -> RawServer:
    """Another origin, which answers every call with success."""
    return serve(lambda exchange: exchange.answer_json({"request_id": ID, "status": "IN_QUEUE"}))


class TestOnlyToTheBaseUrl:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("name", CALLS)
    def test_a_redirect_is_not_followed(
        self, connect: Connect, serve: Serve, elsewhere: RawServer, pauses: Pauses, name: str, status: int
    ) -> None:
        server = serve(lambda exchange: exchange.answer(status=f"{status} Moved", location=f"{elsewhere.origin}/x?y=z"))

        with pytest.raises(UnreadableAnswerError, match=f"redirects to {elsewhere.origin}, where the API key is not"):
            CALLS[name](connect(server.base_url))

        assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert elsewhere.connections == 0

    @pytest.mark.parametrize("name", ASYNC_CALLS)
    async def test_a_redirect_is_not_followed_in_the_triggerer(
        self, connect: Connect, serve: Serve, elsewhere: RawServer, pauses: Pauses, name: str
    ) -> None:
        server = serve(lambda exchange: exchange.answer(status="307 Moved", location=f"{elsewhere.origin}/x"))

        with pytest.raises(UnreadableAnswerError, match="redirects to"):
            await ASYNC_CALLS[name](connect(server.base_url))

        assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert elsewhere.connections == 0

    def test_a_redirect_within_the_same_origin_is_not_followed(self, connect: Connect, serve: Serve) -> None:
        server = serve(lambda exchange: exchange.answer(status="302 Found", location="/login"))

        with pytest.raises(UnreadableAnswerError, match="redirects to elsewhere"):
            connect(server.base_url).get_status(ENDPOINT, ID)

        assert len(server.received) == 1

    def test_urls_in_the_services_answers_are_not_used(
        self, hook: OdiRouterHook, sandbox: Sandbox, elsewhere: RawServer
    ) -> None:
        sandbox.configure(answer_origin=elsewhere.origin)

        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        hook.get_status(ENDPOINT, request_id)
        hook.get_result(ENDPOINT, request_id)
        hook.cancel(ENDPOINT, request_id)

        assert [entry.action for entry in sandbox.journal] == ["submit", "status", "result", "cancel"]
        assert all(entry.authorized for entry in sandbox.journal)
        assert elsewhere.connections == 0

    @pytest.mark.parametrize(
        "request_id", ["..", "../..", "a/../../b", "", " ", "a\r\nb", "//evil.example/x", "\\..\\"]
    )
    async def test_a_request_id_cannot_change_the_path_of_the_url(
        self, hook: OdiRouterHook, sandbox: Sandbox, request_id: str
    ) -> None:
        for call in (hook.get_status, hook.get_result, hook.cancel):
            with pytest.raises(OdiRouterError, match="request_id"):
                call(ENDPOINT, request_id)
        with pytest.raises(OdiRouterError, match="request_id"):
            await hook.aget_status(ENDPOINT, request_id)

        assert sandbox.journal == []

    def test_files_are_downloaded_without_it(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        result = hook.get_result(ENDPOINT, request_id)
        assert isinstance(result, RequestResult)

        hook.download(ENDPOINT, request_id, result.outputs[0].url, io.BytesIO())

        entry = sandbox.journal[-1]
        assert (entry.action, entry.status_code, entry.authorization_sent) == ("file", 200, False)
        assert entry.user_agent is not None
        assert entry.user_agent.startswith("airflow-provider-odirouter/")

    def test_files_below_the_base_url_are_downloaded_without_it(self, connect: Connect, serve: Serve) -> None:
        def behave(exchange: Exchange) -> None:
            if exchange.received.target == "/moved":
                exchange.answer(status="302 Found", location=f"{api.base_url}/file.png")
            else:
                exchange.answer(b"file")

        api = serve(behave)
        into = io.BytesIO()

        connect(api.base_url).download(ENDPOINT, ID, f"{api.origin}/moved", into)

        assert into.getvalue() == b"file"
        assert [received.target for received in api.received] == ["/moved", "/model/file.png"]
        assert all(KEY not in str(received) for received in api.received)

    async def test_netrc_does_not_replace_it(
        self, connect: Connect, elsewhere: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        hook = connect(elsewhere.base_url)

        hook.get_status(ENDPOINT, ID)
        await hook.aget_status(ENDPOINT, ID)

        assert [received.headers["authorization"] for received in elsewhere.received] == [f"Bearer {KEY}"] * 2

    async def test_a_cookie_of_one_key_is_not_sent_with_another(self, connect: Connect, serve: Serve) -> None:
        server = serve(lambda exchange: exchange.answer_json(IN_QUEUE, set_cookie="session=of-alice; Path=/"))
        alice = connect(server.base_url, "key-of-alice", conn_id="alice")
        bob = connect(server.base_url, "key-of-bob", conn_id="bob")

        async with alice, bob:
            for hook in (alice, bob, alice):
                await hook.aget_status(ENDPOINT, ID)
        alice.get_status(ENDPOINT, ID)
        bob.get_status(ENDPOINT, ID)

        keys = [received.headers["authorization"].rpartition("-")[2] for received in server.received]
        assert keys == ["alice", "bob", "alice", "alice", "bob"]
        assert all("cookie" not in received.headers for received in server.received)


ECHOES: dict[str, Callable[[Exchange], None]] = {
    "a refusal": lambda e: e.answer_json({"error": {"code": KEY, "message": KEY}}, status="401 Unauthorized"),
    "words": lambda e: e.answer_json({"detail": f"invalid header Bearer {KEY}"}, status="400 Bad Request"),
    "an envelope": lambda e: e.answer_json({"status": {"code": 403, "message": KEY}, "data": None}),
    "a missing request": lambda e: e.answer_json({"detail": f"Request not found for {KEY}"}, status="404 Not Found"),
    "a rate limit": lambda e: e.answer_json({"error": KEY}, status="429 Too Many", retry_after=KEY),
    "a crash": lambda e: e.answer(f"Traceback: {KEY}".encode(), status="500 Oops"),
    "a page": lambda e: e.answer(f"<html>{KEY}</html>".encode(), content_type="text/html"),
    "a gzipped page": lambda e: e.answer(gzip.compress(f"<p>{KEY}".encode()), content_encoding="gzip"),
    "its keys": lambda e: e.answer_json({KEY: 1, "status": "COMPLETED", "outputs": []}),
    "a redirect's host": lambda e: e.answer(status="307 Moved", location=f"https://{KEY}.example/"),
    "a redirect's user": lambda e: e.answer(status="307 Moved", location=f"https://x:{KEY}@evil.example/"),
    "a status line": lambda e: (e.send(f"Bearer {KEY}\r\n\r\n".encode()), e.hang_up()),  # type: ignore[dict-item,func-returns-value]
    "a header": lambda e: (e.send(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode()), e.hang_up()),  # type: ignore[dict-item,func-returns-value]
    "a status code": lambda e: (e.send(f"HTTP/1.1 {KEY} OK\r\n\r\n".encode()), e.hang_up()),  # type: ignore[dict-item,func-returns-value]
}


class TestNoTextShowsIt:
    """The service echoes the key."""

    @pytest.mark.parametrize("echo", ECHOES)
    @pytest.mark.parametrize("name", CALLS)
    def test_no_text_on_a_worker_shows_it(
        self,
        connect: Connect,
        serve: Serve,
        pauses: Pauses,
        logs: Logs,
        name: str,
        echo: str,
    ) -> None:
        server = serve(ECHOES[echo])

        try:
            shown = repr(CALLS[name](connect(server.base_url)))
        except OdiRouterError as error:
            shown = all_text(error)

        assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in shown
        assert KEY not in str(logs())

    @pytest.mark.parametrize("echo", ECHOES)
    @pytest.mark.parametrize("name", ASYNC_CALLS)
    async def test_no_text_in_the_triggerer_shows_it(
        self,
        connect: Connect,
        serve: Serve,
        pauses: Pauses,
        logs: Logs,
        name: str,
        echo: str,
    ) -> None:
        server = serve(ECHOES[echo])

        try:
            shown = repr(await ASYNC_CALLS[name](connect(server.base_url)))
        except OdiRouterError as error:
            shown = all_text(error)

        assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in shown
        assert KEY not in str(logs())

    @pytest.mark.parametrize("echo", ECHOES)
    def test_the_message_of_the_test_button_does_not_show_it(self, connect: Connect, serve: Serve, echo: str) -> None:
        server = serve(ECHOES[echo])

        assert KEY not in connect(server.base_url).test_connection()[1]

    def test_the_error_of_a_broken_connection_does_not_show_it(
        self, connect: Connect, serve: Serve, pauses: Pauses
    ) -> None:
        server = serve(lambda exchange: exchange.hang_up())
        hook = connect(server.base_url)

        for call in CALLS.values():
            with pytest.raises(OdiRouterError) as caught:
                call(hook)
            assert KEY not in all_text(caught.value)

    async def test_the_error_of_a_broken_answer_does_not_show_it(self, connect: Connect, serve: Serve) -> None:
        hook = connect(serve(lambda exchange: exchange.send(b"HTTP/1.1 OK 200\r\n\r\n")).base_url)

        with pytest.raises(OdiRouterError, match="ClientResponseError") as caught:
            await hook.aget_status(ENDPOINT, ID)

        assert KEY not in all_text(caught.value)

    def test_no_error_shows_the_signature_of_a_link(self, connect: Connect, serve: Serve, pauses: Pauses) -> None:
        for status in ("403 Forbidden", "500 Oops", "418 Teapot"):
            server = serve(lambda exchange, status=status: exchange.answer(status=status))
            with pytest.raises((LandingError, OdiRouterError)) as caught:
                connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png?signature={ID}", io.BytesIO())
            assert f"signature={ID}" not in all_text(caught.value)
