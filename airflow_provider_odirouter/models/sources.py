"""
Where input pictures come from, in all the ways that a user may say it.

An upstream edit's manifest stands for all its outputs, so that edits can be chained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from airflow_provider_odirouter.json_values import half_character_problem, text_problem
from airflow_provider_odirouter.places import as_text, is_path

MOST_IMAGES = 16


def _outputs(value: object) -> Sequence[object] | None:
    """Return where the outputs of a manifest lie; ``None``: it is no manifest."""
    outputs = value.get("outputs") if isinstance(value, Mapping) else None
    if not isinstance(outputs, list | tuple):
        return None
    return [one.get("path") or one.get("url") if isinstance(one, Mapping) else one for one in outputs]


def _source(value: object) -> object:
    """Take a path as text, and a manifest as its only output."""
    if is_path(value):
        return as_text(value)
    outputs = _outputs(value)
    if outputs is None:
        return value
    if not outputs:
        raise ValueError(
            "is a manifest without outputs, as a task returns it that has only submitted (wait_for_completion=False); "
            "pass on the manifest of the task that has waited"
        )
    if len(outputs) > 1:
        raise ValueError(f"is a manifest with {len(outputs)} outputs; name the one that is meant")
    return outputs[0]


def _sources(value: object) -> object:
    """Take one picture or manifest, or any collection of them; count here: pydantic counts the good ones only."""
    if isinstance(value, str) or is_path(value) or _outputs(value) is not None:
        value = (value,)
    if isinstance(value, AbstractSet) and not isinstance(value, MappingView):
        raise ValueError(  # noqa: TRY004 - pydantic expects it
            "is a set, which has no order: a retry could send another one, and pay again; give a list"
        )
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        # A manifest without outputs stays in its place, for _source() to complain of.
        value = tuple(source for item in value for source in _outputs(item) or (item,))
        if not 1 <= len(value) <= MOST_IMAGES:
            raise ValueError(f"holds {len(value)} pictures; the endpoint takes 1 to {MOST_IMAGES}")
    return value


def whole(value: str) -> str:
    """Refuse a text with half a character in it."""
    if problem := half_character_problem(value):
        raise ValueError(problem)
    return value


def _possible(value: object) -> object:
    """Refuse what no path and no URL can hold."""
    if isinstance(value, str) and (problem := text_problem(value)):
        raise ValueError(problem)
    return value


def not_blank(value: str) -> str:
    """Refuse a text that says nothing."""
    if not value.strip():
        raise ValueError("is empty")
    return value


Source = Annotated[str, BeforeValidator(_possible), BeforeValidator(_source), AfterValidator(not_blank)]
"""An ``http(s)`` URL, or a path that ``ObjectStoragePath`` understands; or the manifest that has it."""

Sources = Annotated[tuple[Source, ...], BeforeValidator(_sources)]
"""One to sixteen of them."""
