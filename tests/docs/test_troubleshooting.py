"""The page *Troubleshooting* quotes messages of the package: each is there, and no warning and no error is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from airflow_provider_odirouter import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_odirouter"
PAGE = ROOT / "docs" / "operations" / "troubleshooting.md"

HOLE = "\0"
"""In the place of what differs from one message to the next; the page writes an ellipsis."""
ELLIPSIS = "…"
PERCENT = re.compile(r"%[-+#0-9.]*[sdrfg]")
FIELD = re.compile(r"\{[a-z_]+\}")
NOT_FOR_USERS = ("sandbox", "testing.py")
MIN_LETTERS = 5

ELSEWHERE = {
    "a poll ended with",
    "a cancel ended with",
    "the state of a request is",
    "needs a request, but the task remembers",
}
"""Errors of the program itself, which no user should ever meet."""


def quoted() -> list[str]:
    """The messages on the page: the first cell of a row."""
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)


def text_of(node: ast.AST | None) -> str:
    """The text of a literal, with holes; empty, if it is none."""
    match node:
        case ast.Constant(value=str(text)):
            return FIELD.sub(HOLE, PERCENT.sub(HOLE, text))
        case ast.JoinedStr(values=parts):
            return "".join(HOLE if isinstance(part, ast.FormattedValue) else text_of(part) for part in parts)
    return ""


def docstrings_of(tree: ast.AST) -> set[ast.AST]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


@cache
def trees() -> list[ast.Module]:
    names = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in NOT_FOR_USERS]
    return [ast.parse(path.read_text()) for path in names]


@cache
def texts() -> list[str]:
    """All texts in the package but docstrings."""
    return [
        text
        for tree in trees()
        for docstrings in [docstrings_of(tree)]
        for node in ast.walk(tree)
        if node not in docstrings and (text := text_of(node))
    ]


@cache
def pattern_of(message: str) -> re.Pattern[str]:
    """
    The pattern of a message on the page: its fixed parts, in order.

    Where it does not begin or end with an ellipsis, a text of the package must begin or end there, or have a hole.
    """
    parts = [re.escape(part.strip()) for part in message.split(ELLIPSIS) if part.strip()]
    begin = "" if message.startswith(ELLIPSIS) else rf"(?:^|{HOLE}\W*)"
    end = "" if message.endswith(ELLIPSIS) else rf"\s*(?:$|\W*{HOLE})"
    return re.compile(begin + ".*".join(parts) + end, re.DOTALL)


def is_quote_of(message: str, text: str) -> bool:
    return pattern_of(message).search(text) is not None


def logged(tree: ast.AST) -> Iterator[str]:
    """What is logged as a warning or an error."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="warning" | "error" | "exception"), args=[first, *_]):
                yield text_of(first)


def raised(tree: ast.AST) -> Iterator[str]:
    """What our errors say, where it stands in them or in a variable before them."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if hasattr(errors, name):
                yield text_of(first)
            case ast.Assign(targets=[ast.Name(id="what")], value=value):
                yield text_of(value)


def is_sentence(text: str) -> bool:
    return sum(map(str.isalpha, text.replace(HOLE, ""))) >= MIN_LETTERS and text[:1] != text[:1].lower()


def test_the_page_quotes_many_messages() -> None:
    assert len(quoted()) > 200


@pytest.mark.parametrize("message", sorted(set(quoted())))
def test_each_quoted_message_is_in_the_package(message: str) -> None:
    assert sum(map(str.isalpha, message)) >= MIN_LETTERS, "too short to be found"
    assert any(is_quote_of(message, text) for text in texts())


def missing(found: Iterator[str]) -> list[str]:
    quotes = quoted()
    return [
        text.replace(HOLE, ELLIPSIS)
        for text in found
        if not any(is_quote_of(message, text) for message in quotes) and not any(part in text for part in ELSEWHERE)
    ]


def test_no_warning_or_error_of_the_log_is_missing_on_the_page() -> None:
    found = (text for tree in trees() for text in logged(tree))
    assert missing(text for text in found if sum(map(str.isalpha, text)) >= MIN_LETTERS) == []


def test_no_error_is_missing_on_the_page() -> None:
    found = (text for tree in trees() for text in raised(tree))
    assert missing(text for text in found if is_sentence(text)) == []
