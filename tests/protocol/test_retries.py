"""Which calls are repeated, and after which pause."""

from __future__ import annotations

import pytest

from airflow_provider_odirouter.errors import (
    AuthenticationError,
    ConnectionNotFoundError,
    EndpointNotFoundError,
    FileExpiredError,
    LandingError,
    LostSubmitError,
    NoAnswerError,
    NoBalanceError,
    NoOutputError,
    NotSentError,
    OdiRouterError,
    RateLimitedError,
    RejectedError,
    RequestNotFoundError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.protocol import Call, final_error, pause_before_repeat
from tests.protocol.exchange import CANCEL, FILE, RESULT, STATUS, SUBMIT

NOT_SENT = NotSentError("No connection could be opened.")
NO_ANSWER = NoAnswerError("No whole answer came.")
SERVICE = ServiceError("OdiRouter could not answer (503).", status_code=503, vendor="Busy")
UNREADABLE = UnreadableAnswerError("That is not OdiRouter's.", status_code=200)
REDIRECTED = UnreadableAnswerError("It redirects.", status_code=302)
REJECTED = RejectedError("OdiRouter rejects it (422).", status_code=422)
NO_KEY = AuthenticationError("OdiRouter refuses the key (401).", status_code=401)
NO_BALANCE = NoBalanceError("No balance (402).", status_code=402)
NO_ENDPOINT = EndpointNotFoundError("OdiRouter does not know the endpoint (404).", status_code=404)
NO_REQUEST = RequestNotFoundError("OdiRouter does not know the request (404).", status_code=404)
NO_OUTPUT = NoOutputError("The result names no file.")
EXPIRED = FileExpiredError("The link has expired.")
NOT_LANDED = LandingError("The download was refused.")


def rate_limited(retry_after: float | None = None) -> RateLimitedError:
    error = RateLimitedError("Too many calls (429).", status_code=429)
    error.retry_after = retry_after
    return error


EVERY_ERROR = [
    NOT_SENT,
    NO_ANSWER,
    SERVICE,
    UNREADABLE,
    REDIRECTED,
    REJECTED,
    NO_KEY,
    NO_BALANCE,
    NO_ENDPOINT,
    NO_REQUEST,
    NO_OUTPUT,
    EXPIRED,
    NOT_LANDED,
    rate_limited(),
]


def pause(
    call: Call, error: OdiRouterError, *, attempt: int = 1, waited: float = 0.0, random: float = 0.0
) -> float | None:
    return pause_before_repeat(call, error, attempt=attempt, waited=waited, random=random)


def by_name(error: OdiRouterError) -> str:
    return f"{type(error).__name__}{getattr(error, 'status_code', '')}"


def repeated(call: Call) -> set[str]:
    return {by_name(error) for error in EVERY_ERROR if pause(call, error) is not None}


def test_a_submit_is_repeated_only_if_it_certainly_created_nothing() -> None:
    assert repeated(SUBMIT) == {"NotSentError", "RateLimitedError429"}


def test_a_poll_is_never_repeated() -> None:
    assert repeated(STATUS) == set()


@pytest.mark.parametrize("call", [CANCEL, FILE], ids=lambda call: call.action)
def test_other_calls_are_repeated_after_every_transient_error(call: Call) -> None:
    assert repeated(call) == {
        "NotSentError",
        "NoAnswerError",
        "ServiceError503",
        "UnreadableAnswerError200",
        "UnreadableAnswerError302",
        "RateLimitedError429",
    }


def test_a_result_is_also_repeated_while_its_request_is_unknown() -> None:
    assert repeated(RESULT) - repeated(CANCEL) == {"RequestNotFoundError404"}
    assert repeated(CANCEL) < repeated(RESULT)


def test_a_missing_connection_is_repeated() -> None:
    assert pause(RESULT, ConnectionNotFoundError("Airflow finds no connection.")) == 1.0


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 16.0), (6, 30.0), (7, 30.0), (100, 30.0)]
)
def test_pauses_double_from_1_to_30_seconds(attempt: int, seconds: float) -> None:
    assert pause(RESULT, NO_ANSWER, attempt=attempt) == seconds


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_pauses_are_randomly_up_to_half_longer(random: float, seconds: float) -> None:
    assert pause(RESULT, NO_ANSWER, attempt=3, random=random) == seconds


@pytest.mark.parametrize(
    ("asked", "attempt", "random", "seconds"),
    [
        (None, 2, 0.0, 2.0),
        (0.0, 2, 0.0, 2.0),
        (1.0, 3, 0.0, 4.0),
        (20.0, 1, 0.0, 20.0),
        (20.0, 1, 1.0, 30.0),
        (120.0, 1, 0.0, 120.0),
        (120.0, 1, 1.0, 180.0),
    ],
)
@pytest.mark.parametrize("call", [SUBMIT, RESULT], ids=lambda call: call.action)
def test_a_rate_limited_call_waits_as_long_as_asked(
    call: Call, asked: float | None, attempt: int, random: float, seconds: float
) -> None:
    assert pause(call, rate_limited(asked), attempt=attempt, random=random) == seconds


@pytest.mark.parametrize(
    ("call", "error", "patience"),
    [
        (SUBMIT, NOT_SENT, 30.0),
        (SUBMIT, rate_limited(), 300.0),
        (RESULT, NO_ANSWER, 300.0),
        (RESULT, rate_limited(), 300.0),
        (RESULT, NO_REQUEST, 300.0),
        (CANCEL, NO_ANSWER, 20.0),
        (CANCEL, rate_limited(), 200.0),
        (FILE, NO_ANSWER, 60.0),
    ],
    ids=lambda value: str(value.action) if isinstance(value, Call) else None,
)
def test_a_call_is_repeated_up_to_its_maximum(call: Call, error: OdiRouterError, patience: float) -> None:
    assert pause(call, error, waited=patience - 1.0) == 1.0
    assert pause(call, error, waited=patience - 0.9) is None


def test_a_pause_beyond_the_maximum_does_not_begin() -> None:
    assert pause(CANCEL, rate_limited(120.0), waited=80.0) == 120.0
    assert pause(CANCEL, rate_limited(120.0), waited=80.1) is None


def test_a_cancel_can_wait_for_the_longest_retry_after() -> None:
    assert pause(CANCEL, rate_limited(120.0), random=1.0) == 180.0


# --- What a call that is not repeated any more has come to


@pytest.mark.parametrize("error", [NO_ANSWER, SERVICE, UNREADABLE], ids=by_name)
def test_a_submit_that_may_have_arrived_is_lost(error: OdiRouterError) -> None:
    lost = final_error(SUBMIT, error)
    assert isinstance(lost, LostSubmitError)
    assert lost.vendor == error.vendor
    assert lost.what == (
        f"The submit to gpt_image_1_edit went out, but it is not known whether it arrived: {error.what} "
        "(X-Request-Id: trace-1)"
    )


@pytest.mark.parametrize(
    "error", [error for error in EVERY_ERROR if error not in (NO_ANSWER, SERVICE, UNREADABLE)], ids=by_name
)
def test_a_refused_or_unsent_submit_is_not_lost(error: OdiRouterError) -> None:
    assert final_error(SUBMIT, error) is error


@pytest.mark.parametrize("call", [STATUS, RESULT, CANCEL, FILE], ids=lambda call: call.action)
@pytest.mark.parametrize("error", EVERY_ERROR, ids=by_name)
def test_every_other_call_raises_its_own_error(call: Call, error: OdiRouterError) -> None:
    assert final_error(call, error) is error


@pytest.mark.parametrize("error", EVERY_ERROR, ids=by_name)
def test_a_submit_is_never_both_repeated_and_lost(error: OdiRouterError) -> None:
    assert not (pause(SUBMIT, error) is not None and isinstance(final_error(SUBMIT, error), LostSubmitError))
