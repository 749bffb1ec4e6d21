"""The edits of a batch, as the user lists them: in the Dag, from an upstream task, or in a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NoReturn

from airflow_provider_odirouter.errors import InvalidParametersError, Problem, StorageError
from airflow_provider_odirouter.images.files import read
from airflow_provider_odirouter.images.paths import shown
from airflow_provider_odirouter.images.stores import STORE_ADVICE, in_words, may_pass, reached
from airflow_provider_odirouter.images.threads import TooSlowError, tried_aside
from airflow_provider_odirouter.models import IMAGE_EDIT_ENDPOINT, ImageEdit
from airflow_provider_odirouter.redaction import raises_bare

NAME = "name"
"""What an edit may have besides its parameters: what its files begin with."""
COLUMNS = frozenset({NAME, *ImageEdit.model_fields})
JSON_LINES = frozenset({".jsonl", ".ndjson"})
CSV = ".csv"
MOST_BYTES = 256 * 2**20
READ_SECONDS = 300.0


@dataclass(frozen=True)
class Given:
    """
    One edit as the user gave it.

    :param place: Where, as the user counts: ``edits[3]``, or ``line 4``.
    """

    place: str
    values: Mapping[str, Any]

    def problem(self, message: str, field: str | None = None) -> Problem:
        """Word a broken rule."""
        return Problem(f"{self.place}, {field}" if field else self.place, message)


@dataclass(frozen=True)
class Listing:
    """All edits that can be read, and what is wrong with the others."""

    edits: tuple[Given, ...]
    problems: tuple[Problem, ...]


@raises_bare()
def edits_of(value: Any, *, storage_conn_id: str | None = None) -> Listing:
    """
    Read a list of edits.

    :param value: A list of dictionaries, or the path of a JSON Lines or CSV file.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :raises InvalidParametersError: If it is neither.
    :raises StorageError: If the store does not give out the file now, but may do so later.
    """
    if isinstance(value, str):
        found = list(_from_file(value, storage_conn_id))
    elif isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        found = [_from_list(index, item) for index, item in enumerate(value)]
    else:
        what = f"must be a list of dictionaries, or the path of a .jsonl or .csv file, not {type(value).__name__}"
        raise InvalidParametersError(IMAGE_EDIT_ENDPOINT, [Problem("edits", what)])
    return Listing(
        edits=tuple(one for one in found if isinstance(one, Given)),
        problems=tuple(one for one in found if isinstance(one, Problem)),
    )


def _from_list(index: int, item: object) -> Given | Problem:
    place = f"edits[{index}]"
    if isinstance(item, Mapping):
        return Given(place, item)
    return Problem(place, f"must be a dictionary of an edit's parameters, not {type(item).__name__}")


def _from_file(path: str, storage_conn_id: str | None) -> Iterator[Given | Problem]:
    suffix = PurePosixPath(path).suffix.lower()
    if path.strip()[:1] in {"[", "{"}:
        what = "looks like a list that a template rendered to text; set render_template_as_native_obj=True on the Dag"
        yield Problem("edits", f"{what}, or pass the upstream task's output itself")
        return
    if suffix not in {CSV, *JSON_LINES}:
        yield Problem("edits", f"{shown(path)} must end with .jsonl (a JSON object a line) or .csv")
        return
    content = _content(path, storage_conn_id)
    if isinstance(content, Problem):
        yield content
        return
    if len(content) > MOST_BYTES:
        yield Problem("edits", f"{shown(path)} has more than {MOST_BYTES // 2**20} MiB")
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        yield Problem(f"line {line}", f"{shown(path)} is not in UTF-8")
        return
    yield from _csv(text) if suffix == CSV else _json_lines(text)


def _content(path: str, storage_conn_id: str | None) -> bytes | Problem:
    try:
        content = tried_aside(lambda: read(reached(path, storage_conn_id), MOST_BYTES), seconds=READ_SECONDS)
    except TooSlowError as error:
        raise _not_read(path, str(error)) from error
    if not isinstance(content, Exception):
        return content
    words = in_words(content, path, storage_conn_id)
    if may_pass(content, path):
        raise _not_read(path, words)
    return Problem("edits", f"{shown(path)} cannot be read: {words}")


def _not_read(path: str, words: str) -> StorageError:
    what = f"The list of edits {shown(path)} cannot be read: {words}. Nothing was submitted yet."
    return StorageError(what, advice=STORE_ADVICE)


def _json_lines(text: str) -> Iterator[Given | Problem]:
    # Not splitlines(): JSON may hold other line separators as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            # The decoder would count lines from this one.
            at = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            yield Problem(f"line {number}", f"is no JSON: {at}")
            continue
        if isinstance(value, dict):
            yield Given(f"line {number}", value)
        else:
            yield Problem(f"line {number}", f"must be a JSON object, not {line.strip()[:60]}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it knows no {constant}")


def _csv(text: str) -> Iterator[Given | Problem]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    begin = 1
    try:
        for row in rows:
            place, begin = f"line {begin}", rows.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [column.strip() for column in row]
                if problems := list(_header_problems(place, header)):
                    yield from problems
                    return
            elif len(row) != len(header):
                yield Problem(place, f"has {len(row)} cells, where the header has {len(header)}")
            else:
                yield _row(place, dict(zip(header, row, strict=True)))
    except csv.Error as error:
        # Where the row begins: a quote that is never closed takes in all that follows.
        yield Problem(f"line {begin}", f"is no CSV: {error}")


def _header_problems(place: str, header: list[str]) -> Iterator[Problem]:
    for column in header:
        if column not in COLUMNS:
            known = ", ".join(sorted(COLUMNS))
            yield Problem(f"{place}, column {column!r}", f"is not a parameter of an edit; known are {known}")
    if len(set(header)) < len(header):
        yield Problem(place, "names a column twice")


def _row(place: str, cells: dict[str, str]) -> Given | Problem:
    """Read a row: an empty cell sets nothing, and a list of pictures is one in JSON."""
    values: dict[str, Any] = {column: cell for column, cell in cells.items() if cell.strip()}
    if (images := values.get("images", "").strip()).startswith("["):
        try:
            values["images"] = json.loads(images, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return Problem(f"{place}, images", f"is no list in JSON: {error}")
    return Given(place, values)
