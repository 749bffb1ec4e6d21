"""Waiting on a worker, beside its main thread."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import NoReturn

import pytest

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import wait
from airflow_provider_odirouter.lifecycle.polling import Wait
from airflow_provider_odirouter.lifecycle.wait import WorkerLoop, wait_on_worker
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.storage.threads import Jobs
from tests.conftest import Kill, KilledError, actions


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
    one = Wait("gpt_image_1_edit", "mmsu_1", poll_interval=1.0, deadline=time.time() + 60, cancel_on_timeout=True)
    with pytest.raises(KilledError):
        wait_on_worker(OdiRouterHook(conn_id), [one])
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
