"""Maps an answer that is not a success to one of our errors."""

from __future__ import annotations

import re
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
from airflow_provider_odirouter.protocol.calls import Action, Answer, Call
from airflow_provider_odirouter.protocol.json_bodies import code_and_message, finite_number, json_object_in, shorten

MAX_RETRY_AFTER = 120.0
"""Seconds. A longer ``Retry-After``, such as a day, counts as this."""

HTTP_TO_HTTPS_PORT = re.compile(rb"plain HTTP request|HTTP request to an HTTPS|speaking plain HTTP", re.IGNORECASE)
"""How nginx, Go and Apache answer a call without TLS on a port with TLS."""
PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<(?:!--|\?).{0,2000}?>\s*)?<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
"""The beginning of a page for browsers, which OdiRouter never sends, but proxies, logins and other servers do."""
STATUS_OF_PAGES = frozenset({401, 402, 403, 404})
"""What a page with one of these says is not about OdiRouter's key, account or endpoints."""
NO_BALANCE_CODES = frozenset(str(code) for code in range(40201, 40209))

MESSAGES = {
    AuthenticationError: "OdiRouter refuses the API key for the {action} of {endpoint} ({status_code}).",
    EndpointNotFoundError: "OdiRouter does not know the endpoint {endpoint} ({status_code}).",
    NoBalanceError: "OdiRouter refuses the {action} of {endpoint}: the account has no balance ({status_code}).",
    PathNotFoundError: "The host does not know the path of the {action} of {endpoint} ({status_code}).",
    RateLimitedError: "OdiRouter's rate limit stops the {action} of {endpoint} ({status_code}).",
    RejectedError: "OdiRouter rejects the {action} of {endpoint} ({status_code}).",
    RequestNotFoundError: "OdiRouter does not know this request of {endpoint} ({status_code}).",
    ServiceError: "OdiRouter could not answer the {action} of {endpoint} ({status_code}).",
}


def error_from_answer(call: Call, answer: Answer) -> OdiRouterError:
    """Return the error that an answer of the API means."""
    document = json_object_in(answer)
    code, message = code_and_message(document or {})
    status_code = answer.status_code
    if status_code == 400 and document is None and HTTP_TO_HTTPS_PORT.search(answer.body):
        return _unreadable(call, answer)
    if status_code == 407 or (status_code in STATUS_OF_PAGES and _is_page(answer)):
        return _unreadable(call, answer)
    if answer.is_success and document and isinstance(document.get("status"), dict):
        # The status code in the envelope counts, not the HTTP status.
        status_code = int(finite_number(document["status"].get("code")) or status_code)
    error_class = _error_class(
        status_code,
        is_submit=call.action is Action.SUBMIT,
        is_json=document is not None,
        code=code,
        message=(message or "").lower(),
    )
    if error_class is None:
        return _unreadable(call, answer)
    error = error_class(
        MESSAGES[error_class].format(action=call.action, endpoint=call.endpoint, status_code=status_code),
        status_code=status_code,
        code=code,
        vendor=message or code,
        request_id=call.request_id,
    )
    if isinstance(error, RateLimitedError):
        error.retry_after = _retry_after(answer)
    return error


def file_error_from_answer(call: Call, answer: Answer) -> OdiRouterError:
    """Return the error that the answer to a download means. Another host serves the files; its bodies are ignored."""
    number = answer.status_code
    url = urlsplit(call.url)
    what = f"The download of {url.scheme}://{url.netloc.rpartition('@')[2]}{url.path} was answered with {number}."
    if number in {403, 404, 410}:
        return FileExpiredError(what, request_id=call.request_id)
    if number in {408, 429} or number >= 500:
        return ServiceError(what, status_code=number, request_id=call.request_id)
    return LandingError(what, request_id=call.request_id)


def _error_class(
    status_code: int, *, is_submit: bool, is_json: bool, code: str | None, message: str
) -> type[AnswerError] | None:
    """
    Classify an error by its HTTP status and the vendor's code and message; ``None``: it is not the API's answer.

    A proxy's page with a 403 or 404 says nothing about an existing request, but it certainly refuses a submit.
    """
    if status_code == 402 or code in NO_BALANCE_CODES or (status_code == 403 and "insufficient" in message):
        return NoBalanceError
    if status_code == 429:
        return RateLimitedError
    if status_code in {408, 425} or status_code >= 500:
        return ServiceError
    if status_code == 401 or (status_code == 403 and is_json):
        return AuthenticationError
    if status_code == 404 and (is_submit or "app not found" in message):
        return EndpointNotFoundError
    if status_code in {404, 410} and is_json:
        # Web frameworks answer with this message for an unknown path.
        return PathNotFoundError if message.strip(" .") == "not found" else RequestNotFoundError
    return RejectedError if 400 <= status_code < 500 and (is_json or is_submit) else None


def _is_page(answer: Answer) -> bool:
    return PAGE.match(answer.body) is not None


def _unreadable(call: Call, answer: Answer) -> UnreadableAnswerError:
    what = f"The answer to the {call.action} of {call.endpoint} ({answer.status_code}) is not OdiRouter's: "
    advice = None
    if 300 <= answer.status_code < 400:
        target = _origin(answer.headers.get("location", "")) or "elsewhere"
        what += f"it redirects to {target}, where the API key is not sent."
        advice = "Put the API's true base URL into the connection's host."
    elif answer.status_code == 400 and HTTP_TO_HTTPS_PORT.search(answer.body):
        what += "the host speaks TLS on this port, and was called without."
        advice = "Should the host begin with https://? Write it so in the connection's host field."
    elif answer.status_code == 407:
        what += "a proxy demands a login."
        advice = "Write user and password into HTTPS_PROXY or HTTP_PROXY of the process, or the host into NO_PROXY."
    elif _is_page(answer):
        text = shorten(answer.body.decode(errors="replace"), 120)
        what += f"a proxy or another server has answered, with an HTML page that begins with {text!r}."
    elif text := shorten(answer.body.decode(errors="replace"), 120):
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
    """Read ``Retry-After``: seconds, or an HTTP date, counted from the answer's ``Date`` if it has one."""
    text = answer.headers.get("retry-after", "").strip()
    seconds = finite_number(text)
    if seconds is None and (at := _epoch(text)) is not None:
        seconds = at - (_epoch(answer.headers.get("date", "")) or answer.received_at)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _epoch(http_date: str) -> float | None:
    try:
        at = parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
