"""Certificates: checked by default, checked with a CA file, or not checked."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from airflow_provider_odirouter.errors import (
    ConnectionSettingsError,
    EnvironmentSettingsError,
    LostSubmitError,
    NoAnswerError,
    NotSentError,
    OdiRouterError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import RequestState
from tests.hooks.conftest import Connect, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange, RawServer

REQUEST = ("nano_banana_2", "mmsu_1")


@pytest.fixture
def server(serve: Serve, tls: ssl.SSLContext) -> RawServer:
    return serve(lambda exchange: exchange.answer_json(IN_QUEUE), tls=tls)


def test_an_unknown_certificate_is_refused_by_default(connect: Connect, server: RawServer) -> None:
    with pytest.raises(NotSentError, match="certificate verify failed") as caught:
        connect(server.base_url).get_status(*REQUEST)
    assert "plain HTTP" not in str(caught.value)

    assert server.received == []


async def test_an_unknown_certificate_is_refused_by_default_in_the_triggerer(
    connect: Connect, server: RawServer
) -> None:
    with pytest.raises(NoAnswerError, match="certificate verify failed") as caught:
        await connect(server.base_url).aget_status(*REQUEST)
    assert "plain HTTP" not in str(caught.value)

    assert server.received == []


@pytest.mark.parametrize("verify", [False, "false"])
async def test_verify_false_checks_no_certificate(connect: Connect, server: RawServer, verify: object) -> None:
    hook = connect(server.base_url, verify=verify)

    assert hook.get_status(*REQUEST).state is RequestState.IN_QUEUE
    assert (await hook.aget_status(*REQUEST)).state is RequestState.IN_QUEUE


async def test_a_certificate_in_the_ca_file_is_accepted(connect: Connect, server: RawServer, authority: Path) -> None:
    hook = connect(server.base_url, verify=str(authority))

    assert hook.get_status(*REQUEST).state is RequestState.IN_QUEUE
    assert (await hook.aget_status(*REQUEST)).state is RequestState.IN_QUEUE


async def test_a_certificate_for_another_host_is_refused(connect: Connect, server: RawServer, authority: Path) -> None:
    hook = connect(server.base_url.replace("127.0.0.1", "localhost"), verify=str(authority))

    with pytest.raises(NotSentError):
        hook.get_status(*REQUEST)
    with pytest.raises(NoAnswerError):
        await hook.aget_status(*REQUEST)
    assert server.received == []


async def test_hooks_with_other_tls_settings_share_no_connection(
    connect: Connect, server: RawServer, authority: Path
) -> None:
    strict = connect(server.base_url, conn_id="strict")
    knowing = connect(server.base_url, conn_id="knowing", verify=str(authority))
    blind = connect(server.base_url, conn_id="blind", verify=False)

    async with strict, knowing, blind:
        assert (await blind.aget_status(*REQUEST)).state is RequestState.IN_QUEUE
        assert (await knowing.aget_status(*REQUEST)).state is RequestState.IN_QUEUE
        with pytest.raises(NoAnswerError):
            await strict.aget_status(*REQUEST)

    assert server.connections >= 2


async def test_a_ca_file_without_a_certificate_is_a_settings_error(
    connect: Connect, server: RawServer, tmp_path: Path
) -> None:
    file = tmp_path / "authority.pem"
    file.write_text("This is no certificate.")
    hook = connect(server.base_url, verify=str(file))

    with pytest.raises(ConnectionSettingsError, match=r"authority\.pem"):
        hook.submit("nano_banana_2", {})
    with pytest.raises(ConnectionSettingsError, match=r"authority\.pem"):
        await hook.aget_status(*REQUEST)
    with pytest.raises(ConnectionSettingsError, match=r"authority\.pem"):
        async with hook:
            await hook.aget_status(*REQUEST)
    assert hook.test_connection()[0] is False


class TestEnvironment:
    """The variables that OpenSSL and httpx read are tried before anything is sent."""

    @pytest.fixture(autouse=True)
    def nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
            monkeypatch.delenv(name, raising=False)

    @pytest.fixture
    def broken(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        (tmp_path / "empty.pem").touch()
        (tmp_path / "none.pem").write_text("This is no certificate.")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "certificate.pem").write_text("Its name is no hash.")
        return str(tmp_path / request.param)

    @pytest.mark.parametrize(
        ("name", "broken"),
        [
            ("SSL_CERT_FILE", "missing.pem"),
            ("SSL_CERT_FILE", "folder"),
            ("SSL_CERT_FILE", "empty.pem"),
            ("SSL_CERT_FILE", "none.pem"),
            ("SSL_CERT_DIR", "missing"),
            ("SSL_CERT_DIR", "empty.pem"),
            ("SSL_CERT_DIR", "folder"),
            ("SSLKEYLOGFILE", "missing/keys.log"),
            ("SSLKEYLOGFILE", "folder"),
        ],
        indirect=["broken"],
    )
    async def test_an_unusable_setting_is_named(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch, name: str, broken: str
    ) -> None:
        monkeypatch.setenv(name, broken)
        hook = connect(server.base_url)

        with pytest.raises(EnvironmentSettingsError, match=f"^{name} \\('.*'\\) cannot be used: ") as caught:
            hook.prepare()
        assert broken in str(caught.value)
        assert caught.value.retry_helps
        with pytest.raises(EnvironmentSettingsError, match=name):
            hook.submit("nano_banana_2", {})
        with pytest.raises(EnvironmentSettingsError, match=name):
            await hook.aget_status(*REQUEST)
        assert server.connections == 0

    @pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_verify_false_reads_no_certificates(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, "/no/such/path")

        connect(server.base_url, verify=False).get_status(*REQUEST)

    def test_usable_settings_are_used(
        self,
        connect: Connect,
        server: RawServer,
        authority: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))

        connect(server.base_url).get_status(*REQUEST)

        assert (tmp_path / "keys.log").read_text().count("CLIENT_") > 0

    def test_a_folder_of_certificates_may_be_one_of_several(
        self, connect: Connect, server: RawServer, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subprocess.run(["cp", authority, tmp_path / "authority.pem"], check=True)
        subprocess.run(["openssl", "rehash", tmp_path], check=True)
        monkeypatch.setenv("SSL_CERT_DIR", f"/no/such/folder:{tmp_path}")

        connect(server.base_url).get_status(*REQUEST)


HTTP, HTTPS = "should the host begin with http://?", "hould the host begin with https://?"
VERIFY = 'the connection\'s extra: {"verify"'


async def errors_of(hook: OdiRouterHook) -> list[str]:
    """What a poll on a worker, and one in the triggerer, say."""
    with pytest.raises(OdiRouterError) as on_worker:
        hook.get_status(*REQUEST)
    with pytest.raises(OdiRouterError) as in_triggerer:
        await hook.aget_status(*REQUEST)
    return [str(on_worker.value), str(in_triggerer.value)]


async def test_a_host_that_answers_tls_in_plain_http_is_asked_about(connect: Connect, base_url: str) -> None:
    texts = await errors_of(connect(base_url.replace("http://", "https://")))
    assert [(HTTP in text, HTTPS in text, VERIFY in text) for text in texts] == [(True, False, False)] * 2


async def test_a_certificate_that_is_not_trusted_names_the_extra_verify(connect: Connect, server: RawServer) -> None:
    texts = await errors_of(connect(server.base_url))
    assert [(HTTP in text, HTTPS in text, VERIFY in text) for text in texts] == [(False, False, True)] * 2


@pytest.mark.parametrize(
    "words",
    [
        b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>",
        b"Client sent an HTTP request to an HTTPS server.",
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.",
    ],
    ids=["nginx", "Go", "Apache"],
)
async def test_a_port_for_https_that_is_called_without_tls_is_named(
    words: bytes, connect: Connect, serve: Serve
) -> None:
    hook = connect(serve(lambda exchange: exchange.answer(words, status="400 Bad Request")).base_url)
    assert [HTTPS in text for text in await errors_of(hook)] == [True, True]
    with pytest.raises(UnreadableAnswerError, match="the host speaks TLS on this port"):
        hook.submit("nano_banana_2", {})


async def test_a_tls_alert_to_a_call_without_tls_is_asked_about(connect: Connect, serve: Serve) -> None:
    def alert(exchange: Exchange) -> None:
        exchange.send(b"\x15\x03\x01\x00\x02\x02\x46")
        exchange.hang_up()

    texts = await errors_of(connect(serve(alert).base_url))
    assert [HTTPS in text for text in texts] == [True, True]


def test_a_submit_that_a_tls_alert_ends_says_what_to_mend_and_that_it_may_be_paid(
    connect: Connect, serve: Serve
) -> None:
    def alert(exchange: Exchange) -> None:
        exchange.send(b"\x15\x03\x01\x00\x02\x02\x46")
        exchange.hang_up()

    with pytest.raises(LostSubmitError) as caught:
        connect(serve(alert).base_url).submit("nano_banana_2", {})
    text = str(caught.value)
    assert HTTPS in text
    assert text.endswith(LostSubmitError.advice)
    assert "A retry helps only after" not in text


@pytest.mark.parametrize("alert", [ssl.ALERT_DESCRIPTION_ACCESS_DENIED, ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME])
async def test_a_host_that_refuses_tls_with_an_alert_is_not_asked_about_http(
    connect: Connect, serve: Serve, tls: ssl.SSLContext, pauses: Pauses, alert: int
) -> None:
    tls.sni_callback = lambda *_: alert
    hook = connect(serve(lambda exchange: exchange.answer_json(IN_QUEUE), tls=tls).base_url)

    with pytest.raises(OdiRouterError) as submit:
        hook.submit("nano_banana_2", {})
    for text in (*await errors_of(hook), str(submit.value)):
        assert "with an alert" in text, text
        assert (HTTP in text, HTTPS in text, VERIFY in text) == (False, False, False)


async def test_a_proxy_that_demands_a_login_before_it_connects_is_named(
    connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch, pauses: Pauses
) -> None:
    proxy = serve(lambda exchange: exchange.answer(status="407 Proxy Authentication Required"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    hook = connect("https://api.example/model")
    with pytest.raises(NotSentError) as submit:
        hook.submit("nano_banana_2", {})
    for text in (*await errors_of(hook), str(submit.value)):
        assert "The proxy refuses the connection: check HTTPS_PROXY" in text


async def test_a_refusal_of_the_api_itself_is_not_about_tls(connect: Connect, serve: Serve) -> None:
    body = {"detail": "plain HTTP request"}
    hook = connect(serve(lambda exchange: exchange.answer_json(body, status="400 Bad Request")).base_url)
    assert [HTTPS in text for text in await errors_of(hook)] == [False, False]


def test_a_submit_that_is_cut_off_over_tls_is_lost(
    connect: Connect, serve: Serve, tls: ssl.SSLContext, authority: Path, pauses: Pauses
) -> None:
    server = serve(lambda exchange: exchange.hang_up(), tls=tls)

    with pytest.raises(LostSubmitError):
        connect(server.base_url, verify=str(authority)).submit("nano_banana_2", {})

    assert len(server.received) == 1
