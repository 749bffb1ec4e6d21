"""A key that is rotated while requests wait: after a refusal, the connection is read again, a few times at most."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import AuthenticationError, ConnectionNotFoundError, ConnectionSettingsError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import CancelOutcome, RequestState
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.conftest import Connect, Logs, Serve
from tests.hooks.raw_server import Exchange, RawServer

ENDPOINT, ID = "nano_banana_2", "mmsu_1"
OLD, NEW = "sk-the-old-key", "sk-the-new-key"
VARIABLE = "AIRFLOW_CONN_ODIROUTER_DEFAULT"

Rotate = Callable[..., None]

CALLS: dict[str, Callable[[OdiRouterHook], Any]] = {
    "submit": lambda hook: hook.submit(ENDPOINT, {"prompt": "Blue"}),
    "status": lambda hook: hook.get_status(ENDPOINT, ID),
    "result": lambda hook: hook.get_result(ENDPOINT, ID),
    "cancel": lambda hook: hook.cancel(ENDPOINT, ID),
    "status in the triggerer": lambda hook: asyncio.run(hook.aget_status(ENDPOINT, ID)),
    "cancel in the triggerer": lambda hook: asyncio.run(hook.acancel(ENDPOINT, ID)),
}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Callable[[OdiRouterHook], Any]:
    """Each call, on a worker and in the triggerer."""
    return CALLS[request.param]


class Service:
    """Accepts one key, and records the keys that it receives."""

    def __init__(self, serve: Serve, key: str | None) -> None:
        self.key = key
        self.server: RawServer = serve(self.answer)

    def answer(self, exchange: Exchange) -> None:
        if exchange.received.headers["authorization"] == f"Bearer {self.key}":
            exchange.answer_json({"request_id": ID, "status": "IN_QUEUE"})
        else:
            exchange.answer_json({"error": "invalid_api_key"}, status="401 Unauthorized")

    @property
    def keys(self) -> list[str]:
        return [received.headers["authorization"].removeprefix("Bearer ") for received in self.server.received]


@pytest.fixture
def service(serve: Serve) -> Service:
    """A service that accepts only the new key."""
    return Service(serve, NEW)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each read of the connection from Airflow."""
    found: list[str] = []
    get, aget = OdiRouterHook.get_connection, OdiRouterHook.aget_connection

    def get_connection(conn_id: str) -> Any:
        found.append(threading.current_thread().name)
        return get(conn_id)

    async def aget_connection(conn_id: str) -> Any:
        found.append("asynchronously")
        await asyncio.sleep(0.01)
        return await aget(conn_id)

    monkeypatch.setattr(OdiRouterHook, "get_connection", staticmethod(get_connection))
    monkeypatch.setattr(OdiRouterHook, "aget_connection", staticmethod(aget_connection))
    return found


@pytest.fixture
def rotate(monkeypatch: pytest.MonkeyPatch) -> Rotate:
    """Changes the connection: ``rotate(host, key, **extra)``."""

    def change(host: str, key: str = NEW, **extra: Any) -> None:
        document = {"conn_type": "odirouter", "host": host, "password": key, "extra": extra}
        monkeypatch.setenv(VARIABLE, json.dumps(document))

    return change


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ODIROUTER__MAX_POLLS_PER_SECOND", "1000")


def connected(connect: Connect, service: Service) -> OdiRouterHook:
    """A hook that has read the old key."""
    hook = connect(service.server.base_url, OLD)
    hook.prepare()
    return hook


def test_each_call_is_sent_again_with_the_new_key(
    call: Callable[[OdiRouterHook], Any],
    connect: Connect,
    service: Service,
    rotate: Rotate,
    reads: list[str],
    logs: Logs,
) -> None:
    hook = connected(connect, service)
    rotate(service.server.base_url)

    call(hook)
    call(hook)

    assert service.keys == [OLD, NEW, NEW]
    assert len(reads) == 2
    assert len([line for line in logs() if "The connection has changed since it was read" in line]) == 1
    assert OLD not in str(logs())
    assert NEW not in str(logs())


def test_an_unchanged_key_is_not_tried_again(
    call: Callable[[OdiRouterHook], Any], connect: Connect, service: Service, reads: list[str]
) -> None:
    hook = connected(connect, service)

    with pytest.raises(AuthenticationError, match="401"):
        call(hook)

    assert service.keys == [OLD]
    assert len(reads) == 2


def test_at_most_three_keys_are_tried(
    call: Callable[[OdiRouterHook], Any], connect: Connect, serve: Serve, rotate: Rotate
) -> None:
    service = Service(serve, None)
    hook = connected(connect, service)
    answer, keys = service.answer, iter(range(100))

    def rotating(exchange: Exchange) -> None:
        rotate(service.server.base_url, f"sk-key-{next(keys)}")
        answer(exchange)

    service.server._behave = rotating
    with pytest.raises(AuthenticationError):
        call(hook)

    assert service.keys == [OLD, "sk-key-0", "sk-key-1"]


def test_two_alternating_keys_are_tried_once_each(
    call: Callable[[OdiRouterHook], Any], connect: Connect, serve: Serve, rotate: Rotate
) -> None:
    service = Service(serve, None)
    hook = connected(connect, service)
    answer = service.answer

    def rotating(exchange: Exchange) -> None:
        seen = exchange.received.headers["authorization"]
        rotate(service.server.base_url, OLD if seen.endswith(NEW) else NEW)
        answer(exchange)

    service.server._behave = rotating
    with pytest.raises(AuthenticationError):
        call(hook)

    assert service.keys == [OLD, NEW]


def test_a_new_key_goes_only_to_the_new_base_url(
    call: Callable[[OdiRouterHook], Any], connect: Connect, serve: Serve, rotate: Rotate
) -> None:
    before, after = Service(serve, None), Service(serve, NEW)
    hook = connected(connect, before)
    rotate(after.server.base_url)

    call(hook)

    assert before.keys == [OLD]
    assert after.keys == [NEW]


def test_only_a_401_reads_the_connection_again(
    call: Callable[[OdiRouterHook], Any], connect: Connect, serve: Serve, rotate: Rotate, reads: list[str]
) -> None:
    body = {"detail": "Model not allowed for this user"}
    server = serve(lambda exchange: exchange.answer_json(body, status="403 Forbidden"))
    hook = connect(server.base_url, OLD)
    hook.prepare()
    rotate(server.base_url)

    with pytest.raises(AuthenticationError, match="403"):
        call(hook)

    assert len(server.received) == 1
    assert len(reads) == 1


def test_a_missing_or_broken_connection_is_named(
    call: Callable[[OdiRouterHook], Any],
    connect: Connect,
    service: Service,
    rotate: Rotate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = connected(connect, service)
    rotate("ftp://elsewhere")
    with pytest.raises(ConnectionSettingsError, match="its host must be a base URL"):
        call(hook)
    monkeypatch.delenv(VARIABLE)
    # A secrets backend may be down for a moment: the next poll reads the connection again.
    with pytest.raises(ConnectionNotFoundError) as caught:
        call(hook)
    assert caught.value.is_transient
    rotate(service.server.base_url)
    call(hook)

    assert service.keys == [OLD, OLD, OLD, NEW]


async def test_a_thousand_polls_refused_at_once_read_it_once(
    connect: Connect, service: Service, rotate: Rotate, reads: list[str]
) -> None:
    hook = connected(connect, service)
    rotate(service.server.base_url)
    async with hook:
        found = await asyncio.gather(*[hook.aget_status(ENDPOINT, ID) for _ in range(1000)])

    assert {status.state for status in found} == {RequestState.IN_QUEUE}
    assert service.keys.count(NEW) == 1000
    assert reads[1:] == ["asynchronously"]


async def test_a_thousand_polls_refused_for_good_read_it_at_most_100_times(
    connect: Connect, service: Service, reads: list[str]
) -> None:
    hook = connected(connect, service)
    async with hook:
        found = await asyncio.gather(*[hook.aget_status(ENDPOINT, ID) for _ in range(1000)], return_exceptions=True)

    assert {type(error) for error in found} == {AuthenticationError}
    assert service.keys == [OLD] * 1000
    assert len(reads) <= 100


async def test_a_hundred_triggers_read_it_once_each(
    connect: Connect, service: Service, rotate: Rotate, reads: list[str]
) -> None:
    connect(service.server.base_url, OLD)
    hooks = [OdiRouterHook() for _ in range(100)]
    await asyncio.gather(*[hook._current.aget(hook._load_lock) for hook in hooks])
    rotate(service.server.base_url)

    async def poll(hook: OdiRouterHook) -> None:
        async with hook:
            await asyncio.gather(*[hook.aget_status(ENDPOINT, ID) for _ in range(2)])

    await asyncio.gather(*[poll(hook) for hook in hooks])

    assert len(reads) == 200
    assert service.keys.count(NEW) == 200


def test_eight_threads_refused_at_once_read_it_once(
    connect: Connect, service: Service, rotate: Rotate, reads: list[str]
) -> None:
    hook = connected(connect, service)
    rotate(service.server.base_url)
    together = threading.Barrier(8)

    def submit() -> None:
        together.wait()
        hook.submit(ENDPOINT, {})

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert service.keys.count(NEW) == 8
    assert len(reads) == 2


def test_a_refused_submit_is_paid_once(connect: Connect, rotate: Rotate, sandbox: Sandbox) -> None:
    sandbox.configure(api_key=NEW)
    with sandbox.serve() as server:
        hook = connect(server.base_url, OLD)
        hook.prepare()
        rotate(server.base_url)
        hook.submit(ENDPOINT, {"prompt": "Blue"})

    assert sandbox.paid == 1
    assert [entry.action for entry in sandbox.journal] == ["submit", "submit"]


def test_a_hook_with_its_own_client_shares_the_new_key(
    connect: Connect, service: Service, rotate: Rotate, reads: list[str]
) -> None:
    hook = connected(connect, service)
    with_own_client = hook.with_own_client()
    rotate(service.server.base_url)

    with_own_client.get_status(ENDPOINT, ID)
    assert hook.settings is with_own_client.settings
    assert hook.cancel(ENDPOINT, ID) is CancelOutcome.REQUESTED

    assert service.keys == [OLD, NEW, NEW]
    assert len(reads) == 2


@pytest.mark.parametrize("name", ["cancel", "cancel in the triggerer"])
def test_a_frozen_connection_is_not_read_again(
    name: str, connect: Connect, service: Service, rotate: Rotate, reads: list[str]
) -> None:
    hook = connected(connect, service)
    rotate(service.server.base_url)

    with hook._current._lock:  # held by the code that the signal handler interrupted
        hook.freeze_connection()
        with pytest.raises(AuthenticationError):
            CALLS[name](hook.with_own_client())

    assert len(reads) == 1


async def test_new_tls_settings_are_used_too(
    connect: Connect, serve: Serve, tls: Any, authority: Path, rotate: Rotate
) -> None:
    plain = Service(serve, None)
    safe = serve(lambda exchange: exchange.answer_json({"status": "IN_QUEUE"}), tls=tls)
    async with connect(plain.server.base_url, OLD) as hook:
        with pytest.raises(AuthenticationError):
            await hook.aget_status(ENDPOINT, ID)
        rotate(safe.base_url, verify=str(authority))
        assert (await hook.aget_status(ENDPOINT, ID)).state is RequestState.IN_QUEUE
        hook.get_status(ENDPOINT, ID)

    assert len(safe.received) == 2
    assert OLD not in str(safe.received)
