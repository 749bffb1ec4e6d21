"""The error for each answer that is not a success."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_odirouter import protocol
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
from airflow_provider_odirouter.protocol import Call
from airflow_provider_odirouter.protocol.error_mapping import error_from_answer, file_error_from_answer
from tests.protocol.exchange import CANCEL, FILE, PAGE, RESULT, STATUS, SUBMIT, answer

CALLS_OF_A_REQUEST = [STATUS, RESULT, CANCEL]


def vendor_of(body: Any, status_code: int = 400) -> tuple[str | None, str | None]:
    error = error_from_answer(STATUS, answer(status_code, body))
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
def test_code_and_message_are_found_in_every_known_body(
    body: dict[str, Any], code: str | None, vendor: str | None
) -> None:
    assert vendor_of(body) == (code, vendor)


def test_a_message_is_quoted_up_to_500_characters() -> None:
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
        *[(number, PAGE, UnreadableAnswerError) for number in (401, 402, 403, 404, 407)],
        *[(407, body, UnreadableAnswerError) for body in (b"", {"detail": "Log in"})],
        (301, b"", UnreadableAnswerError),
        (304, {}, UnreadableAnswerError),
    ],
)
def test_each_answer_has_its_error(call: Call, status_code: int, body: Any, kind: type[OdiRouterError]) -> None:
    assert type(error_from_answer(call, answer(status_code, body))) is kind


@pytest.mark.parametrize("code", range(40201, 40209))
def test_eight_codes_mean_an_empty_account(code: int) -> None:
    assert type(error_from_answer(SUBMIT, answer(400, {"error": {"code": code}}))) is NoBalanceError


@pytest.mark.parametrize("code", [40200, 40209, 4020, 402010])
def test_neighbouring_codes_are_other_errors(code: int) -> None:
    assert type(error_from_answer(SUBMIT, answer(400, {"error": {"code": code}}))) is RejectedError


def test_the_word_insufficient_counts_only_with_a_403() -> None:
    assert type(error_from_answer(SUBMIT, answer(400, {"detail": "Insufficient resolution"}))) is RejectedError


@pytest.mark.parametrize(
    ("status_code", "body", "of_submit", "of_request"),
    [
        (404, {"detail": "Request not found"}, EndpointNotFoundError, RequestNotFoundError),
        (404, {}, EndpointNotFoundError, RequestNotFoundError),
        (404, b"<p>", EndpointNotFoundError, UnreadableAnswerError),
        (404, b"", EndpointNotFoundError, UnreadableAnswerError),
        (403, b"", RejectedError, UnreadableAnswerError),
        (400, PAGE, RejectedError, UnreadableAnswerError),
        (413, b"", RejectedError, UnreadableAnswerError),
    ],
)
def test_a_proxys_page_refuses_only_a_submit(
    status_code: int, body: Any, of_submit: type[OdiRouterError], of_request: type[OdiRouterError]
) -> None:
    assert type(error_from_answer(SUBMIT, answer(status_code, body))) is of_submit
    for call in CALLS_OF_A_REQUEST:
        assert type(error_from_answer(call, answer(status_code, body))) is of_request


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
                "Check the API key in the password field of the connection, and which endpoints it may use."
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
                "Correct the parameters: OdiRouter would reject them again."
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
                "The answer to the status of gpt_image_1_edit (200) is not OdiRouter's: a proxy or another server has "
                "answered, with an HTML page that begins with '<html><title>502 Bad Gateway</title></html>'. "
                "Request: mmsu_0001. Check that the connection's host is the API's base URL and that no proxy answers "
                "in its place."
            ),
        ),
        (
            SUBMIT,
            401,
            b"<!DOCTYPE html><title>Log in</title>",
            (
                "The answer to the submit of gpt_image_1_edit (401) is not OdiRouter's: a proxy or another server has "
                "answered, with an HTML page that begins with '<!DOCTYPE html><title>Log in</title>'. "
                "Check that the connection's host is the API's base URL and that no proxy answers in its place."
            ),
        ),
        (
            STATUS,
            407,
            PAGE,
            (
                "The answer to the status of gpt_image_1_edit (407) is not OdiRouter's: a proxy demands a login. "
                "Request: mmsu_0001. Write user and password into HTTPS_PROXY or HTTP_PROXY of the process, or the "
                "host into NO_PROXY."
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
def test_the_text_of_each_error_is_complete(call: Call, status_code: int, body: Any, text: str) -> None:
    assert str(error_from_answer(call, answer(status_code, body))) == text


@pytest.mark.parametrize("number", [401, 402, 403, 404])
@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf\r\n<!doctype HTML PUBLIC>",
        b"<!-- Squid -->\n<HTML lang='en'>",
        b"<?xml version='1.0'?><html xmlns='x'>",
        b"<head/>",
        b"  <body>",
    ],
)
def test_a_page_of_any_kind_is_never_about_key_or_account(number: int, body: bytes) -> None:
    for call in (SUBMIT, *CALLS_OF_A_REQUEST):
        text = str(error_from_answer(call, answer(number, body)))
        assert "a proxy or another server has answered, with an HTML page" in text
        assert "API key" not in text
        assert "balance" not in text


def test_a_page_answers_a_submit_that_is_not_lost() -> None:
    for number in (401, 402, 403, 404, 407):
        error = error_from_answer(SUBMIT, answer(number, PAGE))
        assert protocol.final_error(SUBMIT, error) is error
        assert error.retry_helps


@pytest.mark.parametrize("body", [b"<error>No key</error>", b"Unauthorized <html>", b"<htmlx>", b""])
def test_what_is_no_page_may_be_odirouters(body: bytes) -> None:
    assert type(error_from_answer(SUBMIT, answer(401, body))) is AuthenticationError


def test_an_error_has_the_status_code_that_counts() -> None:
    direct = error_from_answer(STATUS, answer(503))
    wrapped = error_from_answer(STATUS, answer(200, {"status": {"code": 503}}))
    unreadable = error_from_answer(STATUS, answer(302))
    assert isinstance(direct, AnswerError)
    assert isinstance(wrapped, AnswerError)
    assert isinstance(unreadable, UnreadableAnswerError)
    assert [direct.status_code, wrapped.status_code, unreadable.status_code] == [503, 503, 302]


def test_the_status_in_an_envelope_counts_only_in_a_2xx() -> None:
    error = error_from_answer(STATUS, answer(503, {"status": {"code": 400, "message": "No"}}))
    assert type(error) is ServiceError


def test_only_the_beginning_of_a_page_is_quoted() -> None:
    error = error_from_answer(STATUS, answer(200, b"<p>" + b"x" * 10_000))
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
def test_a_redirect_is_named_only_by_its_origin(location: str, target: str) -> None:
    error = error_from_answer(STATUS, answer(302, PAGE, {"location": location}))
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
    error = error_from_answer(STATUS, answer(429, {}, headers))
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
def test_retry_after_as_a_date_counts_from_the_answer(header: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": header}) == seconds


def test_retry_after_as_a_date_counts_from_the_servers_clock() -> None:
    an_hour_ago = {"retry-after": "Fri, 15 Jan 2027 07:00:30 GMT", "date": "Fri, 15 Jan 2027 07:00:00 GMT"}
    assert retry_after(an_hour_ago) == 30.0


def test_an_invalid_date_header_is_ignored() -> None:
    assert retry_after({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT", "date": "today"}) == 30.0


def test_an_answer_without_retry_after_has_none() -> None:
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
    error = file_error_from_answer(FILE, answer(status_code, PAGE))
    assert type(error) is kind
    assert error.request_id == "mmsu_0001"
    assert error.vendor is None


def test_the_signature_of_a_link_is_not_shown() -> None:
    error = file_error_from_answer(FILE, answer(403))
    assert error.what == "The download of https://cdn.example/pictures/0.png was answered with 403."


def test_a_redirect_is_named_without_its_password() -> None:
    error = error_from_answer(STATUS, answer(307, b"", {"location": "https://user:secret@elsewhere.example/model"}))
    assert "https://elsewhere.example" in str(error)
    assert "secret" not in str(error)
