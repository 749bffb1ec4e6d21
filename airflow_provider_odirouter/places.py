"""
Where something lies, as text: whatever kind of path it was said with.

Pure, and light: Dags are parsed with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MappingView
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

MAX_READ = 100_000
"""Values of one iterable: some have no end."""


def is_path(value: object) -> bool:
    """Return whether a value is a path object: Airflow's is an ``os.PathLike`` only with an old universal_pathlib."""
    return isinstance(value, os.PathLike) or (hasattr(value, "protocol") and hasattr(value, "path"))


def as_text(value: Any) -> Any:
    """
    Return a value with texts in the place of path objects, also of those in lists and dictionaries.

    Airflow takes a path that is no ``os.PathLike`` for an upstream task's output, since both can be resolved; before
    3.2, it does so with any.

    What can be read only once, such as a generator, or may hold something else the next time, such as a dictionary's
    values, is read here, into a tuple. A set stays one: it has no order.
    """
    match value:
        case str() | bytes() | bytearray() | memoryview():
            return value
        case Mapping():
            return {key: as_text(one) for key, one in value.items()}
        case list():
            return [as_text(one) for one in value]
    if is_path(value):
        return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    has_order = isinstance(value, MappingView) or not isinstance(value, AbstractSet)
    if isinstance(value, Iterable) and has_order and not hasattr(value, "resolve"):
        return tuple(as_text(one) for one in islice(value, MAX_READ))
    return value


class AsText:
    """An attribute that holds :func:`as_text`, whoever sets it: a Dag, or Airflow with what it has rendered."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else getattr(instance, self._name)

    def __set__(self, instance: object, value: object) -> None:
        setattr(instance, self._name, as_text(value))
