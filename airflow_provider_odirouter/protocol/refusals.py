"""What an answer means that is not what the call asked for."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from airflow_provider_odirouter.errors import (
    AnswerError,
    AuthenticationError,
    EndpointNotFoundError,
    FileExpiredError,
    LandingError,
    NoBalanceError,
    OdiRouterError,
    PathNotFoundError,
    RateLimitedError,
    RejectedError,
    RequestNotFoundError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.protocol.bodies import document_of, number_of, shortened, words_of
from airflow_provider_odirouter.protocol.calls import Action, Answer, Call

RETRY_AFTER_CAP = 120.0
"""The longest ``Retry-After`` that is honoured, in seconds: a service that asks for a day is not waited for."""

NO_BALANCE_CODES = frozenset(str(code) for code in range(40201, 40209))

WHAT = {
    AuthenticationError: "OdiRouter refuses the API key for the {action} of {endpoint} ({number}).",
    EndpointNotFoundError: "OdiRouter does not know the endpoint {endpoint} ({number}).",
    NoBalanceError: "OdiRouter refuses the {action} of {endpoint}: the account has no balance ({number}).",
    PathNotFoundError: "The host has no such path as that of the {action} of {endpoint} ({number}).",
    RateLimitedError: "OdiRouter's rate limit stops the {action} of {endpoint} ({number}).",
    RejectedError: "OdiRouter rejects the {action} of {endpoint} ({number}).",
    RequestNotFoundError: "OdiRouter does not know this request of {endpoint} ({number}).",
    ServiceError: "OdiRouter could not answer the {action} of {endpoint} ({number}).",
}


def error_of(call: Call, answer: Answer) -> OdiRouterError:
    """Tell which error an answer to a call of the API is."""
    document = document_of(answer)
    code, message = words_of(document or {})
    number = answer.status_code
    if answer.is_success and document and isinstance(document.get("status"), dict):
        # An envelope has a status of its own, which counts.
        number = int(number_of(document["status"].get("code")) or number)
    kind = _kind(
        number,
        submits=call.action is Action.SUBMIT,
        readable=document is not None,
        code=code,
        words=(message or "").lower(),
    )
    if kind is None:
        return _unreadable(call, answer)
    error = kind(
        WHAT[kind].format(action=call.action, endpoint=call.endpoint, number=number),
        status_code=number,
        code=code,
        vendor=message or code,
        request_id=call.request_id,
    )
    if isinstance(error, RateLimitedError):
        error.retry_after = _retry_after(answer)
    return error


def file_error_of(call: Call, answer: Answer) -> OdiRouterError:
    """Tell which error the answer to a download is. Files lie on a host of their own, whose bodies say nothing."""
    number = answer.status_code
    url = urlsplit(call.url)
    what = f"The download of {url.scheme}://{url.netloc.rpartition('@')[2]}{url.path} was answered with {number}."
    if number in {403, 404, 410}:
        return FileExpiredError(what, request_id=call.request_id)
    if number in {408, 429} or number >= 500:
        return ServiceError(what, status_code=number, request_id=call.request_id)
    return LandingError(what, request_id=call.request_id)


def _kind(number: int, *, submits: bool, readable: bool, code: str | None, words: str) -> type[AnswerError] | None:
    """
    Classify an error by its HTTP status and the vendor's code and words; ``None``: it is not the API's answer.

    A proxy's page with a 403 or 404 says nothing about a request that is looked at; but it does refuse a submit.
    """
    if number == 402 or code in NO_BALANCE_CODES or (number == 403 and "insufficient" in words):
        return NoBalanceError
    if number == 429:
        return RateLimitedError
    if number in {408, 425} or number >= 500:
        return ServiceError
    if number == 401 or (number == 403 and readable):
        return AuthenticationError
    if number == 404 and (submits or "app not found" in words):
        return EndpointNotFoundError
    if number in {404, 410} and readable:
        # A web framework's own words for a path that it does not have.
        return PathNotFoundError if words.strip(" .") == "not found" else RequestNotFoundError
    return RejectedError if 400 <= number < 500 and (readable or submits) else None


def _unreadable(call: Call, answer: Answer) -> UnreadableAnswerError:
    what = f"The answer to the {call.action} of {call.endpoint} ({answer.status_code}) is not OdiRouter's: "
    advice = None
    if 300 <= answer.status_code < 400:
        target = _origin(answer.headers.get("location", "")) or "elsewhere"
        what += f"it redirects to {target}, where the API key is not sent."
        advice = "Put the API's true base URL into the connection's host."
    elif text := shortened(answer.body.decode(errors="replace"), 120):
        what += f"it begins with {text!r}."
    else:
        what += "it is empty."
    return UnreadableAnswerError(what, status_code=answer.status_code, request_id=call.request_id, advice=advice)


def _origin(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else None


def _retry_after(answer: Answer) -> float | None:
    """Read ``Retry-After``: seconds, or an HTTP date, which is compared with the server's own clock if it tells."""
    text = answer.headers.get("retry-after", "").strip()
    seconds = number_of(text)
    if seconds is None and (at := _epoch(text)) is not None:
        seconds = at - (_epoch(answer.headers.get("date", "")) or answer.received_at)
    return None if seconds is None else min(max(seconds, 0.0), RETRY_AFTER_CAP)


def _epoch(http_date: str) -> float | None:
    try:
        at = parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
