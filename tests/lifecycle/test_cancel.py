"""Cancelling many requests, and what is said of it."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from airflow_provider_odirouter.errors import NoAnswerError, NotOwnerError, ServiceError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import cancel as cancel_module
from airflow_provider_odirouter.lifecycle.cancel import (
    MAX_LISTED_IDS,
    Outcome,
    cancel_all,
    cancel_on_worker,
    log_outcomes,
)
from airflow_provider_odirouter.models import CancelOutcome
from airflow_provider_odirouter.protocol import Action
from airflow_provider_odirouter.protocol.retries import MAX_RATE_LIMITED_SECONDS
from airflow_provider_odirouter.sandbox import Sandbox

ENDPOINT = "gpt_image_1_edit"


def submit(conn_id: str, number: int) -> list[str]:
    parameters = {"prompt": "Blue", "images": ["https://example.com/cup.png"]}
    return [OdiRouterHook(conn_id).submit(ENDPOINT, parameters).request_id for _ in range(number)]


async def test_the_outcome_of_each_is_returned(conn_id: str, sandbox: Sandbox) -> None:
    [done] = submit(conn_id, 1)
    sandbox.configure(run_seconds=60)
    [alive] = submit(conn_id, 1)
    outcomes = await cancel_all(OdiRouterHook(conn_id), ENDPOINT, [done, alive, "unknown"], seconds=10, cause="killed")
    assert outcomes == {
        done: CancelOutcome.ALREADY_COMPLETED,
        alive: CancelOutcome.REQUESTED,
        "unknown": CancelOutcome.NOT_FOUND,
    }


async def test_one_that_cannot_be_cancelled_does_not_keep_the_others_from_it(
    conn_id: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel: Any = OdiRouterHook.acancel
    sandbox.configure(run_seconds=60)
    ids = submit(conn_id, 3)

    async def break_at_the_first(hook: OdiRouterHook, endpoint: str, request_id: str) -> Any:
        if request_id == ids[0]:
            raise RuntimeError("a defect")
        return await cancel(hook, endpoint, request_id)

    monkeypatch.setattr(OdiRouterHook, "acancel", break_at_the_first)
    outcomes = await cancel_all(OdiRouterHook(conn_id), ENDPOINT, ids, seconds=10, cause="killed")
    assert isinstance(outcomes[ids[0]], RuntimeError)
    assert sandbox.alive == [ids[0]]


async def test_it_ends_in_time_whatever_the_service_does(conn_id: str, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=60)
    ids = submit(conn_id, 3)
    sandbox.configure(hang=True)
    outcomes = await cancel_all(OdiRouterHook(conn_id), ENDPOINT, ids, seconds=0.5, cause="killed")
    assert list(outcomes) == ids
    assert {type(outcome) for outcome in outcomes.values()} == {NoAnswerError}
    assert all(
        str(outcome).startswith("OdiRouter did not answer the cancel within 0.5 s.") for outcome in outcomes.values()
    )
    sandbox.configure(hang=False)


async def test_a_transient_error_is_outlived(conn_id: str, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=60)
    ids = submit(conn_id, 3)
    sandbox.configure(server_errors=2, fault_actions={"cancel"})
    outcomes = await cancel_all(OdiRouterHook(conn_id), ENDPOINT, ids, seconds=10, cause="killed")
    assert set(outcomes.values()) == {CancelOutcome.REQUESTED}
    assert not sandbox.alive


async def test_nothing_is_cancelled_where_there_is_nothing(conn_id: str) -> None:
    assert await cancel_all(OdiRouterHook(conn_id), ENDPOINT, [], seconds=1, cause="killed") == {}


def test_a_worker_cancels_as_long_as_the_hook_repeats_one(
    conn_id: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel: Any = cancel_module.cancel_all
    limits: list[float] = []

    async def noting(*arguments: Any, seconds: float, cause: str) -> Any:
        limits.append(seconds)
        return await cancel(*arguments, seconds=seconds, cause=cause)

    monkeypatch.setattr(cancel_module, "cancel_all", noting)
    hook = OdiRouterHook(conn_id)
    sandbox.configure(run_seconds=60)
    first, second = submit(conn_id, 2)
    assert cancel_on_worker(hook, ENDPOINT, [first], cause="killed") == {first: CancelOutcome.REQUESTED}
    assert cancel_on_worker(hook, ENDPOINT, [second], seconds=7.0, cause="killed") == {second: CancelOutcome.REQUESTED}
    assert limits == [MAX_RATE_LIMITED_SECONDS[Action.CANCEL] + hook.settings.timeout, 7.0]


@pytest.mark.parametrize("broken", ["with_own_client", "start"])
def test_a_process_that_can_open_nothing_says_which_requests_it_could_not_cancel(
    broken: str, conn_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("can't start new thread" if broken == "start" else "Too many open files")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread if broken == "start" else OdiRouterHook, broken, fail)
        assert cancel_on_worker(OdiRouterHook(conn_id), ENDPOINT, ["a", "b"], cause="killed") == {
            "a": error,
            "b": error,
        }
    [line] = caplog.messages
    assert line.startswith(
        f"Not cancelled ({error}); may still be running without a task, and may be paid: 2 requests a, b."
    )
    assert line.endswith(f"To cancel by hand: odirouter-request cancel {ENDPOINT} a --conn-id {conn_id}")


def test_a_process_that_no_longer_acts_for_its_task_says_so_and_ends(
    conn_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise NotOwnerError("This process no longer acts for its task.")

    hook = OdiRouterHook(conn_id)
    hook.before_call = refuse
    with pytest.raises(NotOwnerError):
        cancel_on_worker(hook, ENDPOINT, ["a"], cause="killed")
    assert caplog.messages
    assert caplog.messages[0].startswith("Not cancelled (This process no longer acts")


def lines_of(outcomes: dict[str, Outcome]) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []

    def log(level: int, text: str) -> Any:
        lines.append((level, text))

    log_outcomes(outcomes, conn_id="shop", endpoint=ENDPOINT, log=log, why="The task was killed.")
    return lines


def cancel_command(request_id: str) -> str:
    return f"To cancel by hand: odirouter-request cancel gpt_image_1_edit {request_id} --conn-id shop"


def test_those_with_the_same_outcome_are_logged_together() -> None:
    lost = ServiceError("It broke.", status_code=503)
    (level, text), *bad = lines_of(
        {
            "one": CancelOutcome.REQUESTED,
            "two": lost,
            "three": CancelOutcome.REQUESTED,
            "four": CancelOutcome.UNSUPPORTED,
            "five": lost,
        }
    )
    assert (level, text) == (logging.INFO, "The task was killed. Cancelled: 2 requests one, three.")
    assert [level for level, _ in bad] == [logging.ERROR] * 2
    assert bad[0][1] == (
        "The task was killed. Not cancelled (It broke); may still be running without a task, and may be paid: "
        f"2 requests two, five. {cancel_command('two')}"
    )
    assert "the endpoint cannot cancel; still running, and may be paid: request four." in bad[1][1]
    assert bad[1][1].endswith(cancel_command("four"))


@pytest.mark.parametrize(("number", "more"), [(MAX_LISTED_IDS, False), (MAX_LISTED_IDS + 1, True)])
def test_a_line_holds_so_many_ids_and_no_more(number: int, more: bool) -> None:
    ids = [f"request-{index:04}" for index in range(number)]
    [(_, text)] = lines_of(dict.fromkeys(ids, CancelOutcome.REQUESTED))
    assert text.count("request-") == MAX_LISTED_IDS
    assert ("…" in text) is more
    assert f"{number} requests" in text
