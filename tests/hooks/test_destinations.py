"""Downloads reach public addresses only: the peer of each connection is checked, also after redirects."""

from __future__ import annotations

import io
import ipaddress
import socket
import threading
from typing import Any

import pytest

from airflow_provider_odirouter.errors import LandingError, NotSentError, OdiRouterError, PrivateAddressError
from airflow_provider_odirouter.hooks import downloads
from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.hooks.destinations import is_private_host, is_public, literal_address
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from tests.hooks.conftest import KEY, Connect, Pauses, Serve
from tests.hooks.raw_server import RawServer
from tests.shown import all_shown

ENDPOINT = "nano_banana_2"
ID = "mmsu_1"
PUBLIC = "93.184.215.14"

Names = dict[str, list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The results of DNS lookups: each lookup takes the next answer of a list, and the last one repeatedly."""
    known: Names = {"odirouter.ai": [PUBLIC]}
    ask = socket.getaddrinfo

    def answer(host: str, *arguments: Any, **keywords: Any) -> Any:
        if answers := known.get(host):
            host = answers.pop(0) if len(answers) > 1 else answers[0]
        if host != "localhost" and literal_address(host) is None:
            raise socket.gaierror(f"{host} has no address")
        return ask(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


@pytest.fixture
def hook(names: Names, connect: Connect) -> OdiRouterHook:
    """A hook of the real service, which is not called."""
    return connect("")


@pytest.fixture
def files(serve: Serve) -> RawServer:
    """A host of files that is not public."""
    return serve(lambda exchange: exchange.answer(b"file"))


def download(hook: OdiRouterHook, url: str) -> bytes:
    into = io.BytesIO()
    hook.download(ENDPOINT, ID, url, into)
    return into.getvalue()


def allowing(base_url: str = "https://odirouter.ai/model") -> OdiRouterHook:
    hook = OdiRouterHook()
    hook._current._settings = ConnectionSettings(KEY, base_url, allow_private_downloads=True)
    return hook


class TestPeer:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "017700000001",
            "0.0.0.0",
            "0",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "user:word@127.0.0.1",
        ],
    )
    def test_nothing_is_sent_to_an_address_that_is_not_public(
        self, monkeypatch: pytest.MonkeyPatch, connect: Connect, files: RawServer, pauses: Pauses, host: str
    ) -> None:
        monkeypatch.setattr(downloads, "is_private_host", lambda name: name != "odirouter.ai")

        with pytest.raises(PrivateAddressError) as caught:
            download(connect(""), f"http://{host}:{files.port}/a.png")

        assert files.received == []
        assert files.wait_until_all_are_gone()
        assert pauses.taken == []
        assert not caught.value.is_transient
        assert not caught.value.retry_helps
        assert not caught.value.request_over
        assert isinstance(caught.value, LandingError)
        assert "127.0.0.1" in str(caught.value)
        assert ID in str(caught.value)
        assert "allow_private_downloads" in str(caught.value)
        assert "user:word" not in str(caught.value)

    def test_the_error_names_the_host_and_its_address(
        self, hook: OdiRouterHook, names: Names, files: RawServer
    ) -> None:
        names["cdn.example"] = ["127.0.0.1"]

        with pytest.raises(PrivateAddressError, match=r"is at cdn\.example \(127\.0\.0\.1\), which is not a public"):
            download(hook, f"http://cdn.example:{files.port}/a.png")

        assert files.received == []

    def test_an_earlier_lookup_does_not_count(self, hook: OdiRouterHook, names: Names, files: RawServer) -> None:
        names["cdn.example"] = [PUBLIC, "127.0.0.1"]
        assert socket.getaddrinfo("cdn.example", None)[0][4][0] == PUBLIC

        with pytest.raises(PrivateAddressError):
            download(hook, f"http://cdn.example:{files.port}/a.png")

        assert files.received == []

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_not_one_byte_is_sent_over_tls_or_ipv6(self, hook: OdiRouterHook, scheme: str) -> None:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
            with pytest.raises(PrivateAddressError, match="::1"):
                download(hook, f"{scheme}://[::1]:{server.getsockname()[1]}/a.png")
            peer, _ = server.accept()
            with peer:
                assert peer.recv(1) == b""

    def test_landing_refuses_such_an_address(self, hook: OdiRouterHook, files: RawServer) -> None:
        caught: list[BaseException] = []

        def land() -> None:
            try:
                download(hook, f"{files.origin}/a.png")
            except OdiRouterError as error:
                caught.append(error)

        threads = [threading.Thread(target=land) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [type(error) for error in caught] == [PrivateAddressError] * 4
        assert files.received == []

    def test_a_closed_port_at_such_an_address_is_a_not_sent_error(self, hook: OdiRouterHook, pauses: Pauses) -> None:
        with pytest.raises(NotSentError):
            download(hook, "http://127.0.0.1:1/a.png")

    def test_neither_a_frame_nor_a_cause_shows_the_key(self, hook: OdiRouterHook, files: RawServer) -> None:
        with pytest.raises(PrivateAddressError) as caught:
            download(hook, f"{files.origin}/a.png")

        assert KEY not in all_shown(caught.value)


class TestExceptions:
    @pytest.mark.parametrize(
        "base_url", ["http://127.0.0.1:9/model", "http://localhost:9/model", "http://[::1]:9/model"]
    )
    def test_a_service_at_such_an_address_may_have_its_files_there(
        self, connect: Connect, files: RawServer, base_url: str
    ) -> None:
        assert download(connect(base_url), f"{files.origin}/a.png") == b"file"

    def test_a_service_whose_name_resolves_to_such_an_address_may(
        self, connect: Connect, files: RawServer, names: Names
    ) -> None:
        names["odirouter.internal"] = ["10.0.0.5"]

        assert download(connect("http://odirouter.internal/model"), f"{files.origin}/a.png") == b"file"

    def test_the_connection_may_allow_it_without_a_lookup(
        self, files: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(downloads, "is_private_host", None)

        assert download(allowing(), f"{files.origin}/a.png") == b"file"

    def test_a_service_whose_lookup_fails_counts_as_public(
        self, connect: Connect, files: RawServer, names: Names
    ) -> None:
        with pytest.raises(PrivateAddressError):
            download(connect("https://unknown.example/model"), f"{files.origin}/a.png")

    def test_a_lookup_that_hangs_is_abandoned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answer.wait(60) and [])

        assert not is_private_host("slow.example", seconds=0.05)

        answer.set()

    def test_a_name_with_one_public_address_is_public(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [(0, 0, 0, "", (address, 0)) for address in ("10.0.0.1", PUBLIC)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)

        assert not is_private_host("both.example")


class TestRedirects:
    status = "302 Found"
    location = ""

    @pytest.fixture
    def proxy(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> RawServer:
        """The proxy to public hosts; hosts below ``internal`` are reached without it."""
        proxy = serve(lambda exchange: exchange.answer(b"file", status=self.status, location=self.location))
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", "internal,127.0.0.1")
        return proxy

    def test_with_a_proxy_the_proxys_own_address_does_not_count(self, hook: OdiRouterHook, proxy: RawServer) -> None:
        self.status = "200 OK"

        assert download(hook, "http://cdn.example/a.png") == b"file"

    @pytest.mark.parametrize(
        "host", ["127.0.0.2", "169.254.169.254", "[fd00:ec2::254]", "10.1", "2852039166", "localhost", "a.localhost."]
    )
    def test_with_a_proxy_an_address_in_the_link_is_refused(
        self, hook: OdiRouterHook, proxy: RawServer, host: str
    ) -> None:
        with pytest.raises(PrivateAddressError):
            download(hook, f"http://{host}/latest/meta-data/")

        assert proxy.received == []

    def test_a_redirect_to_such_an_address_is_refused(
        self, hook: OdiRouterHook, proxy: RawServer, files: RawServer
    ) -> None:
        self.location = f"{files.origin}/b.png"

        with pytest.raises(PrivateAddressError, match=r"127\.0\.0\.1"):
            download(hook, "http://cdn.example/a.png")

        assert len(proxy.received) == 1
        assert files.received == []

    def test_a_redirect_to_a_name_of_such_an_address_is_refused(
        self, hook: OdiRouterHook, names: Names, proxy: RawServer, files: RawServer
    ) -> None:
        names["files.internal"] = ["127.0.0.1"]
        self.location = f"http://files.internal:{files.port}/b.png"

        with pytest.raises(PrivateAddressError, match=r"files\.internal"):
            download(hook, "http://cdn.example/a.png")

        assert files.received == []

    def test_a_redirect_to_the_clouds_metadata_is_refused(self, hook: OdiRouterHook, proxy: RawServer) -> None:
        self.location = "//169.254.169.254/latest/meta-data/"

        with pytest.raises(PrivateAddressError, match=r"169\.254\.169\.254"):
            download(hook, "http://cdn.example/a.png")

        assert len(proxy.received) == 1

    @pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://cdn.example/a", "ws://cdn.example/a"])
    def test_a_redirect_to_anything_but_http_is_refused(
        self, hook: OdiRouterHook, proxy: RawServer, pauses: Pauses, location: str
    ) -> None:
        self.location = location

        with pytest.raises(LandingError, match=r"cdn\.example redirects the download, and the link .* is not an http"):
            download(hook, "http://cdn.example/a.png")

        assert len(proxy.received) == 1

    @pytest.mark.parametrize("location", ["data:image/png;base64,AA", "mailto:a@b", "http://cdn.example:port/"])
    def test_an_invalid_redirect_is_an_error_of_ours(
        self, connect: Connect, proxy: RawServer, pauses: Pauses, location: str
    ) -> None:
        self.location = location
        hook = connect("http://api.example/model")

        with pytest.raises(OdiRouterError):
            download(hook, "http://cdn.example/a.png")
        with pytest.raises(OdiRouterError):
            hook.get_status(ENDPOINT, ID)

    def test_redirects_are_limited(self, connect: Connect, serve: Serve, pauses: Pauses) -> None:
        server = serve(lambda exchange: exchange.answer(status="302 Found", location="?again"))

        with pytest.raises(LandingError, match="redirects the download more than 10 times"):
            download(connect(server.base_url), f"{server.origin}/a.png")

        assert len(server.received) == 11
        assert pauses.taken == []

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_is_followed_without_the_key(self, connect: Connect, serve: Serve, status: int) -> None:
        target = serve(lambda exchange: exchange.answer(b"file"))
        server = serve(
            lambda exchange: exchange.answer(status=f"{status} Moved", location=f"{target.origin}/b%2Fc.png?s=1%2B1")
        )

        assert download(connect(server.base_url), f"{server.origin}/a.png") == b"file"

        (received,) = target.received
        assert (received.method, received.target) == ("GET", "/b%2Fc.png?s=1%2B1")
        assert "authorization" not in received.headers
        assert KEY not in str(received)

    def test_a_redirect_from_https_to_http_is_refused(
        self, connect: Connect, serve: Serve, tls: Any, authority: Any, files: RawServer
    ) -> None:
        server = serve(lambda exchange: exchange.answer(status="302 Found", location=f"{files.origin}/b.png"), tls=tls)

        with pytest.raises(LandingError, match="it is not an https URL"):
            download(connect(server.base_url, verify=str(authority)), f"{server.origin}/a.png")

        assert files.connections == 0


ADDRESSES: dict[str, bool] = {
    PUBLIC: True,
    "8.8.8.8": True,
    "2606:2800:21f:cb07:6820:80da:af6b:8b2c": True,
    "::ffff:8.8.8.8": True,
    "64:ff9b::808:808": True,
    "127.0.0.1": False,
    "127.8.8.8": False,
    "0.0.0.0": False,
    "0.1.2.3": False,
    "10.0.0.1": False,
    "172.16.0.1": False,
    "172.31.255.255": False,
    "192.168.1.1": False,
    "100.64.0.1": False,
    "100.127.255.255": False,
    "169.254.169.254": False,
    "192.0.0.1": False,
    "198.18.0.1": False,
    "224.0.0.1": False,
    "239.255.255.250": False,
    "240.0.0.1": False,
    "255.255.255.255": False,
    "::": False,
    "::1": False,
    "::7f00:1": False,
    "::ffff:127.0.0.1": False,
    "::ffff:10.0.0.1": False,
    "::ffff:169.254.169.254": False,
    "64:ff9b::a9fe:a9fe": False,
    "64:ff9b:1::1": False,
    "2002:7f00:1::": False,
    "2002:a9fe:a9fe::1": False,
    "2001:0:4136:e378:8000:63bf:5601:5601": False,
    "fe80::1": False,
    "fe80::1%lo": False,
    "fec0::1": False,
    "fd00:ec2::254": False,
    "fc00::1": False,
    "ff02::1": False,
    "2001:db8::1": False,
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_is_public_knows_all_kinds_of_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address)) is ADDRESSES[address]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "::1"),
        ("::FFFF:10.0.0.1", "::ffff:10.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("0251.0376.0251.0376", "169.254.169.254"),
        ("LOCALHOST", "127.0.0.1"),
        ("files.localhost", "127.0.0.1"),
        ("cdn.example", None),
        ("1.2.3.4.example", None),
        ("", None),
    ],
)
def test_literal_address_reads_every_spelling(host: str, address: str | None) -> None:
    assert literal_address(host) == (ipaddress.ip_address(address) if address else None)
