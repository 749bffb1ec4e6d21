"""Certificates: checked, checked with a file of one's own, or not at all."""

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
)
from airflow_provider_odirouter.models import RequestState
from tests.hooks.conftest import Connect, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, RawServer

LOOK = ("nano_banana_2", "mmsu_1")


@pytest.fixture
def server(serve: Serve, tls: ssl.SSLContext) -> RawServer:
    return serve(lambda exchange: exchange.answer_json(IN_QUEUE), tls=tls)


def test_an_unknown_certificate_is_refused_by_default(connect: Connect, server: RawServer) -> None:
    with pytest.raises(NotSentError, match="certificate verify failed") as caught:
        connect(server.base_url).get_status(*LOOK)
    assert "plain HTTP" not in str(caught.value)

    assert server.received == []


async def test_an_unknown_certificate_is_refused_by_default_in_the_triggerer(
    connect: Connect, server: RawServer
) -> None:
    with pytest.raises(NoAnswerError, match="certificate verify failed") as caught:
        await connect(server.base_url).aget_status(*LOOK)
    assert "plain HTTP" not in str(caught.value)

    assert server.received == []


@pytest.mark.parametrize("verify", [False, "false"])
async def test_no_certificate_is_checked_if_the_connection_says_so(
    connect: Connect, server: RawServer, verify: object
) -> None:
    hook = connect(server.base_url, verify=verify)

    assert hook.get_status(*LOOK).state is RequestState.IN_QUEUE
    assert (await hook.aget_status(*LOOK)).state is RequestState.IN_QUEUE


async def test_a_certificate_that_the_file_knows_is_accepted(
    connect: Connect, server: RawServer, authority: Path
) -> None:
    hook = connect(server.base_url, verify=str(authority))

    assert hook.get_status(*LOOK).state is RequestState.IN_QUEUE
    assert (await hook.aget_status(*LOOK)).state is RequestState.IN_QUEUE


async def test_a_certificate_of_another_name_is_refused(connect: Connect, server: RawServer, authority: Path) -> None:
    hook = connect(server.base_url.replace("127.0.0.1", "localhost"), verify=str(authority))

    with pytest.raises(NotSentError):
        hook.get_status(*LOOK)
    with pytest.raises(NoAnswerError):
        await hook.aget_status(*LOOK)
    assert server.received == []


async def test_hooks_that_check_differently_share_a_loop_and_nothing_else(
    connect: Connect, server: RawServer, authority: Path
) -> None:
    strict = connect(server.base_url, conn_id="strict")
    knowing = connect(server.base_url, conn_id="knowing", verify=str(authority))
    blind = connect(server.base_url, conn_id="blind", verify=False)

    async with strict, knowing, blind:
        assert (await blind.aget_status(*LOOK)).state is RequestState.IN_QUEUE
        assert (await knowing.aget_status(*LOOK)).state is RequestState.IN_QUEUE
        with pytest.raises(NoAnswerError):
            await strict.aget_status(*LOOK)

    assert server.connections >= 2


async def test_a_file_without_a_certificate_is_the_connections_fault(
    connect: Connect, server: RawServer, tmp_path: Path
) -> None:
    file = tmp_path / "authority.pem"
    file.write_text("This is no certificate.")
    hook = connect(server.base_url, verify=str(file))

    with pytest.raises(ConnectionSettingsError, match=r"authority\.pem"):
        hook.submit("nano_banana_2", {})
    with pytest.raises(ConnectionSettingsError, match=r"authority\.pem"):
        await hook.aget_status(*LOOK)
    with pytest.raises(ConnectionSettingsError, match=r"authority\.pem"):
        async with hook:
            await hook.aget_status(*LOOK)
    assert hook.test_connection()[0] is False


class TestEnvironment:
    """What OpenSSL and httpx take from the environment is tried before anything is sent."""

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
    async def test_a_setting_that_cannot_be_used_is_named(
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
            await hook.aget_status(*LOOK)
        assert server.connections == 0

    @pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_certificates_are_not_looked_for_where_none_is_checked(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, "/no/such/place")

        connect(server.base_url, verify=False).get_status(*LOOK)

    def test_settings_that_can_be_used_are(
        self,
        connect: Connect,
        server: RawServer,
        authority: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))

        connect(server.base_url).get_status(*LOOK)

        assert (tmp_path / "keys.log").read_text().count("CLIENT_") > 0

    def test_a_folder_of_certificates_may_be_one_of_several(
        self, connect: Connect, server: RawServer, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subprocess.run(["cp", authority, tmp_path / "authority.pem"], check=True)
        subprocess.run(["openssl", "rehash", tmp_path], check=True)
        monkeypatch.setenv("SSL_CERT_DIR", f"/no/such/folder:{tmp_path}")

        connect(server.base_url).get_status(*LOOK)


def test_a_submit_over_tls_that_is_cut_off_is_lost(
    connect: Connect, serve: Serve, tls: ssl.SSLContext, authority: Path, pauses: Pauses
) -> None:
    server = serve(lambda exchange: exchange.hang_up(), tls=tls)

    with pytest.raises(LostSubmitError):
        connect(server.base_url, verify=str(authority)).submit("nano_banana_2", {})

    assert len(server.received) == 1
