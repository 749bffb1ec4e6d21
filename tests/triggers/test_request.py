from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import Ending, RequestEvent
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.triggers import request as module
from airflow_provider_odirouter.triggers.request import OdiRouterRequestTrigger
from airflow_provider_odirouter.xcoms import RequestRecord, StatusRecord
from tests.conftest import Clock
from tests.triggers.conftest import Task, owned, polls, pushed, wait_until

PICTURE = "https://example.com/cup.png"


pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


@pytest.fixture
def trigger(conn_id: str) -> Callable[..., OdiRouterRequestTrigger]:
    """A trigger for a request that was just submitted."""

    def make(**arguments: Any) -> OdiRouterRequestTrigger:
        request_id = (
            OdiRouterHook(conn_id).submit("gpt_image_1_edit", {"prompt": "Blue", "images": [PICTURE]}).request_id
        )
        defaults: dict[str, Any] = {"deadline": time.time() + 60, "poll_interval": 0.05}
        made = OdiRouterRequestTrigger(
            odirouter_conn_id=conn_id, endpoint="gpt_image_1_edit", request_id=request_id, **(defaults | arguments)
        )
        made.task_instance = cast("Any", Task())
        return made

    return make


Make = Callable[..., OdiRouterRequestTrigger]


async def events(trigger: OdiRouterRequestTrigger) -> AsyncIterator[RequestEvent]:
    async for event in trigger.run():
        yield RequestEvent.model_validate_json(json.dumps(event.payload))


async def the_event(trigger: OdiRouterRequestTrigger) -> RequestEvent:
    [event] = [event async for event in events(trigger)]
    return event


def test_its_arguments_are_plain_and_make_the_same_trigger_again() -> None:
    arguments: dict[str, Any] = {
        "version": 1,
        "odirouter_conn_id": "c",
        "endpoint": "e",
        "request_id": "r",
        "deadline": 12.5,
        "poll_interval": 3.0,
        "cancel_on_kill": False,
        "cancel_on_timeout": False,
        "submitted_at": 1.5,
    }
    path, serialized = OdiRouterRequestTrigger(**arguments).serialize()
    assert path == f"{OdiRouterRequestTrigger.__module__}.OdiRouterRequestTrigger"
    assert json.loads(json.dumps(serialized)) == arguments


def test_the_arguments_of_another_version_are_refused_and_not_misread() -> None:
    with pytest.raises(TypeError, match="another version of the provider: 2, not 1"):
        OdiRouterRequestTrigger(odirouter_conn_id="c", endpoint="e", request_id="r", deadline=1.0, version=2)


async def test_it_says_in_one_event_that_the_request_has_succeeded(trigger: Make, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=0.3)
    one = trigger(submitted_at=1000.0)
    event = await the_event(one)
    assert (event.ending, event.request_id) == (Ending.SUCCEEDED, one.request_id)
    assert event.submitted_at
    assert event.submitted_at.timestamp() == 1000
    assert event.inference_seconds == pytest.approx(0.3, abs=0.1)


async def test_the_event_of_a_failure_has_the_vendors_words(trigger: Make, sandbox: Sandbox) -> None:
    sandbox.configure(error_type="CONTENT_BLOCKED", error_message="No cups")
    event = await the_event(trigger())
    assert event.failure
    assert event.failure.error_type == "CONTENT_BLOCKED"
    assert "No cups" in str(event.failure.message)


async def test_it_survives_a_bad_network(trigger: Make, sandbox: Sandbox) -> None:
    one = trigger()
    sandbox.configure(drop_next=2, fault_actions={"status"})
    assert (await the_event(one)).ending is Ending.SUCCEEDED


@pytest.mark.parametrize("cancels", [True, False])
async def test_it_cancels_at_the_deadline_unless_set_otherwise(cancels: bool, trigger: Make, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=60)
    event = await the_event(trigger(deadline=time.time() + 0.2, cancel_on_timeout=cancels))
    assert event.ending is Ending.TIMED_OUT
    assert bool(sandbox.alive) is not cancels


@pytest.mark.parametrize(("later", "cancels"), [(0.0, True), (900.0, False)], ids=["this try's own", "a newer try's"])
async def test_at_its_deadline_it_leaves_a_request_that_a_newer_try_waits_for(
    later: float, cancels: bool, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer that was frozen wakes when the retry goes on with the same request."""
    sandbox.configure(run_seconds=60)
    one = trigger(deadline=time.time() - 1)
    deadline = datetime.fromtimestamp(one.deadline + later, UTC)
    record = RequestRecord(request_id=one.request_id, endpoint=one.endpoint, deadline=deadline)
    assert pushed(monkeypatch, record.to_xcom()) == []
    event = await the_event(one)
    assert event.ending is Ending.TIMED_OUT
    assert bool(sandbox.alive) is not cancels
    assert ("A newer try of the task waits for it" in (event.cancel_error or "")) is not cancels


async def test_a_record_that_another_version_has_pushed_is_a_newer_trys(
    trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60)
    one = trigger(deadline=time.time() - 1)
    pushed(monkeypatch, {"version": 2, "request": one.request_id})
    event = await the_event(one)
    assert "A newer try of the task waits for it" in (event.cancel_error or "")
    assert len(sandbox.alive) == 1


@pytest.mark.parametrize("answer", [None, OSError("no database today")], ids=repr)
async def test_at_its_deadline_it_cancels_if_airflow_does_not_tell_of_another_try(
    answer: Any, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60)
    keys = pushed(monkeypatch, answer)
    event = await the_event(trigger(deadline=time.time() - 1))
    assert keys == ["odirouter_request"]
    assert (event.ending, sandbox.alive) == (Ending.TIMED_OUT, [])


async def test_a_deadline_that_passed_while_no_triggerer_ran_counts(trigger: Make, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=60)
    assert (await the_event(trigger(deadline=time.time() - 3600))).ending is Ending.TIMED_OUT


@pytest.mark.parametrize(("jump", "ending"), [(86_400.0, Ending.SUCCEEDED), (-86_400.0, Ending.TIMED_OUT)])
async def test_a_clock_that_is_set_ends_the_wait_neither_sooner_nor_later(
    jump: float, ending: Ending, trigger: Make, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ahead = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    sandbox.configure(run_seconds=60)
    waiting = asyncio.create_task(the_event(trigger(deadline=real() + (60 if jump > 0 else 3))))
    await wait_until(lambda: polls(sandbox) >= 1)
    ahead = jump
    if jump > 0:
        seen = polls(sandbox)
        await wait_until(lambda: waiting.done() or polls(sandbox) >= seen + 2)
        clock.skip(60)
    assert (await waiting).ending is ending


async def test_a_trigger_that_an_older_version_has_left_in_the_database_goes_on(
    trigger: Make, sandbox: Sandbox
) -> None:
    _, arguments = trigger().serialize()
    needed = {name: arguments[name] for name in ("odirouter_conn_id", "endpoint", "request_id", "deadline")}
    event = await the_event(OdiRouterRequestTrigger(**needed))
    assert (event.ending, event.request_id) == (Ending.SUCCEEDED, needed["request_id"])


async def test_a_restart_does_not_start_the_budget_again(
    trigger: Make, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=3600)
    owned(monkeypatch, orphaned=False)
    one = trigger(deadline=time.time() + 1000)
    running = asyncio.create_task(the_event(one))
    await wait_until(lambda: polls(sandbox) >= 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sandbox.alive == [one.request_id]

    later = time.time() + 1001
    monkeypatch.setattr(time, "time", lambda: later)
    _, arguments = one.serialize()
    assert (await the_event(OdiRouterRequestTrigger(**arguments))).ending is Ending.TIMED_OUT
    assert (sandbox.paid, sandbox.alive) == (1, [])


async def test_a_missing_connection_is_an_event_and_not_a_crash(trigger: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trigger()
    monkeypatch.setattr("airflow_provider_odirouter.lifecycle.polling.MAX_FAILED_POLLS", 2)
    one.odirouter_conn_id = "no_such_connection"
    event = await the_event(one)
    assert event.ending is Ending.UNREACHABLE
    assert "no_such_connection" in str(event.reason)


class TestTheStatusForPeople:
    @pytest.fixture
    def statuses(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The statuses that are pushed, which needs a triggerer's supervisor."""
        seen: list[str] = []

        def push(*arguments: Any) -> None:
            *task, key, value = arguments
            assert task == ["dag", "edit", "run", -1]
            assert key == "odirouter_status"
            seen.append(StatusRecord.model_validate(value).raw_status)

        monkeypatch.setattr(module, "set_xcom", push)
        return seen

    async def test_each_status_is_pushed_once_and_the_last_one_never(
        self, statuses: list[str], trigger: Make, sandbox: Sandbox, clock: Clock
    ) -> None:
        sandbox.configure(queue_seconds=60, run_seconds=60)
        waiting = asyncio.create_task(the_event(trigger()))
        for number in (1, 2):
            await wait_until(lambda number=number: len(statuses) == number)  # type: ignore[misc]
            seen = polls(sandbox)
            await wait_until(lambda seen=seen: polls(sandbox) >= seen + 3)  # type: ignore[misc]
            clock.skip(60)

        assert (await waiting).ending is Ending.SUCCEEDED
        assert statuses == ["IN_QUEUE", "IN_PROGRESS"]

    async def test_a_status_that_cannot_be_pushed_does_not_end_the_wait(
        self, trigger: Make, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError("no database today")

        monkeypatch.setattr(module, "set_xcom", fail)
        sandbox.configure(run_seconds=60)
        waiting = asyncio.create_task(the_event(trigger()))
        await wait_until(lambda: polls(sandbox) >= 3)
        clock.skip(60)
        assert (await waiting).ending is Ending.SUCCEEDED

    async def test_a_push_that_hangs_delays_neither_the_wait_nor_a_kill(
        self, trigger: Make, sandbox: Sandbox, release: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushing: list[object] = []

        def hang(*arguments: object) -> None:
            pushing.append(arguments)
            release.wait(20)

        monkeypatch.setattr(module, "set_xcom", hang)
        owned(monkeypatch, orphaned=True)
        sandbox.configure(run_seconds=60)
        triggers = [trigger(), trigger()]
        waiting = [asyncio.create_task(the_event(one)) for one in triggers]
        await wait_until(lambda: len(pushing) == 1 and polls(sandbox) >= 6)
        for one, wait in zip(triggers, waiting, strict=True):
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
            await one.on_kill()
        assert sandbox.alive == []
        # The other one waits for its turn, and not in a thread, which a kill may need.
        assert len(pushing) == 1
        release.set()
        await wait_until(lambda: len(pushing) == 2)

    async def test_in_dag_test_there_is_no_page_and_no_push(
        self, statuses: list[str], trigger: Make, sandbox: Sandbox, clock: Clock
    ) -> None:
        sandbox.configure(run_seconds=60)
        one = trigger()
        one.task_instance = None
        waiting = asyncio.create_task(the_event(one))
        await wait_until(lambda: polls(sandbox) >= 2)
        clock.skip(60)
        await waiting
        assert statuses == []


@pytest.mark.parametrize("orphaned", [True, False])
async def test_a_kill_cancels_only_what_nobody_waits_for(
    orphaned: bool, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60)
    owned(monkeypatch, orphaned=orphaned)
    one = trigger()
    await one.on_kill()
    assert bool(sandbox.alive) is not orphaned


async def test_a_kill_leaves_the_request_alone_if_set_so(
    trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60)
    owned(monkeypatch, orphaned=True)
    one = trigger(cancel_on_kill=False)
    await one.on_kill()
    assert len(sandbox.alive) == 1


def says_how_to_cancel_by_hand(one: OdiRouterRequestTrigger, capfd: pytest.CaptureFixture[str]) -> bool:
    log = capfd.readouterr().out
    cancel_command = f"odirouter-request cancel gpt_image_1_edit {one.request_id} --conn-id odirouter_default"
    return re.search(rf"Not cancelled.*: request {one.request_id}\.", log) is not None and cancel_command in log


async def test_an_ownership_check_that_fails_leaves_the_request_alone_and_says_so(
    trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("no supervisor")

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", fail)
    sandbox.configure(run_seconds=60)
    one = trigger()
    await one.on_kill()
    assert sandbox.alive == [one.request_id]
    assert says_how_to_cancel_by_hand(one, capfd)


@pytest.mark.parametrize("limit", ["CHECK_TIMEOUT", "CANCEL_TIMEOUT"])
async def test_an_ownership_check_that_hangs_leaves_the_request_alone_and_says_so(
    limit: str, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    end = threading.Event()

    def tell_late_that_the_task_is_gone(**_: object) -> dict[str, object]:
        end.wait(5)
        return {}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", tell_late_that_the_task_is_gone)
    monkeypatch.setattr(module, limit, 0.2)
    sandbox.configure(run_seconds=60)
    one = trigger()
    await one.on_kill()
    end.set()
    assert sandbox.alive == [one.request_id]
    assert says_how_to_cancel_by_hand(one, capfd)


@pytest.mark.parametrize(
    "fault", [{"server_errors": None}, {"hang": True}, {"drop_next": None}], ids=["fails", "hangs", "breaks"]
)
async def test_a_cancel_that_does_not_succeed_is_logged_as_an_error(
    fault: dict[str, Any],
    trigger: Make,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    owned(monkeypatch, orphaned=True)
    monkeypatch.setattr(module, "CANCEL_TIMEOUT", 0.5)
    sandbox.configure(run_seconds=60, fault_actions={"cancel"}, drop_mode="before", **fault)
    one = trigger()
    await one.on_kill()
    assert sandbox.alive == [one.request_id]
    assert says_how_to_cancel_by_hand(one, capfd)


async def test_a_request_that_cannot_be_cancelled_is_logged_as_an_error(
    trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    owned(monkeypatch, orphaned=True)
    sandbox.configure(run_seconds=60, cancel_supported=False)
    await trigger().on_kill()
    [line] = [line for line in capfd.readouterr().out.splitlines() if "the endpoint cannot cancel" in line]
    assert "[error" in line


async def test_a_cancel_is_finished_though_airflow_cancels_on_kill_again_and_again(
    trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60, latency_seconds=0.3)
    owned(monkeypatch, orphaned=True, seconds=0.3)
    one = trigger()
    killing = asyncio.create_task(one.on_kill())
    while not killing.done():
        await asyncio.sleep(0.05)
        killing.cancel()
    assert not sandbox.alive


async def test_a_kill_after_the_event_cancels_nothing(
    trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned(monkeypatch, orphaned=True)
    one = trigger()
    async for _ in one.run():
        await one.on_kill()
    assert "cancel" not in [entry.action for entry in sandbox.journal]


@pytest.mark.parametrize("airflow_calls_on_kill", [True, False], ids=["Airflow 3.3", "Airflow 3.1 and 3.2"])
async def test_before_airflow_3_3_a_cancelled_run_cancels_an_orphaned_request(
    airflow_calls_on_kill: bool, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60)
    owned(monkeypatch, orphaned=True)
    monkeypatch.setattr(module, "TRIGGERER_CALLS_ON_KILL", airflow_calls_on_kill)
    one = trigger()
    running = asyncio.create_task(the_event(one))
    await wait_until(lambda: polls(sandbox) >= 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bool(sandbox.alive) is airflow_calls_on_kill


@pytest.mark.parametrize("cancels", [True, False])
async def test_before_airflow_3_3_the_end_of_a_late_deferral_is_not_a_kill(
    cancels: bool, trigger: Make, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60)
    owned(monkeypatch, orphaned=True)
    monkeypatch.setattr(module, "TRIGGERER_CALLS_ON_KILL", False)
    one = trigger(deadline=time.time() - 1, cancel_on_timeout=cancels)
    sandbox.configure(latency_seconds=0.5)
    running = asyncio.create_task(the_event(one))
    await wait_until(lambda: polls(sandbox) == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bool(sandbox.alive) is not cancels


async def test_a_thousand_triggers_wait_in_one_loop(trigger: Make, sandbox: Sandbox) -> None:
    one = trigger()
    sandbox.configure(run_seconds=0.5)
    _, arguments = one.serialize()
    waiting = [the_event(OdiRouterRequestTrigger(**(arguments | {"poll_interval": 5.0}))) for _ in range(1000)]
    ended = await asyncio.gather(*waiting)
    assert {event.ending for event in ended} == {Ending.SUCCEEDED}
