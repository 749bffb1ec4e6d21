"""The edits of a batch, as the user lists them: in the Dag, from an upstream task, or in a file."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from airflow_provider_odirouter.batch.checks import CSV, edits_problem
from airflow_provider_odirouter.batch.rules import EndpointRules
from airflow_provider_odirouter.errors import Problem, StorageError
from airflow_provider_odirouter.redaction import raises_without_traceback, shorten_urls
from airflow_provider_odirouter.storage.files import read
from airflow_provider_odirouter.storage.paths import portable_path, quote_path, storage_path
from airflow_provider_odirouter.storage.store_errors import (
    LAST_STORE_ADVICE,
    STORE_ADVICE,
    describe_error,
    is_transient,
    open_store,
)
from airflow_provider_odirouter.storage.threads import TooSlowError, try_in_thread
from airflow_provider_odirouter.text_paths import is_relative, relative_remark

log = logging.getLogger(__name__)

NAME = "name"
"""Not a parameter: the prefix of the names of an edit's files."""
MAX_BYTES = 256 * 2**20
READ_SECONDS = 300.0
OTHER_FILES = {
    b"\x1f\x8b": "is compressed with gzip; decompress it first: gunzip < old > new",
    b"BZh": "is compressed with bzip2; decompress it first: bunzip2 < old > new",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; decompress it first: unzstd < old > new",
    b"PK\x03\x04": "is an Excel workbook or a ZIP archive; save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save the sheet as CSV UTF-8",
    b"PAR1": "is a Parquet file; write its rows as .jsonl or .csv",
}
"""What some files are whose name was changed, by the bytes that they begin with, and what to do."""
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
BLANKS = " \t\xa0\ufeff"
DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class InputEdit:
    """
    One edit of the user's list.

    :param position: In the list or the file, for errors: ``edits[3]``, or ``line 4``.
    """

    position: str
    values: Mapping[str, Any]

    def problem(self, message: str, field: str | None = None) -> Problem:
        """Return a broken rule of this edit, with its position."""
        return Problem(f"{self.position}, {field}" if field else self.position, message)


@dataclass(frozen=True)
class EditList:
    """The edits that can be read, and the problems of the others."""

    edits: tuple[InputEdit, ...]
    problems: tuple[Problem, ...]
    path: str | None = None
    """Of the file whose lines the positions are."""


@raises_without_traceback()
def read_edits(value: Any, rules: EndpointRules, *, storage_conn_id: str | None = None) -> EditList:
    """
    Read a list of edits.

    :param value: A list of dictionaries, or the path of a JSON Lines or CSV file.
    :param rules: Of the endpoint.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :raises StorageError: If the file cannot be read now, but may be readable later.
    """
    name = rules.list_name
    if problem := edits_problem(value, name):
        return _edit_list([problem])
    if not isinstance(value, str):
        return _edit_list([_from_list(f"{name}[{index}]", item, rules) for index, item in enumerate(value)])
    if remark := relative_remark(name, value):
        log.warning(remark)
    text = _read_text(value, name, storage_conn_id)
    if isinstance(text, Problem):
        return _edit_list([text])
    lines = _csv(text, rules) if value.lower().endswith(CSV) else _json_lines(text, rules)
    return _edit_list(list(lines), path=value)


def _edit_list(found: Sequence[InputEdit | Problem], path: str | None = None) -> EditList:
    return EditList(
        edits=tuple(one for one in found if isinstance(one, InputEdit)),
        problems=tuple(one for one in found if isinstance(one, Problem)),
        path=path,
    )


def _from_list(position: str, item: object, rules: EndpointRules) -> InputEdit | Problem:
    if isinstance(item, Mapping):
        return InputEdit(position, rules.as_edit(item))
    return Problem(position, f"must be a dictionary of an edit's parameters, not {type(item).__name__}")


# --- Files


def _read_text(path: str, name: str, storage_conn_id: str | None) -> str | Problem:
    content = _read_file(path, name, storage_conn_id)
    if isinstance(content, Problem):
        return content
    if len(content) > MAX_BYTES:
        return Problem(name, f"{quote_path(path)} has more than {MAX_BYTES // 2**20} MiB")
    for begin, what in OTHER_FILES.items():
        if content.startswith(begin):
            return Problem(name, f"{quote_path(path)} {what}")
    encoding = "utf-16" if content.startswith(UTF_16_MARKS) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        wanted = encoding.removesuffix("-sig").upper()
        line = error.object.count(b"\n", 0, error.start) + 1
        what = f"{quote_path(path)} is not in {wanted}; save it in UTF-8 (in Excel: CSV UTF-8)"
        return Problem(f"line {line}", what)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        what = f"{quote_path(path)} holds a NUL character, so it is no text in UTF-8; save it in UTF-8"
        return Problem(f"line {line}", what)
    return text


def _read_file(path: str, name: str, storage_conn_id: str | None) -> bytes | Problem:
    try:
        content = try_in_thread(
            lambda: read(open_store(path, storage_conn_id, is_file=True), MAX_BYTES), seconds=READ_SECONDS
        )
    except TooSlowError as error:
        raise _unreadable_now(path, str(error)) from error
    if not isinstance(content, Exception):
        return content
    words = describe_error(content, path, storage_conn_id)
    if is_transient(content, path):
        raise _unreadable_now(path, words)
    problem = f"{quote_path(path)} cannot be read: {words}"
    if is_relative(path):
        problem += f"; on this worker, it means {quote_path(portable_path(storage_path(path)))}"
    return Problem(name, problem)


def _unreadable_now(path: str, words: str) -> StorageError:
    what = f"The list of edits {quote_path(path)} cannot be read: {words}."
    return StorageError(what, advice=STORE_ADVICE, last_advice=LAST_STORE_ADVICE)


# --- JSON Lines


class _TwiceError(ValueError):
    """An object has a key twice, so it is not clear which value counts."""


def _json_lines(text: str, rules: EndpointRules) -> Iterator[InputEdit | Problem]:
    is_first = True
    # Not splitlines(): JSON may hold other line separators as they are.
    for number, raw in enumerate(re.split("\r\n|[\r\n]", text), start=1):
        line = raw.strip(BLANKS)
        if not line or line.startswith(("#", "//")):
            continue
        if is_first and (problem := _shape_problem(number, line, rules)):
            yield problem
            return
        is_first = False
        position = f"line {number}"
        try:
            value = _parse_json(line.removesuffix(","))
        except _TwiceError as error:
            yield Problem(position, str(error))
        except (ValueError, RecursionError) as error:
            yield Problem(position, f"is not JSON: {_json_words(error)}")
        else:
            is_object = isinstance(value, dict)
            shown = f"must be a JSON object, not {shorten_urls(line)[:60]}"
            yield InputEdit(position, rules.as_edit(value)) if is_object else Problem(position, shown)


def _shape_problem(number: int, line: str, rules: EndpointRules) -> Problem | None:
    """Return what the whole file is, judged by its first line, if it is not JSON Lines."""
    position = f"line {number}"
    if line.startswith("["):
        what = "begins a JSON list; each line must be an object: jq -c '.[]' old.jsonl > new.jsonl"
        return Problem(position, what)
    if line == "{":
        what = "begins an object of several lines; each object must be one: jq -c . old.jsonl > new.jsonl"
        return Problem(position, what)
    if rules.parameter_names and _known_columns(line, _delimiter_of(line, rules), rules):
        return Problem(position, f"looks like the header of a CSV file; let the file's name end with {CSV}")
    return None


def _parse_json(text: str) -> Any:
    # NaN is what Python and pandas write for a missing value; the checks of the edit refuse infinity.
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _TwiceError(f"sets {_first_twice([key for key, _ in pairs])!r} twice; keep one of them")
    return values


def _first_twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def _json_words(error: Exception) -> str:
    # Without the decoder's own line number, which is always 1.
    return (
        f"{error.msg.removesuffix(' at')} at character {error.colno}"
        if isinstance(error, json.JSONDecodeError)
        else str(error)
    )


# --- CSV


def _csv(text: str, rules: EndpointRules) -> Iterator[InputEdit | Problem]:
    lines = list(io.StringIO(text, newline=""))
    skipped = len(list(takewhile(_is_before_header, lines)))
    if skipped == len(lines):
        return
    delimiter = next(map(_declared_delimiter, lines[:skipped]), "") or _delimiter_of(lines[skipped], rules)
    if lines[skipped].strip(BLANKS).startswith(("[", "{")):
        yield Problem(f"line {skipped + 1}", "is JSON; let the file's name end with .jsonl, with one object per line")
        return
    rows = csv.reader(lines[skipped:], strict=True, skipinitialspace=True, delimiter=delimiter)
    header: list[str] | None = None
    begin = skipped + 1
    try:
        for row in rows:
            position, first_line, begin = f"line {begin}", lines[begin - 1], skipped + rows.line_num + 1
            cells = [cell.strip(BLANKS) for cell in row]
            if not any(cells):
                continue
            if header is None:
                header = _without_empty_end(cells, 0)
                if problems := list(_header_problems(position, header, rules)):
                    yield from problems
                    return
            else:
                cells = _without_empty_end(cells, len(header))
                if first_line.lstrip(BLANKS).startswith("#"):
                    what = "begins with '#': delete the line if it is a comment, or put its first cell into quotes"
                    yield Problem(position, what)
                elif len(cells) != len(header):
                    what = f"has {len(cells)} {'cell' if len(cells) == 1 else 'cells'}; the header has {len(header)}"
                    hint = f"; put a cell with {delimiter!r} into quotes" if len(cells) > len(header) else ""
                    yield Problem(position, what + hint)
                else:
                    yield _row(position, dict(zip(header, cells, strict=True)), rules)
    except csv.Error as error:
        # The line in which the row begins: if its quote is never closed, the row goes on to the end of the file.
        yield Problem(
            f"line {begin}", f"is not CSV: {error}; is each quote closed, and written twice inside of a cell?"
        )


def _is_before_header(line: str) -> bool:
    """Return whether a line is blank, a comment, or Excel's ``sep=;``."""
    return not line.strip(BLANKS + DELIMITERS + "\r\n") or line.startswith("#") or bool(_declared_delimiter(line))


def _declared_delimiter(line: str) -> str:
    declared = re.fullmatch(r'"?sep=([^\r\n])"?[\r\n]*', line.lower())
    return declared[1] if declared else ""


def _delimiter_of(header: str, rules: EndpointRules) -> str:
    """Return the delimiter that finds the most columns; Excel's depends on the language of the computer."""
    return max(DELIMITERS, key=lambda delimiter: _known_columns(header, delimiter, rules))


def _known_columns(header: str, delimiter: str, rules: EndpointRules) -> int:
    cells = [cell.strip(BLANKS + '"\r\n') for cell in header.split(delimiter)]
    columns = _columns(rules)
    return sum(cell in columns if columns else bool(cell) for cell in cells)


def _columns(rules: EndpointRules) -> frozenset[str]:
    """Return the columns that a file may have; empty: any."""
    return rules.parameter_names | {NAME} if rules.parameter_names else frozenset()


def _without_empty_end(cells: list[str], min_length: int) -> list[str]:
    """Cut the empty cells that Excel adds at the end of a row."""
    filled = max((index for index, cell in enumerate(cells, start=1) if cell), default=0)
    return cells[: max(filled, min_length)]


def _header_problems(position: str, header: list[str], rules: EndpointRules) -> Iterator[Problem]:
    columns = _columns(rules)
    known = f"; the parameters are {', '.join(sorted(columns))}" if columns else ""
    for number, column in enumerate(header, start=1):
        if not column:
            yield Problem(f"{position}, column {number}", f"has no name{known}")
        elif columns and column not in columns:
            what = f"is not a parameter of an edit{known}"
            yield Problem(f"{position}, column {shorten_urls(column)!r}", what)
    if len(set(header)) < len(header):
        yield Problem(position, f"names the column {_first_twice(header)!r} twice; keep one of them")


def _row(position: str, cells: dict[str, str], rules: EndpointRules) -> InputEdit | Problem:
    """Read a row: an empty cell counts as not set, and several files are a JSON list."""
    values: dict[str, Any] = {column: cell for column, cell in cells.items() if cell}
    for column in rules.list_columns:
        if (cell := values.get(column, "")).startswith("["):
            try:
                values[column] = _parse_json(cell)
            except (ValueError, RecursionError) as error:
                return Problem(f"{position}, {column}", f"is not a JSON list: {_json_words(error)}")
    return InputEdit(position, values)
