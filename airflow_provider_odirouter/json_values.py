"""
What may be sent as JSON and be kept in a database, too: found out before anything is paid.

Airflow keeps what a task pushes, and so are the parameters of a request kept that it waits for. A NUL, a number of 80
bits or a set would be refused there, after the submit. Pure, and light: Dags are parsed with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_odirouter.errors import InvalidParametersError, Problem

MAX_DEPTH = 50
"""Lists and objects in one another: Airflow's own encoders go down to a few hundred."""
MAX_VALUES = 100_000
"""In all of them together. A list that holds itself has no end."""
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
"""Airflow's message format has no room for others."""
RESERVED_KEYS = frozenset({"__classname__", "__version__", "__data__", "__id__", "__type", "__source", "__var"})
"""Airflow would take an object with such a key for a Python object that it has to make again."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def text_problem(text: str) -> str | None:
    """Return why no database takes a text."""
    if "\0" in text:
        return "holds a NUL character (\\x00), which no database takes"
    return half_character_problem(text)


def half_character_problem(text: str) -> str | None:
    """Return why a text cannot be written in UTF-8, not even to a file."""
    if text.isascii() or not (found := _SURROGATE.search(text)):
        return None
    return (
        f"holds half a character ({found[0]!a}), which UTF-8 does not know; it may come from a file's name or content "
        "in another encoding"
    )


def json_object(
    endpoint: str, value: object, *, name: str = "parameters", is_open: Callable[[object], bool] | None = None
) -> dict[str, Any]:
    """
    Return a JSON object as a copy of plain values that no one else can change: each value is read once.

    :param endpoint: For the error.
    :param name: What the object is called, for the error; if it is empty, its keys have names of their own.
    :param is_open: Tells of a value that it is not known yet, and so is not looked at.
    :raises InvalidParametersError: If it is none, or holds what JSON or a database does not know; it names it all.
    """
    if not isinstance(value, Mapping):
        problem = Problem(name or "parameters", f"must be a JSON object (a dictionary), not {type(value).__name__}")
        raise InvalidParametersError(endpoint, [problem])
    reader = _Reader(is_open or (lambda _: False))
    plain: dict[str, Any] = reader.read(value, name, 0)
    if reader.problems:
        raise InvalidParametersError(endpoint, reader.problems)
    return plain


class _Reader:
    """Reads values into plain ones, and notes what cannot be."""

    def __init__(self, is_open: Callable[[object], bool]) -> None:
        self.problems: list[Problem] = []
        self._is_open = is_open
        self._values = 0

    def refuse(self, name: str, message: str) -> None:
        self.problems.append(Problem(name, message))

    def read(self, value: object, name: str, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            if self._values == MAX_VALUES + 1:
                self.refuse(name, f"is one of more than {MAX_VALUES:,} values; that is too much for one request")
            return None
        if self._is_open(value):
            return value
        if not isinstance(value, Mapping | list | tuple):
            return self._read_scalar(value, name)
        if depth >= MAX_DEPTH:
            self.refuse(name, f"lies more than {MAX_DEPTH} lists and objects deep")
            return None
        if isinstance(value, Mapping):
            items = self._items(value, name)
            return {key: self.read(one, f"{name}.{key}" if name else key, depth + 1) for key, one in items}
        return [self.read(one, f"{name}[{index}]", depth + 1) for index, one in enumerate(value)]

    def _read_scalar(self, value: object, name: str) -> Any:
        problem: str | None = None
        match value:
            # Plain ones, and not what a subclass makes of itself.
            case None | bool():
                return value
            case str():
                problem, value = text_problem(value), str.__str__(value)
            case int():
                if not MIN_INTEGER <= value <= MAX_INTEGER:
                    problem = "is a whole number of more than 64 bits; send it as text"
                value = int.__pos__(value)
            case float():
                if not math.isfinite(value):
                    problem = "is infinite or no number, which JSON does not know"
                value = float.__pos__(value)
            case _:
                problem = f"is no JSON, but of the type {type(value).__name__}"
        if problem:
            self.refuse(name, problem)
        return value

    def _items(self, value: Mapping[Any, object], name: str) -> Iterator[tuple[str, object]]:
        try:
            items = list(value.items())
        except Exception as error:  # noqa: BLE001 - of a class of the user's own
            self.refuse(name, f"cannot be read: {type(error).__name__}")
            return
        for key, one in items:
            if not isinstance(key, str):
                self.refuse(name or "parameters", f"has a key that is no text, but of the type {type(key).__name__}")
            elif problem := text_problem(key):
                self.refuse(name or "parameters", f"has a key that {problem}")
            elif key in RESERVED_KEYS:
                self.refuse(f"{name}.{key}" if name else key, "is a name that Airflow keeps for itself")
            else:
                yield str.__str__(key), one
