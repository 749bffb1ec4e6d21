"""Builds the calls, and holds their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeGuard
from urllib.parse import quote

from airflow_provider_odirouter.errors import InvalidParametersError, Problem
from airflow_provider_odirouter.redaction import MASK

QUEUE_PATH = "/v1/queue"
DEFAULT_BASE_URL = "https://odirouter.ai/model"


class Action(StrEnum):
    """The purpose of a call; its value names the call in messages."""

    SUBMIT = "submit"
    STATUS = "status"
    RESULT = "result"
    CANCEL = "cancel"
    FILE = "download"


@dataclass(frozen=True)
class Call:
    """One HTTP request without the API key, which the hook adds."""

    action: Action
    method: str
    url: str
    endpoint: str
    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    is_urgent: bool = False
    """Whether it is sent even while a ``Retry-After`` of an earlier call holds."""
    waits_out_rate_limit: bool = True
    """Whether it is sent again after an answer of ``429``."""

    @property
    def base_url(self) -> str:
        """The API's base URL, of a call to the API."""
        return self.url.partition(f"{QUEUE_PATH}/")[0]


@dataclass(frozen=True)
class Answer:
    """
    One HTTP answer.

    :param headers: Their names are in lower case.
    :param received_at: In epoch seconds; dates in the headers are compared with it.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float

    @property
    def is_success(self) -> bool:
        """Whether the HTTP status is a ``2xx``."""
        return 200 <= self.status_code < 300


def submit(base_url: str, endpoint: str, parameters: Mapping[str, Any], *, trace_id: str) -> Call:
    """
    Build the call that creates a request. It costs money.

    :param parameters: The body itself, without a wrapper.
    :param trace_id: Sent as ``X-Request-Id``, which the platform traces: the vendor's support can find the call by it.
    :raises InvalidParametersError: If the endpoint is not a safe path, or the parameters are not JSON.
    """
    url = f"{base_url}{QUEUE_PATH}/{_endpoint_path(endpoint)}"
    body = submit_body(endpoint, parameters)
    headers = {"Content-Type": "application/json", "X-Request-Id": trace_id}
    return Call(Action.SUBMIT, "POST", url, endpoint, headers=headers, body=body)


def submit_body(endpoint: str, parameters: Mapping[str, Any]) -> bytes:
    """
    Return the body of a submit.

    :raises InvalidParametersError: If the parameters are not JSON.
    """
    try:
        return json.dumps(dict(parameters), separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParametersError(endpoint, [Problem("parameters", f"are not a JSON object: {error}")]) from error


def status(base_url: str, endpoint: str, request_id: str) -> Call:
    """Build the call that polls a request."""
    return _request_call(Action.STATUS, "GET", base_url, endpoint, request_id, "status")


def result(base_url: str, endpoint: str, request_id: str) -> Call:
    """Build the call that fetches the result of a request."""
    return _request_call(Action.RESULT, "GET", base_url, endpoint, request_id, "response")


def cancel(base_url: str, endpoint: str, request_id: str) -> Call:
    """Build the call that cancels a request."""
    return _request_call(Action.CANCEL, "PUT", base_url, endpoint, request_id, "cancel")


def file(endpoint: str, request_id: str, url: str) -> Call:
    """Build the call that downloads an output, from another host and without the API key."""
    return Call(Action.FILE, "GET", url, endpoint, request_id)


def _request_call(action: Action, method: str, base_url: str, endpoint: str, request_id: str, last: str) -> Call:
    # The URLs in the service's answers may name another host, which must not get the key. So they are not used.
    if not is_safe_request_id(request_id):
        problem = Problem("request_id", f"{request_id!r} is not a request id: it would change the path of the URL")
        raise InvalidParametersError(endpoint, [problem])
    url = f"{base_url}{QUEUE_PATH}/{_endpoint_path(endpoint)}/requests/{quote(request_id, safe='')}/{last}"
    return Call(action, method, url, endpoint, request_id)


def _endpoint_path(endpoint: str) -> str:
    segments = endpoint.split("/")
    if not all(_is_safe_segment(segment) for segment in segments):
        problem = Problem("endpoint", f"{endpoint!r} is not an endpoint: it would change the path of the URL")
        raise InvalidParametersError(endpoint, [problem])
    return "/".join(quote(segment, safe="") for segment in segments)


def is_safe_request_id(request_id: object) -> TypeGuard[str]:
    """Return whether a request id is one path segment that does not change the rest of the path."""
    return (
        isinstance(request_id, str)
        and "/" not in request_id
        and MASK not in request_id
        and _is_safe_segment(request_id)
    )


def _is_safe_segment(segment: str) -> bool:
    return segment.strip() not in {"", ".", ".."} and "\\" not in segment and segment.isprintable()
