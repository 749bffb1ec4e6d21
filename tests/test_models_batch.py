"""The shapes of a batch: its edits, its summary, and the event that brings the endings of a thousand requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from airflow_provider_odirouter.models import (
    BatchEvent,
    BatchItem,
    BatchSummary,
    CancelOutcome,
    Ending,
    Failure,
    LandedOutput,
    Phase,
    RequestEvent,
)
from airflow_provider_odirouter.triggers.batch import OdiRouterBatchTrigger

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OUTPUT = LandedOutput(path="/out/a.png", content_type="image/png", width=1, height=2, size_bytes=3, sha256="4")
MYSQL_TEXT = 64 * 2**10


def event(ending: Ending, request_id: str = "mmsu_1", **fields: Any) -> RequestEvent:
    return RequestEvent(ending=ending, endpoint="model", request_id=request_id, at=AT, **fields)


def brought(events: Sequence[RequestEvent]) -> list[RequestEvent]:
    """The events, after their way through Airflow's database."""
    text = BatchEvent.of(events).model_dump_json()
    return list(BatchEvent.model_validate_json(text).events("model", [one.request_id for one in events]))


# --- BatchEvent


@pytest.mark.parametrize("cancel", [None, *CancelOutcome])
@pytest.mark.parametrize("ending", list(Ending))
def test_every_ending_comes_through_with_what_its_cancel_came_to(ending: Ending, cancel: CancelOutcome | None) -> None:
    why = {"reason": "Nothing was found", "vendor": "No"} if ending in {Ending.UNWATCHED, Ending.LOST} else {}
    events = [
        event(Ending.SUCCEEDED, "mmsu_0", inference_seconds=12.25),
        event(ending, cancel=cancel, **why),
        event(Ending.CANCELED, "mmsu_2"),
    ]
    assert brought(events) == events


def test_a_cancel_that_failed_comes_through_without_its_words() -> None:
    [one] = brought([event(Ending.TIMED_OUT, cancel_error="The network is down")])
    assert (one.cancel, one.cancel_error) == (None, "see the log")


def test_why_a_request_has_failed_is_left_to_another_look() -> None:
    failure = Failure(error_type="CONTENT_BLOCKED", message="x" * 500)
    [one] = brought([event(Ending.FAILED, failure=failure)])
    assert one == event(Ending.FAILED)


def test_why_looking_failed_is_told_of_those_that_could_not_be_looked_at_alone() -> None:
    events = [
        event(Ending.SUCCEEDED, "mmsu_0"),
        event(Ending.UNWATCHED, "mmsu_1", reason="503", vendor="Busy"),
        event(Ending.UNWATCHED, "mmsu_2", reason="A time-out"),
        event(Ending.TIMED_OUT, "mmsu_3"),
    ]
    assert [(one.reason, one.vendor) for one in brought(events)] == [
        (None, None),
        ("503", "Busy"),
        ("503", "Busy"),
        (None, None),
    ]
    [lost] = brought([event(Ending.LOST)])
    assert lost.reason == "see the log"


def test_the_time_comes_through_to_the_second() -> None:
    [one] = brought([event(Ending.SUCCEEDED).model_copy(update={"at": AT + timedelta(milliseconds=400)})])
    assert one.at == AT


def test_an_event_of_a_thousand_requests_has_room_in_any_database() -> None:
    endings, outcomes = list(Ending), [None, *CancelOutcome]
    events = [
        event(
            endings[number % len(endings)],
            f"mmsu_{uuid4().hex}",
            inference_seconds=12.345678 + number,
            cancel=outcomes[number % len(outcomes)],
            reason="x" * 500,
            vendor="y" * 500,
        )
        for number in range(1_000)
    ]
    size = len(json.dumps(BatchEvent.of(events).model_dump(mode="json")))
    assert size < 30_000, size


def test_a_trigger_for_a_thousand_requests_has_room_in_any_database() -> None:
    trigger = OdiRouterBatchTrigger(
        odirouter_conn_id="odirouter_default",
        endpoint="gpt_image_1_edit",
        wave=uuid4().hex,
        request_ids=[f"mmsu_{uuid4().hex}" for _ in range(1_000)],
        deadline=AT.timestamp(),
    )
    # Airflow encrypts it, which makes it a third longer.
    size = len(Fernet(Fernet.generate_key()).encrypt(json.dumps(trigger.serialize()[1]).encode()))
    assert size < MYSQL_TEXT, size


# --- BatchItem


def test_a_line_of_the_manifest_has_what_others_may_want_and_no_more() -> None:
    landed = BatchItem(
        number=7,
        name="cup",
        edit={"prompt": "Blue", "images": ["/in/a.png"]},
        sha256={"/in/a.png": "abc"},
        request_id="mmsu_1",
        submitted_at=AT,
        completed_at=AT,
        inference_seconds=0.0,
        outputs=(OUTPUT,),
        metadata={"seed": 0},
        phase=Phase.LANDED,
        fingerprint="f" * 64,
        try_number=2,
    )
    line = landed.to_manifest()
    assert line == json.loads(json.dumps(line))
    assert list(line) == [
        "number",
        "name",
        "edit",
        "sha256",
        "request_id",
        "submitted_at",
        "completed_at",
        "inference_seconds",
        "outputs",
        "metadata",
    ]
    again = BatchItem.model_validate(line)
    assert again == landed.model_copy(update={"phase": Phase.PLANNED, "fingerprint": "", "try_number": 0})


def test_a_line_of_an_edit_that_has_failed_says_why() -> None:
    bad = BatchItem(number=1, name="cup", edit={"prompt": "Blue"}, phase=Phase.FAILED, error="No", error_type="BLOCKED")
    assert bad.to_manifest() == {
        "number": 1,
        "name": "cup",
        "edit": {"prompt": "Blue"},
        "error": "No",
        "error_type": "BLOCKED",
    }


@pytest.mark.parametrize("phase", list(Phase))
def test_only_a_request_that_may_be_running_is_alive(phase: Phase) -> None:
    assert BatchItem(number=1, name="cup", edit={}, phase=phase).is_alive is (phase is Phase.SUBMITTED)


# --- BatchSummary


def test_a_summary_counts_what_has_landed() -> None:
    def one(number: int, phase: Phase, outputs: int = 0, **fields: Any) -> BatchItem:
        return BatchItem(number=number, name="a", edit={}, phase=phase, outputs=(OUTPUT,) * outputs, **fields)

    later = AT + timedelta(minutes=5)
    items = [
        one(1, Phase.LANDED, 3, submitted_at=later, completed_at=later),
        one(2, Phase.FAILED),
        one(3, Phase.LANDED, 1, submitted_at=AT, completed_at=AT),
        one(4, Phase.SUCCEEDED, submitted_at=later, completed_at=AT),
        one(5, Phase.PLANNED),
    ]
    assert BatchSummary.of("model", "/out/a.jsonl", items).model_dump(mode="json") == {
        "endpoint": "model",
        "manifest": "/out/a.jsonl",
        "edits": 5,
        "succeeded": 2,
        "failed": 3,
        "outputs": 4,
        "submitted_at": "2026-01-02T03:04:05Z",
        "completed_at": "2026-01-02T03:09:05Z",
    }
    nothing = BatchSummary.of("model", "/out/a.jsonl", [])
    assert (nothing.edits, nothing.submitted_at, nothing.completed_at) == (0, None, None)
