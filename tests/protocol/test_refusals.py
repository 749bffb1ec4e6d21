"""What an answer means that is not what the call asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_odirouter.errors import (
    AnswerError,
    AuthenticationError,
    EndpointNotFoundError,
    FileExpiredError,
    LandingError,
    NoBalanceError,
    OdiRouterError,
    RateLimitedError,
    RejectedError,
    RequestNotFoundError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.protocol import Call, file_error_of
from airflow_provider_odirouter.protocol.refusals import error_of
from tests.protocol.exchange import CANCEL, FILE, PAGE, RESULT, STATUS, SUBMIT, answer

CALLS_OF_A_REQUEST = [STATUS, RESULT, CANCEL]


def vendor_of(body: Any, status_code: int = 400) -> tuple[str | None, str | None]:
    error = error_of(STATUS, answer(status_code, body))
    assert isinstance(error, AnswerError)
    return error.code, error.vendor


# --- The bodies


@pytest.mark.parametrize(
    ("body", "code", "vendor"),
    [
        ({"error": {"code": "UNAUTHORIZED", "message": "No key"}, "request_id": "r"}, "UNAUTHORIZED", "No key"),
        ({"error": {"code": "E1", "error_message": "No"}}, "E1", "No"),
        ({"error": {"code": "E1"}}, "E1", "E1"),
        ({"error": {"message": "No"}}, None, "No"),
        ({"error": "invalid_api_key"}, None, "invalid_api_key"),
        ({"error": "", "message": "No"}, None, "No"),
        ({"detail": "App not found: not_exists"}, None, "App not found: not_exists"),
        ({"detail": [{"loc": ["body", "n"], "msg": "≤ 10"}]}, None, '[{"loc": ["body", "n"], "msg": "≤ 10"}]'),
        ({"status": {"code": 400, "message": "Bad", "error_code": 40001}, "data": None}, "40001", "Bad"),
        ({"status": {"code": 400, "message": "Bad"}, "data": None}, "400", "Bad"),
        ({"status": {"message": "Bad"}}, None, "Bad"),
        ({"message": "参数错误"}, None, "参数错误"),
        ({"message": None}, None, None),
        ({"message": "   "}, None, None),
        ({"message": 17}, None, "17"),
        ({"message": "two\n  lines"}, None, "two lines"),
        ({"unknown": "No"}, None, None),
        ({}, None, None),
    ],
    ids=str,
)
def test_code_and_words_are_found_in_every_body_that_is_seen(
    body: dict[str, Any], code: str | None, vendor: str | None
) -> None:
    assert vendor_of(body) == (code, vendor)


def test_words_are_quoted_up_to_500_characters() -> None:
    assert vendor_of({"message": "x" * 500}) == (None, "x" * 500)
    assert vendor_of({"message": "x" * 501}) == (None, "x" * 499 + "…")


# --- The table of answers


@pytest.mark.parametrize("call", [SUBMIT, *CALLS_OF_A_REQUEST], ids=lambda call: call.action)
@pytest.mark.parametrize(
    ("status_code", "body", "kind"),
    [
        (400, {"detail": "No"}, RejectedError),
        (422, {"detail": [{"msg": "No"}]}, RejectedError),
        (409, {"detail": "No"}, RejectedError),
        (400, {"detail": "webhook not supported"}, RejectedError),
        (401, {"error": {"code": "UNAUTHORIZED", "message": "No key"}}, AuthenticationError),
        (401, {"error": "invalid_api_key"}, AuthenticationError),
        (401, b"", AuthenticationError),
        (401, PAGE, AuthenticationError),
        (402, {"message": "Pay"}, NoBalanceError),
        (402, b"", NoBalanceError),
        (402, {"status": {"code": 402, "message": "Insufficient credits", "error_code": 40201}}, NoBalanceError),
        (403, {"detail": "Insufficient Balance"}, NoBalanceError),
        (403, {"error": {"code": "40202", "message": "No"}}, NoBalanceError),
        (400, {"status": {"code": 400, "error_code": 40208}}, NoBalanceError),
        (403, {"detail": "Model not allowed for this user"}, AuthenticationError),
        (403, {}, AuthenticationError),
        (404, {"detail": "App not found: not_exists"}, EndpointNotFoundError),
        (404, {"error": {"message": "APP NOT FOUND: not_exists"}}, EndpointNotFoundError),
        (408, b"", ServiceError),
        (425, b"", ServiceError),
        (429, {"error": {"code": "RATE_LIMIT_EXCEEDED", "message": "Slow down"}}, RateLimitedError),
        (429, PAGE, RateLimitedError),
        (500, {"error": {"code": "INTERNAL", "message": "Oops"}}, ServiceError),
        (500, b"", ServiceError),
        (502, PAGE, ServiceError),
        (503, {"status": {"code": 503, "message": "Busy"}}, ServiceError),
        (504, b"", ServiceError),
        (200, {"status": {"code": 401, "message": "No key"}, "data": None}, AuthenticationError),
        (200, {"status": {"code": 402, "message": "Pay"}, "data": None}, NoBalanceError),
        (200, {"status": {"code": "500", "message": "Oops"}, "data": None}, ServiceError),
        (200, {"status": {"code": 429}, "data": None}, RateLimitedError),
        (200, {"status": {"code": None, "error_code": 40205}, "data": None}, NoBalanceError),
        (200, {"error": "Something is wrong"}, UnreadableAnswerError),
        (200, {}, UnreadableAnswerError),
        (200, {"status": {}}, UnreadableAnswerError),
        (200, b"", UnreadableAnswerError),
        (200, PAGE, UnreadableAnswerError),
        (301, b"", UnreadableAnswerError),
        (304, {}, UnreadableAnswerError),
    ],
)
def test_each_answer_has_its_error(call: Call, status_code: int, body: Any, kind: type[OdiRouterError]) -> None:
    assert type(error_of(call, answer(status_code, body))) is kind


@pytest.mark.parametrize("code", range(40201, 40209))
def test_the_eight_codes_of_an_empty_account(code: int) -> None:
    assert type(error_of(SUBMIT, answer(400, {"error": {"code": code}}))) is NoBalanceError


@pytest.mark.parametrize("code", [40200, 40209, 4020, 402010])
def test_codes_beside_them_are_other_matters(code: int) -> None:
    assert type(error_of(SUBMIT, answer(400, {"error": {"code": code}}))) is RejectedError


def test_insufficient_words_count_only_with_a_403() -> None:
    assert type(error_of(SUBMIT, answer(400, {"detail": "Insufficient resolution"}))) is RejectedError


@pytest.mark.parametrize(
    ("status_code", "body", "of_submit", "of_request"),
    [
        (404, {"detail": "Request not found"}, EndpointNotFoundError, RequestNotFoundError),
        (404, {}, EndpointNotFoundError, RequestNotFoundError),
        (404, PAGE, EndpointNotFoundError, UnreadableAnswerError),
        (404, b"", EndpointNotFoundError, UnreadableAnswerError),
        (403, PAGE, RejectedError, UnreadableAnswerError),
        (400, PAGE, RejectedError, UnreadableAnswerError),
        (413, b"", RejectedError, UnreadableAnswerError),
    ],
)
def test_a_proxys_page_refuses_a_submit_but_says_nothing_about_a_request(
    status_code: int, body: Any, of_submit: type[OdiRouterError], of_request: type[OdiRouterError]
) -> None:
    assert type(error_of(SUBMIT, answer(status_code, body))) is of_submit
    for call in CALLS_OF_A_REQUEST:
        assert type(error_of(call, answer(status_code, body))) is of_request


# --- The texts


@pytest.mark.parametrize(
    ("call", "status_code", "body", "text"),
    [
        (
            STATUS,
            401,
            {"error": "invalid_api_key"},
            (
                "OdiRouter refuses the API key for the status of gpt_image_1_edit (401). "
                "OdiRouter says: “invalid_api_key”. Request: mmsu_0001. "
                "Check the API key in the password field of the connection, and what it is allowed to use."
            ),
        ),
        (
            SUBMIT,
            404,
            {"detail": "App not found: x"},
            (
                "OdiRouter does not know the endpoint gpt_image_1_edit (404). OdiRouter says: “App not found: x”. "
                "Check the endpoint's name, and that the connection's host is the API's base URL."
            ),
        ),
        (
            SUBMIT,
            200,
            {"status": {"code": 402}},
            (
                "OdiRouter refuses the submit of gpt_image_1_edit: the account has no balance (402). "
                "OdiRouter says: “402”. Top up the OdiRouter account, then clear the task."
            ),
        ),
        (
            RESULT,
            429,
            {},
            (
                "OdiRouter's rate limit stops the result of gpt_image_1_edit (429). Request: mmsu_0001. "
                "Lower the concurrency (an Airflow pool does it), or raise the account's limit; a retry may succeed."
            ),
        ),
        (
            SUBMIT,
            422,
            {"detail": "n is too large"},
            (
                "OdiRouter rejects the submit of gpt_image_1_edit (422). OdiRouter says: “n is too large”. "
                "Correct the parameters; a retry would be rejected again."
            ),
        ),
        (
            CANCEL,
            404,
            {"detail": "Request not found"},
            (
                "OdiRouter does not know this request of gpt_image_1_edit (404). OdiRouter says: “Request not found”. "
                "Request: mmsu_0001. Check that endpoint, request id and API key belong together."
            ),
        ),
        (
            CANCEL,
            503,
            b"",
            "OdiRouter could not answer the cancel of gpt_image_1_edit (503). Request: mmsu_0001. A retry may succeed.",
        ),
        (
            STATUS,
            200,
            PAGE,
            (
                "The answer to the status of gpt_image_1_edit (200) is not OdiRouter's: it begins with "
                "'<html><title>502 Bad Gateway</title></html>'. Request: mmsu_0001. "
                "Check that the connection's host is the API's base URL and that no proxy answers in its place."
            ),
        ),
        (
            SUBMIT,
            200,
            b" \n",
            (
                "The answer to the submit of gpt_image_1_edit (200) is not OdiRouter's: it is empty. "
                "Check that the connection's host is the API's base URL and that no proxy answers in its place."
            ),
        ),
    ],
    ids=lambda value: value.action if isinstance(value, Call) else None,
)
def test_an_error_says_what_happened_the_vendors_words_the_request_and_what_to_do(
    call: Call, status_code: int, body: Any, text: str
) -> None:
    assert str(error_of(call, answer(status_code, body))) == text


def test_an_error_knows_the_status_that_counts() -> None:
    direct = error_of(STATUS, answer(503))
    wrapped = error_of(STATUS, answer(200, {"status": {"code": 503}}))
    unreadable = error_of(STATUS, answer(302))
    assert isinstance(direct, AnswerError)
    assert isinstance(wrapped, AnswerError)
    assert isinstance(unreadable, UnreadableAnswerError)
    assert [direct.status_code, wrapped.status_code, unreadable.status_code] == [503, 503, 302]


def test_an_envelopes_status_counts_only_where_http_says_success() -> None:
    error = error_of(STATUS, answer(503, {"status": {"code": 400, "message": "No"}}))
    assert type(error) is ServiceError


def test_only_the_beginning_of_a_page_is_quoted() -> None:
    error = error_of(STATUS, answer(200, b"<p>" + b"x" * 10_000))
    assert f"it begins with '<p>{'x' * 116}…'." in str(error)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://login.example/oauth?state=secret", "https://login.example"),
        ("http://login.example:8080/", "http://login.example:8080"),
        ("/login", "elsewhere"),
        ("", "elsewhere"),
        ("http://[bad", "elsewhere"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_a_redirect_is_named_without_what_it_carries_and_is_not_followed(location: str, target: str) -> None:
    error = error_of(STATUS, answer(302, PAGE, {"location": location}))
    assert str(error) == (
        "The answer to the status of gpt_image_1_edit (302) is not OdiRouter's: "
        f"it redirects to {target}, where the API key is not sent. Request: mmsu_0001. "
        "Put the API's true base URL into the connection's host."
    )


# --- Retry-After


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own time zone is far from UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


def retry_after(headers: dict[str, str]) -> float | None:
    error = error_of(STATUS, answer(429, {}, headers))
    assert isinstance(error, RateLimitedError)
    return error.retry_after


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("119", 119.0),
        ("120", 120.0),
        ("86400", 120.0),
        ("9" * 400, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_in_seconds_is_honoured_and_capped(header: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": header}) == seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        ("Friday, 15-Jan-27 08:00:30 GMT", 30.0),
        ("Fri Jan 15 08:00:30 2027", 30.0),
        ("Fri, 15 Jan 2027 09:00:30 +0100", 30.0),
        ("Fri, 15 Jan 2027 07:59:00 GMT", 0.0),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120.0),
        ("Sat, 16 Jan 2027 08:00:00 GMT", 120.0),
        ("Fri, 15 Jan 99999999999999 08:00:00 GMT", None),
        ("Fri, 15 Jan 2027 08:00:30 +9999999999999999999999", None),
        ("Fri, 32 Jan 2027 08:00:30 GMT", None),
    ],
)
@pytest.mark.usefixtures("in_tokyo")
def test_retry_after_as_a_date_is_compared_with_the_time_of_the_answer(header: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": header}) == seconds


def test_retry_after_as_a_date_is_compared_with_the_servers_own_clock_if_it_tells() -> None:
    an_hour_ago = {"retry-after": "Fri, 15 Jan 2027 07:00:30 GMT", "date": "Fri, 15 Jan 2027 07:00:00 GMT"}
    assert retry_after(an_hour_ago) == 30.0


def test_a_date_that_cannot_be_read_leaves_the_time_of_the_answer() -> None:
    assert retry_after({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT", "date": "today"}) == 30.0


def test_no_retry_after_is_none() -> None:
    assert retry_after({}) is None


# --- Downloads


@pytest.mark.parametrize(
    ("status_code", "kind"),
    [
        (403, FileExpiredError),
        (404, FileExpiredError),
        (410, FileExpiredError),
        (408, ServiceError),
        (429, ServiceError),
        (500, ServiceError),
        (503, ServiceError),
        (301, LandingError),
        (400, LandingError),
        (401, LandingError),
        (416, LandingError),
    ],
)
def test_each_answer_to_a_download_has_its_error(status_code: int, kind: type[OdiRouterError]) -> None:
    error = file_error_of(FILE, answer(status_code, PAGE))
    assert type(error) is kind
    assert error.request_id == "mmsu_0001"
    assert error.vendor is None


def test_the_signature_of_a_link_is_not_shown() -> None:
    error = file_error_of(FILE, answer(403))
    assert error.what == "The download of https://cdn.example/pictures/0.png was answered with 403."


def test_a_redirect_is_told_without_the_password_that_it_may_hold() -> None:
    error = error_of(STATUS, answer(307, b"", {"location": "https://user:secret@elsewhere.example/model"}))
    assert "https://elsewhere.example" in str(error)
    assert "secret" not in str(error)
