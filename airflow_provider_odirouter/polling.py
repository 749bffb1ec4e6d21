"""
When to look again, when to give up, and which event that makes.

Pure, and shared by the worker that waits and the trigger that waits, so that the two cannot drift: :func:`watch` says
step by step what to do, its caller does it and tells what came of it. This module must never read a clock or sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_odirouter.errors import (
    OdiRouterError,
    RateLimitedError,
    RequestCanceledError,
    RequestFailedError,
    RequestLostError,
    RequestNotFoundError,
    RequestRefusedError,
    RequestTimeoutError,
    RequestUnwatchedError,
)
from airflow_provider_odirouter.models import CancelOutcome, Ending, Failure, RequestEvent, RequestState, RequestStatus

FIRST_LOOK_IN_TRIGGER = 7.0
"""
Seconds from the start of a trigger to its first look, and so to its first possible event.

A worker process can linger for 5 s after its task has deferred. An event that comes earlier lets the executor's late
report meet a task that is already queued again, and the scheduler fails it (seen in Airflow 3.0 to 3.3).
"""
JITTER = 0.1
"""Share of the interval by which each pause is shorter or longer, so that tasks deferred together drift apart."""
LONGEST_PAUSE = 60.0
"""Seconds between looks that fail: the pause doubles from the interval up to this."""
MAX_FAILED_LOOKS = 10
"""Consecutive looks that fail in passing before the request is handed back. ``429`` is an answer, no failure."""
MAX_NOT_FOUND = 3
"""Consecutive ``404`` before a request is lost: one can follow a submit by a moment."""

REFUSALS = frozenset({"CONTENT_BLOCKED", "REQUEST_INVALID"})
"""The ``error_type`` of requests that would fail in the same way again."""

CANCEL_FATES = {
    CancelOutcome.REQUESTED: "It was cancelled",
    CancelOutcome.NOT_FOUND: "The cancel found it gone",
    CancelOutcome.ALREADY_COMPLETED: "It had ended before it could be cancelled, and may be paid",
    CancelOutcome.UNSUPPORTED: "The endpoint cannot cancel: it runs on and may be paid",
}
"""What each outcome of a cancel means for the request."""


SUBMITS_ANEW = "a retry submits a new request"
OVER_AFTER_CANCEL = frozenset({CancelOutcome.REQUESTED, CancelOutcome.NOT_FOUND})
"""The outcomes of a cancel after which nothing is left of the request."""


@dataclass(frozen=True)
class Wait:
    """What is waited for, and how."""

    endpoint: str
    request_id: str
    poll_interval: float
    """Seconds between looks."""
    deadline: float
    """Epoch seconds: absolute, since a wait moves between processes."""
    cancel_on_timeout: bool
    submitted_at: float | None = None
    """Epoch seconds; ``None``: another task has submitted the request."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Sleep; ``note`` is for the log."""

    seconds: float
    note: str | None = None


@dataclass(frozen=True)
class Look:
    """Ask for the status."""


@dataclass(frozen=True)
class Cancel:
    """Cancel the request."""


Step = Pause | Look | Cancel
Seen = RequestStatus | CancelOutcome | OdiRouterError | None
"""What came of a step: nothing, of a pause."""


def watch(
    wait: Wait, *, now: Callable[[], float], luck: Callable[[], float], first_look: float = 0.0
) -> Generator[Step, Seen, RequestEvent]:
    """
    Wait for the end of a request, step by step.

    :param wait: What is waited for.
    :param now: Tells the time in epoch seconds; must not jump.
    :param luck: Draws a number from 0 to 1.
    :param first_look: Seconds before which no look and no event may come; the first look is spread over one interval
        beyond it.
    :return: How it ended. The deadline is heeded only after a look: an end that a last look finds wins.
    """
    failed_looks = not_found = 0
    word = None
    yield Pause(max(first_look, min(first_look + luck() * wait.poll_interval, wait.deadline - now())))
    while True:
        seen = yield Look()
        pause, jitter, note = wait.poll_interval, 1 + JITTER * (2 * luck() - 1), None
        not_found = not_found + 1 if isinstance(seen, RequestNotFoundError) and not seen.passing else 0
        match seen:
            case RequestStatus(state=state) if state.terminal:
                return ended(wait, seen, at=now())
            case RequestStatus():
                failed_looks = 0
                note = _progress(wait, seen) if seen.word != word else None
                word = seen.word
            case RateLimitedError():
                # Later than it asks, never sooner.
                pause, jitter = max(pause, seen.retry_after or 0.0), 1 + luck()
                note = f"{seen.what} The next look is in {pause * jitter:.0f} s."
            case RequestNotFoundError() if not_found >= MAX_NOT_FOUND:
                return _event(wait, Ending.LOST, now(), seen)
            case OdiRouterError(passing=passing) if passing or not_found:
                failed_looks += 1
                if failed_looks >= MAX_FAILED_LOOKS:
                    return _event(wait, Ending.UNWATCHED, now(), seen)
                pause = max(pause, min(pause * 2 ** (failed_looks - 1), LONGEST_PAUSE))
                note = f"Look {failed_looks} of at most {MAX_FAILED_LOOKS} that may fail in a row: {seen}"
            case OdiRouterError():
                return _event(wait, Ending.UNWATCHED, now(), seen)
            case _:
                raise TypeError(f"a look came to {seen!r}")
        left = wait.deadline - now()
        if left <= 0:
            break
        # What is kept through the pauses of thousands of waits is walked by the garbage collector again and again.
        seen = None
        yield Pause(min(pause * jitter, left), note)
    return (yield from _time_out(wait, now=now))


def _time_out(wait: Wait, *, now: Callable[[], float]) -> Generator[Step, Seen, RequestEvent]:
    event = _event(wait, Ending.TIMED_OUT, now())
    if not wait.cancel_on_timeout:
        return event
    outcome = yield Cancel()
    if outcome is CancelOutcome.ALREADY_COMPLETED:
        # It ended between the last look and the cancel, and is paid: what it made is taken.
        last = yield Look()
        if isinstance(last, RequestStatus) and last.state.terminal:
            return ended(wait, last, at=now())
    if not isinstance(outcome, CancelOutcome | OdiRouterError):
        raise TypeError(f"a cancel came to {outcome!r}")
    return event.given_up(outcome)


def ended(wait: Wait, status: RequestStatus, *, at: float) -> RequestEvent:
    """
    Make the event of a terminal status.

    :param at: When it was seen, in epoch seconds.
    """
    endings = {
        RequestState.SUCCEEDED: Ending.SUCCEEDED,
        RequestState.FAILED: Ending.FAILED,
        RequestState.CANCELED: Ending.CANCELED,
    }
    event = _event(wait, endings[status.state], at)
    return event.model_copy(update={"inference_seconds": status.inference_seconds, "failure": status.failure})


def _event(wait: Wait, ending: Ending, at: float, error: OdiRouterError | None = None) -> RequestEvent:
    return RequestEvent(
        ending=ending,
        endpoint=wait.endpoint,
        request_id=wait.request_id,
        submitted_at=None if wait.submitted_at is None else datetime.fromtimestamp(wait.submitted_at, UTC),
        at=datetime.fromtimestamp(at, UTC),
        reason=error.what if error else None,
        vendor=error.vendor if error else None,
    )


def _progress(wait: Wait, status: RequestStatus) -> str:
    known = "" if status.state is not RequestState.UNKNOWN else " (a word that this provider does not know)"
    position = f", {status.queue_position} ahead of it" if status.queue_position else ""
    return f"Request {wait.request_id} is {status.word}{known}{position}."


def error_of(event: RequestEvent, *, retry: str = SUBMITS_ANEW) -> OdiRouterError | None:
    """
    Word the error that an event means for the task.

    :param retry: What a retry does about a request that was given up.
    :return: ``None`` if the request succeeded.
    """
    request = event.request_id
    error: OdiRouterError
    match event.ending:
        case Ending.SUCCEEDED:
            return None
        case Ending.FAILED:
            failure = event.failure or Failure()
            kind = RequestRefusedError if failure.error_type in REFUSALS else RequestFailedError
            what = f"The request to {event.endpoint} failed with {failure.error_type or 'an error without a type'}."
            return kind(what, vendor=failure.message, request_id=request)
        case Ending.CANCELED:
            words = event.failure.message if event.failure else None
            what = f"The request to {event.endpoint} was cancelled, but not by this task."
            return RequestCanceledError(what, vendor=words, request_id=request)
        case Ending.LOST:
            what = f"OdiRouter does not know the request to {event.endpoint} any more: {event.reason}"
            return RequestLostError(what, vendor=event.vendor, request_id=request)
        case Ending.UNWATCHED:
            what = f"The request to {event.endpoint} may be alive, but cannot be looked at: {event.reason}"
            error = RequestUnwatchedError(what, vendor=event.vendor, request_id=request, advice=_fate(event, retry))
        case Ending.TIMED_OUT:
            what = (
                f"The request to {event.endpoint} did not end before its deadline; "
                f"the wait was given up at {event.at:%Y-%m-%d %H:%M:%S} UTC."
            )
            advice = f"{_fate(event, retry)} Raise `timeout` (or `execution_timeout`) if edits need longer."
            error = RequestTimeoutError(what, request_id=request, advice=advice)
    error.request_over = not may_be_alive(event)
    return error


def may_be_alive(event: RequestEvent) -> bool:
    """Return whether a wait was given up, but not its request."""
    return event.ending in {Ending.UNWATCHED, Ending.TIMED_OUT} and event.cancel not in OVER_AFTER_CANCEL


def _fate(event: RequestEvent, retry: str) -> str:
    """Say what became of a request that nobody waits for any more, and what a retry does."""
    by_hand = f"To cancel it by hand: OdiRouterHook(…).cancel({event.endpoint!r}, {event.request_id!r})."
    if event.cancel:
        return f"{CANCEL_FATES[event.cancel]}; {retry}."
    if event.cancel_error:
        return f"It could not be cancelled ({event.cancel_error}) and may be paid; {retry}. {by_hand}"
    return f"It was left running and may be paid; {retry}. {by_hand}"
