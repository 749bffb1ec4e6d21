"""Reads JSON bodies of any shape: an object, a number, the vendor's error code and message."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from airflow_provider_odirouter.protocol.calls import Answer

MAX_MESSAGE_LENGTH = 500
"""Characters of the vendor's message that an error quotes."""
MAX_OBJECT_LENGTH = 10_000
"""Characters of an object that goes through Airflow's database."""
MAX_OBJECT_DEPTH = 20
UNSTORABLE = re.compile(r"\\u0000|[\ud800-\udfff]")
"""NUL, as JSON writes it, and lone surrogates: databases do not store them."""


def json_object_in(answer: Answer) -> dict[str, Any] | None:
    """
    Return the JSON object in the body, or ``None`` if the body is anything else.

    ``NaN``, ``Infinity`` and numbers beyond a float become ``None``: a database would refuse them.
    """
    try:
        document = _DECODER.decode(answer.body.decode(json.detect_encoding(answer.body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def finite_number(value: object) -> float | None:
    """Return a finite number, or ``None``."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# Built once: json.loads() would build a decoder for each poll.
_DECODER = json.JSONDecoder(parse_float=finite_number, parse_constant=finite_number)


def is_storable_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a value is a JSON object that a database can store: small, not deep, without NUL or surrogates."""
    if not isinstance(value, dict):
        return False
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return False
    depth = max(itertools.accumulate((character in "{[") - (character in "}]") for character in text))
    return len(text) <= MAX_OBJECT_LENGTH and depth <= MAX_OBJECT_DEPTH and not UNSTORABLE.search(text)


def code_and_message(document: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Find the vendor's error code and message in any of the known shapes of a body."""
    match document:
        case {"error": {} as error}:
            code = error.get("code")
            message = error.get("message") or error.get("error_message")
        case {"error": str(message)} if message:
            code = None
        case {"status": {} as envelope}:
            code = envelope.get("error_code") or envelope.get("code")
            message = envelope.get("message")
        case {"detail": message} | {"message": message}:
            code = None
        case _:
            return None, None
    return message_text(code), message_text(message)


def message_text(value: object) -> str | None:
    """Return a value as text, or as JSON if it is not a text; ``None`` if it is empty."""
    if not value:
        return None
    return shorten(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) or None


def shorten(text: str, limit: int = MAX_MESSAGE_LENGTH) -> str:
    """Return a text as one line of bounded length, with its unprintable characters replaced."""
    text = " ".join(text.split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
