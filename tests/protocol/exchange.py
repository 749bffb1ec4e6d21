"""Calls and answers for the tests of the protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_odirouter import protocol
from airflow_provider_odirouter.protocol import Answer

BASE_URL = "https://odirouter.ai/model"
ENDPOINT = "gpt_image_1_edit"
REQUEST_ID = "mmsu_0001"
RECEIVED_AT = 1_800_000_000.0
"""2027-01-15 08:00:00 UTC."""

SUBMIT = protocol.submit(BASE_URL, ENDPOINT, {"prompt": "A blue cup"}, trace_id="trace-1")
STATUS = protocol.status(BASE_URL, ENDPOINT, REQUEST_ID)
RESULT = protocol.result(BASE_URL, ENDPOINT, REQUEST_ID)
CANCEL = protocol.cancel(BASE_URL, ENDPOINT, REQUEST_ID)
FILE = protocol.file(ENDPOINT, REQUEST_ID, "https://cdn.example/pictures/0.png?signature=secret")

PAGE = b"<html><title>502 Bad Gateway</title></html>"
"""A proxy's error page."""


def answer(status_code: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """Build an answer; a body that is not ``bytes`` is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status_code, headers or {}, content, received_at=RECEIVED_AT)
