"""Checks of a batch's parameters, for the Dag parse and for the worker. Light, since each Dag parse loads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_odirouter.parameter_checks import is_unset, unset_problem
from airflow_provider_odirouter.templating import has_template, is_template, templated_fields

if TYPE_CHECKING:
    from airflow_provider_odirouter.batch.rules import EndpointRules
    from airflow_provider_odirouter.errors import Problem

MAX_EDITS = 10_000
"""In one batch: Airflow's database holds the arguments and the event of its trigger."""

USABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
"""A file name that every store can hold, even with a number and an extension after it."""

MAX_SHOWN = 60
JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
CSV = ".csv"
ADVICE = {
    ".json": "; this makes the lines of a JSON list: jq -c '.[]' edits.json > edits.jsonl",
    ".xlsx": "; save the sheet as CSV UTF-8",
    ".xls": "; save the sheet as CSV UTF-8",
    ".gz": "; decompress it first",
}
"""What to do about other files, by their last suffix."""
NATIVE_ADVICE = "a template rendered to text; set render_template_as_native_obj=True on the Dag"


def with_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return an edit's parameters, with the defaults where it sets nothing."""
    return {**values, **defaults, **{name: value for name, value in values.items() if not is_unset(value)}}


def edits_problem(edits: object, name: str) -> Problem | None:
    """
    Return why this can be neither a list of edits nor the path of one.

    :param name: Of the operator's parameter.
    """
    from airflow_provider_odirouter.errors import Problem

    if isinstance(edits, str):
        problem = _path_problem(edits)
    elif isinstance(edits, Iterable) and not isinstance(edits, bytes | Mapping):
        problem = None
    else:
        problem = f"must be a list of dictionaries, or the path of a .jsonl or .csv file, not {type(edits).__name__}"
    return Problem(name, problem) if problem else None


def _path_problem(path: str) -> str | None:
    if unset := unset_problem(path):
        return unset
    if path.strip()[0] in "[{":
        return f"looks like a list that {NATIVE_ADVICE}, or pass the upstream task's output itself"
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in {CSV, *JSON_LINES_SUFFIXES}:
        return None
    from airflow_provider_odirouter.storage.paths import quote_path

    what = f"{quote_path(path)} must end with .jsonl (one JSON object per line) or .csv"
    return what + ADVICE.get(suffix, "")


def defaults_problems(defaults: object, rules: EndpointRules) -> list[Problem]:
    """Check the parameters that all edits share; those that an edit sets itself may be missing."""
    from airflow_provider_odirouter.errors import InvalidParametersError, Problem

    if is_unset(defaults):
        return []
    if not isinstance(defaults, Mapping):
        is_rendered = isinstance(defaults, str) and defaults.strip().startswith("{")
        hint = f"; it looks like one that {NATIVE_ADVICE}" if is_rendered else ""
        return [Problem("defaults", f"must be a dictionary of parameters, not {type(defaults).__name__}{hint}")]
    missing = rules.parameter_names - set(defaults)
    try:
        rules.check(defaults, unknown=templated_fields(defaults) | missing)
    except InvalidParametersError as error:
        return [Problem(f"defaults, {one.field}", one.message) for one in error.problems]
    return []


def usable_defaults(defaults: object, problems: Iterable[Problem]) -> tuple[Mapping[str, Any], frozenset[str]]:
    """
    Return the defaults without those that break rules, and the names of these: so each rule is reported once.

    :param problems: Of the defaults, see :func:`defaults_problems`.
    """
    if not isinstance(defaults, Mapping):
        return {}, frozenset()
    fields = {re.split(r"[.\[]", problem.field.removeprefix("defaults, "))[0] for problem in problems}
    return {name: value for name, value in defaults.items() if name not in fields}, frozenset(fields & set(defaults))


def edit_count_problem(count: int, name: str) -> Problem | None:
    """
    Return why a batch cannot have so many edits; none at all are no problem, see the task's ``on_empty``.

    :param name: Of the operator's parameter.
    """
    from airflow_provider_odirouter.errors import Problem

    if count > MAX_EDITS:
        return Problem(name, f"holds {count:,} edits; at most {MAX_EDITS:,} in one batch, so split the list")
    return None


def edit_name_problem(name: object) -> str | None:
    """Return why the names of an edit's files cannot begin with this name."""
    if is_unset(name) or (not isinstance(name, bool) and USABLE_NAME.fullmatch(str(name))):
        return None
    shown = repr(name)
    shown = shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"
    return f"must be 1 to 120 letters, digits, '.', '_' or '-', and begin with a letter or a digit; not {shown}"


def check_literals(edits: object, defaults: object, rules: EndpointRules) -> None:
    """
    Check edits and defaults when the Dag is parsed; templates are not known yet, and are left out.

    :raises InvalidParametersError: If rules are broken; it names them all.
    """
    from airflow_provider_odirouter.errors import InvalidParametersError

    problems = [] if is_template(defaults) else defaults_problems(defaults, rules)
    if isinstance(edits, list | tuple):
        problems += _list_problems(edits, defaults, problems, rules)
    elif not has_template(edits) and (problem := edits_problem(edits, rules.list_name)):
        problems.append(problem)
    if problems:
        raise InvalidParametersError(rules.endpoint, problems)


def _list_problems(
    edits: Sequence[object], all_defaults: object, of_defaults: Sequence[Problem], rules: EndpointRules
) -> list[Problem]:
    from airflow_provider_odirouter.errors import InvalidParametersError, Problem

    if counted := edit_count_problem(len(edits), rules.list_name):
        return [counted]
    problems: list[Problem] = []
    defaults, broken = usable_defaults(all_defaults, of_defaults)
    any_default = is_template(all_defaults)
    for index, values in enumerate(edits):
        position = f"{rules.list_name}[{index}]"
        if has_template(values):
            continue
        if not isinstance(values, Mapping):
            problems.append(Problem(position, f"must be a dictionary, not {type(values).__name__}"))
            continue
        known = with_defaults(rules.as_edit(values), defaults)
        unknown = templated_fields(known) | {field for field in broken if is_unset(known.get(field))}
        wrong_name = edit_name_problem(known.pop("name", None))
        if wrong_name and "name" not in unknown:
            problems.append(Problem(f"{position}, name", wrong_name))
        if any_default:
            unknown |= rules.parameter_names - set(known)
        try:
            rules.check(known, unknown=unknown)
        except InvalidParametersError as error:
            problems += [Problem(f"{position}, {one.field}", one.message) for one in error.problems]
    return problems
