"""What each call sends, and the form in which its answer comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeGuard
from urllib.parse import quote

from airflow_provider_odirouter.errors import InvalidParametersError, Problem
from airflow_provider_odirouter.redaction import MASK

DEFAULT_BASE_URL = "https://odirouter.ai/model"


class Action(StrEnum):
    """What a call does."""

    SUBMIT = "submit"
    STATUS = "status"
    RESULT = "result"
    CANCEL = "cancel"
    FILE = "download"


@dataclass(frozen=True)
class Call:
    """One HTTP request, but for the API key."""

    action: Action
    method: str
    url: str
    endpoint: str
    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Answer:
    """
    What came back.

    :param headers: With lower-case names.
    :param received_at: When, in epoch seconds; dates in the headers are compared with it.
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

    :param parameters: The body: the parameter object itself, no wrapper.
    :param trace_id: Sent as ``X-Request-Id``, which the platform traces: the vendor's support can find the call by it.
    :raises InvalidParametersError: If the endpoint is no safe path, or the parameters are no JSON.
    """
    url = f"{base_url}/v1/queue/{_path(endpoint)}"
    body = submit_body(endpoint, parameters)
    headers = {"Content-Type": "application/json", "X-Request-Id": trace_id}
    return Call(Action.SUBMIT, "POST", url, endpoint, headers=headers, body=body)


def submit_body(endpoint: str, parameters: Mapping[str, Any]) -> bytes:
    """
    Return what a submit sends.

    :raises InvalidParametersError: If the parameters are no JSON.
    """
    try:
        return json.dumps(dict(parameters), separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParametersError(endpoint, [Problem("parameters", f"are no JSON object: {error}")]) from error


def status(base_url: str, endpoint: str, request_id: str) -> Call:
    """Build the call that looks at a request."""
    return _of_request(Action.STATUS, "GET", base_url, endpoint, request_id, "status")


def result(base_url: str, endpoint: str, request_id: str) -> Call:
    """Build the call that fetches the outputs of a request."""
    return _of_request(Action.RESULT, "GET", base_url, endpoint, request_id, "response")


def cancel(base_url: str, endpoint: str, request_id: str) -> Call:
    """Build the call that cancels a request."""
    return _of_request(Action.CANCEL, "PUT", base_url, endpoint, request_id, "cancel")


def file(endpoint: str, request_id: str, url: str) -> Call:
    """Build the call that downloads an output. It goes to another host, without the API key."""
    return Call(Action.FILE, "GET", url, endpoint, request_id)


def _of_request(action: Action, method: str, base_url: str, endpoint: str, request_id: str, last: str) -> Call:
    # URLs that the service sends along may name another host, and the key must not go there: ours are built.
    if not is_safe_request_id(request_id):
        problem = Problem("request_id", f"{request_id!r} is no request id; it would leave its place in the URL")
        raise InvalidParametersError(endpoint, [problem])
    url = f"{base_url}/v1/queue/{_path(endpoint)}/requests/{quote(request_id, safe='')}/{last}"
    return Call(action, method, url, endpoint, request_id)


def _path(endpoint: str) -> str:
    segments = endpoint.split("/")
    if not all(_is_safe_segment(segment) for segment in segments):
        problem = Problem("endpoint", f"{endpoint!r} is no endpoint; it would leave its place in the URL")
        raise InvalidParametersError(endpoint, [problem])
    return "/".join(quote(segment, safe="") for segment in segments)


def is_safe_request_id(request_id: object) -> TypeGuard[str]:
    """Return whether a request id is one path segment that stays where it is put."""
    return (
        isinstance(request_id, str)
        and "/" not in request_id
        and MASK not in request_id
        and _is_safe_segment(request_id)
    )


def _is_safe_segment(segment: str) -> bool:
    return segment.strip() not in {"", ".", ".."} and "\\" not in segment and segment.isprintable()
