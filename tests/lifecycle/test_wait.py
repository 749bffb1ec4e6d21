"""Waiting on a worker, beside its main thread."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import NoReturn

import pytest

from airflow_provider_odirouter.errors import NotOwnerError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import wait
from airflow_provider_odirouter.lifecycle.polling import Wait
from airflow_provider_odirouter.lifecycle.wait import WorkerLoop, wait_for, wait_on_worker
from airflow_provider_odirouter.models import Ending, RequestEvent
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.storage.threads import Jobs
from tests.conftest import Clock, Kill, KilledError, actions

ENDPOINT = "gpt_image_1_edit"


def make_wait(request_id: str) -> Wait:
    """A wait whose deadline is far away."""
    return Wait(ENDPOINT, request_id, poll_interval=5.0, deadline=time.time() + 600, cancel_on_timeout=True)


@pytest.fixture
def pauses(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the driver: only the sandbox's clock goes on by them."""
    lengths: list[float] = []

    async def skip(seconds: float) -> None:
        lengths.append(seconds)
        clock.skip(seconds)

    class Asyncio:
        sleep = staticmethod(skip)

        def __getattr__(self, name: str) -> object:
            return getattr(asyncio, name)

    monkeypatch.setattr(wait, "asyncio", Asyncio())
    return lengths


def test_each_new_state_is_noted_for_the_log(conn_id: str, sandbox: Sandbox, pauses: list[float]) -> None:
    notes: list[str] = []

    async def run() -> RequestEvent:
        async with OdiRouterHook(conn_id) as hook:
            return await wait_for(hook, make_wait(submitted.request_id), first_poll_delay=0.0, note=notes.append)

    sandbox.configure(queue_seconds=12, run_seconds=12)
    submitted = OdiRouterHook(conn_id).submit(ENDPOINT, {"prompt": "Red", "images": ["https://example.org/cup.png"]})
    assert asyncio.run(run()).ending is Ending.SUCCEEDED
    assert [note.split(",")[0].rstrip(".") for note in notes] == [
        f"Request {submitted.request_id} is {state}" for state in ("IN_QUEUE", "IN_PROGRESS")
    ]


def test_the_first_poll_is_not_sent_before_its_delay(conn_id: str, sandbox: Sandbox, pauses: list[float]) -> None:
    async def run() -> None:
        async with OdiRouterHook(conn_id) as hook:
            await wait_for(hook, make_wait("mmsu_1"), first_poll_delay=7.0, note=print)

    asyncio.run(run())
    assert 7.0 <= pauses[0] <= 12.0


def test_of_many_waits_that_lose_their_task_one_error_is_reported(conn_id: str) -> None:
    """A task group puts them into one; a handler of the single error would not see it."""
    errors: list[BaseException] = []
    reported = threading.Event()

    def report(error: BaseException) -> None:
        errors.append(error)
        reported.set()

    async def fail(_: object) -> None:
        raise ExceptionGroup(
            "waits", [OSError("in passing"), NotOwnerError("another try"), NotOwnerError("another try")]
        )

    with WorkerLoop(OdiRouterHook(conn_id), report) as loop:
        loop.start(fail)
        assert reported.wait(60)
    assert [type(error) for error in errors] == [NotOwnerError]


def test_a_kill_before_the_wait_has_begun_sends_nothing_later(
    conn_id: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's thread runs, but has not yet begun, when the main thread leaves."""
    begins = threading.Event()
    serve = WorkerLoop._serve

    async def serve_later(self: WorkerLoop) -> None:
        await asyncio.get_running_loop().run_in_executor(None, begins.wait, 60)
        await serve(self)

    def kill(_: object) -> NoReturn:
        raise KilledError

    monkeypatch.setattr(WorkerLoop, "_serve", serve_later)
    monkeypatch.setattr(Jobs, "handle_next", kill)
    monkeypatch.setattr(wait, "LOOP_END_SECONDS", 0.0)
    with pytest.raises(KilledError):
        wait_on_worker(OdiRouterHook(conn_id), [make_wait("mmsu_1")])
    begins.set()
    [thread] = [thread for thread in threading.enumerate() if thread.name == "odirouter-loop"]
    thread.join(60)
    assert not thread.is_alive()
    assert actions(sandbox) == []


def test_a_kill_while_the_loop_is_called_is_raised(conn_id: str, kill: Kill) -> None:
    """A kill is a ``RuntimeError``, and so is the call of a loop that has ended."""

    async def do_nothing(_: object) -> None:
        return

    errors: list[BaseException] = []
    with WorkerLoop(OdiRouterHook(conn_id), errors.append) as loop:
        call = loop._loop.call_soon_threadsafe

        def interrupted(*arguments: object) -> None:
            kill()

        loop._loop.call_soon_threadsafe = interrupted  # type: ignore[assignment,method-assign]
        with pytest.raises(KilledError):
            loop.start(do_nothing)
        loop._loop.call_soon_threadsafe = call  # type: ignore[method-assign]
    loop.start(do_nothing)  # after its end
    assert errors == []
