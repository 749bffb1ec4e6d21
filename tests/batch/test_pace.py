"""How many requests a batch keeps alive, if the service allows fewer than the task does."""

from __future__ import annotations

from airflow_provider_odirouter.batch.pace import SubmitPace


def limited(alive: int, *, retry_after: float | None = None, times: int = 1) -> SubmitPace:
    """A pace that was refused at 0 s."""
    pace = SubmitPace(100)
    for _ in range(times):
        pace.note_rate_limited(retry_after, alive=alive, now=0.0)
    return pace


def test_the_tasks_own_limit_counts() -> None:
    pace = SubmitPace(3)
    assert pace.may_submit(alive=1, submitting=1, now=0.0)
    assert not pace.may_submit(alive=2, submitting=1, now=0.0)
    assert not pace.may_submit(alive=3, submitting=0, now=0.0)


def test_after_a_refusal_the_next_edit_waits_for_the_end_of_a_request() -> None:
    pace = limited(40)
    assert not pace.may_submit(alive=40, submitting=0, now=0.1)
    assert pace.may_submit(alive=39, submitting=0, now=0.1)
    assert not pace.may_submit(alive=39, submitting=1, now=0.1)


def test_nothing_is_submitted_before_the_time_that_the_service_has_asked_for() -> None:
    pace = limited(40, retry_after=5.0)
    assert not pace.may_submit(alive=0, submitting=0, now=4.9)
    assert pace.may_submit(alive=0, submitting=0, now=5.0)


def test_after_a_pause_a_single_submit_beyond_the_limit_is_tried() -> None:
    pace = limited(40)
    assert pace.may_submit(alive=40, submitting=0, now=1.0)
    assert not pace.may_submit(alive=40, submitting=1, now=1.0)


def test_pauses_double_up_to_half_a_minute() -> None:
    pace, now, pauses = SubmitPace(100), 0.0, []
    for _ in range(7):
        pace.note_rate_limited(None, alive=40, now=now)
        began = now
        while not pace.may_submit(alive=40, submitting=0, now=now):
            now += 0.5
        pauses.append(now - began)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_submits_that_are_refused_side_by_side_are_one_refusal() -> None:
    assert limited(40, times=8).may_submit(alive=40, submitting=0, now=1.0)


def test_a_submit_that_is_taken_beyond_the_limit_doubles_it() -> None:
    pace = limited(10)
    pace.note_submitted(alive=11)
    assert pace.may_submit(alive=21, submitting=0, now=1.0)
    assert not pace.may_submit(alive=22, submitting=0, now=0.5)
    pace.note_submitted(alive=23)
    pace.note_submitted(alive=47)
    pace.note_submitted(alive=95)
    assert pace.may_submit(alive=99, submitting=0, now=0.5)
    assert not pace.may_submit(alive=100, submitting=0, now=1000.0)


def test_a_submit_into_a_freed_slot_does_not_lift_the_limit() -> None:
    pace = limited(40)
    pace.note_submitted(alive=40)
    assert not pace.may_submit(alive=40, submitting=0, now=0.5)


def test_it_gives_up_after_five_minutes_of_refusals_without_a_request() -> None:
    pace = limited(0)
    pace.note_rate_limited(None, alive=0, now=299.0)
    assert not pace.gives_up(alive=0, now=299.0)
    assert pace.gives_up(alive=0, now=300.0)
    assert not pace.gives_up(alive=1, now=300.0)


def test_a_submit_that_is_taken_meanwhile_starts_the_five_minutes_again() -> None:
    pace = limited(0)
    pace.note_submitted(alive=1)
    pace.note_rate_limited(None, alive=0, now=299.0)
    assert not pace.gives_up(alive=0, now=598.0)
