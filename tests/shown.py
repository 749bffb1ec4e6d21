"""What a log, a debugger or an error reporter can show of an error."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import airflow_provider_odirouter

OURS = airflow_provider_odirouter.__path__[0]


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its causes and its contexts, each once."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop()
        if one is not None and one not in seen:
            seen.append(one)
            todo += [one.__cause__, one.__context__]
    yield from seen


def all_shown(error: BaseException) -> str:
    """Return texts, arguments, attributes and tracebacks, and the local variables of all frames of this package."""
    texts = ["".join(traceback.format_exception(error))]
    for one in chain_of(error):
        texts += [str(one), repr(one), repr(one.args), repr(vars(one))]
        texts += [
            f"{name} = {value!r}"
            for frame, _ in traceback.walk_tb(one.__traceback__)
            if frame.f_code.co_filename.startswith(OURS)
            for name, value in frame.f_locals.items()
        ]
    return "\n".join(texts)
