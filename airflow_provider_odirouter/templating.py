"""Finds the values of a Dag that are known only when the task runs, and those that turn out to be unset then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_odirouter.parameter_checks import is_unset


def has_template(value: object) -> bool:
    """
    Return whether a value is known only when the task runs: a template, or an upstream task's output.

    A dictionary counts as known; :func:`templated_fields` asks for each of its values.
    """
    if hasattr(value, "resolve"):
        return True
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    return isinstance(value, list | tuple) and any(map(_holds_template, value))


def templated_fields(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the values that are known only when the task runs."""
    return frozenset(name for name, value in values.items() if _holds_template(value))


def is_template(value: object) -> bool:
    """Return whether a value itself is known only when the task runs; of a list, each element is asked separately."""
    return not isinstance(value, list | tuple) and has_template(value)


def without_unset(given: object, rendered: object, name: str, unset: dict[str, object]) -> Any:
    """
    Return rendered values without the entries of dictionaries that a template rendered to nothing.

    :param given: The values as the Dag has them.
    :param rendered: The same, rendered.
    :param name: The name of the whole.
    :param unset: Receives all values that a template rendered to nothing, by names such as ``parameters.style.seed``;
        those of lists, too, which stay.
    """
    if isinstance(given, dict) and isinstance(rendered, dict):  # Airflow renders no other mapping
        kept = {}
        for key, value in rendered.items():
            template, one = given.get(key), f"{name}.{key}"
            if is_template(template) and is_unset(value):
                unset[one] = value
            else:
                kept[key] = without_unset(template, value, one, unset)
        return kept
    if isinstance(given, list | tuple) and isinstance(rendered, list | tuple) and len(given) == len(rendered):
        kept_items = []
        for index, (template, value) in enumerate(zip(given, rendered, strict=True)):
            one = f"{name}[{index}]"
            if is_template(template) and is_unset(value):
                unset[one] = value
            kept_items.append(without_unset(template, value, one, unset))
        return kept_items
    return rendered


def _holds_template(value: object) -> bool:
    return bool(templated_fields(value)) if isinstance(value, Mapping) else has_template(value)
