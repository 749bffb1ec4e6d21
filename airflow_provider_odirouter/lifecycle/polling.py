"""
When to poll, when to stop waiting, and which event that makes.

Pure, and shared by a worker that waits and a trigger that waits, so that the two cannot drift apart:
:func:`poll_until_done` says step by step what to do, and its caller does it and sends back how that ended. This module
must never read a clock or sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from airflow_provider_odirouter.errors import (
    OdiRouterError,
    RateLimitedError,
    RequestCanceledError,
    RequestFailedError,
    RequestLostError,
    RequestNotFoundError,
    RequestRefusedError,
    RequestTimeoutError,
    RequestUnreachableError,
)
from airflow_provider_odirouter.models import CancelOutcome, Ending, Failure, RequestEvent, RequestState, RequestStatus

FIRST_POLL_DELAY = 7.0
"""
Seconds from the start of a trigger to its first poll, and so to its first possible event.

A worker process can linger for 5 s after its task has deferred. An event that comes earlier lets the executor's late
report meet a task that is already queued again, and the scheduler fails it (seen in Airflow 3.0 to 3.3).
"""
JITTER = 0.1
"""Share of the interval by which each pause is shorter or longer, so that tasks deferred together drift apart."""
MAX_PAUSE = 60.0
"""Seconds between failed polls: the pause doubles from the interval up to this."""
MAX_FAILED_POLLS = 10
"""Polls that fail in a row, with transient errors, before the wait ends. ``429`` is an answer and not a failure."""
MAX_NOT_FOUND = 3
"""``404`` in a row before a request counts as lost: a first one can come just after the submit."""

REFUSALS = frozenset({"CONTENT_BLOCKED", "REQUEST_INVALID"})
"""The ``error_type`` of requests that would fail in the same way again."""


class CancelMeaning(NamedTuple):
    """
    What an outcome of a cancel means for the request.

    :param sentence: About one request.
    :param heading: Before a list of requests, in the log.
    """

    sentence: str
    heading: str


CANCEL_MEANINGS = {
    CancelOutcome.REQUESTED: CancelMeaning("It was cancelled", "Cancelled"),
    CancelOutcome.NOT_FOUND: CancelMeaning(
        "OdiRouter does not know it, so there was nothing to cancel", "Nothing to cancel, since OdiRouter does not know"
    ),
    CancelOutcome.ALREADY_COMPLETED: CancelMeaning(
        "It had ended before it could be cancelled, and may be paid", "Ended before the cancel, and may be paid"
    ),
    CancelOutcome.UNSUPPORTED: CancelMeaning(
        "The endpoint cannot cancel: the request runs on and may be paid",
        "Not cancelled, since the endpoint cannot cancel; still running, and may be paid",
    ),
}
OVER_AFTER_CANCEL = frozenset({CancelOutcome.REQUESTED, CancelOutcome.NOT_FOUND})
"""The outcomes of a cancel after which the request neither runs nor has a result."""

SUBMITS_AGAIN = "a retry submits a new request"
SUBMITS_AFTER_CLEAR = "to submit a new request, clear the task"
KEEPS_WAITING = "a retry waits for it again"


@dataclass(frozen=True)
class Wait:
    """A request to wait for, and how to do that."""

    endpoint: str
    request_id: str
    poll_interval: float
    """Seconds between polls."""
    deadline: float
    """Epoch seconds: absolute, since a wait moves between processes."""
    cancel_on_timeout: bool
    submitted_at: float | None = None
    """Epoch seconds; ``None``: another task has submitted the request."""


def deadline_of(since: datetime, timeout: float, ends_at: datetime | None) -> datetime:
    """
    Return the end of a wait.

    :param since: When it begins to count.
    :param timeout: Seconds.
    :param ends_at: The end of the task's ``execution_timeout``, if it has one.
    """
    deadline = since + timedelta(seconds=timeout)
    return min(deadline, ends_at or deadline)


@dataclass(frozen=True, slots=True)
class Pause:
    """Sleep; ``note`` is for the log."""

    seconds: float
    note: str | None = None


@dataclass(frozen=True)
class Poll:
    """Ask for the status. The final poll is sent even if the service has asked for a pause: the result may be paid."""

    is_final: bool = False


@dataclass(frozen=True)
class Cancel:
    """Cancel the request."""


Step = Pause | Poll | Cancel
Seen = RequestStatus | CancelOutcome | OdiRouterError | None
"""How a step ended; ``None`` after a pause."""


def poll_until_done(
    wait: Wait, *, now: Callable[[], float], random: Callable[[], float], first_poll_delay: float = 0.0
) -> Generator[Step, Seen, RequestEvent]:
    """
    Wait for the end of a request, step by step.

    :param now: Returns the time in epoch seconds; must not jump.
    :param random: Returns a number from 0 to 1.
    :param first_poll_delay: Seconds before which neither a poll nor an event may come; the first poll is spread over
        one interval after it.
    :return: How the wait ended. The deadline counts only after a poll: an ending that a final poll finds wins.
    """
    failed_polls = not_found = 0
    raw_status = None
    yield Pause(max(first_poll_delay, min(first_poll_delay + random() * wait.poll_interval, wait.deadline - now())))
    while True:
        seen = yield Poll(is_final=now() >= wait.deadline)
        pause, jitter, note = wait.poll_interval, 1 + JITTER * (2 * random() - 1), None
        not_found = not_found + 1 if isinstance(seen, RequestNotFoundError) and not seen.is_transient else 0
        match seen:
            case RequestStatus(state=state) if state.is_terminal:
                return event_of_status(seen, wait, at=now())
            case RequestStatus():
                failed_polls = 0
                note = _describe(wait, seen) if seen.raw_status != raw_status else None
                raw_status = seen.raw_status
            case RateLimitedError():
                # Later than the service asks for, never sooner.
                pause, jitter = max(pause, seen.retry_after or 0.0), 1 + random()
                note = f"{seen.what} The next poll is in {pause * jitter:.0f} s."
            case RequestNotFoundError() if not_found >= MAX_NOT_FOUND:
                return _event(wait, Ending.LOST, now(), seen)
            case OdiRouterError(is_transient=is_transient) if is_transient or not_found:
                failed_polls += 1
                if failed_polls >= MAX_FAILED_POLLS:
                    return _event(wait, Ending.UNREACHABLE, now(), seen)
                pause = max(pause, min(pause * 2 ** (failed_polls - 1), MAX_PAUSE))
                note = f"Poll failed ({failed_polls} in a row; the wait ends after {MAX_FAILED_POLLS}): {seen.facts()}"
            case OdiRouterError():
                return _event(wait, Ending.UNREACHABLE, now(), seen)
            case _:
                raise TypeError(f"a poll ended with {seen!r}")
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
        # It ended between the last poll and the cancel, and is paid: its result is taken.
        final = yield Poll(is_final=True)
        if isinstance(final, RequestStatus) and final.state.is_terminal:
            return event_of_status(final, wait, at=now())
    if not isinstance(outcome, CancelOutcome | OdiRouterError):
        raise TypeError(f"a cancel ended with {outcome!r}")
    return event.with_cancel_outcome(outcome)


def event_of_status(status: RequestStatus, wait: Wait, *, at: float) -> RequestEvent:
    """
    Make the event of a terminal status.

    :param at: When the status was read, in epoch seconds.
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


def _describe(wait: Wait, status: RequestStatus) -> str:
    known = "" if status.state is not RequestState.UNKNOWN else " (a status that this provider does not know)"
    position = f", {status.queue_position} requests ahead of it" if status.queue_position else ""
    return f"Request {wait.request_id} is {status.raw_status}{known}{position}."


def error_from_event(
    event: RequestEvent, *, retry: str = SUBMITS_AGAIN, after_clear: str = SUBMITS_AFTER_CLEAR
) -> OdiRouterError | None:
    """
    Return the error that an event means for its task; ``None``, if the request succeeded.

    :param retry: What a retry does about a request that may still run.
    :param after_clear: What a cleared task does about it: for the advice if Airflow does not try again.
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
            what = event.reason or f"OdiRouter does not know the request to {event.endpoint}."
            return RequestLostError(what, vendor=event.vendor, request_id=request)
        case Ending.UNREACHABLE:
            what = f"The status of the request to {event.endpoint} cannot be read, and it may still run: {event.reason}"
            advice, last_advice = _fate(event, retry), _fate(event, after_clear)
            error = RequestUnreachableError(
                what, vendor=event.vendor, request_id=request, advice=advice, last_advice=last_advice
            )
        case Ending.TIMED_OUT:
            what = (
                f"The request to {event.endpoint} did not end before its deadline; "
                f"the task stopped waiting at {event.at:%Y-%m-%d %H:%M:%S} UTC."
            )
            longer = "Raise `timeout` (or `execution_timeout`) if edits need longer."
            advice, last_advice = f"{_fate(event, retry)} {longer}", f"{_fate(event, after_clear)} {longer}"
            error = RequestTimeoutError(what, request_id=request, advice=advice, last_advice=last_advice)
    error.request_over = not may_be_alive(event)
    return error


def may_be_alive(event: RequestEvent) -> bool:
    """Return whether a wait has ended, but its request may still run."""
    return event.ending in {Ending.UNREACHABLE, Ending.TIMED_OUT} and event.cancel not in OVER_AFTER_CANCEL


def _fate(event: RequestEvent, retry: str) -> str:
    """Say what happened to a request when its task stopped waiting, and what a retry does."""
    by_hand = f"To cancel it by hand: odirouter-request cancel {event.endpoint} {event.request_id} --conn-id …"
    if event.cancel:
        return f"{CANCEL_MEANINGS[event.cancel].sentence}; {retry}."
    if event.cancel_error:
        return f"It could not be cancelled ({event.cancel_error}) and may be paid; {retry}. {by_hand}"
    return f"It was left running and may be paid; {retry}. {by_hand}"
