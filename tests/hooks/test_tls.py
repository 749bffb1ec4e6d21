"""Certificates: checked, checked with a file of one's own, or not at all."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from airflow_provider_odirouter.errors import ConnectionSettingsError, LostSubmitError, NoAnswerError, NotSentError
from airflow_provider_odirouter.models import RequestState
from tests.hooks.conftest import Connect, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, RawServer

LOOK = ("nano_banana_2", "mmsu_1")


@pytest.fixture
def server(serve: Serve, tls: ssl.SSLContext) -> RawServer:
    return serve(lambda exchange: exchange.answer_json(IN_QUEUE), tls=tls)


def test_an_unknown_certificate_is_refused_by_default(connect: Connect, server: RawServer) -> None:
    with pytest.raises(NotSentError, match="certificate verify failed"):
        connect(server.base_url).get_status(*LOOK)

    assert server.received == []


async def test_an_unknown_certificate_is_refused_by_default_in_the_triggerer(
    connect: Connect, server: RawServer
) -> None:
    with pytest.raises(NoAnswerError, match="certificate verify failed"):
        await connect(server.base_url).aget_status(*LOOK)

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


def test_a_submit_over_tls_that_is_cut_off_is_lost(
    connect: Connect, serve: Serve, tls: ssl.SSLContext, authority: Path, pauses: Pauses
) -> None:
    server = serve(lambda exchange: exchange.hang_up(), tls=tls)

    with pytest.raises(LostSubmitError):
        connect(server.base_url, verify=str(authority)).submit("nano_banana_2", {})

    assert len(server.received) == 1
