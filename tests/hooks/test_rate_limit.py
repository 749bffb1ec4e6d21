"""The limit of polls per second, and the pause that a ``Retry-After`` asks for."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_odirouter.errors import RateLimitedError
from airflow_provider_odirouter.hooks import async_transport, rate_limit
from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.hooks.rate_limit import RateLimit, max_polls_per_second
from airflow_provider_odirouter.lifecycle.polling import Wait
from airflow_provider_odirouter.lifecycle.wait import wait_for
from airflow_provider_odirouter.models import CancelOutcome, Ending, RequestState
from airflow_provider_odirouter.protocol import status
from tests.hooks.conftest import KEY, Connect, Logs, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange, RawServer

REQUEST = ("nano_banana_2", "mmsu_1")
OPTION = "AIRFLOW__ODIROUTER__MAX_POLLS_PER_SECOND"
SETTINGS = ConnectionSettings(api_key=KEY)


@pytest.fixture
def server(serve: Serve) -> RawServer:
    return serve(lambda exchange: exchange.answer_json(IN_QUEUE))


class TestOption:
    @pytest.fixture(autouse=True)
    def _nothing_was_logged_yet(self) -> None:
        rate_limit._parse_rate.cache_clear()

    def test_the_default_is_100_polls_per_second(self) -> None:
        assert max_polls_per_second() == 100.0

    @pytest.mark.parametrize(("text", "rate"), [("250", 250.0), ("0.5", 0.5), (" 20 ", 20.0), ("1e3", 1000.0)])
    def test_any_number_above_0_is_accepted(self, monkeypatch: pytest.MonkeyPatch, text: str, rate: float) -> None:
        monkeypatch.setenv(OPTION, text)

        assert max_polls_per_second() == rate

    @pytest.mark.parametrize("text", ["", "many", "0", "-5", "nan", "inf", "100 a second"])
    async def test_an_invalid_value_is_logged_once_and_the_default_used(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch, logs: Logs, text: str
    ) -> None:
        monkeypatch.setenv(OPTION, text)

        assert (await connect(server.base_url).aget_status(*REQUEST)).state is RequestState.IN_QUEUE
        assert (await connect(server.base_url).aget_status(*REQUEST)).state is RequestState.IN_QUEUE

        assert max_polls_per_second() == 100.0
        [line] = [line for line in logs() if "max_polls_per_second" in line]
        assert line == (
            f"Airflow's option [odirouter] max_polls_per_second must be a number above 0, not {text!r}; "
            "100 is used instead."
        )


class TestLimit:
    async def test_hooks_of_all_connections_share_it(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "20")
        hooks = [connect(server.base_url, f"key-{number}", conn_id=f"c{number}") for number in range(3)]
        hooks.append(connect(server.base_url, conn_id="blind", verify=False))

        began = time.monotonic()
        async with hooks[0], hooks[1], hooks[2], hooks[3]:
            await asyncio.gather(*[hook.aget_status(*REQUEST) for hook in hooks * 3])

        assert len(server.received) == 12
        assert time.monotonic() - began >= 11 / 20 - 0.01

    async def test_a_cancel_does_not_wait_for_it(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "0.001")

        async with connect(server.base_url) as hook:
            await hook.aget_status(*REQUEST)
            late = asyncio.create_task(hook.aget_status(*REQUEST))
            async with asyncio.timeout(60):
                outcomes = [await hook.acancel(*REQUEST) for _ in range(3)]
            late.cancel()
            await asyncio.wait([late])

        assert outcomes == [CancelOutcome.REQUESTED] * 3
        assert [received.method for received in server.received] == ["GET", "PUT", "PUT", "PUT"]

    async def test_the_wait_for_it_does_not_count_as_timeout(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "1")

        async with connect(server.base_url, timeout=2) as hook:
            polls = await asyncio.gather(*[hook.aget_status(*REQUEST) for _ in range(4)])

        assert len(polls) == 4

    async def test_it_does_not_limit_a_worker(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "0.001")

        async with connect(server.base_url) as hook:
            await hook.aget_status(*REQUEST)
            for _ in range(3):
                hook.get_status(*REQUEST)

        assert len(server.received) == 4


class Slow:
    """A clock that moves only during a sleep, and only when the test lets it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[float] = []
        self._passed: asyncio.Future[None] | None = None

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.asked.append(round(seconds, 3))
        until = self.now + seconds
        self._passed = asyncio.get_running_loop().create_future()
        await self._passed
        self.now = until

    async def let_it_pass(self) -> None:
        assert self._passed is not None
        self._passed.set_result(None)
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(rate_limit, "time", slow)
    monkeypatch.setattr(rate_limit, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": slow.sleep}))
    return slow


class TestOrder:
    @staticmethod
    def wait(rate_limit: RateLimit) -> asyncio.Task[None]:
        return asyncio.create_task(rate_limit.acquire(status(SETTINGS.base_url, *REQUEST), SETTINGS))

    async def test_the_first_poll_is_sent_at_once_and_the_others_evenly(self, slow: Slow) -> None:
        one = RateLimit(1.0)
        polls = [self.wait(one) for _ in range(4)]
        await settle()
        assert [poll.done() for poll in polls] == [True, False, False, False]

        for done in range(2, 5):
            await slow.let_it_pass()
            assert [poll.done() for poll in polls] == [True] * done + [False] * (4 - done)

        assert slow.asked == [1.0, 1.0, 1.0]

    async def test_a_cancelled_poll_does_not_delay_the_others(self, slow: Slow) -> None:
        one = RateLimit(1.0)
        _first, second, third, fourth = [self.wait(one) for _ in range(4)]
        await settle()

        third.cancel()  # in the queue
        second.cancel()  # at its head
        await settle()
        await slow.let_it_pass()

        assert fourth.done()
        assert slow.now == 1001.0

    async def test_idle_time_allows_no_burst(self, slow: Slow) -> None:
        one = RateLimit(1.0)
        await self.wait(one)
        slow.now += 3600

        await self.wait(one)
        next_poll = self.wait(one)
        await settle()

        assert slow.asked == [pytest.approx(1.0, abs=0.01)]
        next_poll.cancel()

    async def test_small_delays_do_not_add_up(self, slow: Slow) -> None:
        one = RateLimit(1.0)
        await self.wait(one)
        for _ in range(10):
            poll = self.wait(one)
            await settle()
            await slow.let_it_pass()
            await poll
            slow.now += 0.001

        assert slow.now == pytest.approx(1010.001)


def limit_key(key: str, **headers: str) -> Any:
    """Answers ``429`` to the first call with this key, and a status to all others."""
    limited: list[str] = []

    def behave(exchange: Exchange) -> None:
        if exchange.received.headers["authorization"] == f"Bearer {key}" and not limited:
            limited.append(key)
            exchange.answer_json({"error": {"code": "RATE_LIMIT_EXCEEDED"}}, status="429 Too Many", **headers)
        else:
            exchange.answer_json(IN_QUEUE)

    return behave


class TestRetryAfter:
    @pytest.fixture
    def server(self, serve: Serve) -> RawServer:
        return serve(limit_key(KEY, retry_after="30"))

    @staticmethod
    async def is_limited(hook: OdiRouterHook) -> RateLimitedError:
        with pytest.raises(RateLimitedError) as caught:
            await hook.aget_status(*REQUEST)
        return caught.value

    async def test_one_answer_stops_all_polls_with_the_same_key(self, connect: Connect, server: RawServer) -> None:
        first, second = connect(server.base_url), connect(server.base_url, conn_id="same_key", verify=False)

        async with first, second:
            await self.is_limited(first)
            errors = [await self.is_limited(hook) for hook in (first, second)]

        assert len(server.received) == 1
        assert all(25 < (error.retry_after or 0) <= 30 for error in errors)
        assert [error.status_code for error in errors] == [429, 429]
        assert str(errors[0]).startswith("OdiRouter's rate limit stops the status of nano_banana_2: its Retry-After")

    async def test_polls_with_other_keys_and_hosts_continue(self, connect: Connect, server: RawServer) -> None:
        other_key = connect(server.base_url, "another-key", conn_id="other_key")
        other_host = connect(f"{server.origin}/elsewhere", conn_id="other_host")

        async with connect(server.base_url) as hook, other_key, other_host:
            await self.is_limited(hook)
            assert (await other_key.aget_status(*REQUEST)).state is RequestState.IN_QUEUE
            assert (await other_host.aget_status(*REQUEST)).state is RequestState.IN_QUEUE

    async def test_it_stops_polls_that_already_wait(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "1")

        async with connect(server.base_url) as hook:
            ended = await asyncio.gather(*[hook.aget_status(*REQUEST) for _ in range(20)], return_exceptions=True)

        assert {type(end) for end in ended} == {RateLimitedError}
        assert len(server.received) == 1

    async def test_polls_continue_after_it(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with connect(server.base_url) as hook:
            await self.is_limited(hook)
            monkeypatch.setattr(rate_limit, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 31))

            assert (await hook.aget_status(*REQUEST)).state is RequestState.IN_QUEUE

    async def test_it_does_not_stop_a_cancel_or_a_worker(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url) as hook:
            await self.is_limited(hook)

            assert await hook.acancel(*REQUEST) is CancelOutcome.REQUESTED
            assert hook.get_status(*REQUEST).state is RequestState.IN_QUEUE

    async def test_it_does_not_stop_a_final_poll(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url) as hook:
            await self.is_limited(hook)

            assert (await hook.aget_status(*REQUEST, is_final=True)).state is RequestState.IN_QUEUE

    async def test_a_wait_whose_deadline_passes_meanwhile_ends_with_a_poll(
        self, connect: Connect, server: RawServer
    ) -> None:
        wait = Wait(*REQUEST, poll_interval=5.0, deadline=time.time(), cancel_on_timeout=False)

        async with connect(server.base_url) as hook:
            await self.is_limited(hook)
            event = await wait_for(hook, wait, first_poll_delay=0.0, note=lambda _: None)

        assert event.ending is Ending.TIMED_OUT
        assert len(server.received) == 2

    async def test_the_answer_to_a_cancel_stops_polls_too(
        self, connect: Connect, server: RawServer, pauses: Pauses
    ) -> None:
        async with connect(server.base_url) as hook:
            assert await hook.acancel(*REQUEST) is CancelOutcome.REQUESTED
            await self.is_limited(hook)

        assert pauses.total >= 30
        assert [received.method for received in server.received] == ["PUT", "PUT"]

    @pytest.mark.parametrize("headers", [{}, {"retry_after": "0"}, {"retry_after": "soon"}])
    async def test_a_429_without_it_stops_no_other_poll(
        self, connect: Connect, serve: Serve, headers: dict[str, str]
    ) -> None:
        server = serve(limit_key(KEY, **headers))

        async with connect(server.base_url) as hook:
            await self.is_limited(hook)
            assert (await hook.aget_status(*REQUEST)).state is RequestState.IN_QUEUE

    async def test_the_longest_one_counts(self) -> None:
        one, call = RateLimit(100.0), status(SETTINGS.base_url, *REQUEST)
        for seconds in (5.0, 60.0, 20.0):
            error = RateLimitedError("Too many.", status_code=429)
            error.retry_after = seconds
            one.note_retry_after(error, SETTINGS)

        with pytest.raises(RateLimitedError) as caught:
            await one.acquire(call, SETTINGS)
        assert caught.value.retry_after == pytest.approx(60.0, abs=5)

    async def test_the_key_itself_is_not_stored(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url) as hook:
            await self.is_limited(hook)
            [loop_state] = async_transport._shared.values()

            assert KEY not in str(vars(loop_state.rate_limit))
            assert len(vars(loop_state.rate_limit)["_paused_until"]) == 1

    async def test_it_is_forgotten_after_the_last_user(self, connect: Connect, server: RawServer) -> None:
        await self.is_limited(connect(server.base_url))

        assert (await connect(server.base_url).aget_status(*REQUEST)).state is RequestState.IN_QUEUE
