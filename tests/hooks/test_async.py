"""The triggerer's calls: many hooks share one transport, and none is disturbed when another ends."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from airflow_provider_odirouter.errors import (
    AuthenticationError,
    InvalidParametersError,
    NoAnswerError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.hooks import async_transport
from airflow_provider_odirouter.hooks.async_transport import MAX_CONNECTIONS
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import CancelOutcome, RequestState
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.conftest import KEY, Connect, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange, RawServer

ENDPOINT = "nano_banana_2"
REQUEST = (ENDPOINT, "mmsu_1")


@pytest.fixture
def server(serve: Serve) -> RawServer:
    return serve(lambda exchange: exchange.answer_json(IN_QUEUE))


class TestCalls:
    async def test_a_poll_returns_the_same_as_on_a_worker(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        sandbox.configure(run_seconds=60)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id

        # Its logs and progress differ from moment to moment.
        assert (await hook.aget_status(ENDPOINT, request_id)).state is hook.get_status(ENDPOINT, request_id).state
        assert (await hook.aget_status(ENDPOINT, request_id)).state is RequestState.IN_PROGRESS

    async def test_a_failed_poll_is_not_repeated(self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses) -> None:
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        sandbox.configure(server_errors=None)

        with pytest.raises(ServiceError):
            await hook.aget_status(ENDPOINT, request_id)

        assert [entry.action for entry in sandbox.journal] == ["submit", "status"]
        assert pauses.taken == []

    async def test_a_poll_sends_our_user_agent(self, connect: Connect, server: RawServer) -> None:
        await connect(server.base_url).aget_status(*REQUEST)

        (received,) = server.received
        assert (received.method, received.target) == ("GET", f"/model/v1/queue/{ENDPOINT}/requests/mmsu_1/status")
        assert received.headers["authorization"] == f"Bearer {KEY}"
        assert received.headers["user-agent"].startswith("airflow-provider-odirouter/")
        assert received.headers["accept-encoding"] == "identity"
        assert "content-type" not in received.headers

    async def test_a_cancel_is_a_put_without_a_body(self, connect: Connect, server: RawServer) -> None:
        await connect(server.base_url).acancel(*REQUEST)

        (received,) = server.received
        assert (received.method, received.target) == ("PUT", f"/model/v1/queue/{ENDPOINT}/requests/mmsu_1/cancel")
        assert received.headers["content-length"] == "0"
        assert "content-type" not in received.headers

    async def test_a_cancel_is_repeated_after_a_transient_error(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses
    ) -> None:
        sandbox.configure(run_seconds=600)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        sandbox.configure(server_errors=2)

        assert await hook.acancel(ENDPOINT, request_id) is CancelOutcome.REQUESTED
        assert len(pauses.taken) == 2
        assert sandbox.requests[0].cancel_requested

    async def test_a_cancel_is_repeated_for_at_most_20_seconds(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses
    ) -> None:
        sandbox.configure(drop_next=None)

        with pytest.raises(NoAnswerError):
            await hook.acancel(*REQUEST)

        assert 5 <= pauses.total <= 20

    async def test_a_cancel_that_comes_too_late_is_not_an_error(self, hook: OdiRouterHook) -> None:
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id

        assert await hook.acancel(ENDPOINT, request_id) is CancelOutcome.ALREADY_COMPLETED

    async def test_an_error_names_a_wrong_key(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        sandbox.configure(api_key="another")

        with pytest.raises(AuthenticationError):
            await hook.aget_status(*REQUEST)

    async def test_an_invalid_request_id_is_refused_before_sending(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        with pytest.raises(InvalidParametersError):
            await hook.acancel(ENDPOINT, "../../admin")

        assert sandbox.journal == []

    async def test_compressed_answers_are_read(self, connect: Connect, serve: Serve) -> None:
        body = gzip.compress(b'{"status": "IN_PROGRESS"}')
        server = serve(lambda exchange: exchange.answer(body, content_encoding="gzip"))

        assert (await connect(server.base_url).aget_status(*REQUEST)).state is RequestState.IN_PROGRESS

    async def test_answers_of_more_than_16_mib_are_refused(self, connect: Connect, serve: Serve) -> None:
        body = b'{"status": "IN_QUEUE", "logs": "' + b" " * 16 * 2**20 + b'"}'
        server = serve(lambda exchange: exchange.answer(body))

        with pytest.raises(UnreadableAnswerError, match=r"more than 16,777,216 bytes"):
            await connect(server.base_url).aget_status(*REQUEST)

    async def test_the_connection_is_read_once(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hook = connect(server.base_url)
        await hook.aget_status(*REQUEST)
        monkeypatch.delenv("AIRFLOW_CONN_ODIROUTER_DEFAULT")

        assert (await hook.aget_status(*REQUEST)).state is RequestState.IN_QUEUE

    async def test_a_hundred_first_calls_at_once_read_the_connection_once(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look_up, looked_up = OdiRouterHook.aget_connection, []

        async def look_up_slowly(conn_id: str) -> Any:
            looked_up.append(conn_id)
            await asyncio.sleep(0.05)
            return await look_up(conn_id)

        monkeypatch.setattr(OdiRouterHook, "aget_connection", staticmethod(look_up_slowly))
        async with connect(server.base_url) as hook:
            await asyncio.gather(*[hook.acancel(*REQUEST) for _ in range(100)])

        assert looked_up == ["odirouter_default"]

    async def test_a_call_cancelled_while_it_reads_the_connection_leaves_that_to_the_next(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look_up, begun = OdiRouterHook.aget_connection, asyncio.Event()

        async def look_up_slowly(conn_id: str) -> Any:
            begun.set()
            await asyncio.sleep(0.05)
            return await look_up(conn_id)

        monkeypatch.setattr(OdiRouterHook, "aget_connection", staticmethod(look_up_slowly))
        async with connect(server.base_url) as hook:
            first, second = (asyncio.create_task(hook.aget_status(*REQUEST)) for _ in range(2))
            await begun.wait()
            first.cancel()
            assert (await second).state is RequestState.IN_QUEUE

    async def test_a_base_url_is_encoded_as_on_a_worker(self, connect: Connect, server: RawServer) -> None:
        hook = connect(f"{server.origin}/modèle-d'été/")

        hook.get_status(*REQUEST)
        await hook.aget_status(*REQUEST)

        assert {received.target.partition("/v1/")[0] for received in server.received} == {
            "/mod%C3%A8le-d'%C3%A9t%C3%A9"
        }


class TestOneTransport:
    async def test_hooks_of_one_loop_share_their_connections(self, connect: Connect, server: RawServer) -> None:
        first, second = connect(server.base_url), connect(server.base_url, "another-key", conn_id="other")

        async with first, second:
            for hook in (first, second) * 5:
                await hook.aget_status(*REQUEST)

        assert len(server.received) == 10
        assert server.connections == 1

    async def test_it_closes_when_its_last_user_leaves(self, connect: Connect, server: RawServer) -> None:
        first, second = connect(server.base_url), connect(server.base_url)

        async with first:
            async with second:
                await second.aget_status(*REQUEST)
                await first.aget_status(*REQUEST)
            await first.aget_status(*REQUEST)
            assert server.connections == 1

        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    async def test_it_opens_again_after_it_has_closed(self, connect: Connect, server: RawServer) -> None:
        hook = connect(server.base_url)
        for _ in range(2):
            async with hook:
                await hook.aget_status(*REQUEST)
                await hook.aget_status(*REQUEST)

        assert [received.connection for received in server.received] == [1, 1, 2, 2]

    async def test_a_call_outside_of_async_with_leaves_nothing_open(self, connect: Connect, server: RawServer) -> None:
        await connect(server.base_url).aget_status(*REQUEST)

        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    async def test_entering_and_leaving_without_a_call_does_nothing(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url):
            pass

        assert server.connections == 0

    async def test_it_closes_after_an_error(self, connect: Connect, server: RawServer) -> None:
        with suppress(RuntimeError):
            async with connect(server.base_url) as hook:
                await hook.aget_status(*REQUEST)
                raise RuntimeError("Oops")

        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    def test_each_loop_has_its_own(self, connect: Connect, server: RawServer) -> None:
        hook = connect(server.base_url)

        async def poll() -> None:
            async with hook:
                await hook.aget_status(*REQUEST)

        asyncio.run(poll())
        asyncio.run(poll())

        assert [received.connection for received in server.received] == [1, 2]

    async def test_two_loops_at_the_same_time_do_not_share_one(self, connect: Connect, server: RawServer) -> None:
        hook = connect(server.base_url)

        def poll_in_a_thread() -> None:
            asyncio.run(self.poll_often(connect(server.base_url, conn_id="other")))

        async with hook:
            await hook.aget_status(*REQUEST)
            await asyncio.gather(asyncio.to_thread(poll_in_a_thread), self.poll_often(connect(server.base_url)))
            await hook.aget_status(*REQUEST)

        assert server.connections == 2
        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    async def test_a_forked_process_has_its_own(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url) as hook:
            await hook.aget_status(*REQUEST)
            child = os.fork()
            if not child:
                with suppress(BaseException):
                    signal.alarm(10)
                    # The connection is already read: Airflow reads it in a thread, and a fork has no threads.
                    asyncio.run(self.poll_often(hook.with_own_client()))
                    os._exit(0)
                os._exit(1)
            await self.poll_often(connect(server.base_url))
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            await hook.aget_status(*REQUEST)

        assert os.waitstatus_to_exitcode(status) == 0
        connections = [received.connection for received in server.received]
        assert (connections.count(1), connections.count(2)) == (7, 5)

    async def test_nothing_is_kept_after_the_last_user(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url) as hook:
            await hook.aget_status(*REQUEST)
            assert len(async_transport._shared) == 1

        assert async_transport._shared == {}

    @staticmethod
    async def poll_often(hook: OdiRouterHook) -> None:
        async with hook:
            for _ in range(5):
                await hook.aget_status(*REQUEST)


class TestMany:
    @pytest.fixture(autouse=True)
    def _fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__ODIROUTER__MAX_POLLS_PER_SECOND", "10000")

    @staticmethod
    def hang_on_request(exchange: Exchange) -> None:
        if "hangs" in exchange.received.target and exchange.received.method == "GET":
            exchange.wait_for_hang_up()
        else:
            exchange.answer_json(IN_QUEUE)

    @staticmethod
    @asynccontextmanager
    async def hanging(hook: OdiRouterHook, server: RawServer) -> AsyncIterator[list[asyncio.Task[Any]]]:
        """As many polls as there are connections; none is answered."""
        before = len(server.received)
        polls = [asyncio.create_task(hook.aget_status(ENDPOINT, "mmsu_hangs")) for _ in range(MAX_CONNECTIONS)]
        assert await asyncio.to_thread(server.wait_for_calls, before + MAX_CONNECTIONS)
        yield polls
        for poll in polls:
            poll.cancel()
        ended = await asyncio.gather(*polls, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)

    async def test_500_cancelled_polls_leave_100_others_working(self, connect: Connect, serve: Serve) -> None:
        server = serve(self.hang_on_request)
        hooks = [connect(server.base_url, conn_id=f"odirouter_{number}") for number in range(5)]

        async with hooks[0], asyncio.timeout(30):
            await hooks[0].aget_status(ENDPOINT, "mmsu_works")  # holds the transport from now on
            for hook in hooks:
                async with hook.with_own_client() as killed, self.hanging(killed, server):
                    # They get the slots of the cancelled polls.
                    waiting = [asyncio.create_task(self.poll(own, "mmsu_works")) for own in hooks]
                assert await asyncio.gather(*waiting) == [RequestState.IN_QUEUE] * 5
            states = await asyncio.gather(*[self.poll(hooks[0], "mmsu_works") for _ in range(100)])

        assert states == [RequestState.IN_QUEUE] * 100
        assert await asyncio.to_thread(server.wait_until_all_are_gone)

    async def test_a_thousand_calls_at_once_share_a_hundred_connections(self, connect: Connect, serve: Serve) -> None:
        def behave(exchange: Exchange) -> None:
            time.sleep(0.05)
            exchange.answer_json(IN_QUEUE)

        server = serve(behave)

        async with connect(server.base_url) as hook:
            polls = await asyncio.gather(*[hook.aget_status(ENDPOINT, f"mmsu_{number}") for number in range(1000)])
            cancels = await asyncio.gather(*[hook.acancel(ENDPOINT, f"mmsu_{number}") for number in range(1000)])

        assert {poll.state for poll in polls} == {RequestState.IN_QUEUE}
        assert set(cancels) == {CancelOutcome.REQUESTED}
        assert len({(received.method, received.target) for received in server.received}) == 2000
        assert server.connections <= 2 * MAX_CONNECTIONS

    async def test_the_timeout_of_a_call_begins_when_it_has_a_connection(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(async_transport, "MAX_CONNECTIONS", 1)

        def behave(exchange: Exchange) -> None:
            time.sleep(0.5)
            exchange.answer_json(IN_QUEUE)

        async with connect(serve(behave).base_url, timeout=2) as hook:
            polls = await asyncio.gather(*[hook.aget_status(*REQUEST) for _ in range(5)])

        assert len(polls) == 5

    async def test_a_poll_that_waits_too_long_for_a_connection_is_not_sent(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(async_transport, "MAX_QUEUE_SECONDS", 0.1)
        server = serve(self.hang_on_request)

        async with connect(server.base_url) as hook:
            async with self.hanging(hook, server):
                with pytest.raises(NoAnswerError):
                    await hook.aget_status(ENDPOINT, "mmsu_works")
            polls = await asyncio.gather(*[hook.aget_status(ENDPOINT, "mmsu_works") for _ in range(MAX_CONNECTIONS)])

        assert len(polls) == MAX_CONNECTIONS
        assert len(server.received) == 2 * MAX_CONNECTIONS

    async def test_a_cancel_does_not_wait_for_polls_that_hang(self, connect: Connect, serve: Serve) -> None:
        server = serve(self.hang_on_request)

        async with connect(server.base_url) as hook, self.hanging(hook, server):
            async with asyncio.timeout(60):
                outcome = await hook.acancel(ENDPOINT, "mmsu_hangs")

        assert outcome is CancelOutcome.REQUESTED

    async def test_calls_that_time_out_leave_the_others_working(self, connect: Connect, serve: Serve) -> None:
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

    async def test_the_loop_runs_while_polls_wait(self, connect: Connect, serve: Serve) -> None:
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
            await hook.aget_status(*REQUEST)
            watching = asyncio.create_task(watch())
            await asyncio.gather(*[hook.aget_status(*REQUEST) for _ in range(30)])
            watching.cancel()

        assert len(lags) > 5

    @staticmethod
    async def poll(hook: OdiRouterHook, request_id: str) -> RequestState:
        async with hook.with_own_client() as own:
            return (await own.aget_status(ENDPOINT, request_id)).state


class TestProxies:
    """The environment's proxies are used as on a worker."""

    @staticmethod
    def proxy(serve: Serve) -> RawServer:
        return serve(lambda exchange: exchange.answer_json(IN_QUEUE))

    @pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
    async def test_plain_http_goes_through_the_proxy(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv(name, proxy.origin)
        hook = connect("http://api.example/model")

        await hook.aget_status(*REQUEST)
        hook.get_status(*REQUEST)

        assert len({received.target for received in proxy.received}) == 1
        assert proxy.received[0].target.startswith("http://api.example/model/v1/")

    async def test_a_proxy_may_be_named_without_a_scheme(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")

        await connect("http://api.example/model").aget_status(*REQUEST)

        assert len(proxy.received) == 1

    async def test_the_proxys_password_goes_to_the_proxy(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv("HTTP_PROXY", f"http://user:word@127.0.0.1:{proxy.port}")
        hook = connect("http://api.example/model")

        await hook.aget_status(*REQUEST)
        hook.get_status(*REQUEST)

        assert {received.headers["proxy-authorization"] for received in proxy.received} == {"Basic dXNlcjp3b3Jk"}
        assert {received.headers["authorization"] for received in proxy.received} == {f"Bearer {KEY}"}

    async def test_a_proxy_does_not_see_the_key_of_a_call_over_https(
        self, connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = serve(lambda exchange: exchange.answer(status="403 Forbidden"))
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)

        with pytest.raises(NoAnswerError):
            await connect("https://api.example/model").aget_status(*REQUEST)

        (received,) = proxy.received
        assert (received.method, received.target) == ("CONNECT", "api.example:443")
        assert KEY not in str(received)

    @pytest.mark.parametrize("exception", ["127.0.0.1", "*", "example.com, 127.0.0.1"])
    async def test_no_proxy_hosts_are_reached_directly(
        self, connect: Connect, serve: Serve, server: RawServer, monkeypatch: pytest.MonkeyPatch, exception: str
    ) -> None:
        proxy = self.proxy(serve)
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", exception)

        await connect(server.base_url).aget_status(*REQUEST)

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
            await asyncio.gather(*[hook.aget_status(*REQUEST) for hook in (near, far) * 5])

        assert (len(server.received), len(proxy.received)) == (5, 5)


def test_aexit_without_aenter_does_nothing(connect: Connect, server: RawServer) -> None:
    async def leave() -> Any:
        return await connect(server.base_url).__aexit__(None, None, None)

    assert asyncio.run(leave()) is None
