"""Downloads of a result's files: from another host, without the key, limited in size and time."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import (
    FileExpiredError,
    LandingError,
    NoAnswerError,
    NotSentError,
    OdiRouterError,
    ServiceError,
)
from airflow_provider_odirouter.hooks import odirouter
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import RequestResult
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.conftest import Connect, Pauses, Serve
from tests.hooks.raw_server import Exchange, RawServer

ENDPOINT = "nano_banana_2"
ID = "mmsu_1"


def link_of(hook: OdiRouterHook) -> str:
    result = hook.get_result(ENDPOINT, hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id)
    assert isinstance(result, RequestResult)
    return result.outputs[0].url


def downloads(sandbox: Sandbox) -> int:
    return sum(entry.action == "file" for entry in sandbox.journal)


def serve_file(serve: Serve, data: bytes) -> RawServer:
    return serve(lambda exchange: exchange.answer(data, content_type="image/png"))


def test_a_download_writes_the_bytes_of_the_file(connect: Connect, serve: Serve, pictures: Path) -> None:
    data = (pictures / "astronaut.png").read_bytes()
    server = serve_file(serve, data)
    into = io.BytesIO()

    connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png?signature=a%2Fb", into)

    assert into.getvalue() == data
    assert server.received[0].target == "/a.png?signature=a%2Fb"


def test_a_download_replaces_earlier_content(connect: Connect, serve: Serve) -> None:
    server = serve_file(serve, b"new")
    into = io.BytesIO(b"something old and longer")
    into.seek(5)

    connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png", into)

    assert into.getvalue() == b"new"


def test_redirects_are_followed(connect: Connect, serve: Serve) -> None:
    target = serve_file(serve, b"file")
    server = serve(lambda exchange: exchange.answer(status="302 Found", location=f"{target.origin}/b.png"))
    into = io.BytesIO()

    connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png", into)

    assert into.getvalue() == b"file"
    assert "authorization" not in target.received[0].headers


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[bad/", "/a.png", "://"])
def test_a_redirect_without_a_target_is_an_error(connect: Connect, serve: Serve, pauses: Pauses, location: str) -> None:
    server = serve(lambda exchange: exchange.answer(status="302 Found", location=location))

    with pytest.raises(OdiRouterError):
        connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png", io.BytesIO())


@pytest.mark.parametrize(
    "link",
    [
        "",
        "no link",
        "/files/1.png",
        "//cdn.example/1.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/1.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "http://",
        "http://[bad/1.png",
        "http://127.0.0.1:port/1.png",
        "http://127.0.0.1:99999999/1.png",
        "http://127.0.0.1/\0",
        "http://xn--/1.png",
    ],
)
def test_an_invalid_link_is_an_error(connect: Connect, pauses: Pauses, link: str) -> None:
    with pytest.raises(OdiRouterError, match=ID):
        connect("").download(ENDPOINT, ID, link, io.BytesIO())


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_expired_link_is_not_repeated(hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, status: int) -> None:
    sandbox.configure(file_expiry_seconds=60, file_expired_status=status)
    link = link_of(hook)
    pauses.sleep(61)
    pauses.taken = [61]

    with pytest.raises(FileExpiredError, match=f"answered with {status}"):
        hook.download(ENDPOINT, ID, link, io.BytesIO())

    assert downloads(sandbox) == 1
    assert pauses.taken == [61]


def test_a_missing_file_counts_as_an_expired_link(hook: OdiRouterHook, sandbox: Sandbox) -> None:
    link = link_of(hook)
    sandbox.configure(file_fault="404")

    with pytest.raises(FileExpiredError):
        hook.download(ENDPOINT, ID, link, io.BytesIO())


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "418 Teapot"])
def test_another_refusal_is_not_repeated(connect: Connect, serve: Serve, pauses: Pauses, status: str) -> None:
    server = serve(lambda exchange: exchange.answer(status=status))

    with pytest.raises(LandingError) as caught:
        connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png", io.BytesIO())

    assert not isinstance(caught.value, FileExpiredError)
    assert len(server.received) == 1


@pytest.mark.parametrize("status", ["408 Timeout", "429 Too Many", "500 Oops", "502 Bad", "503 Busy", "504 Late"])
def test_a_transient_error_is_repeated_for_a_minute(
    connect: Connect, serve: Serve, pauses: Pauses, status: str
) -> None:
    server = serve(lambda exchange: exchange.answer(status=status))

    with pytest.raises(ServiceError, match=status[:3]):
        connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png", io.BytesIO())

    assert len(server.received) > 3
    assert 30 <= pauses.total <= 60


def test_the_file_is_emptied_before_each_repeat(connect: Connect, serve: Serve, pauses: Pauses) -> None:
    def behave(exchange: Exchange) -> None:
        if len(server.received) < 3:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of another file")
            exchange.hang_up()
        else:
            exchange.answer(b"whole")

    server = serve(behave)
    with tempfile.TemporaryFile() as into:
        connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png", into)
        into.seek(0)

        assert into.read() == b"whole"


def test_a_file_that_always_breaks_off_fails(hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses) -> None:
    link = link_of(hook)
    sandbox.configure(file_fault="truncated")

    with pytest.raises(NoAnswerError):
        hook.download(ENDPOINT, ID, link, io.BytesIO())

    assert downloads(sandbox) > 3


def test_an_unreachable_host_is_repeated(connect: Connect, pauses: Pauses) -> None:
    with pytest.raises(NotSentError):
        connect("").download(ENDPOINT, ID, "http://127.0.0.1:1/a.png", io.BytesIO())

    assert pauses.taken


def test_an_endless_file_fails(
    hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(odirouter, "MAX_FILE_BYTES", 2**20)
    link = link_of(hook)
    sandbox.configure(file_fault="endless")
    into = io.BytesIO()

    with pytest.raises(LandingError, match=r"more than 1,048,576 bytes"):
        hook.download(ENDPOINT, ID, link, into)

    assert len(into.getvalue()) <= 2**20
    assert downloads(sandbox) == 1


def test_a_file_that_announces_to_be_too_large_is_not_received(
    connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\nbegin")
        exchange.wait_for_hang_up()

    server = serve(behave)
    monkeypatch.setattr(odirouter, "MAX_FILE_BYTES", 1000)
    into = io.BytesIO()

    with pytest.raises(LandingError, match=r"more than 1,000 bytes"):
        connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.mp4", into)

    assert into.getvalue() == b""


def test_a_large_file_is_received_in_pieces(connect: Connect, serve: Serve) -> None:
    class Pieces(io.BytesIO):
        longest = 0

        def write(self, data: Any, /) -> int:
            self.longest = max(self.longest, len(data))
            return super().write(data)

    data = bytes(5 * 2**20)
    server = serve_file(serve, data)
    into = Pieces()

    connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.mp4", into)

    assert into.getvalue() == data
    assert into.longest <= 2**20


def test_a_file_may_have_two_gib() -> None:
    assert odirouter.MAX_FILE_BYTES == 2 * 2**30


def test_a_slow_file_fails_after_its_time(
    connect: Connect, serve: Serve, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        exchange.trickle(b"x" * 1000)

    server = serve(behave)
    monkeypatch.setattr(odirouter, "FILE_TIMEOUT", 0.1)

    with pytest.raises(NoAnswerError, match=r"took longer than 0\.1 s"):
        connect(server.base_url).download(ENDPOINT, ID, f"{server.origin}/a.png", io.BytesIO())


def test_a_large_file_may_take_longer_than_a_call(connect: Connect, serve: Serve) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        exchange.trickle(b"x" * 20, every=0.12)

    server = serve(behave)
    into = io.BytesIO()

    connect(server.base_url, timeout=2).download(ENDPOINT, ID, f"{server.origin}/a.png", into)

    assert into.getvalue() == b"x" * 20


def test_a_silent_host_fails_after_its_time(
    hook: OdiRouterHook, base_url: str, connect: Connect, sandbox: Sandbox, pauses: Pauses
) -> None:
    link = link_of(hook)
    sandbox.configure(file_fault="slow", slow_seconds=1000)

    with pytest.raises(NoAnswerError):
        connect(base_url, timeout=0.1).download(ENDPOINT, ID, link, io.BytesIO())


def test_a_web_page_instead_of_a_file_is_downloaded(hook: OdiRouterHook, sandbox: Sandbox) -> None:
    link = link_of(hook)
    sandbox.configure(file_fault="html")
    into = io.BytesIO()

    hook.download(ENDPOINT, ID, link, into)

    assert into.getvalue().startswith(b"<html>")


def test_a_full_disk_is_not_repeated(hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses) -> None:
    class FullDisk(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    link = link_of(hook)

    with pytest.raises(OSError, match="No space left"):
        hook.download(ENDPOINT, ID, link, FullDisk())

    assert downloads(sandbox) == 1
