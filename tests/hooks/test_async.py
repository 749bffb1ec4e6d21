"""In the triggerer: one transport for many hooks, and nobody suffers from another's end."""

from __future__ import annotations

import asyncio
import gzip
import time
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_odirouter.errors import (
    AuthenticationError,
    InvalidParametersError,
    NoAnswerError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import CancelOutcome, RequestState
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.conftest import KEY, Connect, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange, RawServer

ENDPOINT = "nano_banana_2"
LOOK = (ENDPOINT, "mmsu_1")


@pytest.fixture
def server(serve: Serve) -> RawServer:
    return serve(lambda exchange: exchange.answer_json(IN_QUEUE))


class TestCalls:
    async def test_a_look_sees_what_a_worker_sees(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        sandbox.configure(run_seconds=60)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id

        # Its logs and progress differ from moment to moment.
        assert (await hook.aget_status(ENDPOINT, request_id)).state is hook.get_status(ENDPOINT, request_id).state
        assert (await hook.aget_status(ENDPOINT, request_id)).state is RequestState.IN_PROGRESS

    async def test_a_look_is_made_once(self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses) -> None:
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        sandbox.configure(server_errors=None)

        with pytest.raises(ServiceError):
            await hook.aget_status(ENDPOINT, request_id)

        assert [entry.action for entry in sandbox.journal] == ["submit", "status"]
        assert pauses.taken == []

    async def test_a_look_says_who_makes_it(self, connect: Connect, server: RawServer) -> None:
        await connect(server.base_url).aget_status(*LOOK)

        (received,) = server.received
        assert (received.method, received.target) == ("GET", f"/model/v1/queue/{ENDPOINT}/requests/mmsu_1/status")
        assert received.headers["authorization"] == f"Bearer {KEY}"
        assert received.headers["user-agent"].startswith("airflow-provider-odirouter/")
        assert received.headers["accept-encoding"] == "identity"
        assert "content-type" not in received.headers

    async def test_a_cancel_is_a_put_without_a_body(self, connect: Connect, server: RawServer) -> None:
        await connect(server.base_url).acancel(*LOOK)

        (received,) = server.received
        assert (received.method, received.target) == ("PUT", f"/model/v1/queue/{ENDPOINT}/requests/mmsu_1/cancel")
        assert received.headers["content-length"] == "0"

    async def test_a_cancel_is_sent_again_after_what_passes(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses
    ) -> None:
        sandbox.configure(run_seconds=600)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        sandbox.configure(server_errors=2)

        assert await hook.acancel(ENDPOINT, request_id) is CancelOutcome.REQUESTED
        assert len(pauses.taken) == 2
        assert sandbox.requests[0].cancel_requested

    async def test_a_cancel_is_given_up_after_twenty_seconds(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses
    ) -> None:
        sandbox.configure(drop_next=None)

        with pytest.raises(NoAnswerError):
            await hook.acancel(*LOOK)

        assert 5 <= pauses.total <= 20

    async def test_a_cancel_that_comes_too_late_is_no_error(self, hook: OdiRouterHook) -> None:
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id

        assert await hook.acancel(ENDPOINT, request_id) is CancelOutcome.ALREADY_COMPLETED

    async def test_a_wrong_key_is_named(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        sandbox.configure(api_key="another")

        with pytest.raises(AuthenticationError):
            await hook.aget_status(*LOOK)

    async def test_a_request_id_that_is_none_is_refused_unsent(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        with pytest.raises(InvalidParametersError):
            await hook.acancel(ENDPOINT, "../../admin")

        assert sandbox.journal == []

    async def test_compressed_answers_are_read(self, connect: Connect, serve: Serve) -> None:
        body = gzip.compress(b'{"status": "IN_PROGRESS"}')
        server = serve(lambda exchange: exchange.answer(body, content_encoding="gzip"))

        assert (await connect(server.base_url).aget_status(*LOOK)).state is RequestState.IN_PROGRESS

    async def test_answers_of_more_than_16_mib_are_not_taken_in(self, connect: Connect, serve: Serve) -> None:
        body = b'{"status": "IN_QUEUE", "logs": "' + b" " * 16 * 2**20 + b'"}'
        server = serve(lambda exchange: exchange.answer(body))

        with pytest.raises(UnreadableAnswerError, match=r"more than 16,777,216 bytes"):
            await connect(server.base_url).aget_status(*LOOK)

    async def test_the_connection_is_looked_up_once(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hook = connect(server.base_url)
        await hook.aget_status(*LOOK)
        monkeypatch.delenv("AIRFLOW_CONN_ODIROUTER_DEFAULT")

        assert (await hook.aget_status(*LOOK)).state is RequestState.IN_QUEUE


class TestOneTransport:
    async def test_hooks_of_one_loop_share_their_connections(self, connect: Connect, server: RawServer) -> None:
        first, second = connect(server.base_url), connect(server.base_url, "another-key", conn_id="other")

        async with first, second:
            for hook in (first, second) * 5:
                await hook.aget_status(*LOOK)

        assert len(server.received) == 10
        assert server.connections == 1

    async def test_it_is_closed_when_the_last_leaves_and_not_before(self, connect: Connect, server: RawServer) -> None:
        first, second = connect(server.base_url), connect(server.base_url)

        async with first:
            async with second:
                await second.aget_status(*LOOK)
                await first.aget_status(*LOOK)
            await first.aget_status(*LOOK)
            assert server.connections == 1

        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    async def test_it_opens_again_after_it_was_closed(self, connect: Connect, server: RawServer) -> None:
        hook = connect(server.base_url)
        for _ in range(2):
            async with hook:
                await hook.aget_status(*LOOK)
                await hook.aget_status(*LOOK)

        assert [received.connection for received in server.received] == [1, 1, 2, 2]

    async def test_a_call_outside_of_async_with_leaves_nothing_open(self, connect: Connect, server: RawServer) -> None:
        await connect(server.base_url).aget_status(*LOOK)

        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    async def test_entering_and_leaving_without_a_call_does_nothing(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url):
            pass

        assert server.connections == 0

    async def test_it_is_closed_after_an_error_too(self, connect: Connect, server: RawServer) -> None:
        with suppress(RuntimeError):
            async with connect(server.base_url) as hook:
                await hook.aget_status(*LOOK)
                raise RuntimeError("Oops")

        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    def test_each_loop_has_one_of_its_own(self, connect: Connect, server: RawServer) -> None:
        hook = connect(server.base_url)

        async def look() -> None:
            async with hook:
                await hook.aget_status(*LOOK)

        asyncio.run(look())
        asyncio.run(look())

        assert [received.connection for received in server.received] == [1, 2]

    async def test_two_loops_at_the_same_time_do_not_meet(self, connect: Connect, server: RawServer) -> None:
        hook = connect(server.base_url)

        def look_in_a_thread() -> None:
            asyncio.run(self.look_often(connect(server.base_url, conn_id="other")))

        async with hook:
            await hook.aget_status(*LOOK)
            await asyncio.gather(asyncio.to_thread(look_in_a_thread), self.look_often(connect(server.base_url)))
            await hook.aget_status(*LOOK)

        assert server.connections == 2
        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    @staticmethod
    async def look_often(hook: OdiRouterHook) -> None:
        async with hook:
            for _ in range(5):
                await hook.aget_status(*LOOK)


class TestMany:
    @staticmethod
    def hang_on_request(exchange: Exchange) -> None:
        if "hangs" in exchange.received.target:
            exchange.wait_for_hang_up()
        else:
            exchange.answer_json(IN_QUEUE)

    async def test_dozens_that_are_cancelled_in_the_middle_leave_the_others_working(
        self, connect: Connect, serve: Serve
    ) -> None:
        server = serve(self.hang_on_request)
        hooks = [connect(server.base_url, conn_id=f"odirouter_{number}") for number in range(8)]

        async with hooks[0]:
            for round_ in range(4):
                hanging = [asyncio.create_task(self.look(hook, "mmsu_hangs")) for hook in hooks for _ in range(5)]
                await asyncio.to_thread(server.wait_for_calls, (round_ + 1) * len(hanging), "hangs")
                working = asyncio.gather(*[self.look(hook, "mmsu_works") for hook in hooks])
                for task in hanging:
                    task.cancel()
                ended = await asyncio.gather(*hanging, return_exceptions=True)
                assert all(isinstance(end, asyncio.CancelledError) for end in ended)
                assert await working == [RequestState.IN_QUEUE] * len(hooks)
            # More than it keeps connections were cancelled by now; none of them may be missing.
            async with asyncio.timeout(10):
                states = await asyncio.gather(*[self.look(hooks[0], "mmsu_works") for _ in range(120)])

        assert states == [RequestState.IN_QUEUE] * 120
        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    async def test_calls_that_run_into_their_timeout_leave_the_others_working(
        self, connect: Connect, serve: Serve
    ) -> None:
        server = serve(self.hang_on_request)
        hasty = connect(server.base_url, conn_id="hasty", timeout=0.1)
        patient = connect(server.base_url, conn_id="patient")

        async with hasty, patient:
            ended = await asyncio.gather(
                *[hasty.aget_status(ENDPOINT, "mmsu_hangs") for _ in range(120)], return_exceptions=True
            )
            status = await patient.aget_status(ENDPOINT, "mmsu_works")

        assert {type(end) for end in ended} == {NoAnswerError}
        assert status.state is RequestState.IN_QUEUE

    async def test_the_loop_goes_on_while_they_wait(self, connect: Connect, serve: Serve) -> None:
        def behave(exchange: Exchange) -> None:
            time.sleep(0.2)
            exchange.answer_json(IN_QUEUE)

        server = serve(behave)
        lags: list[float] = []

        async def watch() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                lags.append(time.monotonic() - before)

        async with connect(server.base_url) as hook:
            await hook.aget_status(*LOOK)
            watching = asyncio.create_task(watch())
            await asyncio.gather(*[hook.aget_status(*LOOK) for _ in range(30)])
            watching.cancel()

        assert len(lags) > 5

    @staticmethod
    async def look(hook: OdiRouterHook, request_id: str) -> RequestState:
        async with hook.twin() as own:
            return (await own.aget_status(ENDPOINT, request_id)).state


class TestProxies:
    """The environment's proxies are used as on a worker."""

    @staticmethod
    def proxy(serve: Serve) -> RawServer:
        return serve(lambda exchange: exchange.answer_json(IN_QUEUE))

    @pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
    async def test_a_proxy_passes_on_what_is_not_encrypted(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv(name, proxy.origin)
        hook = connect("http://api.example/model")

        await hook.aget_status(*LOOK)
        hook.get_status(*LOOK)

        assert len({received.target for received in proxy.received}) == 1
        assert proxy.received[0].target.startswith("http://api.example/model/v1/")

    async def test_a_proxy_that_is_named_without_a_scheme_is_found(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")

        await connect("http://api.example/model").aget_status(*LOOK)

        assert len(proxy.received) == 1

    async def test_a_proxys_own_password_goes_to_the_proxy(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv("HTTP_PROXY", f"http://user:word@127.0.0.1:{proxy.port}")
        hook = connect("http://api.example/model")

        await hook.aget_status(*LOOK)
        hook.get_status(*LOOK)

        assert {received.headers["proxy-authorization"] for received in proxy.received} == {"Basic dXNlcjp3b3Jk"}
        assert {received.headers["authorization"] for received in proxy.received} == {f"Bearer {KEY}"}

    async def test_a_proxy_does_not_see_the_key_of_what_is_encrypted(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = serve(lambda exchange: exchange.answer(status="403 Forbidden"))
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)

        with pytest.raises(NoAnswerError):
            await connect("https://api.example/model").aget_status(*LOOK)

        (received,) = proxy.received
        assert (received.method, received.target) == ("CONNECT", "api.example:443")
        assert KEY not in str(received)

    @pytest.mark.parametrize("exception", ["127.0.0.1", "*", "example.com, 127.0.0.1"])
    async def test_no_proxy_is_used_for_the_environments_exceptions(
        self, connect: Connect, serve: Serve, server: RawServer, monkeypatch: pytest.MonkeyPatch, exception: str
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", exception)

        await connect(server.base_url).aget_status(*LOOK)

        assert proxy.connections == 0
        assert len(server.received) == 1

    async def test_hooks_with_and_without_a_proxy_share_a_loop(
        self, connect: Connect, serve: Serve, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        near, far = connect(server.base_url, conn_id="near"), connect("http://api.example/model", conn_id="far")

        async with near, far:
            await asyncio.gather(*[hook.aget_status(*LOOK) for hook in (near, far) * 5])

        assert (len(server.received), len(proxy.received)) == (5, 5)


def test_an_exit_without_an_entry_does_nothing(connect: Connect, server: RawServer) -> None:
    async def leave() -> Any:
        return await connect(server.base_url).__aexit__(None, None, None)

    assert asyncio.run(leave()) is None
