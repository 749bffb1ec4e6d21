"""
Paths as text, whatever kind of path object they were given as.

Pure and light: it is imported when Dags are parsed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from pathlib import Path
from typing import Any

MAX_READ = 100_000
"""Values that are read from one iterable: some have no end."""


def is_path(value: object) -> bool:
    """Return whether a value is a path object. Airflow's is an ``os.PathLike`` only with an old universal_pathlib."""
    return isinstance(value, os.PathLike) or (hasattr(value, "protocol") and hasattr(value, "path"))


def is_relative(path: str) -> bool:
    """Return whether a path depends on the folder that it is read from."""
    return "://" not in path and not path.lower().startswith(("/", "~", "data:", "file:/"))


def relative_remark(name: str, path: str) -> str | None:
    """Return, for the log, what a relative path means in this process; ``None``: it is not relative."""
    if not is_relative(path):
        return None
    return (
        f"{name} is a relative path: {path!r} means {str(Path(path).absolute())!r}, below the working directory of "
        "this worker's process. An absolute path means the same on each worker."
    )


def relative_remarks(images: Sequence[str], mask: str | None) -> list[str]:
    """Return :func:`relative_remark` of all pictures of an edit that have one."""
    named = {f"images[{index}]": source for index, source in enumerate(images)} | ({"mask": mask} if mask else {})
    return [remark for name, source in named.items() if (remark := relative_remark(name, source))]


def as_text(value: Any) -> Any:
    """
    Return a value with its path objects replaced by texts, also in lists and dictionaries.

    Airflow takes a path object for an upstream task's output, since both have ``resolve``: before 3.2 any path, from
    3.2 on one that is not an ``os.PathLike``.

    Iterables that can be read only once, such as generators, or that may change, such as a dictionary's values, become
    tuples. A set stays a set: it has no order.
    """
    match value:
        case str() | bytes() | bytearray() | memoryview():
            return value
        case Mapping():
            return {key: as_text(one) for key, one in value.items()}
        case list():
            return [as_text(one) for one in value]
    if is_path(value):
        text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        # The URL of a local file will be decoded, but a path object has not encoded it.
        return text.replace("%", "%25") if text.startswith(("file:", "local:")) else text
    has_order = isinstance(value, MappingView) or not isinstance(value, AbstractSet)
    if isinstance(value, Iterable) and has_order and not hasattr(value, "resolve"):
        return tuple(as_text(one) for one in islice(value, MAX_READ))
    return value
