"""
Checks, before anything is paid, that values can be sent as JSON and stored in a database.

Airflow stores the parameters of each request that it waits for. Its database would refuse a NUL, a number of 80 bits or
a set, but only after the submit. Pure and light: it is imported when Dags are parsed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_odirouter.errors import InvalidParametersError, Problem

MAX_DEPTH = 50
"""Nested lists and objects: Airflow's own encoders accept a few hundred."""
MAX_VALUES = 100_000
"""Values of one object, nested ones included. A list that contains itself has no end."""
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
"""Airflow's message format cannot carry larger ones."""
RESERVED_KEYS = frozenset({"__classname__", "__version__", "__data__", "__id__", "__type", "__source", "__var"})
"""Airflow would take an object with such a key for a serialized Python object."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def text_problem(text: str) -> str | None:
    """Return why a database cannot store a text; ``None``: it can."""
    if "\0" in text:
        return "holds a NUL character (\\x00), which no database stores"
    return surrogate_problem(text)


def surrogate_problem(text: str) -> str | None:
    """Return why a text cannot be encoded in UTF-8; ``None``: it can."""
    if text.isascii() or not (found := _SURROGATE.search(text)):
        return None
    return (
        f"holds a lone surrogate ({found[0]!a}), which UTF-8 cannot encode; it may come from a file's name or content "
        "in another encoding"
    )


def json_object(
    endpoint: str, value: object, *, name: str = "parameters", has_template: Callable[[object], bool] | None = None
) -> dict[str, Any]:
    """
    Return a copy of a JSON object in plain values. A later change of the original has no effect.

    :param endpoint: The endpoint that the error names.
    :param name: The object's name in the error; an empty name leaves the names of its keys. Default: ``parameters``.
    :param has_template: Returns whether a value is a template: it is not checked, and not copied. Default: none is.
    :raises InvalidParametersError: If it is not an object, or holds values that JSON or a database cannot store. It
        lists all of them.
    """
    if not isinstance(value, Mapping):
        problem = Problem(name or "parameters", f"must be a JSON object (a dictionary), not {type(value).__name__}")
        raise InvalidParametersError(endpoint, [problem])
    reader = _Reader(has_template or (lambda _: False))
    plain: dict[str, Any] = reader.read(value, name, 0)
    if reader.problems:
        raise InvalidParametersError(endpoint, reader.problems)
    return plain


class _Reader:
    """Copies values into plain ones, and collects the problems."""

    def __init__(self, has_template: Callable[[object], bool]) -> None:
        self.problems: list[Problem] = []
        self._has_template = has_template
        self._values = 0

    def add_problem(self, name: str, message: str) -> None:
        self.problems.append(Problem(name, message))

    def read(self, value: object, name: str, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            if self._values == MAX_VALUES + 1:
                self.add_problem(name, f"is one of more than {MAX_VALUES:,} values; that is too much for one request")
            return None
        if self._has_template(value):
            return value
        if not isinstance(value, Mapping | list | tuple):
            return self._read_scalar(value, name)
        if depth >= MAX_DEPTH:
            self.add_problem(name, f"is nested more than {MAX_DEPTH} lists and objects deep")
            return None
        if isinstance(value, Mapping):
            items = self._text_items(value, name)
            return {key: self.read(one, f"{name}.{key}" if name else key, depth + 1) for key, one in items}
        return [self.read(one, f"{name}[{index}]", depth + 1) for index, one in enumerate(value)]

    def _read_scalar(self, value: object, name: str) -> Any:
        problem: str | None = None
        match value:
            # str.__str__() and the like return plain values, whatever a subclass overrides.
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
                    problem = "is infinite or not a number, which JSON cannot express"
                value = float.__pos__(value)
            case _:
                problem = f"is not JSON: its type is {type(value).__name__}"
        if problem:
            self.add_problem(name, problem)
        return value

    def _text_items(self, value: Mapping[Any, object], name: str) -> Iterator[tuple[str, object]]:
        try:
            items = list(value.items())
        except Exception as error:  # noqa: BLE001 - a class of the user may raise anything
            self.add_problem(name, f"cannot be read: {type(error).__name__}")
            return
        for key, one in items:
            if not isinstance(key, str):
                self.add_problem(name or "parameters", f"has a key that is not text: its type is {type(key).__name__}")
            elif problem := text_problem(key):
                self.add_problem(name or "parameters", f"has a key that {problem}")
            elif key in RESERVED_KEYS:
                self.add_problem(f"{name}.{key}" if name else key, "is a key that Airflow reserves")
            else:
                yield str.__str__(key), one
