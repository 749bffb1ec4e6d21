"""Reading JSON bodies of any shape: a document, a number, the vendor's code and words."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from airflow_provider_odirouter.protocol.calls import Answer

LONGEST_WORDS = 500
"""Characters of the vendor's words that an error quotes."""
LARGEST_OBJECT = 10_000
"""Characters of an object that is kept as it is."""
DEEPEST_OBJECT = 20
UNCLEAN = re.compile(r"\\u0000|[\ud800-\udfff]")
"""NUL, as JSON writes it, and lone surrogates: no database takes them."""


def document_of(answer: Answer) -> dict[str, Any] | None:
    """
    Return the JSON object in the body, or ``None`` if it holds anything else.

    Numbers that JSON itself does not know, or that no float can hold, are ``None``: a database would refuse them.
    """
    try:
        document = _DECODER.decode(answer.body.decode(json.detect_encoding(answer.body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def number_of(value: object) -> float | None:
    """Return a finite number, or ``None``."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# Once: json.loads() would make a decoder for each of a thousand looks.
_DECODER = json.JSONDecoder(parse_float=number_of, parse_constant=number_of)


def is_small_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a value is a JSON object that may go through a database: not large, not deep, and clean text."""
    if not isinstance(value, dict):
        return False
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return False
    deep = max(itertools.accumulate((sign in "{[") - (sign in "}]") for sign in text)) > DEEPEST_OBJECT
    return len(text) <= LARGEST_OBJECT and not deep and not UNCLEAN.search(text)


def words_of(document: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Find the vendor's error code and words in any of the bodies that are seen."""
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
    return text_of(code), text_of(message)


def text_of(value: object) -> str | None:
    """Return a value as words, as JSON if it is no text; ``None`` if it says nothing."""
    if not value:
        return None
    return shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) or None


def shortened(text: str, limit: int = LONGEST_WORDS) -> str:
    """Return a text in one line and of bounded length, without what a terminal or a database would choke on."""
    text = " ".join(text.split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
