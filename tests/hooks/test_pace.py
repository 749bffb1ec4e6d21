"""How fast a process looks: no faster than it may, and not at all while the service asks for quiet."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_odirouter.errors import RateLimitedError
from airflow_provider_odirouter.hooks import pace, transport
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.hooks.pace import Pace, looks_per_second
from airflow_provider_odirouter.hooks.settings import ConnectionSettings
from airflow_provider_odirouter.models import CancelOutcome, RequestState
from airflow_provider_odirouter.protocol import status
from tests.hooks.conftest import KEY, Connect, Logs, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange, RawServer

LOOK = ("nano_banana_2", "mmsu_1")
OPTION = "AIRFLOW__ODIROUTER__LOOKS_PER_SECOND"
SETTINGS = ConnectionSettings(api_key=KEY)


@pytest.fixture
def server(serve: Serve) -> RawServer:
    return serve(lambda exchange: exchange.answer_json(IN_QUEUE))


class TestTheOption:
    @pytest.fixture(autouse=True)
    def _nothing_was_said_yet(self) -> None:
        pace._rate.cache_clear()

    def test_it_is_100_looks_a_second_unless_somebody_says_so(self) -> None:
        assert looks_per_second() == 100.0

    @pytest.mark.parametrize(("text", "rate"), [("250", 250.0), ("0.5", 0.5), (" 20 ", 20.0), ("1e3", 1000.0)])
    def test_it_is_any_number_above_0(self, monkeypatch: pytest.MonkeyPatch, text: str, rate: float) -> None:
        monkeypatch.setenv(OPTION, text)

        assert looks_per_second() == rate

    @pytest.mark.parametrize("text", ["", "many", "0", "-5", "nan", "inf", "100 a second"])
    async def test_nonsense_is_named_once_and_stops_nobody(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch, logs: Logs, text: str
    ) -> None:
        monkeypatch.setenv(OPTION, text)

        assert (await connect(server.base_url).aget_status(*LOOK)).state is RequestState.IN_QUEUE
        assert (await connect(server.base_url).aget_status(*LOOK)).state is RequestState.IN_QUEUE

        assert looks_per_second() == 100.0
        [line] = [line for line in logs() if "looks_per_second" in line]
        assert line == (
            f"Airflow's option [odirouter] looks_per_second must be a number above 0, not {text!r}; "
            "100 is used instead."
        )


class TestTheCap:
    async def test_hooks_of_all_connections_share_it(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "20")
        hooks = [connect(server.base_url, f"key-{number}", conn_id=f"c{number}") for number in range(3)]
        hooks.append(connect(server.base_url, conn_id="blind", verify=False))

        began = time.monotonic()
        async with hooks[0], hooks[1], hooks[2], hooks[3]:
            await asyncio.gather(*[hook.aget_status(*LOOK) for hook in hooks * 3])

        assert len(server.received) == 12
        assert time.monotonic() - began >= 11 / 20 - 0.01

    async def test_a_cancel_does_not_wait_for_it(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "0.001")

        async with connect(server.base_url) as hook:
            await hook.aget_status(*LOOK)
            late = asyncio.create_task(hook.aget_status(*LOOK))
            async with asyncio.timeout(10):
                outcomes = [await hook.acancel(*LOOK) for _ in range(3)]
            late.cancel()
            await asyncio.wait([late])

        assert outcomes == [CancelOutcome.REQUESTED] * 3
        assert [received.method for received in server.received] == ["GET", "PUT", "PUT", "PUT"]

    async def test_the_wait_for_it_is_no_part_of_a_calls_timeout(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "2")

        async with connect(server.base_url, timeout=1) as hook:
            looks = await asyncio.gather(*[hook.aget_status(*LOOK) for _ in range(4)])

        assert len(looks) == 4

    async def test_a_worker_does_not_know_it(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "0.001")

        async with connect(server.base_url) as hook:
            await hook.aget_status(*LOOK)
            for _ in range(3):
                hook.get_status(*LOOK)

        assert len(server.received) == 4


class Slow:
    """A clock that moves only while somebody sleeps, and only when the test says so."""

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
    monkeypatch.setattr(pace, "time", slow)
    monkeypatch.setattr(pace, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": slow.sleep}))
    return slow


class TestTurns:
    @staticmethod
    def turn(of: Pace) -> asyncio.Task[None]:
        return asyncio.create_task(of.turn(status(SETTINGS.base_url, *LOOK), SETTINGS))

    async def test_the_first_comes_at_once_and_the_others_evenly_and_in_order(self, slow: Slow) -> None:
        one = Pace(1.0)
        turns = [self.turn(one) for _ in range(4)]
        await settle()
        assert [turn.done() for turn in turns] == [True, False, False, False]

        for done in range(2, 5):
            await slow.let_it_pass()
            assert [turn.done() for turn in turns] == [True] * done + [False] * (4 - done)

        assert slow.asked == [1.0, 1.0, 1.0]

    async def test_who_is_cancelled_in_the_queue_takes_no_turn_from_the_others(self, slow: Slow) -> None:
        one = Pace(1.0)
        _first, second, third, fourth = [self.turn(one) for _ in range(4)]
        await settle()

        third.cancel()  # in the queue
        second.cancel()  # at its head
        await settle()
        await slow.let_it_pass()

        assert fourth.done()
        assert slow.now == 1001.0

    async def test_time_in_which_nobody_looks_is_not_saved_up(self, slow: Slow) -> None:
        one = Pace(1.0)
        await self.turn(one)
        slow.now += 3600

        await self.turn(one)
        next_turn = self.turn(one)
        await settle()

        assert slow.asked == [pytest.approx(1.0, abs=0.01)]
        next_turn.cancel()

    async def test_a_little_lateness_of_each_does_not_add_up(self, slow: Slow) -> None:
        one = Pace(1.0)
        await self.turn(one)
        for _ in range(10):
            turn = self.turn(one)
            await settle()
            await slow.let_it_pass()
            await turn
            slow.now += 0.001

        assert slow.now == pytest.approx(1010.001)


def rate_limit(key: str, **headers: str) -> Any:
    """Answers ``429`` to the first call with this key, and to all others what it should."""
    told: list[str] = []

    def behave(exchange: Exchange) -> None:
        if exchange.received.headers["authorization"] == f"Bearer {key}" and not told:
            told.append(key)
            exchange.answer_json({"error": {"code": "RATE_LIMIT_EXCEEDED"}}, status="429 Too Many", **headers)
        else:
            exchange.answer_json(IN_QUEUE)

    return behave


class TestQuiet:
    @pytest.fixture
    def server(self, serve: Serve) -> RawServer:
        return serve(rate_limit(KEY, retry_after="30"))

    @staticmethod
    async def is_told(hook: OdiRouterHook) -> RateLimitedError:
        with pytest.raises(RateLimitedError) as caught:
            await hook.aget_status(*LOOK)
        return caught.value

    async def test_what_one_is_told_all_of_its_key_heed_at_once(self, connect: Connect, server: RawServer) -> None:
        first, second = connect(server.base_url), connect(server.base_url, conn_id="same_key", verify=False)

        async with first, second:
            await self.is_told(first)
            errors = [await self.is_told(hook) for hook in (first, second)]

        assert len(server.received) == 1
        assert all(25 < (error.retry_after or 0) <= 30 for error in errors)
        assert [error.status_code for error in errors] == [429, 429]
        assert str(errors[0]).startswith("OdiRouter's rate limit stops the status of nano_banana_2: it has asked for")

    async def test_other_keys_and_other_hosts_go_on(self, connect: Connect, server: RawServer) -> None:
        other_key = connect(server.base_url, "another-key", conn_id="other_key")
        other_host = connect(f"{server.origin}/elsewhere", conn_id="other_host")

        async with connect(server.base_url) as hook, other_key, other_host:
            await self.is_told(hook)
            assert (await other_key.aget_status(*LOOK)).state is RequestState.IN_QUEUE
            assert (await other_host.aget_status(*LOOK)).state is RequestState.IN_QUEUE

    async def test_those_who_wait_for_their_turn_heed_it_too(
        self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(OPTION, "1")

        async with connect(server.base_url) as hook:
            ended = await asyncio.gather(*[hook.aget_status(*LOOK) for _ in range(20)], return_exceptions=True)

        assert {type(end) for end in ended} == {RateLimitedError}
        assert len(server.received) == 1

    async def test_it_ends(self, connect: Connect, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
        async with connect(server.base_url) as hook:
            await self.is_told(hook)
            monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 31))

            assert (await hook.aget_status(*LOOK)).state is RequestState.IN_QUEUE

    async def test_a_cancel_and_a_worker_are_not_held_up(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url) as hook:
            await self.is_told(hook)

            assert await hook.acancel(*LOOK) is CancelOutcome.REQUESTED
            assert hook.get_status(*LOOK).state is RequestState.IN_QUEUE

    async def test_what_a_cancel_is_told_looks_heed_as_well(
        self, connect: Connect, server: RawServer, pauses: Pauses
    ) -> None:
        async with connect(server.base_url) as hook:
            assert await hook.acancel(*LOOK) is CancelOutcome.REQUESTED
            await self.is_told(hook)

        assert pauses.total >= 30
        assert [received.method for received in server.received] == ["PUT", "PUT"]

    @pytest.mark.parametrize("headers", [{}, {"retry_after": "0"}, {"retry_after": "soon"}])
    async def test_a_limit_that_names_no_time_holds_up_nobody(
        self, connect: Connect, serve: Serve, headers: dict[str, str]
    ) -> None:
        server = serve(rate_limit(KEY, **headers))

        async with connect(server.base_url) as hook:
            await self.is_told(hook)
            assert (await hook.aget_status(*LOOK)).state is RequestState.IN_QUEUE

    async def test_the_longest_that_was_asked_for_counts(self) -> None:
        one, call = Pace(100.0), status(SETTINGS.base_url, *LOOK)
        for seconds in (5.0, 60.0, 20.0):
            error = RateLimitedError("Too many.", status_code=429)
            error.retry_after = seconds
            one.learn(error, SETTINGS)

        with pytest.raises(RateLimitedError) as caught:
            await one.turn(call, SETTINGS)
        assert caught.value.retry_after == pytest.approx(60.0, abs=5)

    async def test_the_key_itself_is_not_remembered(self, connect: Connect, server: RawServer) -> None:
        async with connect(server.base_url) as hook:
            await self.is_told(hook)
            [of_loop] = transport._shared.values()

            assert KEY not in str(vars(of_loop.pace))
            assert len(vars(of_loop.pace)["_quiet_until"]) == 1

    async def test_when_nobody_waits_any_more_it_is_forgotten(self, connect: Connect, server: RawServer) -> None:
        await self.is_told(connect(server.base_url))

        assert (await connect(server.base_url).aget_status(*LOOK)).state is RequestState.IN_QUEUE
