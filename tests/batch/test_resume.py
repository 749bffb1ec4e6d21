"""A new try continues an earlier one's edits as the documentation's table says, and pays nothing twice."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from airflow_provider_odirouter.batch.resume import ResumePlan, as_failed, as_planned, plan_resume
from airflow_provider_odirouter.errors import RequestFailedError, RequestRefusedError
from airflow_provider_odirouter.models import BatchItem, LandedOutput, Phase
from tests.batch.conftest import item

OUTPUT = LandedOutput(path="/out/a.png", content_type="image/png", width=1, height=2, size_bytes=3, sha256="4")


def resume_plan(
    planned: list[BatchItem],
    saved: list[BatchItem],
    *,
    cleared: bool = False,
    may_cancel: bool = True,
    **arguments: Any,
) -> ResumePlan:
    arguments = {"on_lost_submit": "submit"} | arguments
    return plan_resume(planned, saved, cleared=cleared, may_cancel=may_cancel, **arguments)


def phases(found: ResumePlan) -> list[Phase]:
    return [one.phase for one in found.items]


def again(one: BatchItem) -> BatchItem:
    """The same edit, as a new try plans it."""
    return BatchItem(number=one.number, name=one.name, edit=one.edit, sha256=one.sha256, fingerprint=one.fingerprint)


# --- One edit, in every phase

REFUSED: dict[str, Any] = {"retry_helps": False, "error": "No", "error_type": "CONTENT_BLOCKED"}
IN_PASSING: dict[str, Any] = {"retry_helps": True, "error": "No", "error_type": "INFERENCE_FAILURE"}
P = Phase


@pytest.mark.parametrize("may_cancel", [True, False], ids=["may cancel", "may not cancel"])
@pytest.mark.parametrize("on_lost_submit", ["submit", "fail"])
@pytest.mark.parametrize(
    ("saved", "retried", "cleared"),
    [
        (item(1), P.PLANNED, P.PLANNED),
        (item(1, phase=P.SUCCEEDED), P.SUCCEEDED, P.SUCCEEDED),
        (item(1, phase=P.LANDED), P.LANDED, P.LANDED),
        (item(1, phase=P.FAILED, **REFUSED), P.FAILED, P.PLANNED),
        (item(1, phase=P.FAILED, **IN_PASSING), P.PLANNED, P.PLANNED),
    ],
    ids=["planned", "succeeded", "landed", "refused", "failed in passing"],
)
def test_the_table(saved: BatchItem, retried: Phase, cleared: Phase, may_cancel: bool, on_lost_submit: str) -> None:
    for was_cleared, phase in ((False, retried), (True, cleared)):
        found = resume_plan(
            [again(saved)], [saved], cleared=was_cleared, may_cancel=may_cancel, on_lost_submit=on_lost_submit
        )
        assert (phases(found), found.unwanted, found.lost) == ([phase], {}, 0)
        [one] = found.items
        if phase is P.PLANNED:
            assert one == again(saved)
        else:
            assert one == saved


@pytest.mark.parametrize("on_lost_submit", ["submit", "fail"])
@pytest.mark.parametrize(
    ("cleared", "may_cancel", "continues"),
    [(False, True, True), (False, False, True), (True, False, True), (True, True, False)],
)
def test_the_table_for_a_request_that_may_be_running(
    cleared: bool, may_cancel: bool, continues: bool, on_lost_submit: str
) -> None:
    saved = item(1, phase=P.SUBMITTED, error="It was not polled", error_type="RequestUnreachableError")
    found = resume_plan([again(saved)], [saved], cleared=cleared, may_cancel=may_cancel, on_lost_submit=on_lost_submit)
    running = saved.model_copy(update={"error": None, "error_type": None})
    if continues:
        assert (found.items[:], found.unwanted) == ([running], {})
        return
    assert (found.items[:], found.unwanted) == ([again(saved)], {saved.request_id: running})
    # It had ended before it could be cancelled.
    found.keep_waiting_for(str(saved.request_id))
    assert list(found.items) == [running]


@pytest.mark.parametrize("may_cancel", [True, False])
@pytest.mark.parametrize(
    ("cleared", "on_lost_submit", "phase", "lost"),
    [(False, "submit", P.PLANNED, 1), (True, "submit", P.PLANNED, 1), (True, "fail", P.PLANNED, 1)],
)
def test_the_table_for_a_submit_that_may_have_arrived(
    cleared: bool, on_lost_submit: str, phase: Phase, lost: int, may_cancel: bool
) -> None:
    saved = item(1, phase=P.SUBMITTING)
    found = resume_plan([again(saved)], [saved], cleared=cleared, may_cancel=may_cancel, on_lost_submit=on_lost_submit)
    assert (phases(found), found.lost, found.unwanted) == ([phase], lost, {})


def test_a_submit_that_may_have_arrived_can_fail_until_the_task_is_cleared() -> None:
    saved = item(1, phase=P.SUBMITTING)
    first = resume_plan([again(saved)], [saved], on_lost_submit="fail")
    [one] = first.items
    assert (one.phase, one.error_type, one.retry_helps, first.lost) == (P.FAILED, "LostSubmitError", False, 0)
    assert "it is unknown whether the submit arrived. The request may be running and may be paid" in str(one.error)
    assert resume_plan([again(saved)], [one], on_lost_submit="fail").items[:] == [one]
    assert resume_plan([again(saved)], [one], on_lost_submit="fail", cleared=True).items[:] == [again(saved)]


def test_a_first_try_plans_all() -> None:
    planned = [item(1), item(2)]
    found = resume_plan(planned, [])
    assert (found.items[:], found.unwanted, found.lost, list(found.remarks())) == (planned, {}, 0, [])


# --- Other edits than before


def test_a_line_inserted_at_the_top_pays_for_nothing_twice() -> None:
    saved = [item(1, phase=P.LANDED), item(2, phase=P.SUBMITTED), item(3, phase=P.SUCCEEDED), item(4, phase=P.FAILED)]
    planned = [item(1, "new", name="new")]
    planned += [again(one).model_copy(update={"number": one.number + 1}) for one in saved]
    found = resume_plan(planned, saved)
    assert phases(found) == [P.PLANNED, P.LANDED, P.SUBMITTED, P.SUCCEEDED, P.PLANNED]
    assert [one.request_id for one in found.items] == [None, *[one.request_id for one in saved[:3]], None]
    assert [one.number for one in found.items] == [1, 2, 3, 4, 5]
    assert found.unwanted == {}


def test_another_order_changes_nothing_but_the_numbers() -> None:
    saved = [item(number, phase=P.LANDED, outputs=(OUTPUT,)) for number in range(1, 11)]
    planned = [again(one).model_copy(update={"number": 11 - one.number}) for one in reversed(saved)]
    found = resume_plan(planned, saved)
    assert phases(found) == [P.LANDED] * 10
    assert [(one.number, one.request_id) for one in found.items] == [
        (number, saved[10 - number].request_id) for number in range(1, 11)
    ]


def test_an_edit_names_the_new_path_of_a_picture_that_has_moved() -> None:
    saved = item(1, "same", P.LANDED, sha256={"/in/1.png": "a"}, outputs=(OUTPUT,))
    moved = again(saved).model_copy(update={"edit": {"images": ["/new/1.png"]}, "sha256": {"/new/1.png": "a"}})
    [one] = resume_plan([moved], [saved]).items
    assert (one.phase, one.edit, one.sha256) == (P.LANDED, moved.edit, moved.sha256)
    refused = saved.model_copy(update={"phase": P.FAILED, "outputs": (), "request_id": "mmsu_1", **REFUSED})
    [one] = resume_plan([moved], [refused]).items
    assert (one.phase, one.edit, one.error, one.request_id) == (P.FAILED, moved.edit, "No", "mmsu_1")


def test_a_renamed_edit_lands_again_and_is_not_paid() -> None:
    saved = item(1, phase=P.LANDED, outputs=(OUTPUT,), inference_seconds=2.0)
    [one] = resume_plan([again(saved).model_copy(update={"name": "better"})], [saved]).items
    assert (one.name, one.phase, one.outputs) == ("better", P.SUCCEEDED, ())
    assert (one.request_id, one.inference_seconds) == (saved.request_id, 2.0)


@pytest.mark.parametrize("phase", [P.SUBMITTED, P.SUCCEEDED])
def test_a_renamed_edit_continues_under_its_new_name(phase: Phase) -> None:
    saved = item(1, phase=phase)
    [one] = resume_plan([again(saved).model_copy(update={"name": "better"})], [saved]).items
    assert one == saved.model_copy(update={"name": "better"})


@pytest.mark.parametrize("cleared", [False, True])
@pytest.mark.parametrize("may_cancel", [False, True])
def test_requests_of_edits_that_are_not_in_the_list_any_more_are_not_needed(cleared: bool, may_cancel: bool) -> None:
    saved = [item(number, phase=phase) for number, phase in enumerate(Phase, start=1)]
    found = resume_plan([item(1, "another")], saved, cleared=cleared, may_cancel=may_cancel)
    [running] = [one for one in saved if one.phase is P.SUBMITTED]
    assert found.unwanted == {running.request_id: None}
    found.keep_waiting_for(str(running.request_id))
    assert list(found.items) == [item(1, "another")]


# --- The same edit more than once


def named(number: int, name: str, phase: Phase = P.PLANNED, **fields: Any) -> BatchItem:
    return item(number, "same", phase, name=name, **fields)


def test_the_same_edits_keep_their_names() -> None:
    saved = [named(1, "a", P.LANDED), named(2, "b", P.SUBMITTED), named(3, "c", P.FAILED)]
    planned = [named(1, "c"), named(2, "b"), named(3, "a"), named(4, "d")]
    found = resume_plan(planned, saved)
    assert phases(found) == [P.PLANNED, P.SUBMITTED, P.LANDED, P.PLANNED]
    assert [one.request_id for one in found.items] == [None, saved[1].request_id, saved[0].request_id, None]


def test_a_new_name_at_the_top_takes_nothing_from_an_old_one() -> None:
    saved = [named(1, "old", P.LANDED, outputs=(OUTPUT,))]
    found = resume_plan([named(1, "new"), named(2, "old")], saved)
    assert phases(found) == [P.PLANNED, P.LANDED]
    assert found.items[1].outputs == (OUTPUT,)


def test_a_paid_edit_is_taken_before_one_that_has_failed() -> None:
    saved = [named(1, "a", P.FAILED, **REFUSED), named(2, "b", P.SUBMITTING), named(3, "c", P.LANDED)]
    for name in ("a", "b", "new"):
        found = resume_plan([named(1, name)], saved)
        assert (phases(found), found.items[0].request_id) == ([P.SUCCEEDED], saved[2].request_id)
        assert found.lost == 0


def test_more_of_the_same_edits_are_running_than_are_needed() -> None:
    saved = [named(number, f"name-{number}", P.SUBMITTED) for number in range(1, 6)]
    found = resume_plan([named(1, "name-4"), named(2, "x")], saved)
    assert [one.request_id for one in found.items] == [saved[3].request_id, saved[0].request_id]
    assert list(found.unwanted) == [saved[number].request_id for number in (1, 2, 4)]


def test_thousands_of_the_same_are_matched_quickly() -> None:
    saved = [named(number, f"name-{number}", P.LANDED) for number in range(1, 10_001)]
    planned = [named(number, f"name-{10_001 - number}") for number in range(1, 10_001)]
    found = resume_plan(planned, saved)
    assert [one.request_id for one in found.items] == [one.request_id for one in reversed(saved)]


# --- Whatever the lists


@pytest.mark.parametrize("cleared", [False, True], ids=["retried", "cleared"])
@pytest.mark.parametrize("seed", range(100))
def test_nothing_that_is_paid_is_paid_again(seed: int, cleared: bool) -> None:
    chance = random.Random(seed)
    may_cancel = chance.random() < 0.5

    def batch(size: int, phases: list[Phase]) -> list[BatchItem]:
        names = chance.sample(range(30), size)
        found = []
        for number, name in enumerate(names, start=1):
            phase = chance.choice(phases)
            helps = {"retry_helps": chance.random() < 0.5}
            found.append(item(number, f"edit {chance.randrange(8)}", phase, name=f"name-{name}", **helps))
        return found

    saved = batch(chance.randrange(25), list(Phase))
    planned = batch(chance.randrange(1, 25), [P.PLANNED])
    on_lost_submit = chance.choice(["submit", "fail"])
    found = resume_plan(planned, saved, cleared=cleared, may_cancel=may_cancel, on_lost_submit=on_lost_submit)

    # Every edit is there, at its position and with its name in the new list.
    assert [(one.number, one.name, one.fingerprint) for one in found.items] == [
        (one.number, one.name, one.fingerprint) for one in planned
    ]
    # No request is in two edits, and none that may be running is forgotten.
    in_use = [one.request_id for one in found.items if one.phase in {P.SUBMITTED, P.SUCCEEDED, P.LANDED}]
    assert len(in_use) == len(set(in_use))
    assert not set(in_use) & set(found.unwanted)
    running = {one.request_id for one in saved if one.phase is P.SUBMITTED}
    assert running <= set(in_use) | set(found.unwanted)
    assert set(found.unwanted) <= running
    # Of each edit, no more are planned than are not paid.
    paid = Counter(one.fingerprint for one in saved if one.phase in {P.SUBMITTED, P.SUCCEEDED, P.LANDED})
    canceled = Counter(one.fingerprint for one in found.unwanted.values() if one)
    wanted = Counter(one.fingerprint for one in planned)
    for fingerprint, count in Counter(one.fingerprint for one in found.items if one.phase is P.PLANNED).items():
        assert count <= max(0, wanted[fingerprint] - paid[fingerprint]) + canceled[fingerprint]
    assert cleared or not canceled
    assert may_cancel or not canceled
    # What has landed under its name is left alone.
    landed = {(one.name, one.fingerprint) for one in saved if one.phase is P.LANDED}
    for one in found.items:
        assert ((one.name, one.fingerprint) in landed) == (one.phase is P.LANDED)
    # The same again changes nothing, if nothing has happened.
    assert resume_plan(planned, list(found.items), cleared=False, on_lost_submit="submit").items[:] == found.items[:]


# --- Words


def test_the_log_says_what_is_paid_and_what_is_not() -> None:
    saved = [item(number, phase=phase) for number, phase in enumerate(Phase, start=1)]
    planned = [again(one) for one in saved if one.phase is not P.SUBMITTED]
    assert list(resume_plan(planned, saved).remarks()) == [
        "This try continues 2 of 5 edits, and does not pay for them again.",
        (
            "An earlier try died while it submitted. Submits without an answer: 1. Their requests may be running and "
            "may be paid; OdiRouter has no way to find out. This try submits these edits again."
        ),
        "Requests of an earlier try that this try does not need: 1.",
    ]


def test_a_failed_edit_says_why_and_whether_a_retry_helps() -> None:
    running = item(1, phase=P.SUBMITTED)
    is_transient = as_failed(running, RequestFailedError("It failed.", vendor="Oops", request_id="mmsu_1"))
    assert (is_transient.phase, is_transient.error_type, is_transient.retry_helps) == (
        P.FAILED,
        "RequestFailedError",
        True,
    )
    assert is_transient.error == "It failed. OdiRouter says: “Oops”. Request: mmsu_1. A retry submits a new request."
    assert is_transient.request_id == running.request_id
    final = as_failed(running, RequestRefusedError("It failed."), error_type="CONTENT_BLOCKED")
    assert (final.error_type, final.retry_helps) == ("CONTENT_BLOCKED", False)
    assert as_failed(running, OSError("a disk")).retry_helps


def test_an_edit_that_is_planned_again_has_no_request() -> None:
    saved = item(1, phase=P.SUBMITTED)
    assert as_planned(saved) == item(1)
