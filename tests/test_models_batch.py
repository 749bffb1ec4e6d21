"""The models of a batch: its edits, its summary, and the event with the endings of a thousand requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import random
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from airflow_provider_odirouter import xcoms
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
    Spending,
    pack_deadlines,
    unpack_deadlines,
)
from airflow_provider_odirouter.models import batch as models_batch
from airflow_provider_odirouter.triggers.batch import OdiRouterBatchTrigger
from airflow_provider_odirouter.xcoms import RequestRecord

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OUTPUT = LandedOutput(path="/out/a.png", content_type="image/png", width=1, height=2, size_bytes=3, sha256="4")
MYSQL_TEXT = 64 * 2**10


class TimeOutError(BaseException):
    """As Airflow's own, which a signal handler raises."""


def event(ending: Ending, request_id: str = "mmsu_1", **fields: Any) -> RequestEvent:
    return RequestEvent(ending=ending, endpoint="model", request_id=request_id, at=AT, **fields)


def stored(events: Sequence[RequestEvent]) -> list[RequestEvent]:
    """The events as Airflow's database returns them."""
    text = BatchEvent.from_events(events).model_dump_json()
    return list(BatchEvent.model_validate_json(text).events("model", [one.request_id for one in events]))


# --- BatchEvent


@pytest.mark.parametrize("cancel", [None, *CancelOutcome])
@pytest.mark.parametrize("ending", list(Ending))
def test_every_ending_is_stored_with_the_outcome_of_its_cancel(ending: Ending, cancel: CancelOutcome | None) -> None:
    why = {"reason": "Nothing was found", "vendor": "No"} if ending in {Ending.UNREACHABLE, Ending.LOST} else {}
    events = [
        event(Ending.SUCCEEDED, "mmsu_0", inference_seconds=12.25),
        event(ending, cancel=cancel, **why),
        event(Ending.CANCELED, "mmsu_2"),
    ]
    assert stored(events) == events


def test_a_failed_cancel_is_stored_without_its_reason() -> None:
    [one] = stored([event(Ending.TIMED_OUT, cancel_error="The network is down")])
    assert (one.cancel, one.cancel_error) == (None, "see the log")


def test_the_reason_of_a_failed_request_is_not_stored() -> None:
    failure = Failure(error_type="CONTENT_BLOCKED", message="x" * 500)
    [one] = stored([event(Ending.FAILED, failure=failure)])
    assert one == event(Ending.FAILED)


def test_only_unreachable_requests_get_the_reason_of_a_failed_poll() -> None:
    events = [
        event(Ending.SUCCEEDED, "mmsu_0"),
        event(Ending.UNREACHABLE, "mmsu_1", reason="503", vendor="Busy"),
        event(Ending.UNREACHABLE, "mmsu_2", reason="A time-out"),
        event(Ending.TIMED_OUT, "mmsu_3"),
    ]
    assert [(one.reason, one.vendor) for one in stored(events)] == [
        (None, None),
        ("503", "Busy"),
        ("503", "Busy"),
        (None, None),
    ]
    [lost] = stored([event(Ending.LOST)])
    assert lost.reason == "see the log"


def test_the_time_is_stored_to_the_second() -> None:
    [one] = stored([event(Ending.SUCCEEDED).model_copy(update={"at": AT + timedelta(milliseconds=400)})])
    assert one.at == AT


def test_an_event_of_a_thousand_requests_fits_into_any_database() -> None:
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
    size = len(json.dumps(BatchEvent.from_events(events).model_dump(mode="json")))
    assert size < 30_000, size


def test_a_trigger_for_a_thousand_requests_fits_into_any_database() -> None:
    trigger = OdiRouterBatchTrigger(
        odirouter_conn_id="odirouter_default",
        endpoint="gpt_image_1_edit",
        wait_id=uuid4().hex,
        deadlines=pack_deadlines(
            {f"mmsu_{uuid4().hex}-{number:03}": AT.timestamp() + random() * 3600 for number in range(1_000)}
        ),
    )
    # Airflow encrypts it, which makes it a third longer.
    size = len(Fernet(Fernet.generate_key()).encrypt(json.dumps(trigger.serialize()[1]).encode()))
    assert size < MYSQL_TEXT, size


def test_requests_keep_their_order_and_their_own_deadlines() -> None:
    deadlines = {"mmsu_2": 1_700_000_010.0, "mmsu_1": 1_700_000_007.0, "mmsu_3": 1_700_003_600.0}
    assert list(unpack_deadlines(pack_deadlines(deadlines)).items()) == list(deadlines.items())


def test_a_deadline_never_comes_sooner_for_being_packed() -> None:
    deadlines = {"mmsu_1": 1_700_000_007.25, "mmsu_2": 1_700_000_007.0}
    assert unpack_deadlines(pack_deadlines(deadlines)) == {"mmsu_1": 1_700_000_008.0, "mmsu_2": 1_700_000_007.0}


@pytest.mark.parametrize("text", ["", "no", "bm8=", pack_deadlines({"mmsu_1": 1.0})[:-8]])
def test_what_is_no_list_of_deadlines_is_an_error_of_the_trigger_alone(text: str) -> None:
    """Any other error than a TypeError would end all triggers of its triggerer."""
    with pytest.raises(TypeError):
        OdiRouterBatchTrigger(odirouter_conn_id="c", endpoint="e", wait_id="w", deadlines=text)


# --- BatchItem


def test_a_line_of_the_manifest_has_only_public_fields() -> None:
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
        submits=2,
        cost=0.34,
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
        "submits",
        "cost",
    ]
    again = BatchItem.model_validate(line)
    assert again == landed.model_copy(update={"phase": Phase.PLANNED, "fingerprint": "", "try_number": 0})


def test_the_line_of_a_failed_edit_has_the_reason() -> None:
    bad = BatchItem(number=1, name="cup", edit={"prompt": "Blue"}, phase=Phase.FAILED, error="No", error_type="BLOCKED")
    assert bad.to_manifest() == {
        "number": 1,
        "name": "cup",
        "edit": {"prompt": "Blue"},
        "error": "No",
        "error_type": "BLOCKED",
    }


@pytest.mark.parametrize(
    "write",
    [
        BatchItem(number=1, name="a", edit={"images": ["https://example.com/a.png"]}).to_line,
        BatchItem(number=1, name="a", edit={"images": ["https://example.com/a.png"]}).to_manifest,
        RequestRecord(endpoint="model", request_id="mmsu_1", images=("https://example.com/a.png",)).to_xcom,
    ],
    ids=["state", "manifest", "XCom"],
)
def test_a_time_out_that_comes_while_secrets_are_hidden_stays_one(
    write: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pydantic turns what its serializers raise into an error of its own, and so an execution_timeout into a failure.
    def interrupted(_: str) -> str:
        raise TimeOutError

    for module in (models_batch, xcoms):
        monkeypatch.setattr(module, "shorten_url", interrupted)
    with pytest.raises(TimeOutError):
        write()


@pytest.mark.parametrize("phase", list(Phase))
def test_only_a_submitted_edit_is_alive(phase: Phase) -> None:
    assert BatchItem(number=1, name="cup", edit={}, phase=phase).is_alive is (phase is Phase.SUBMITTED)


# --- BatchSummary


def test_a_summary_counts_landed_edits_and_outputs() -> None:
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
    spent = Spending(7, 1.19)
    assert BatchSummary.from_items("model", "/out/a.jsonl", items, spent).model_dump(mode="json") == {
        "endpoint": "model",
        "manifest": "/out/a.jsonl",
        "edits": 5,
        "succeeded": 2,
        "failed": 3,
        "outputs": 4,
        "submits": 7,
        "cost": 1.19,
        "submitted_at": "2026-01-02T03:04:05Z",
        "completed_at": "2026-01-02T03:09:05Z",
    }
    nothing = BatchSummary.from_items("model", "/out/a.jsonl", [], Spending())
    assert (nothing.edits, nothing.submitted_at, nothing.completed_at) == (0, None, None)
