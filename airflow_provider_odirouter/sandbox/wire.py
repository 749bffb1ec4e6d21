"""A call and its answer as plain data, without a socket or an HTTP library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import parse_qsl

Delivery = Literal["whole", "reset", "close", "half", "hang", "endless", "slow"]


@dataclass(frozen=True)
class Call:
    """
    One HTTP request to the sandbox.

    :param method: HTTP method, upper case.
    :param path: Path, percent-decoded, without the query.
    :param query: Query string as it came.
    :param headers: Headers with lower-case names.
    :param body: The whole body.
    :param origin: ``scheme://host:port`` that the caller used; URLs in answers begin with it.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    origin: str = "http://127.0.0.1"

    @property
    def parameters(self) -> dict[str, str]:
        """The query's parameters."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(frozen=True)
class Answer:
    """
    One HTTP response of the sandbox.

    :param status: Status code.
    :param headers: Headers, without ``Content-Length``, which the server or the transport adds.
    :param body: The whole body.
    :param delivery: How much of it arrives: all of it, nothing (the connection is ``reset`` or ``close``d), ``half``,
        no answer at all (``hang``), the body over and over (``endless``), or all of it in small pieces (``slow``).
    :param delay: Seconds before the answer leaves.
    :param trickle: Seconds that a ``slow`` body takes.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delivery: Delivery = "whole"
    delay: float = 0.0
    trickle: float = 0.0

    @property
    def lost(self) -> bool:
        """Whether the caller never receives the whole answer."""
        return self.delivery in {"reset", "close", "half", "hang"}


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with a JSON document."""
    body = json.dumps(content, ensure_ascii=False, default=str).encode()
    return Answer(status, {"content-type": "application/json", **(headers or {})}, body)


def html_answer(status: int, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with an HTML page such as a proxy sends."""
    title = f"{status} {HTTPStatus(status).phrase}"
    page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
    return Answer(status, {"content-type": "text/html", **(headers or {})}, page.encode())
