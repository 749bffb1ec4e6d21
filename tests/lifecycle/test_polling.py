"""When to poll, when to stop waiting, and which event that makes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_odirouter.errors import (
    AuthenticationError,
    ConnectionNotFoundError,
    ConnectionSettingsError,
    EndpointNotFoundError,
    NoAnswerError,
    NoBalanceError,
    NotSentError,
    OdiRouterError,
    PathNotFoundError,
    RateLimitedError,
    RejectedError,
    RequestCanceledError,
    RequestError,
    RequestFailedError,
    RequestLostError,
    RequestNotFoundError,
    RequestRefusedError,
    RequestTimeoutError,
    RequestUnreachableError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.lifecycle.polling import (
    FIRST_POLL_DELAY,
    Cancel,
    Pause,
    Poll,
    Seen,
    Step,
    Wait,
    deadline_of,
    error_from_event,
    poll_until_done,
)
from airflow_provider_odirouter.models import CancelOutcome, Ending, Failure, RequestEvent, RequestState, RequestStatus

START = 1_800_000_000.0
"""2027-01-15 08:00:00 UTC."""
WAIT = Wait(
    endpoint="gpt_image_1_edit",
    request_id="mmsu_1",
    poll_interval=5.0,
    deadline=START + 900.0,
    cancel_on_timeout=True,
    submitted_at=START - 1.0,
)
"""900 seconds of time, a poll every 5."""

QUEUED = RequestStatus(state=RequestState.IN_QUEUE, raw_status="IN_QUEUE", queue_position=3)
RUNNING = RequestStatus(state=RequestState.IN_PROGRESS, raw_status="IN_PROGRESS")
ODD = RequestStatus(state=RequestState.UNKNOWN, raw_status="WARMING_UP")
SUCCEEDED = RequestStatus(state=RequestState.SUCCEEDED, raw_status="COMPLETED", inference_seconds=12.34)
FAILED = RequestStatus(
    state=RequestState.FAILED, raw_status="COMPLETED", failure=Failure(error_type="INFERENCE_FAILURE", message="Oops")
)
CANCELED = RequestStatus(
    state=RequestState.CANCELED, raw_status="COMPLETED", failure=Failure(error_type="CANCELED", message="By user")
)

NOT_SENT = NotSentError("No connection to odirouter.ai could be opened.", request_id="mmsu_1")
NO_ANSWER = NoAnswerError("odirouter.ai gave no whole answer.", request_id="mmsu_1")
UNREADABLE = UnreadableAnswerError("The answer is not OdiRouter's.", status_code=200)
BUSY = ServiceError("OdiRouter could not answer (503).", status_code=503, vendor="Busy", request_id="mmsu_1")
NOT_FOUND = RequestNotFoundError(
    "OdiRouter does not know this request (404).", status_code=404, vendor="Request not found", request_id="mmsu_1"
)
NO_KEY = AuthenticationError(
    "OdiRouter refuses the API key (401).", status_code=401, vendor="invalid_api_key", request_id="mmsu_1"
)


def rate_limited(retry_after: float | None = None) -> RateLimitedError:
    error = RateLimitedError("OdiRouter's rate limit stops the status (429).", status_code=429)
    error.retry_after = retry_after
    return error


@dataclass
class Story:
    """How a wait ended whose polls and cancels got scripted answers."""

    steps: list[Step] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """Seconds from the start to each poll or cancel."""
    event: RequestEvent | None = None
    """``None``: it still waits when the script ends."""

    @property
    def pauses(self) -> list[float]:
        return [step.seconds for step in self.steps if isinstance(step, Pause)]

    @property
    def notes(self) -> list[str]:
        return [step.note for step in self.steps if isinstance(step, Pause) and step.note]

    @property
    def calls(self) -> list[Step]:
        return [step for step in self.steps if not isinstance(step, Pause)]

    @property
    def ending(self) -> Ending | None:
        return self.event.ending if self.event else None


def play(
    *script: Seen, wait: Wait = WAIT, random: float = 0.5, first_poll_delay: float = 0.0, call_seconds: float = 0.0
) -> Story:
    """
    Drive a wait on a clock that only pauses and calls move.

    :param script: The answers to the polls and cancels, in order.
    :param random: What is drawn each time; in the middle, no pause is shorter or longer than it says.
    :param call_seconds: How long each poll and cancel takes.
    """
    story, clock, answers = Story(), [START], iter(script)
    steps = poll_until_done(wait, now=lambda: clock[0], random=lambda: random, first_poll_delay=first_poll_delay)
    seen: Seen = None
    try:
        while True:
            step = steps.send(seen)
            story.steps.append(step)
            if isinstance(step, Pause):
                clock[0] += step.seconds
                seen = None
                continue
            story.times.append(clock[0] - START)
            seen = next(answers, SCRIPT_ENDS)
            if seen is SCRIPT_ENDS:
                return story
            clock[0] += call_seconds
    except StopIteration as stop:
        story.event = stop.value
    assert next(answers, None) is None, "the wait ended before its script"
    return story


SCRIPT_ENDS = OdiRouterError("the script ends")


def until(seconds: float) -> Wait:
    """A wait whose deadline is so many seconds after the start."""
    return replace(WAIT, deadline=START + seconds)


# --- The first poll


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 7.0), (0.5, 9.5), (1.0, 12.0)])
def test_a_trigger_polls_first_after_7_seconds_and_spreads_that_over_one_interval(
    random: float, seconds: float
) -> None:
    assert FIRST_POLL_DELAY == 7.0
    story = play(SUCCEEDED, random=random, first_poll_delay=FIRST_POLL_DELAY)
    assert story.steps == [Pause(seconds), Poll()]


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 0.0), (0.5, 2.5), (1.0, 5.0)])
def test_a_worker_polls_first_within_one_interval(random: float, seconds: float) -> None:
    assert play(SUCCEEDED, random=random).steps == [Pause(seconds), Poll()]


@pytest.mark.parametrize(
    ("left", "first_poll_delay", "seconds"),
    [
        (3.0, 0.0, 3.0),
        (9.0, 7.0, 9.0),
        (3.0, 7.0, 7.0),
        (0.0, 7.0, 7.0),
        (-3600.0, 7.0, 7.0),
        (-3600.0, 0.0, 0.0),
    ],
)
def test_the_first_poll_waits_no_longer_than_the_deadline_but_never_comes_too_early(
    left: float, first_poll_delay: float, seconds: float
) -> None:
    story = play(SUCCEEDED, wait=until(left), random=1.0, first_poll_delay=first_poll_delay)
    assert story.steps == [Pause(seconds), Poll(is_final=True)]


# --- The pauses


def test_a_running_request_is_looked_at_in_every_interval() -> None:
    story = play(QUEUED, RUNNING, RUNNING, SUCCEEDED)
    assert story.times == [2.5, 7.5, 12.5, 17.5]
    assert story.ending is Ending.SUCCEEDED


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 4.5), (0.25, 4.75), (0.5, 5.0), (1.0, 5.5)])
def test_each_pause_is_up_to_a_tenth_shorter_or_longer(random: float, seconds: float) -> None:
    assert play(RUNNING, RUNNING, RUNNING, random=random).pauses[1:] == [seconds] * 3


@pytest.mark.parametrize("random", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seen", [RUNNING, BUSY, NOT_FOUND, rate_limited(60.0)], ids=lambda seen: type(seen).__name__)
def test_no_pause_goes_past_the_deadline(seen: Seen, random: float) -> None:
    story = play(seen, SUCCEEDED, wait=until(5.1), random=random)
    assert story.times[-1] <= 5.1 + 1e-6
    assert story.ending is Ending.SUCCEEDED


def test_the_time_that_a_poll_takes_is_not_paused_again_before_the_deadline() -> None:
    story = play(RUNNING, SUCCEEDED, wait=until(10.0), call_seconds=6.0)
    assert story.pauses == [2.5, 1.5]


# --- The notes


def test_each_new_status_is_noted_once() -> None:
    story = play(QUEUED, QUEUED, RUNNING, RUNNING, QUEUED)
    assert story.notes == [
        "Request mmsu_1 is IN_QUEUE, 3 requests ahead of it.",
        "Request mmsu_1 is IN_PROGRESS.",
        "Request mmsu_1 is IN_QUEUE, 3 requests ahead of it.",
    ]


def test_an_empty_queue_ahead_is_not_logged() -> None:
    assert play(QUEUED.model_copy(update={"queue_position": 0})).notes == ["Request mmsu_1 is IN_QUEUE."]


def test_an_unknown_status_does_not_end_the_wait_and_is_noted_once() -> None:
    story = play(ODD, ODD, ODD, SUCCEEDED)
    assert story.notes == ["Request mmsu_1 is WARMING_UP (a status that this provider does not know)."]
    assert story.ending is Ending.SUCCEEDED


def test_a_poll_that_fails_is_noted_with_its_count() -> None:
    assert play(BUSY, NO_ANSWER, RUNNING).notes[:2] == [
        (
            "Poll failed (1 in a row; the wait ends after 10): OdiRouter could not answer (503). "
            "OdiRouter says: “Busy”. Request: mmsu_1."
        ),
        ("Poll failed (2 in a row; the wait ends after 10): odirouter.ai gave no whole answer. Request: mmsu_1."),
    ]


def test_a_failing_poll_does_not_make_an_old_status_new() -> None:
    assert [note for note in play(RUNNING, BUSY, RUNNING, RUNNING).notes if "is IN_PROGRESS" in note] == [
        "Request mmsu_1 is IN_PROGRESS."
    ]


def test_a_rate_limit_is_noted_with_the_time_of_the_next_poll() -> None:
    story = play(rate_limited(30.0), RUNNING)
    assert story.notes[0] == "OdiRouter's rate limit stops the status (429). The next poll is in 45 s."
    assert story.pauses[1] == 45.0


# --- The end


@pytest.mark.parametrize(
    ("status", "ending"), [(SUCCEEDED, Ending.SUCCEEDED), (FAILED, Ending.FAILED), (CANCELED, Ending.CANCELED)]
)
def test_a_terminal_status_ends_the_wait(status: RequestStatus, ending: Ending) -> None:
    assert play(RUNNING, status).event == RequestEvent(
        ending=ending,
        endpoint="gpt_image_1_edit",
        request_id="mmsu_1",
        submitted_at=datetime(2027, 1, 15, 7, 59, 59, tzinfo=UTC),
        at=datetime(2027, 1, 15, 8, 0, 7, 500_000, tzinfo=UTC),
        inference_seconds=status.inference_seconds,
        failure=status.failure,
    )


def test_a_request_that_another_task_submitted_has_no_time_of_submission() -> None:
    event = play(SUCCEEDED, wait=replace(WAIT, submitted_at=None)).event
    assert event is not None
    assert event.submitted_at is None


def test_the_end_is_dated_when_the_poll_came_back() -> None:
    event = play(SUCCEEDED, call_seconds=1.5).event
    assert event is not None
    assert event.at == datetime(2027, 1, 15, 8, 0, 4, tzinfo=UTC)


# --- The deadline


def test_a_terminal_status_on_the_final_poll_wins_over_the_deadline() -> None:
    story = play(RUNNING, SUCCEEDED, wait=until(6.0), call_seconds=3.0)
    assert story.times == [2.5, 6.0]
    assert story.ending is Ending.SUCCEEDED


def test_a_wait_that_begins_after_its_deadline_still_polls_once() -> None:
    assert play(SUCCEEDED, wait=until(-1.0)).ending is Ending.SUCCEEDED


def test_there_is_a_final_poll_at_the_deadline_and_then_a_cancel() -> None:
    story = play(RUNNING, RUNNING, RUNNING, CancelOutcome.REQUESTED, wait=until(10.0))
    assert list(zip(story.calls, story.times, strict=True)) == [
        (Poll(), 2.5),
        (Poll(), 7.5),
        (Poll(is_final=True), 10.0),
        (Cancel(), 10.0),
    ]
    assert story.ending is Ending.TIMED_OUT


@pytest.mark.parametrize(
    "last", [QUEUED, RUNNING, ODD, BUSY, NO_ANSWER, NOT_FOUND, rate_limited(60.0)], ids=lambda seen: type(seen).__name__
)
def test_whatever_is_no_end_times_out_at_the_deadline(last: Seen) -> None:
    assert play(last, CancelOutcome.REQUESTED, wait=until(0.0)).ending is Ending.TIMED_OUT


@pytest.mark.parametrize(
    "outcome", [CancelOutcome.REQUESTED, CancelOutcome.NOT_FOUND, CancelOutcome.UNSUPPORTED], ids=str
)
def test_what_the_cancel_came_to_is_logged(outcome: CancelOutcome) -> None:
    event = play(RUNNING, outcome, wait=until(0.0)).event
    assert event is not None
    assert (event.ending, event.cancel, event.cancel_error) == (Ending.TIMED_OUT, outcome, None)
    assert (event.reason, event.vendor, event.failure, event.inference_seconds) == (None, None, None, None)


def test_a_cancel_that_fails_is_logged_too() -> None:
    event = play(RUNNING, BUSY, wait=until(0.0)).event
    assert event is not None
    assert (event.ending, event.cancel) == (Ending.TIMED_OUT, None)
    assert event.cancel_error is not None
    assert event.cancel_error.startswith("OdiRouter could not answer (503).")


@pytest.mark.parametrize(
    ("last", "ending"), [(SUCCEEDED, Ending.SUCCEEDED), (FAILED, Ending.FAILED), (CANCELED, Ending.CANCELED)]
)
def test_what_completed_just_before_the_cancel_is_polled_once_more_and_taken(
    last: RequestStatus, ending: Ending
) -> None:
    story = play(RUNNING, CancelOutcome.ALREADY_COMPLETED, last, wait=until(0.0))
    assert story.calls == [Poll(is_final=True), Cancel(), Poll(is_final=True)]
    assert story.event is not None
    assert (story.event.ending, story.event.cancel) == (ending, None)
    assert (story.event.failure, story.event.inference_seconds) == (last.failure, last.inference_seconds)


@pytest.mark.parametrize("last", [RUNNING, BUSY, NOT_FOUND, NO_KEY], ids=lambda seen: type(seen).__name__)
def test_what_completed_but_cannot_be_seen_times_out(last: Seen) -> None:
    event = play(RUNNING, CancelOutcome.ALREADY_COMPLETED, last, wait=until(0.0)).event
    assert event is not None
    assert (event.ending, event.cancel) == (Ending.TIMED_OUT, CancelOutcome.ALREADY_COMPLETED)


def test_nothing_is_cancelled_if_that_was_not_wanted() -> None:
    story = play(RUNNING, wait=replace(until(0.0), cancel_on_timeout=False))
    assert story.calls == [Poll(is_final=True)]
    assert story.event is not None
    assert (story.event.ending, story.event.cancel, story.event.cancel_error) == (Ending.TIMED_OUT, None, None)


def test_the_time_out_is_dated_when_the_wait_was_given_up() -> None:
    event = play(RUNNING, CancelOutcome.REQUESTED, wait=until(0.0), call_seconds=2.0).event
    assert event is not None
    assert event.at == datetime(2027, 1, 15, 8, 0, 2, tzinfo=UTC)


# --- Polls that fail


PASSING = [
    NOT_SENT,
    NO_ANSWER,
    UNREADABLE,
    BUSY,
    PathNotFoundError("The 404 is not OdiRouter's.", status_code=404),
    ConnectionNotFoundError("Airflow finds no connection 'x'."),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_ten_passing_failures_in_a_row_hand_the_request_back(error: OdiRouterError) -> None:
    assert play(*[error] * 9, SUCCEEDED).ending is Ending.SUCCEEDED
    story = play(*[error] * 10)
    assert story.event is not None
    assert (story.event.ending, story.event.cancel) == (Ending.UNREACHABLE, None)
    assert (story.event.reason, story.event.vendor) == (error.what, error.vendor)
    assert story.calls == [Poll()] * 10


def test_passing_failures_of_different_kinds_count_together() -> None:
    assert play(*[*PASSING, *PASSING][:10]).ending is Ending.UNREACHABLE


def test_a_status_resets_the_count_of_failures() -> None:
    assert play(*[BUSY] * 9, RUNNING, *[BUSY] * 9, RUNNING, SUCCEEDED).ending is Ending.SUCCEEDED


def test_the_pause_after_failures_doubles_up_to_a_minute() -> None:
    assert play(*[BUSY] * 9).pauses[1:] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0, 60.0]


def test_the_pause_after_failures_is_never_shorter_than_the_interval() -> None:
    slow = replace(WAIT, poll_interval=100.0, deadline=START + 3600.0)
    assert play(BUSY, BUSY, BUSY, wait=slow).pauses[1:] == [100.0, 100.0, 100.0]


@pytest.mark.parametrize(("random", "seconds"), [(0.0, [4.5, 9.0, 18.0]), (1.0, [5.5, 11.0, 22.0])])
def test_the_pause_after_failures_is_spread_too(random: float, seconds: list[float]) -> None:
    assert play(BUSY, BUSY, BUSY, random=random).pauses[1:] == seconds


def test_a_status_brings_the_usual_pause_back() -> None:
    assert play(BUSY, BUSY, BUSY, RUNNING, BUSY).pauses[1:] == [5.0, 10.0, 20.0, 5.0, 5.0]


@pytest.mark.parametrize(
    "error",
    [
        NO_KEY,
        RejectedError("Rejected.", status_code=400),
        NoBalanceError("No balance.", status_code=402, vendor="Pay"),
        EndpointNotFoundError("No endpoint.", status_code=404),
        ConnectionSettingsError("No API key."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_is_not_transient_ends_the_wait_at_once(error: OdiRouterError) -> None:
    event = play(RUNNING, error).event
    assert event is not None
    assert (event.ending, event.reason, event.vendor) == (Ending.UNREACHABLE, error.what, error.vendor)
    assert (event.cancel, event.cancel_error) == (None, None)


def test_a_request_is_lost_after_the_third_404() -> None:
    event = play(RUNNING, NOT_FOUND, NOT_FOUND, NOT_FOUND).event
    assert event is not None
    assert (event.ending, event.reason, event.vendor) == (
        Ending.LOST,
        "OdiRouter does not know this request (404).",
        "Request not found",
    )


@pytest.mark.parametrize("times", [1, 2])
def test_a_404_or_two_can_follow_a_submit_by_a_moment(times: int) -> None:
    assert play(*[NOT_FOUND] * times, QUEUED, SUCCEEDED).ending is Ending.SUCCEEDED


def test_a_status_resets_the_count_of_404() -> None:
    assert play(NOT_FOUND, NOT_FOUND, RUNNING, NOT_FOUND, NOT_FOUND, SUCCEEDED).ending is Ending.SUCCEEDED


def test_only_404s_in_a_row_count() -> None:
    assert play(NOT_FOUND, NOT_FOUND, BUSY, NOT_FOUND, NOT_FOUND, SUCCEEDED).ending is Ending.SUCCEEDED


def test_a_404_counts_as_a_failed_poll_too() -> None:
    assert play(*[BUSY] * 8, NOT_FOUND, BUSY).ending is Ending.UNREACHABLE


# --- Rate limits


def test_a_rate_limit_is_an_answer_and_never_counts_as_a_failure() -> None:
    patient = replace(WAIT, deadline=START + 86_400.0)
    assert play(*[rate_limited()] * 100, SUCCEEDED, wait=patient).ending is Ending.SUCCEEDED
    assert play(*[BUSY] * 9, *[rate_limited()] * 5, SUCCEEDED, wait=patient).ending is Ending.SUCCEEDED


def test_a_rate_limit_does_not_reset_the_count_of_failures_either() -> None:
    assert play(*[BUSY] * 9, rate_limited(), BUSY).ending is Ending.UNREACHABLE


@pytest.mark.parametrize(
    ("asked", "random", "seconds"),
    [
        (None, 0.0, 5.0),
        (None, 0.5, 7.5),
        (None, 1.0, 10.0),
        (0.0, 0.0, 5.0),
        (2.0, 0.0, 5.0),
        (30.0, 0.0, 30.0),
        (30.0, 0.5, 45.0),
        (30.0, 1.0, 60.0),
        (120.0, 0.0, 120.0),
    ],
)
def test_a_rate_limited_poll_waits_at_least_as_long_as_the_service_asks(
    asked: float | None, random: float, seconds: float
) -> None:
    assert play(rate_limited(asked), RUNNING, random=random).pauses[1] == seconds


# --- What breaks the contract


@pytest.mark.parametrize("seen", [None, CancelOutcome.REQUESTED], ids=str)
def test_a_poll_must_come_to_a_status_or_an_error(seen: Seen) -> None:
    steps = begun()
    with pytest.raises(TypeError, match="a poll ended with"):
        steps.send(seen)


@pytest.mark.parametrize("seen", [None, RUNNING], ids=lambda seen: type(seen).__name__)
def test_a_cancel_must_come_to_an_outcome_or_an_error(seen: Seen) -> None:
    steps = begun(until(0.0))
    assert steps.send(RUNNING) == Cancel()
    with pytest.raises(TypeError, match="a cancel ended with"):
        steps.send(seen)


def begun(wait: Wait = WAIT) -> Generator[Step, Seen, RequestEvent]:
    """A wait that is about to send its first poll."""
    steps = poll_until_done(wait, now=lambda: START, random=lambda: 0.5)
    next(steps)
    assert isinstance(next(steps), Poll)
    return steps


# --- What an event means for the task

BY_HAND = "To cancel it by hand: odirouter-request cancel gpt_image_1_edit mmsu_1 --conn-id …"
TIMED_OUT = (
    "The request to gpt_image_1_edit did not end before its deadline; "
    "the task stopped waiting at 2027-01-15 08:15:00 UTC. Request: mmsu_1. "
)
UNREACHABLE = (
    "The status of the request to gpt_image_1_edit cannot be read, and it may still run: "
    "OdiRouter could not answer (503). OdiRouter says: “Busy”. Request: mmsu_1. "
)


def event(ending: Ending, **details: Any) -> RequestEvent:
    at = datetime(2027, 1, 15, 8, 15, tzinfo=UTC)
    return RequestEvent(ending=ending, endpoint="gpt_image_1_edit", request_id="mmsu_1", at=at, **details)


def unreachable(**details: Any) -> RequestEvent:
    return event(Ending.UNREACHABLE, reason="OdiRouter could not answer (503).", vendor="Busy", **details)


def test_a_request_that_succeeded_is_no_error() -> None:
    assert error_from_event(event(Ending.SUCCEEDED)) is None


@pytest.mark.parametrize(
    ("event", "kind", "text"),
    [
        (
            event(Ending.FAILED, failure=Failure(error_type="INFERENCE_FAILURE", message="Oops")),
            RequestFailedError,
            (
                "The request to gpt_image_1_edit failed with INFERENCE_FAILURE. OdiRouter says: “Oops”. "
                "Request: mmsu_1. A retry submits a new request."
            ),
        ),
        (
            event(Ending.FAILED),
            RequestFailedError,
            (
                "The request to gpt_image_1_edit failed with an error without a type. "
                "Request: mmsu_1. A retry submits a new request."
            ),
        ),
        (
            event(Ending.FAILED, failure=Failure(message="Oops")),
            RequestFailedError,
            (
                "The request to gpt_image_1_edit failed with an error without a type. OdiRouter says: “Oops”. "
                "Request: mmsu_1. A retry submits a new request."
            ),
        ),
        (
            event(Ending.FAILED, failure=Failure(error_type="CONTENT_BLOCKED", message="No")),
            RequestRefusedError,
            (
                "The request to gpt_image_1_edit failed with CONTENT_BLOCKED. OdiRouter says: “No”. "
                "Request: mmsu_1. Change the prompt or the pictures: OdiRouter would refuse them again."
            ),
        ),
        (
            event(Ending.CANCELED, failure=Failure(error_type="CANCELED", message="By user")),
            RequestCanceledError,
            (
                "The request to gpt_image_1_edit was cancelled, but not by this task. OdiRouter says: “By user”. "
                "Request: mmsu_1. Find out who cancelled it; a retry submits a new request."
            ),
        ),
        (
            event(Ending.CANCELED),
            RequestCanceledError,
            (
                "The request to gpt_image_1_edit was cancelled, but not by this task. "
                "Request: mmsu_1. Find out who cancelled it; a retry submits a new request."
            ),
        ),
        (
            event(Ending.LOST, reason="OdiRouter does not know this request (404).", vendor="Request not found"),
            RequestLostError,
            (
                "OdiRouter does not know this request (404). OdiRouter says: “Request not found”. Request: mmsu_1. "
                "Check that the endpoint and the API key belong to this request; a retry submits a new request. "
                "If this one was paid, give its id to OdiRouter's support."
            ),
        ),
        (
            unreachable(),
            RequestUnreachableError,
            UNREACHABLE + "It was left running and may be paid; a retry submits a new request. " + BY_HAND,
        ),
        (
            unreachable(cancel=CancelOutcome.REQUESTED),
            RequestUnreachableError,
            UNREACHABLE + "It was cancelled; a retry submits a new request.",
        ),
        (
            event(Ending.TIMED_OUT),
            RequestTimeoutError,
            TIMED_OUT + "It was left running and may be paid; a retry submits a new request. "
            f"{BY_HAND} Raise `timeout` (or `execution_timeout`) if edits need longer.",
        ),
        (
            event(Ending.TIMED_OUT, cancel=CancelOutcome.REQUESTED),
            RequestTimeoutError,
            TIMED_OUT
            + "It was cancelled; a retry submits a new request. "
            + "Raise `timeout` (or `execution_timeout`) if edits need longer.",
        ),
        (
            event(Ending.TIMED_OUT, cancel=CancelOutcome.NOT_FOUND),
            RequestTimeoutError,
            TIMED_OUT + "OdiRouter does not know it, so there was nothing to cancel; a retry submits a new request. "
            "Raise `timeout` (or `execution_timeout`) if edits need longer.",
        ),
        (
            event(Ending.TIMED_OUT, cancel=CancelOutcome.ALREADY_COMPLETED),
            RequestTimeoutError,
            TIMED_OUT + "It had ended before it could be cancelled, and may be paid; a retry submits a new request. "
            "Raise `timeout` (or `execution_timeout`) if edits need longer.",
        ),
        (
            event(Ending.TIMED_OUT, cancel=CancelOutcome.UNSUPPORTED),
            RequestTimeoutError,
            TIMED_OUT
            + "The endpoint cannot cancel: the request runs on and may be paid; a retry submits a new request. "
            "Raise `timeout` (or `execution_timeout`) if edits need longer.",
        ),
        (
            event(Ending.TIMED_OUT, cancel_error="It is down."),
            RequestTimeoutError,
            TIMED_OUT + "It could not be cancelled (It is down.) and may be paid; a retry submits a new request. "
            f"{BY_HAND} Raise `timeout` (or `execution_timeout`) if edits need longer.",
        ),
    ],
    ids=lambda value: value.ending if isinstance(value, RequestEvent) else None,
)
def test_an_error_names_the_event_the_vendors_words_the_request_and_the_retry(
    event: RequestEvent, kind: type[RequestError], text: str
) -> None:
    error = error_from_event(event)
    assert type(error) is kind
    assert str(error) == text
    assert error.request_id == "mmsu_1"


@pytest.mark.parametrize(
    ("error_type", "retry_helps"),
    [
        ("INFERENCE_FAILURE", True),
        ("INFERENCE_TIMEOUT", True),
        ("INTERNAL_SERVER_ERROR", True),
        ("SOMETHING_NEW", True),
        (None, True),
        ("REQUEST_INVALID", False),
        ("CONTENT_BLOCKED", False),
    ],
)
def test_only_the_services_verdict_on_the_input_is_final(error_type: str | None, retry_helps: bool) -> None:
    error = error_from_event(event(Ending.FAILED, failure=Failure(error_type=error_type)))
    assert error is not None
    assert error.retry_helps is retry_helps


@pytest.mark.parametrize("ending", [ending for ending in Ending if ending is not Ending.SUCCEEDED])
def test_every_ending_but_success_is_an_error_of_the_request(ending: Ending) -> None:
    assert isinstance(error_from_event(event(ending)), RequestError)


@pytest.mark.parametrize(
    ("ends_after", "expected"), [(None, 60), (90, 60), (20, 20)], ids=["no end", "a later end", "a sooner end"]
)
def test_the_deadline_is_the_timeout_or_the_end_of_the_execution_if_that_is_sooner(
    ends_after: float | None, expected: float
) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    ends_at = None if ends_after is None else since + timedelta(seconds=ends_after)
    assert deadline_of(since, 60.0, ends_at) == since + timedelta(seconds=expected)
