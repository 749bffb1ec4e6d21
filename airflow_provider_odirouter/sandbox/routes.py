"""Finds the call that a path means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_odirouter.sandbox.files import FILE_PATH

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.settings import Action

BASE_PATH = "/model"
_SUBMIT = re.compile(rf"{BASE_PATH}/v1/queue/(?P<endpoint>[^/]+)")
_REQUEST = re.compile(
    rf"{BASE_PATH}/v1/queue/(?P<endpoint>[^/]+)/requests/(?P<request_id>[^/]+)/(?P<call>status|response|cancel)"
)
_CALLS: dict[str, tuple[Action, str]] = {
    "status": ("status", "GET"),
    "response": ("result", "GET"),
    "cancel": ("cancel", "PUT"),
}


@dataclass(frozen=True)
class Route:
    """
    The call that a path means.

    :param action: The kind of call.
    :param method: The HTTP method that it needs.
    :param endpoint: Model id.
    :param request_id: Request id.
    :param number: Which of the request's files.
    """

    action: Action = "other"
    method: str = ""
    endpoint: str = ""
    request_id: str = ""
    number: int = 0


def find_route(path: str) -> Route:
    """Return the call that a path means; its action is ``other`` for an unknown path."""
    if match := _SUBMIT.fullmatch(path):
        return Route("submit", "POST", match["endpoint"])
    if match := _REQUEST.fullmatch(path):
        action, method = _CALLS[match["call"]]
        return Route(action, method, match["endpoint"], match["request_id"])
    if match := FILE_PATH.fullmatch(path):
        return Route("file", "GET", request_id=match["request_id"], number=int(match["number"]))
    return Route()
