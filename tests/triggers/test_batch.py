"""The trigger of a batch: one event for many requests, and a kill that cancels all that are alive."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_odirouter.hooks import async_transport
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import polling, wait
from airflow_provider_odirouter.models import (
    BatchEvent,
    CancelOutcome,
    Ending,
    RequestEvent,
    pack_deadlines,
    unpack_deadlines,
)
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.triggers import request
from airflow_provider_odirouter.triggers.batch import OdiRouterBatchTrigger
from tests.conftest import Clock, Listener, actions
from tests.triggers.conftest import Task, owned, polls, pushed, wait_until

ENDPOINT = "gpt_image_1_edit"
PICTURE = "https://example.com/cup.png"

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

Submit = Callable[..., list[str]]
Make = Callable[..., OdiRouterBatchTrigger]


@pytest.fixture
def submit(sandbox: Sandbox, base_url: str) -> Submit:
    """Makes so many requests, past the socket."""

    def make(number: int, **settings: Any) -> list[str]:
        sandbox.configure(**settings)
        client = httpx.Client(transport=sandbox.transport(), headers={"Authorization": "Bearer sandbox-key"})
        made = []
        for _ in range(number):
            answer = client.post(f"{base_url}/v1/queue/{ENDPOINT}", json={"prompt": "Blue", "images": [PICTURE]})
            made.append(answer.json()["request_id"])
        sandbox.clear_journal()
        return made

    return make


@pytest.fixture
def trigger(conn_id: str) -> Make:
    def make(request_ids: list[str], **arguments: Any) -> OdiRouterBatchTrigger:
        defaults: dict[str, Any] = {"deadline": time.time() + 60, "poll_interval": 0.05, "wait_id": "w1"}
        settings = defaults | arguments
        end = settings.pop("deadline")
        deadlines = settings.pop("deadlines", pack_deadlines(dict.fromkeys(request_ids, end)))
        made = OdiRouterBatchTrigger(odirouter_conn_id=conn_id, endpoint=ENDPOINT, deadlines=deadlines, **settings)
        made.task_instance = cast("Any", Task())
        return made

    return make


async def the_events(trigger: OdiRouterBatchTrigger) -> list[RequestEvent]:
    [event] = [json.loads(json.dumps(event.payload)) async for event in trigger.run()]
    return list(BatchEvent.model_validate(event).events(ENDPOINT, list(unpack_deadlines(trigger.deadlines))))


def cancelled(sandbox: Sandbox) -> list[str]:
    return sorted(str(entry.request_id) for entry in sandbox.cancels)


def test_its_arguments_are_plain_and_make_the_same_trigger_again() -> None:
    arguments: dict[str, Any] = {
        "version": 1,
        "odirouter_conn_id": "c",
        "endpoint": "e",
        "wait_id": "w",
        "deadlines": pack_deadlines({"one": 12.0, "two": 15.0}),
        "poll_interval": 3.0,
        "cancel_on_kill": False,
        "cancel_on_timeout": False,
    }
    path, serialized = OdiRouterBatchTrigger(**arguments).serialize()
    assert path == f"{OdiRouterBatchTrigger.__module__}.OdiRouterBatchTrigger"
    assert json.loads(json.dumps(serialized)) == arguments


async def test_one_event_says_how_each_request_ended(submit: Submit, trigger: Make, sandbox: Sandbox) -> None:
    ids = [
        *submit(1, run_seconds=0.3),
        *submit(1, error_type="CONTENT_BLOCKED"),
        *submit(1, error_type="CANCELED"),
        "never-heard-of",
        *submit(1, error_type=None, run_seconds=60),
    ]
    # A request is lost after several polls.
    events = await the_events(trigger(ids, deadline=time.time() + 4))
    assert [event.ending for event in events] == [
        Ending.SUCCEEDED,
        Ending.FAILED,
        Ending.CANCELED,
        Ending.LOST,
        Ending.TIMED_OUT,
    ]
    assert [event.request_id for event in events] == ids
    assert events[0].inference_seconds == pytest.approx(0.3, abs=0.1)
    assert events[4].cancel is CancelOutcome.REQUESTED
    assert cancelled(sandbox) == [ids[4]]


async def test_the_deadline_spares_requests_of_a_newer_try_and_asks_once_for_all(
    submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = pushed(monkeypatch, "w2")
    await the_events(trigger(submit(20, run_seconds=60), deadline=time.time() - 1))
    assert keys == ["odirouter_wait"]
    assert len(sandbox.alive) == 20


async def test_a_deadline_after_a_while_asks_again_since_the_process_may_have_been_frozen(
    submit: Submit, trigger: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = pushed(monkeypatch, "w1")
    real, ahead = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    one = trigger(submit(1), deadline=real() + 60)
    await one.check_deadline()
    await one.check_deadline()
    assert keys == ["odirouter_wait"]
    ahead = 6.0
    await one.check_deadline()
    assert keys == ["odirouter_wait"] * 2


async def test_each_request_has_its_own_deadline(
    submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(monkeypatch, "w1")
    owned(monkeypatch, orphaned=False)
    early, late = submit(2, run_seconds=60)
    deadlines = pack_deadlines({early: time.time(), late: time.time() + 60})
    running = asyncio.create_task(the_events(trigger([early, late], deadlines=deadlines)))
    await wait_until(lambda: sandbox.alive == [late])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cancelled(sandbox) == [early]


async def test_airflows_log_has_a_short_line_for_the_event(submit: Submit, trigger: Make) -> None:
    [event] = [event async for event in trigger([*submit(300), "never-heard-of"]).run()]
    assert repr(event) == "TriggerEvent<301 requests: 300 have succeeded>"


@pytest.mark.parametrize("cancels", [True, False])
async def test_the_deadline_cancels_the_rest_unless_set_otherwise(
    cancels: bool, submit: Submit, trigger: Make, sandbox: Sandbox
) -> None:
    ids = submit(2) + submit(3, run_seconds=60)
    events = await the_events(trigger(ids, deadline=time.time() + 0.5, cancel_on_timeout=cancels))
    assert [event.ending for event in events] == [Ending.SUCCEEDED] * 2 + [Ending.TIMED_OUT] * 3
    assert len(sandbox.alive) == (0 if cancels else 3)


async def test_what_ends_between_the_final_poll_and_the_cancel_is_taken(
    submit: Submit, trigger: Make, sandbox: Sandbox, listeners: list[Listener], clock: Clock
) -> None:
    def end_before_the_cancel(entry: JournalEntry) -> None:
        if entry.action == "status":
            clock.skip(60)

    [one] = submit(1, run_seconds=60)
    listeners.append(end_before_the_cancel)
    [event] = await the_events(trigger([one], deadline=time.time() - 1))
    assert event.ending is Ending.SUCCEEDED
    assert actions(sandbox) == ["status", "cancel", "status"]


@pytest.mark.parametrize(("jump", "ending"), [(86_400.0, Ending.SUCCEEDED), (-86_400.0, Ending.TIMED_OUT)])
async def test_a_clock_that_is_set_ends_the_wait_neither_sooner_nor_later(
    jump: float,
    ending: Ending,
    submit: Submit,
    trigger: Make,
    sandbox: Sandbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, ahead = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    one = trigger(submit(3, run_seconds=60), deadline=real() + (60 if jump > 0 else 3))
    running = asyncio.create_task(the_events(one))
    await wait_until(lambda: polls(sandbox) >= 3)
    ahead = jump
    if jump > 0:
        seen = polls(sandbox)
        await wait_until(lambda: running.done() or polls(sandbox) >= seen + 6)
        clock.skip(60)
    assert {event.ending for event in await running} == {ending}


async def test_a_kill_cancels_all_that_are_alive_and_none_that_have_ended(
    submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned(monkeypatch, orphaned=True)
    ended, alive = submit(3), submit(4, run_seconds=60)
    one = trigger(ended + alive)
    running = asyncio.create_task(the_events(one))
    await wait_until(lambda: len(one.pending()) == 4)
    running.cancel()
    await one.on_kill()
    # Before Airflow 3.3, the trigger's own end cancels, too.
    assert sorted(set(cancelled(sandbox))) == sorted(alive)
    assert not sandbox.alive


async def test_a_kill_also_cancels_what_could_not_be_polled(
    submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for it is over, but it may be running, and the others are still waited for."""
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 2)
    owned(monkeypatch, orphaned=True)
    ids = submit(2, run_seconds=60)
    get: Any = OdiRouterHook.aget_status

    async def poll_but_not_the_first(hook: OdiRouterHook, endpoint: str, request_id: str, **options: Any) -> Any:
        if request_id == ids[0]:
            sandbox.configure(server_errors=1, fault_actions={"status"})
        return await get(hook, endpoint, request_id, **options)

    ended: list[str] = []
    note = OdiRouterBatchTrigger._note_end

    def noting(self: OdiRouterBatchTrigger, event: RequestEvent) -> None:
        ended.append(event.request_id)
        note(self, event)

    monkeypatch.setattr(OdiRouterHook, "aget_status", poll_but_not_the_first)
    monkeypatch.setattr(OdiRouterBatchTrigger, "_note_end", noting)
    one = trigger(ids, poll_interval=0.2)
    running = asyncio.create_task(the_events(one))
    await wait_until(lambda: bool(ended))
    running.cancel()
    await one.on_kill()
    assert not sandbox.alive


@pytest.mark.parametrize("run_seconds", [0, 60])
async def test_a_kill_after_the_event_cancels_nothing(
    run_seconds: int, submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not what the trigger has stopped waiting for: the task that was resumed decides about it."""
    owned(monkeypatch, orphaned=True)
    one = trigger(submit(2, run_seconds=run_seconds), deadline=time.time() + 0.3, cancel_on_timeout=False)
    async for _ in one.run():
        await one.on_kill()
    assert "cancel" not in actions(sandbox)


async def test_a_kill_leaves_all_running_if_set_so(
    submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned(monkeypatch, orphaned=True)
    await trigger(submit(3, run_seconds=60), cancel_on_kill=False).on_kill()
    assert len(sandbox.alive) == 3


@pytest.mark.parametrize(
    ("state", "wait_id", "orphaned"),
    [("deferred", "w1", False), ("deferred", "w2", True), ("deferred", None, True), ("failed", "w1", True)],
    ids=["waits for it", "waits for other requests", "has not begun to wait", "has failed"],
)
async def test_the_id_that_the_task_has_pushed_tells_whether_the_task_waits(
    state: str,
    wait_id: str | None,
    orphaned: bool,
    submit: Submit,
    trigger: Make,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get_one(*, key: str, **_: object) -> str | None:
        return {"odirouter_wait": wait_id}[key]

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: {"run": {"edit": state}})
    monkeypatch.setattr(XCom, "get_one", get_one)
    await trigger(submit(2, run_seconds=60)).on_kill()
    assert bool(sandbox.alive) is not orphaned


async def test_a_triggerer_that_is_restarted_cancels_nothing_and_goes_on(
    submit: Submit, trigger: Make, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned(monkeypatch, orphaned=False)
    one = trigger(submit(3, run_seconds=600))
    running = asyncio.create_task(the_events(one))
    await wait_until(lambda: polls(sandbox) >= 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(sandbox.alive) == 3

    clock.skip(600)
    _, arguments = one.serialize()
    events = await the_events(OdiRouterBatchTrigger(**json.loads(json.dumps(arguments))))
    assert {event.ending for event in events} == {Ending.SUCCEEDED}


@pytest.mark.parametrize("airflow_calls_on_kill", [True, False], ids=["Airflow 3.3", "Airflow 3.1 and 3.2"])
async def test_before_airflow_3_3_a_cancelled_run_cancels_orphans(
    airflow_calls_on_kill: bool, submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned(monkeypatch, orphaned=True)
    monkeypatch.setattr(request, "TRIGGERER_CALLS_ON_KILL", airflow_calls_on_kill)
    running = asyncio.create_task(the_events(trigger(submit(3, run_seconds=60))))
    await wait_until(lambda: polls(sandbox) >= 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bool(sandbox.alive) is airflow_calls_on_kill


async def test_a_thousand_are_cancelled_though_airflow_cancels_on_kill_again_and_again(
    submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    owned(monkeypatch, orphaned=True)
    one = trigger(submit(1000, run_seconds=600))
    killing = asyncio.create_task(one.on_kill())
    while not killing.done():
        await asyncio.sleep(0.5)
        killing.cancel()
    assert not sandbox.alive
    assert len(cancelled(sandbox)) == 1000
    [line] = [line for line in capfd.readouterr().out.splitlines() if "is no longer deferred for this trigger" in line]
    assert "Task dag.edit of run run is no longer deferred for this trigger: it was killed, cleared, or marked." in line
    assert "Cancelled: 1,000 requests " in line


async def test_a_thousand_requests_share_one_transport_and_the_poll_rate(
    submit: Submit, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[async_transport.Transport] = []
    make = async_transport.Transport.__init__

    def making(self: async_transport.Transport, *arguments: Any) -> None:
        made.append(self)
        make(self, *arguments)

    monkeypatch.setattr(async_transport.Transport, "__init__", making)
    monkeypatch.setattr(async_transport, "max_polls_per_second", lambda: 200.0)
    ids = submit(1000, run_seconds=0)
    began = time.monotonic()
    events = await the_events(trigger(ids, poll_interval=1.0))
    seconds = time.monotonic() - began
    assert {event.ending for event in events} == {Ending.SUCCEEDED}
    assert [event.request_id for event in events] == ids
    assert len(made) == 1
    assert actions(sandbox).count("status") == 1000
    assert seconds >= 1000 / 200 - 0.5


async def test_the_log_counts_all_requests_and_not_each_poll(
    submit: Submit, trigger: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = ""

    def is_logged(line: str) -> bool:
        nonlocal log
        log += capfd.readouterr().out
        return line in log

    monkeypatch.setattr(wait, "REPORT_SECONDS", 0.3)
    ids = submit(1, error_type="CONTENT_BLOCKED") + submit(20, error_type=None, run_seconds=60)
    waits = asyncio.create_task(the_events(trigger(ids)))
    await wait_until(lambda: is_logged("Requests: 1/21 finished (1 failed), 20 pending; "))
    clock.skip(60)
    await waits
    assert is_logged("Requests: 21/21 finished (1 failed), 0 pending.")
    assert not [request_id for request_id in ids if is_logged(request_id)]


async def test_a_connection_that_is_missing_is_an_event_and_not_a_crash(
    submit: Submit, trigger: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 2)
    one = trigger(submit(2, run_seconds=60))
    one.odirouter_conn_id = "no_such_connection"
    events = await the_events(one)
    assert [event.ending for event in events] == [Ending.UNREACHABLE] * 2
    assert "no_such_connection" in str(events[1].reason)
