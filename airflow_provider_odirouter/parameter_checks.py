"""Checks of the tasks' own parameters. Pure, and light: Dags are parsed with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from numbers import Number
from typing import TypeAlias

from airflow_provider_odirouter.json_values import text_problem

MAX_SECONDS = 366 * 24 * 3600
"""A year. Much longer times overflow the dates of Python and of databases."""

MISSING_WORDS = frozenset({"None", "null", "NULL", "nan", "NaN", "NaT", "<NA>", "#N/A"})
"""What templates, ``str()``, JSON, pandas and Excel write for a missing value."""
MISSING_OF_PANDAS = frozenset({"NAType", "NaTType"})

PROMPT = "prompt"
"""Some models make a picture without one, and it is paid: a prompt that is set to nothing is not left out."""

Check: TypeAlias = "Callable[[object], str | None]"
"""Returns what is wrong with a value, as the rest of a sentence that begins with its name; ``None``: nothing."""


def is_unset(value: object) -> bool:
    """Return whether a value stands for none: ``None``, NaN, a blank text, or a word for a missing value."""
    if isinstance(value, str):
        return not (text := value.strip()) or text in MISSING_WORDS
    # Only NaN differs from itself.
    return value is None or (isinstance(value, Number) and value != value) or type(value).__name__ in MISSING_OF_PANDAS


def unset_problem(value: object) -> str | None:
    """Return why a value cannot be used where one is required; ``None``: it is set."""
    if not is_unset(value):
        return None
    if isinstance(value, str) and not value.strip():
        return "is empty"
    return f"is {_quote(value)}, which is what a template, str() or pandas writes for a missing value"


def seconds_problem(seconds: object) -> str | None:
    """Check a duration in seconds."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds > 0:
        return f"must be a number, more than 0 seconds, not {_quote(seconds)}"
    if seconds > MAX_SECONDS:
        return f"must be at most {MAX_SECONDS:,} seconds (a year), not {_quote(seconds)}"
    return None


def duration_problem(duration: object) -> str | None:
    """Check a duration."""
    if not isinstance(duration, timedelta) or not duration > timedelta(0):
        return f"must be a timedelta, more than 0 seconds, not {_quote(duration)}"
    return seconds_problem(duration.total_seconds())


def flag_problem(flag: object) -> str | None:
    """Check a flag: the text ``"False"`` would count as true."""
    return None if isinstance(flag, bool) else f"must be True or False, not {_quote(flag)}"


def name_problem(name: object) -> str | None:
    """Check the name of an endpoint or a connection, or the id of a request."""
    if not isinstance(name, str):
        return f"must be a text, not {_quote(name)}"
    return unset_problem(name) or text_problem(name)


def names_problem(names: object) -> str | None:
    """Check a list of names; a single text would count as its letters."""
    if not isinstance(names, list | tuple):
        return f"must be a list of names, not {_quote(names)}"
    return next(filter(None, map(name_problem, names)), None)


def path_problem(path: object) -> str | None:
    """Check a path or the URL of a store."""
    if not isinstance(path, str):
        return f"must be a path or the URL of a store, not {_quote(path)}"
    return unset_problem(path) or text_problem(path)


def or_none(check: Check) -> Check:
    """Return a check of an optional parameter."""
    return lambda value: None if value is None else check(value)


def store_problem(conn_id: object) -> str | None:
    """Check the connection id of a store, which may be unset."""
    return None if is_unset(conn_id) else name_problem(conn_id)


def one_of(*words: str) -> Check:
    """Return a check of a choice."""
    return lambda value: (
        None
        if isinstance(value, str) and value in words
        else f"must be {' or '.join(map(repr, words))}, not {_quote(value)}"
    )


def count_problem(count: object) -> str | None:
    """Check a count."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return f"must be a whole number, at least 1, not {_quote(count)}"
    return None


def _quote(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, a class of the user's
        return f"this {type(value).__name__}"
