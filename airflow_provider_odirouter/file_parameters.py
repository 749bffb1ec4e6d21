"""Parameters that are files, by the names that the user gives. Pure, and light: Dags are parsed with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from airflow_provider_odirouter.errors import Problem
from airflow_provider_odirouter.parameter_checks import is_unset, names_problem
from airflow_provider_odirouter.redaction import shorten_urls


def usable_names(names: object) -> Sequence[str]:
    """Return the names of the parameters that are files; none, if they cannot be used and are refused."""
    return () if names_problem(names) else cast("Sequence[str]", names)


def file_sources(
    parameters: object,
    names: object,
    *,
    prefix: str = "",
    has_template: Callable[[object], bool] = lambda _: False,
) -> tuple[dict[str, str], list[Problem]]:
    """
    Return the paths and URLs of all files by their names, such as ``parameters.images[0]``, and the problems.

    :param names: Of the parameters that are files.
    :param prefix: What the names in errors begin with.
    :param has_template: Returns whether a value is a template: it is left out. Default: none is.
    """
    sources: dict[str, str] = {}
    problems: list[Problem] = []
    for name in usable_names(names):
        value = parameters.get(name) if isinstance(parameters, Mapping) else None
        files = _items(f"{prefix}{name}", value) if value is not None else {}
        for where, source in files.items():
            if has_template(source):
                continue
            if isinstance(source, str) and not is_unset(source):
                sources[where] = source
            else:
                problems.append(Problem(where, f"must be a path or a URL, not {shorten_urls(repr(source))[:60]}"))
    return sources, problems


def with_files(
    parameters: Mapping[str, Any], names: Sequence[str], encoded: Mapping[str, str], *, prefix: str = ""
) -> dict[str, Any]:
    """
    Return parameters with the files in the place of their paths.

    :param encoded: The files by the names that :func:`file_sources` has given them.
    """
    contents = {}
    for name in set(names) & set(parameters):
        value = parameters[name]
        values = [encoded.get(one) for one in _items(f"{prefix}{name}", value)]
        contents[name] = values if isinstance(value, list | tuple) else values[0]
    return {**parameters, **contents}


def _items(name: str, value: object) -> dict[str, object]:
    """Return a value, or each value of a list, by its name."""
    if isinstance(value, list | tuple):
        return {f"{name}[{index}]": one for index, one in enumerate(value)}
    return {name: value}
