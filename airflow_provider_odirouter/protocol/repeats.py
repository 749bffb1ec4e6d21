"""Which call may be sent again, and after which pause. It is decided here alone."""

from __future__ import annotations

from airflow_provider_odirouter.errors import (
    LostSubmitError,
    NoAnswerError,
    NotSentError,
    OdiRouterError,
    RateLimitedError,
    RequestNotFoundError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.protocol.calls import Action, Call

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between repeats without a ``Retry-After``: they double from the first to the longest."""


PATIENCE = {Action.SUBMIT: 30.0, Action.STATUS: 0.0, Action.RESULT: 300.0, Action.CANCEL: 20.0, Action.FILE: 60.0}
"""For how many seconds a call is repeated. Looks are repeated by whoever waits, not here."""
RATE_LIMIT_PATIENCE = {Action.SUBMIT: 300.0, Action.CANCEL: 200.0}
"""For how many seconds while the service answers ``429``: long enough for the longest ``Retry-After``."""


def may_repeat(call: Call, error: OdiRouterError) -> bool:
    """
    Return whether a call that ended with this error may be sent again at once.

    A submit is repeated only where it certainly never arrived: a connection that could not be opened, or ``429``.
    The vendor warns that a repeated creation makes a duplicate, and both are paid.
    """
    if call.action is Action.SUBMIT:
        return isinstance(error, NotSentError | RateLimitedError)
    # Right after its submit, a request may not be known everywhere yet.
    return error.passing or (call.action is Action.RESULT and isinstance(error, RequestNotFoundError))


def pause_before_repeat(call: Call, error: OdiRouterError, *, attempt: int, waited: float, luck: float) -> float | None:
    """
    Decide whether a call is sent again, and when.

    :param attempt: How often it was sent, at least 1.
    :param waited: Seconds since it was first sent.
    :param luck: From 0 to 1; spreads the pauses of many tasks.
    :return: Seconds to wait; ``None``: it is not sent again.
    """
    if not may_repeat(call, error):
        return None
    pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
    patience = PATIENCE[call.action]
    if isinstance(error, RateLimitedError):
        pause = max(pause, error.retry_after or 0.0)
        patience = RATE_LIMIT_PATIENCE.get(call.action, patience)
    pause *= 1 + luck / 2
    return pause if waited + pause <= patience else None


def verdict(call: Call, error: OdiRouterError) -> OdiRouterError:
    """Return the error to raise when a call is given up: a submit that may have arrived is lost, not just failed."""
    arrived = isinstance(error, NoAnswerError | ServiceError) or (
        isinstance(error, UnreadableAnswerError) and error.status_code < 300
    )
    if call.action is not Action.SUBMIT or not arrived:
        return error
    trace_id = call.headers["X-Request-Id"]
    return LostSubmitError(
        f"The submit to {call.endpoint} went out, but its fate is unknown: {error.what} (X-Request-Id: {trace_id})",
        vendor=error.vendor,
    )
