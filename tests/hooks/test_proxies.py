"""The proxy for a URL: the worker's and the triggerer's client follow the same rule."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import EnvironmentSettingsError, OdiRouterError
from airflow_provider_odirouter.hooks.proxies import Proxies, Proxy
from airflow_provider_odirouter.protocol import Action, retries
from tests.hooks.conftest import KEY, Connect, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange, RawServer

REQUEST = ("nano_banana_2", "mmsu_1")
ONE, TWO, THREE = "http://one:3128", "http://two:3128", "http://three:3128"


def proxy_to(url: str, **environment: str) -> str | None:
    proxy = Proxies(environment).proxy_for(url)
    return proxy.url if proxy else None


class TestWhichProxy:
    @pytest.mark.parametrize(
        ("environment", "for_https", "for_http"),
        [
            ({}, None, None),
            ({"HTTPS_PROXY": ONE}, ONE, None),
            ({"https_proxy": ONE}, ONE, None),
            ({"HTTP_PROXY": ONE}, None, ONE),
            ({"ALL_PROXY": ONE}, ONE, ONE),
            ({"all_proxy": ONE}, ONE, ONE),
            ({"HTTPS_PROXY": ONE, "HTTP_PROXY": TWO, "ALL_PROXY": THREE}, ONE, TWO),
            ({"HTTPS_PROXY": ONE, "ALL_PROXY": THREE}, ONE, THREE),
            ({"https_proxy": ONE, "HTTPS_PROXY": TWO}, ONE, None),
            ({"https_proxy": "", "HTTPS_PROXY": TWO}, None, None),
            ({"https_proxy": " ", "ALL_PROXY": THREE}, THREE, THREE),
            ({"HTTPS_PROXY": "one:3128"}, ONE, None),
            ({"HTTPS_PROXY": "HTTP://one:3128/"}, ONE, None),
            ({"HTTP_PROXY": ONE, "REQUEST_METHOD": "GET"}, None, None),
            ({"http_proxy": ONE, "REQUEST_METHOD": "GET"}, None, ONE),
            ({"ALL_PROXY": ONE, "NO_PROXY": "*"}, None, None),
            ({"ALL_PROXY": ONE, "NO_PROXY": "https://api.example"}, None, ONE),
            ({"ALL_PROXY": ONE, "no_proxy": "http://api.example"}, ONE, None),
            ({"ALL_PROXY": ONE, "no_proxy": "other", "NO_PROXY": "*"}, ONE, ONE),
            ({"ALL_PROXY": ONE, "NO_PROXY": "api.example:80"}, ONE, None),
        ],
        ids=str,
    )
    def test_each_scheme_has_its_variable(
        self, environment: dict[str, str], for_https: str | None, for_http: str | None
    ) -> None:
        assert proxy_to("https://api.example/model", **environment) == for_https
        assert proxy_to("http://api.example/model", **environment) == for_http

    @pytest.mark.parametrize(
        ("host", "no_proxy"),
        [
            ("api.example", "api.example"),
            ("api.example", "example"),
            ("api.example", ".example"),
            ("api.example", "*.example"),
            ("example", ".example"),
            ("API.Example", "api.EXAMPLE"),
            ("api.example.", "api.example"),
            ("api.example", "other,, api.example ,"),
            ("api.example", "other api.example"),
            ("api.example", "api.example:443"),
            ("api.example:8443", "api.example:8443"),
            ("api.example:8443", "example"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/8"),
            ("10.1.2.3", "10.*"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[::1]", "::1"),
            ("[::1]", "[::1]"),
            ("[::1]", "0:0:0:0:0:0:0:1"),
            ("[::1]:8088", "[::1]:8088"),
            ("[fd00::1]", "fd00::/8"),
            ("localhost", "localhost"),
            ("a.localhost", "localhost"),
        ],
    )
    def test_no_proxy_covers(self, host: str, no_proxy: str) -> None:
        assert proxy_to(f"https://{host}/model", ALL_PROXY=ONE, NO_PROXY=no_proxy) is None

    @pytest.mark.parametrize(
        ("host", "no_proxy"),
        [
            ("api.example", "pi.example"),
            ("api.example", "api.example.com"),
            ("apiexample", ".example"),
            ("api.example", "api.example:8443"),
            ("api.example:8443", "api.example:443"),
            ("10.1.2.3", "11.0.0.0/8"),
            ("10.1.2.3", "10.1.2"),
            ("110.1.2.3", "10.1.2.3"),
            ("10.1.2.3", "::/0"),
            ("[::1]", "127.0.0.1"),
            ("[::1]:8088", "[::1]:8089"),
            ("localhost", "127.0.0.1"),
            ("api.example", ".,"),
        ],
    )
    def test_no_proxy_does_not_cover(self, host: str, no_proxy: str) -> None:
        assert proxy_to(f"https://{host}/model", ALL_PROXY=ONE, NO_PROXY=no_proxy) == ONE


class TestWhatCannotBeUsed:
    @pytest.mark.parametrize(
        "proxy",
        [
            "socks5://user:word@one:1080",
            "SOCKS5h://one",
            "socks4://one:1080",
            "socks://one:1080",
            "ftp://one",
            "http://",
            "http://user:word@one:port",
            "http://user:word@one:99999",
            "http://user:wo#rd@one:3128",
            "http://user:wo/rd@one:3128",
            "http://user:word@one two:3128",
            "://user:word@one",
            "http://[::1",
            "http://user:wo\nrd@one",
        ],
    )
    @pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
    def test_the_error_names_the_variable_but_not_the_password(self, name: str, proxy: str) -> None:
        with pytest.raises(EnvironmentSettingsError, match=f"^{name} names ") as caught:
            Proxies({name: proxy}).proxy_for("https://api.example/model")

        assert caught.value.retry_helps
        assert "word" not in str(caught.value).replace("http://user:password@proxy:3128", "")

    @pytest.mark.parametrize("entry", ["[::1", "::1]", "host:port", "10.0.0.0/99", "host/path", "user:word@host/x"])
    def test_an_invalid_exception_is_refused(self, entry: str) -> None:
        proxies = Proxies({"ALL_PROXY": ONE, "NO_PROXY": f"localhost,{entry}"})
        for url in ("https://api.example/model", "http://localhost/model"):
            with pytest.raises(EnvironmentSettingsError, match=r"^NO_PROXY has an entry") as caught:
                proxies.proxy_for(url)
            assert "word" not in str(caught.value)

    def test_exceptions_are_not_read_without_a_proxy(self) -> None:
        assert proxy_to("https://api.example/model", NO_PROXY="[::1") is None

    @pytest.mark.parametrize("base_url", ["https://api.example/model", "http://api.example/model"])
    def test_pictures_may_need_another_proxy_than_the_base_url(self, base_url: str) -> None:
        mixed = Proxies({"HTTPS_PROXY": ONE, "HTTP_PROXY": TWO, "ALL_PROXY": "socks5://three"})
        mixed.check(base_url)
        for other in ("HTTP_PROXY", "HTTPS_PROXY"):
            with pytest.raises(EnvironmentSettingsError, match="SOCKS"):
                Proxies({"ALL_PROXY": ONE, other: "socks5://three"}).check(base_url)

    def test_a_base_url_without_a_proxy_needs_none(self) -> None:
        Proxies({"ALL_PROXY": "socks5://three", "NO_PROXY": "127.0.0.1"}).check("http://127.0.0.1:8088/model")

    def test_a_link_of_another_scheme_has_no_proxy(self) -> None:
        assert proxy_to("ftp://files.example/cup.png", ALL_PROXY=ONE, NO_PROXY="files.example:443") == ONE

    def test_the_repr_of_a_proxy_shows_no_password(self) -> None:
        proxy = Proxies({"HTTPS_PROXY": "http://us%40er:w%3Ard@one:3128"}).proxy_for("https://api.example")

        assert proxy == Proxy(ONE, ("us@er", "w:rd"))
        assert "w:rd" not in repr(proxy)


class TestBothClients:
    """Both clients use real proxies in the same way."""

    @pytest.fixture
    def proxy(self, serve: Serve) -> RawServer:
        return serve(lambda exchange: exchange.answer_json(IN_QUEUE))

    @pytest.mark.parametrize(
        ("host", "environment", "is_used"),
        [
            ("api.example", {"HTTP_PROXY": "proxy"}, True),
            ("api.example", {"all_proxy": "proxy"}, True),
            ("api.example", {"HTTP_PROXY": "proxy", "NO_PROXY": ".other,10.0.0.0/8,[::1],api.example:8443"}, True),
            ("127.0.0.1", {"HTTP_PROXY": "proxy", "NO_PROXY": ".other"}, True),
            ("127.0.0.1", {"HTTP_PROXY": "proxy", "NO_PROXY": "127.0.0.1"}, False),
            ("127.0.0.1", {"HTTP_PROXY": "proxy", "NO_PROXY": "127.0.0.0/8"}, False),
            ("127.0.0.1", {"HTTP_PROXY": "proxy", "NO_PROXY": "127.*"}, False),
            ("127.0.0.1", {"HTTP_PROXY": "proxy", "NO_PROXY": "*"}, False),
            ("127.0.0.1", {"HTTP_PROXY": "proxy", "NO_PROXY": "[::1],127.0.0.1"}, False),
            ("127.0.0.1", {"ALL_PROXY": "proxy", "http_proxy": "", "NO_PROXY": "http://127.0.0.1"}, False),
            ("127.0.0.1", {"HTTPS_PROXY": "proxy"}, False),
        ],
        ids=str,
    )
    async def test_use_the_same_proxy(
        self,
        connect: Connect,
        serve: Serve,
        proxy: RawServer,
        monkeypatch: pytest.MonkeyPatch,
        host: str,
        environment: dict[str, str],
        is_used: bool,
    ) -> None:
        target = serve(lambda exchange: exchange.answer_json(IN_QUEUE))
        for name, value in environment.items():
            monkeypatch.setenv(name, proxy.origin if value == "proxy" else value)
        hook = connect(f"http://{host}:{target.port}/model")

        hook.get_status(*REQUEST)
        await hook.aget_status(*REQUEST)

        assert (len(proxy.received), len(target.received)) == ((2, 0) if is_used else (0, 2))
        assert len({received.target for received in proxy.received + target.received}) == 1

    @pytest.mark.parametrize("password", ["word", "w%3A%40rd", "mot%C3%A9"])
    @pytest.mark.parametrize("base_url", ["http://api.example/model", "https://api.example/model"])
    async def test_send_the_key_to_a_proxy_only_in_plain_http(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch, base_url: str, password: str
    ) -> None:
        monkeypatch.setattr(retries, "MAX_REPEAT_SECONDS", dict.fromkeys(Action, 0.0))
        proxy = serve(lambda exchange: exchange.answer(status="403 Forbidden"))
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://user:{password}@127.0.0.1:{proxy.port}")
        hook = connect(base_url)

        errors = [
            await failing(call) for call in (lambda: hook.get_status(*REQUEST), lambda: hook.aget_status(*REQUEST))
        ]

        mine, other = proxy.received
        assert mine.headers["proxy-authorization"] == other.headers["proxy-authorization"]
        assert (KEY in str(proxy.received)) is base_url.startswith("http:")
        assert password not in "".join(errors)

    @pytest.mark.parametrize("base_url", ["http://api.example/model", "https://api.example/model"])
    async def test_support_a_proxy_over_tls(
        self,
        connect: Connect,
        serve: Serve,
        tls: ssl.SSLContext,
        authority: Path,
        monkeypatch: pytest.MonkeyPatch,
        base_url: str,
    ) -> None:
        monkeypatch.setattr(retries, "MAX_REPEAT_SECONDS", dict.fromkeys(Action, 0.0))
        proxy = serve(lambda exchange: exchange.answer(status="403 Forbidden"), tls=tls)
        monkeypatch.setenv("ALL_PROXY", proxy.origin)
        hook = connect(base_url, verify=str(authority))

        for call in (lambda: hook.get_status(*REQUEST), lambda: hook.aget_status(*REQUEST)):
            await failing(call)

        # aiohttp closes its connection to a refusing proxy in the background, on this event loop.
        assert await asyncio.to_thread(proxy.wait_until_all_are_gone)
        assert len({(received.method, received.target) for received in proxy.received}) == 1
        assert len(proxy.received) == 2

    def test_use_the_proxy_of_each_host_that_a_redirect_names(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        near = serve(lambda exchange: exchange.answer(b"a picture"))

        def lead_on(exchange: Exchange) -> None:
            exchange.answer(status="302 Found", location=f"{near.origin}/picture.png")

        proxy = serve(lead_on)
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        into = io.BytesIO()
        hook = connect("http://127.0.0.1:1/model", allow_private_downloads=True)

        hook.download(*REQUEST, "http://files.example/picture.png", into)

        assert into.getvalue() == b"a picture"
        assert [received.target for received in proxy.received] == ["http://files.example/picture.png"]
        assert [received.target for received in near.received] == ["/picture.png"]
        assert KEY not in str(proxy.received) + str(near.received)

    async def test_refuse_a_socks_proxy(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", "socks5://user:word@127.0.0.1:1")
        hook = connect("http://127.0.0.1:1/model")

        for call in (lambda: hook.submit("e", {}), hook.prepare, lambda: hook.aget_status(*REQUEST)):
            text = await failing(call)
            assert text.startswith("ALL_PROXY names a SOCKS proxy")
            assert "word" not in text


async def failing(call: Callable[[], Any]) -> str:
    """The text of the error that a call of either kind raises."""

    async def attempt() -> None:
        outcome = call()
        if inspect.isawaitable(outcome):
            await outcome

    with pytest.raises(OdiRouterError) as caught:
        await attempt()
    return str(caught.value)


def test_a_hook_with_its_own_client_keeps_the_proxy(
    connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It cancels while the task is killed: a wrong setting must not prevent that."""
    server = serve(lambda exchange: exchange.answer_json(IN_QUEUE))
    hook = connect(server.base_url)
    hook.prepare()
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", json.dumps({"conn_type": "odirouter"}))

    hook.with_own_client().cancel(*REQUEST)

    assert len(server.received) == 1
    with pytest.raises(EnvironmentSettingsError):
        connect(server.base_url).prepare()
