"""Cancelling many requests, and what is said of it."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from airflow_provider_odirouter.errors import ServiceError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import CancelOutcome
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.triggers.canceling import LONGEST_LIST, Outcome, cancel_all, tell

ENDPOINT = "gpt_image_1_edit"


def submit(conn_id: str, number: int) -> list[str]:
    parameters = {"prompt": "Blue", "images": ["https://example.com/cup.png"]}
    return [OdiRouterHook(conn_id).submit(ENDPOINT, parameters).request_id for _ in range(number)]


async def test_the_outcome_of_each_is_told(conn_id: str, sandbox: Sandbox) -> None:
    [done] = submit(conn_id, 1)
    sandbox.configure(run_seconds=60)
    [alive] = submit(conn_id, 1)
    outcomes = await cancel_all(OdiRouterHook(conn_id), ENDPOINT, [done, alive, "never-heard-of"], seconds=10)
    assert outcomes == {
        done: CancelOutcome.ALREADY_COMPLETED,
        alive: CancelOutcome.REQUESTED,
        "never-heard-of": CancelOutcome.NOT_FOUND,
    }


async def test_one_that_cannot_be_cancelled_keeps_no_other_from_it(
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
    outcomes = await cancel_all(OdiRouterHook(conn_id), ENDPOINT, ids, seconds=10)
    assert isinstance(outcomes[ids[0]], RuntimeError)
    assert sandbox.alive == [ids[0]]


async def test_it_ends_in_time_whatever_the_service_does(conn_id: str, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=60)
    ids = submit(conn_id, 3)
    sandbox.configure(hang=True)
    began = time.monotonic()
    outcomes = await cancel_all(OdiRouterHook(conn_id), ENDPOINT, ids, seconds=0.5)
    assert time.monotonic() - began < 10
    assert list(outcomes) == ids
    assert {str(outcome) for outcome in outcomes.values()} == {"no answer within 0.5 s"}
    sandbox.configure(hang=False)


async def test_a_passing_trouble_is_outlived(conn_id: str, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=60)
    ids = submit(conn_id, 3)
    sandbox.configure(server_errors=2, fault_actions={"cancel"})
    outcomes = await cancel_all(OdiRouterHook(conn_id), ENDPOINT, ids, seconds=10)
    assert set(outcomes.values()) == {CancelOutcome.REQUESTED}
    assert not sandbox.alive


async def test_nothing_is_cancelled_where_there_is_nothing(conn_id: str) -> None:
    assert await cancel_all(OdiRouterHook(conn_id), ENDPOINT, [], seconds=1) == {}


def told(outcomes: dict[str, Outcome]) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []

    def log(level: int, text: str) -> Any:
        lines.append((level, text))

    tell(outcomes, conn_id="shop", endpoint=ENDPOINT, log=log, why="The task was killed.")
    return lines


def by_hand(request_id: str) -> str:
    return f"To cancel it by hand: OdiRouterHook('shop').cancel('gpt_image_1_edit', '{request_id}')"


def test_those_with_the_same_fate_are_told_together() -> None:
    lost = ServiceError("It broke.", status_code=503)
    (level, text), *bad = told(
        {
            "one": CancelOutcome.REQUESTED,
            "two": lost,
            "three": CancelOutcome.REQUESTED,
            "four": CancelOutcome.UNSUPPORTED,
            "five": lost,
        }
    )
    assert (level, text) == (logging.INFO, "The task was killed. 2 requests one, three: It was cancelled.")
    assert [level for level, _ in bad] == [logging.ERROR] * 2
    assert "2 requests two, five may be running with nobody waiting for it, and be paid" in bad[0][1]
    assert bad[0][1].endswith(f"(It broke. A retry may succeed). {by_hand('two')}")
    assert "Request four: The endpoint cannot cancel: it runs on and may be paid." in bad[1][1]
    assert bad[1][1].endswith(by_hand("four"))


@pytest.mark.parametrize(("number", "more"), [(LONGEST_LIST, False), (LONGEST_LIST + 1, True)])
def test_a_line_holds_so_many_ids_and_no_more(number: int, more: bool) -> None:
    ids = [f"request-{index:04}" for index in range(number)]
    [(_, text)] = told(dict.fromkeys(ids, CancelOutcome.REQUESTED))
    assert text.count("request-") == LONGEST_LIST
    assert ("…" in text) is more
    assert f"{number} requests" in text
