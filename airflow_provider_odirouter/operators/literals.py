"""What an operator knows of its parameters when the Dag is parsed, and what only when the task runs. Kept light."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.types import SET_DURING_EXECUTION

if TYPE_CHECKING:
    from airflow_provider_odirouter.errors import Problem

MOST_EDITS = 10_000
"""In one batch: its trigger's arguments and its event lie in Airflow's database."""
USABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
"""What every store can hold; a number and an extension follow."""
LONGEST_SHOWN = 60


def is_open(value: object) -> bool:
    """
    Return whether a value is known only when the task runs: a template, or an upstream task's output.

    A dictionary is known, whatever its values are: see :func:`open_fields`.
    """
    if value is SET_DURING_EXECUTION or hasattr(value, "resolve"):
        return True
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    return isinstance(value, list | tuple) and any(map(_holds_open, value))


def open_fields(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the values that are known only when the task runs."""
    return frozenset(name for name, value in values.items() if _holds_open(value))


def _holds_open(value: object) -> bool:
    return bool(open_fields(value)) if isinstance(value, Mapping) else is_open(value)


def merged(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return an edit's parameters with the defaults; what is nothing sets nothing."""
    return {**defaults, **{name: value for name, value in values.items() if not _is_nothing(value)}}


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value)


def defaults_problems(defaults: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the parameters that all edits of a batch have."""
    from airflow_provider_odirouter.errors import InvalidParametersError, Problem
    from airflow_provider_odirouter.models import ImageEdit

    missing = frozenset(ImageEdit.model_fields) - set(defaults)
    try:
        ImageEdit.check(defaults, unknown=open_fields(defaults) | missing)
    except InvalidParametersError as error:
        return [Problem(f"defaults, {one.field}", one.message) for one in error.problems]
    return []


def count_problem(count: int) -> Problem | None:
    """Return what is wrong with the number of edits."""
    from airflow_provider_odirouter.errors import Problem

    if not count:
        return Problem("edits", "holds no edit")
    if count > MOST_EDITS:
        return Problem("edits", f"holds {count:,} edits; at most {MOST_EDITS:,} in one batch, so make several")
    return None


def name_problem(name: object) -> str | None:
    """Return what is wrong with the name of an edit's files."""
    if name is None or USABLE_NAME.fullmatch(str(name)):
        return None
    shown = repr(name)
    shown = shown if len(shown) <= LONGEST_SHOWN else shown[: LONGEST_SHOWN - 1] + "…"
    return f"may hold up to 120 letters, digits, '.', '_' and '-', and begins with one of the first two; not {shown}"


def check_edits(edits: Sequence[object], defaults: Mapping[str, Any] | None) -> None:
    """
    Check what is known of a list of edits.

    :param defaults: Parameters of all edits that do not set them; ``None``: they are known only when the task runs.
    :raises InvalidParametersError: If rules are broken; it names them all.
    """
    from airflow_provider_odirouter.errors import InvalidParametersError, Problem
    from airflow_provider_odirouter.models import ImageEdit

    problems = defaults_problems(defaults or {})
    if counted := count_problem(len(edits)):
        problems.append(counted)
    for index, values in enumerate(edits if not problems else ()):
        if is_open(values):
            continue
        if not isinstance(values, Mapping):
            problems.append(Problem(f"edits[{index}]", f"must be a dictionary, not {type(values).__name__}"))
            continue
        known = merged(values, defaults or {})
        unknown = open_fields(known)
        wrong_name = name_problem(known.pop("name", None))
        if wrong_name and "name" not in unknown:
            problems.append(Problem(f"edits[{index}], name", wrong_name))
        if defaults is None:
            unknown |= frozenset(ImageEdit.model_fields) - set(known)
        try:
            ImageEdit.check(known, unknown=unknown)
        except InvalidParametersError as error:
            problems += [Problem(f"edits[{index}], {one.field}", one.message) for one in error.problems]
    if problems:
        raise InvalidParametersError(ImageEdit.ENDPOINT, problems)
