"""Decides which calls are repeated, and after which pause. A retry is Airflow's: a new try of the task."""

from __future__ import annotations

from airflow_provider_odirouter.errors import (
    LostSubmitError,
    NoAnswerError,
    NotSentError,
    OdiRouterError,
    RateLimitedError,
    RequestNotFoundError,
    ServiceError,
    TransportError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.protocol.calls import Action, Call

FIRST_PAUSE = 1.0
MAX_PAUSE = 30.0
"""Seconds between repeats without a ``Retry-After``: each pause is twice the one before."""
MAX_REPEAT_SECONDS = {
    Action.SUBMIT: 30.0,
    Action.STATUS: 0.0,
    Action.RESULT: 300.0,
    Action.CANCEL: 20.0,
    Action.FILE: 60.0,
}
"""How long a call is repeated. Polls are not: the loop that polls decides about the next one."""
MAX_RATE_LIMITED_SECONDS = {Action.SUBMIT: 300.0, Action.CANCEL: 200.0}
"""How long a call is repeated while the service answers ``429``: enough for the longest ``Retry-After``."""


def may_repeat(call: Call, error: OdiRouterError) -> bool:
    """
    Return whether a call that failed with this error may be sent again.

    A submit is repeated only if it certainly created no request: the connection could not be opened, or the answer was
    ``429``. The vendor warns that a repeated submit creates a duplicate, and both are paid.
    """
    if isinstance(error, RateLimitedError) and not call.waits_out_rate_limit:
        return False
    if call.action is Action.SUBMIT:
        return isinstance(error, NotSentError | RateLimitedError)
    # Just after the submit, some of the service's hosts may not know the request yet.
    return error.is_transient or (call.action is Action.RESULT and isinstance(error, RequestNotFoundError))


def pause_before_repeat(
    call: Call, error: OdiRouterError, *, attempt: int, waited: float, random: float
) -> float | None:
    """
    Decide whether a call is sent again, and when.

    :param attempt: How often it was sent, at least 1.
    :param waited: Seconds since it was first sent.
    :param random: From 0 to 1; spreads the pauses of many tasks.
    :return: Seconds to wait; ``None``: it is not sent again.
    """
    if not may_repeat(call, error):
        return None
    pause = min(FIRST_PAUSE * 2 ** (attempt - 1), MAX_PAUSE)
    max_seconds = MAX_REPEAT_SECONDS[call.action]
    if isinstance(error, RateLimitedError):
        pause = max(pause, error.retry_after or 0.0)
        max_seconds = MAX_RATE_LIMITED_SECONDS.get(call.action, max_seconds)
    pause *= 1 + random / 2
    return pause if waited + pause <= max_seconds else None


def final_error(call: Call, error: OdiRouterError) -> OdiRouterError:
    """Return the error to raise if a call is not repeated: a submit that may have arrived is lost, not just failed."""
    may_have_arrived = isinstance(error, NoAnswerError | ServiceError) or (
        isinstance(error, UnreadableAnswerError) and error.status_code < 300
    )
    if call.action is not Action.SUBMIT or not may_have_arrived:
        return error
    hint = error.hint if isinstance(error, TransportError) else None
    trace_id = call.headers["X-Request-Id"]
    return LostSubmitError(
        f"The submit to {call.endpoint} went out, but it is not known whether it arrived: {error.what} "
        f"(X-Request-Id: {trace_id})",
        vendor=error.vendor,
        advice=f"{hint} {LostSubmitError.advice}" if hint else None,
    )
