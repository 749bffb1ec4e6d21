"""Check all edits of a batch before the first one is paid, and name their files."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from airflow_provider_odirouter.batch.checks import (
    defaults_problems,
    edit_count_problem,
    edit_name_problem,
    usable_defaults,
    with_defaults,
)
from airflow_provider_odirouter.batch.input import NAME, EditList, InputEdit
from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.batch.rules import EndpointRules, FilesRead
from airflow_provider_odirouter.errors import InvalidParametersError, Problem, StorageError
from airflow_provider_odirouter.images.inputs import portable_source
from airflow_provider_odirouter.lifecycle.state import make_fingerprint
from airflow_provider_odirouter.models import BatchItem
from airflow_provider_odirouter.parameter_checks import is_unset
from airflow_provider_odirouter.redaction import shorten_url
from airflow_provider_odirouter.storage.paths import portable_path, quote_path, storage_path
from airflow_provider_odirouter.storage.threads import run_parallel
from airflow_provider_odirouter.text_paths import is_relative

log = logging.getLogger(__name__)

MAX_REMARKS = 20
"""Lines in the log about unusual pictures that can be used."""
READ_AGAIN = "A retry reads the whole list again, and submits what is missing then."
CLEAR = "Clear the task: it reads the whole list again, and submits what is missing then."
NOTHING_READ = FilesRead()


@dataclass(frozen=True, slots=True)
class _Parsed:
    """An edit, its files not read yet."""

    source: InputEdit
    edit: dict[str, Any] | None
    """``None``: its parameters break rules."""
    name: str | None
    files: str
    """As JSON, which is the same for the same files; empty: it has none."""


def validate(
    edit_list: EditList,
    defaults: object,
    rules: EndpointRules,
    *,
    odirouter_conn_id: str,
    storage_conn_id: str | None,
    prefix: str,
) -> BatchItems:
    """
    Check all edits and all their files.

    :param defaults: A dictionary of parameters for all edits that do not set them themselves, or unset.
    :param rules: Of the endpoint.
    :param prefix: The beginning of the file names of an edit without a name.
    :raises InvalidParametersError: If rules are broken; it names them all, with their lines.
    :raises StorageError: If files cannot be read now, but may be readable later.
    """
    of_defaults = defaults_problems(defaults, rules)
    problems = [*of_defaults, *edit_list.problems]
    count = len(edit_list.edits) + len(edit_list.problems)
    parsed: list[_Parsed] = []
    read: Mapping[str, FilesRead] = {}
    items = BatchItems()
    if wrong_count := edit_count_problem(count, rules.list_name):
        problems.insert(0, wrong_count)
    else:
        usable, broken = usable_defaults(defaults, of_defaults)
        located = _with_absolute_files(edit_list, rules, storage_conn_id)
        parsed = [_parse(source, usable, broken, rules, problems.append) for source in located]
        if parsed and not edit_list.problems:
            problems += rules.list_problems({name for one in parsed for name in {**usable, **one.source.values}})
        try:
            read = _read_files(parsed, rules, storage_conn_id)
        except StorageError:
            # Of files that may be readable later: the other problems will be the same.
            if not problems:
                raise
        problems += _file_problems(parsed, read)
        make_item = partial(
            _make_item,
            rules=rules,
            odirouter_conn_id=odirouter_conn_id,
            storage_conn_id=storage_conn_id,
            prefix=prefix,
        )
        for one in parsed:
            if one.edit is not None:
                items.append(make_item(len(items) + 1, one, one.edit, read.get(one.files, NOTHING_READ)))
        problems += _name_clashes(parsed, items)
    if problems:
        of_file = f" in {quote_path(edit_list.path)}" if edit_list.path else ""
        raise InvalidParametersError(f"{rules.endpoint}{of_file}", sorted(problems, key=_index_in_list))
    _log_remarks(parsed, read, edit_list.path)
    return items


def _with_absolute_files(edit_list: EditList, rules: EndpointRules, storage_conn_id: str | None) -> Sequence[InputEdit]:
    """Make the relative paths in a file absolute: they are relative to the file's folder."""
    if edit_list.path is None:
        return edit_list.edits
    folder = portable_path(storage_path(edit_list.path, storage_conn_id)).rpartition("/")[0]
    located = []
    for one in edit_list.edits:
        files = {name: _absolute(one.values[name], folder) for name in rules.file_fields if name in one.values}
        located.append(replace(one, values={**one.values, **files}))
    if located != list(edit_list.edits):
        log.info("Relative paths in %s are relative to its folder, %s.", quote_path(edit_list.path), folder)
    return located


def _absolute(value: Any, folder: str) -> Any:
    if isinstance(value, list):
        return [_absolute(one, folder) for one in value]
    if not isinstance(value, str) or is_unset(value) or value.strip()[0] in "[{" or not is_relative(value):
        return value
    # In a store, a "." or ".." would be part of the key, and an empty part is one.
    _, *folders = folder.rpartition("://")[2].split("/")
    parts = value.split("/")
    while "://" in folder and (parts[0] == "." or (parts[0] == ".." and folders)):
        if parts.pop(0) == "..":
            folders.pop()
            folder = folder.rpartition("/")[0]
    return "/".join([folder, *parts])


def _parse(
    source: InputEdit,
    defaults: Mapping[str, Any],
    broken: frozenset[str],
    rules: EndpointRules,
    add_problem: Callable[[Problem], object],
) -> _Parsed:
    """
    Check an edit's parameters.

    :param broken: The names of defaults that cannot be used: they are reported once, and not for each edit.
    """
    values = with_defaults(source.values, defaults)
    name = values.pop(NAME, None)
    if wrong_name := edit_name_problem(name):
        add_problem(source.problem(wrong_name, NAME))
    name = None if is_unset(name) else str(name)
    problems: Sequence[Problem] = ()
    try:
        if unknown := {field for field in broken if is_unset(values.get(field))}:
            rules.check(values, unknown=frozenset(unknown))
        else:
            edit = rules.parse(values)
            return _Parsed(source, edit, name, _as_key(_files_of(edit, rules)))
    except InvalidParametersError as error:
        problems = error.problems
    for problem in problems:
        add_problem(source.problem(problem.message, problem.field))
    return _Parsed(source, None, name, _as_key(rules.files_of(values, problems)))


def _as_key(files: Mapping[str, Any]) -> str:
    return json.dumps(files) if files else ""


def _files_of(edit: Mapping[str, Any], rules: EndpointRules) -> dict[str, Any]:
    return {name: edit[name] for name in rules.file_fields if name in edit}


def _read_files(
    parsed: Sequence[_Parsed], rules: EndpointRules, storage_conn_id: str | None
) -> Mapping[str, FilesRead]:
    """Read each combination of files once: thousands of edits may have the same."""
    stop = threading.Event()

    def read(files: str) -> FilesRead:
        if stop.is_set():
            return NOTHING_READ
        # Drop the files themselves: all of them would not fit into the memory.
        return replace(rules.read(json.loads(files), storage_conn_id), parameters={})

    keys = list(dict.fromkeys(one.files for one in parsed if one.files))
    return dict(zip(keys, run_parallel([partial(read, files) for files in keys], stop=stop), strict=True))


def _file_problems(parsed: Sequence[_Parsed], read: Mapping[str, FilesRead]) -> Iterator[Problem]:
    """Yield each problem of files once, with the first edit that has them: thousands of edits may have the same."""
    edits_of: dict[str, list[_Parsed]] = {}
    for one in parsed:
        if one.files in read and read[one.files].problems:
            edits_of.setdefault(one.files, []).append(one)
    for files, (first, *others) in edits_of.items():
        same = f"; {len(others):,} more {'edit has' if len(others) == 1 else 'edits have'} the same" if others else ""
        for problem in read[files].problems:
            yield first.source.problem(problem.message + same, problem.field)


def _make_item(
    number: int,
    one: _Parsed,
    edit: Mapping[str, Any],
    read: FilesRead,
    *,
    rules: EndpointRules,
    odirouter_conn_id: str,
    storage_conn_id: str | None,
    prefix: str,
) -> BatchItem:
    # An input that cannot be read may not even be a path.
    full_path = str if read.problems else partial(portable_source, storage_conn_id=storage_conn_id)
    parameters = _with_files(edit, rules, full_path)
    sha256 = {full_path(source): digest for source, digest in read.sha256.items()}
    fingerprint = _fingerprint(odirouter_conn_id, parameters, rules, sha256)
    return BatchItem(
        number=number,
        name=one.name or f"{prefix}-{rules.default_name(number, edit, fingerprint)}",
        given_name=one.name,
        endpoint=rules.endpoint,
        edit=parameters,
        url_fields=rules.url_fields(parameters),
        sha256=sha256,
        fingerprint=fingerprint,
    )


def _with_files(edit: Mapping[str, Any], rules: EndpointRules, change: Callable[[str], str]) -> dict[str, Any]:
    """Return an edit's parameters with another text for each of its files."""
    changed = {
        name: list(map(change, value)) if isinstance(value, list) else change(value)
        for name, value in _files_of(edit, rules).items()
    }
    return {**edit, **changed}


def _fingerprint(
    odirouter_conn_id: str, edit: Mapping[str, Any], rules: EndpointRules, sha256: Mapping[str, str]
) -> str:
    """Return a digest of what an edit submits: its files count by content, and not by path."""
    contents = _with_files(edit, rules, lambda source: sha256.get(source, source))
    return make_fingerprint(odirouter_conn_id, rules.endpoint, json.dumps(contents, sort_keys=True).encode())


def _name_clashes(parsed: Iterable[_Parsed], items: Iterable[BatchItem]) -> Iterator[Problem]:
    """
    Find edits that would overwrite each other's files.

    :param items: Those of the edits whose parameters break no rule.
    """
    first: dict[str, _Parsed] = {}
    names = (item.name for item in items)
    for one in parsed:
        name = one.name if one.edit is None else next(names)
        # Some file systems ignore case.
        other = first.setdefault(name.casefold(), one) if name else one
        if other is one:
            continue
        if one.name:
            what = f"{one.name!r} is also the name of {other.source.position}: both would write the same files"
            yield one.source.problem(what, NAME)
        else:
            what = f"is the same edit as {other.source.position}, and would write the same files"
            yield one.source.problem(f"{what}; if you want both, give each a {NAME}")


def _index_in_list(problem: Problem) -> int:
    """Return the line or the index that a problem is about, so that each line's problems stand together."""
    position = re.match(r"(?:line |\w+\[)(\d+)", problem.field)
    return int(position[1]) if position else -1


def _log_remarks(parsed: Iterable[_Parsed], read: Mapping[str, FilesRead], path: str | None) -> None:
    of_file = f"{quote_path(path)}, " if path else ""
    count = 0
    for one in parsed:
        for remark in read.get(one.files, NOTHING_READ).remarks:
            count += 1
            if count <= MAX_REMARKS:
                log.warning("%s%s, %s", of_file, one.source.position, remark)
    if count > MAX_REMARKS:
        log.warning("… and %d more remarks on pictures.", count - MAX_REMARKS)


def parameters_of(item: BatchItem, rules: EndpointRules) -> dict[str, Any]:
    """
    Return the parameters that are sent for an edit; its files are read again.

    :raises InvalidParametersError: If the files are not valid any more.
    :raises StorageError: If they cannot be read now, or have changed since they were checked.
    """
    files = _files_of(item.edit, rules)
    inputs = rules.read(files, None) if files else NOTHING_READ
    if inputs.problems:
        raise InvalidParametersError(rules.endpoint, inputs.problems)
    if inputs.sha256 != item.sha256:
        raise StorageError(
            "The files have changed since they were checked, and are not submitted.",
            advice="A retry checks and submits the changed files.",
            last_advice="Clear the task: it checks and submits the changed files.",
        )
    return {**item.edit, **inputs.parameters}


def with_whole_urls(
    items: Iterable[BatchItem],
    edit_list: EditList,
    defaults: object,
    rules: EndpointRules,
    *,
    storage_conn_id: str | None,
) -> list[BatchItem]:
    """
    Return edits that were read from a batch's state, with their URLs whole.

    The signatures of the URLs may have changed: a list often has new ones each time that it is made.

    :param edit_list: The list that the edits are from.
    :param defaults: As for :func:`validate`.
    :raises StorageError: If the list has changed, or can no longer be read.
    """
    if edit_list.problems:
        raise StorageError(
            f"The list of edits cannot be read again: {edit_list.problems[0]}.", advice=READ_AGAIN, last_advice=CLEAR
        )
    located = _with_absolute_files(edit_list, rules, storage_conn_id)
    usable, _ = usable_defaults(defaults, ())
    return [_with_whole_urls(item, located, usable, rules, storage_conn_id) for item in items]


def _with_whole_urls(
    item: BatchItem,
    located: Sequence[InputEdit],
    defaults: Mapping[str, Any],
    rules: EndpointRules,
    storage_conn_id: str | None,
) -> BatchItem:
    try:
        values = with_defaults(located[item.number - 1].values, defaults)
        values.pop(NAME, None)
        edit = _with_files(rules.parse(values), rules, partial(portable_source, storage_conn_id=storage_conn_id))
    except (IndexError, ValueError):
        edit = {}
    files = _files_of(edit, rules).values()
    sources = [source for one in files for source in (one if isinstance(one, list) else [one])]
    sha256 = {source: item.sha256[short] for source in sources if (short := shorten_url(source)) in item.sha256}
    whole = item.model_copy(update={"edit": edit, "sha256": sha256})
    was, now = item.without_secrets(), whole.without_secrets()
    if (now.edit, now.sha256) != (was.edit, was.sha256):
        raise StorageError(
            f"The list of edits has changed since the batch began: it no longer holds edit {item.number}, whose URLs "
            "are needed to submit it.",
            advice=READ_AGAIN,
            last_advice=CLEAR,
        )
    return whole
