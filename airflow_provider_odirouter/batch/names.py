"""
The names of the files of edits that have a ``name`` of the user's: files that others have made are safe.

Which files an edit will write is known only when its outputs land, since their extension is not known before. So a name
is taken if there is any file ``{name}-{number}.{extension}`` that no earlier try of this task instance has landed. An
edit without a name writes files with the task instance's own name, which no other task uses.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import count
from typing import Literal

from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.errors import NamesTakenError, OutputExistsError, Problem, StorageError
from airflow_provider_odirouter.models import BatchItem, Phase
from airflow_provider_odirouter.redaction import raises_without_traceback
from airflow_provider_odirouter.storage.files import files_in
from airflow_provider_odirouter.storage.paths import quote_path
from airflow_provider_odirouter.storage.store_errors import describe_error, open_store
from airflow_provider_odirouter.storage.threads import try_in_thread

log = logging.getLogger(__name__)

IfExists = Literal["fail", "overwrite", "new_name"]

OUTPUT_NAME = re.compile(r"(.+)-\d+\.[^.]+")
MAX_SHOWN = 3
"""Files that are named for one edit."""
LIST_SECONDS = 300.0


def with_known_names(planned: Sequence[BatchItem], saved: Sequence[BatchItem]) -> BatchItems:
    """
    Return the edits of a new try with the names that an earlier try has chosen for them, and with their files.

    :param planned: The edits of this try.
    :param saved: The edits of an earlier try, with their states.
    """
    items = BatchItems(planned)
    known = {_key(item.given_name or item.name): index for index, item in enumerate(saved)}
    given = {_key(item.name) for item in planned} if known else set()
    for index, item in enumerate(planned):
        if item.given_name is not None and (of_saved := known.get(_key(item.name))) is not None:
            items[index] = _with_known_name(item, saved[of_saved], given)
    return items


def _with_known_name(item: BatchItem, same: BatchItem, given: set[str]) -> BatchItem:
    is_free = same.name == item.name or _key(same.name) not in given
    return item.model_copy(update={"name": same.name if is_free else item.name, "own_files": _files_of(same)})


def free_names(
    items: Sequence[BatchItem],
    saved: Sequence[BatchItem],
    if_exists: IfExists,
    *,
    endpoint: str,
    output_path: str,
    storage_conn_id: str | None,
) -> BatchItems:
    """
    Return the edits of a new try, each with a name under which it overwrites no file of others.

    :param items: What this try does, see :func:`~.resume.plan_resume`.
    :param saved: The edits of an earlier try, with their states.
    :param output_path: Is listed once, unless all names are known to be free.
    :raises NamesTakenError: If names are taken, and other names are not wanted.
    :raises StorageError: If the output path cannot be listed.
    """
    named = BatchItems(items)
    unchecked = [] if if_exists == "overwrite" else _unchecked(items, saved)
    if not unchecked:
        return named
    files = _by_name(_list(output_path, storage_conn_id))
    taken = {index: others for index in unchecked if (others := _files_of_others(items[index], files))}
    if taken and if_exists == "fail":
        where = quote_path(output_path)
        raise NamesTakenError(endpoint, [_problem(items[index], others, where) for index, others in taken.items()])
    used = {*files, *(_key(item.name) for item in items)} if taken else set()
    for index in taken:
        named[index] = _with_free_name(items[index], used)
    return named


def may_replace(item: BatchItem, if_exists: IfExists, name: str) -> bool:
    """
    Return whether an edit's output may replace a file that is there.

    :param name: Of the file.
    """
    return item.given_name is None or if_exists == "overwrite" or _key(name) in map(_key, _files_of(item))


def _unchecked(items: Sequence[BatchItem], saved: Sequence[BatchItem]) -> list[int]:
    """
    Return the indices of the edits whose names may be taken.

    What an earlier try has paid for continues under its name: the files that are there may be its own, of a worker that
    died before it could save that. But not where a landing has found another file.
    """
    known = {_key(item.name) for item in saved if item.error_type != OutputExistsError.__name__}
    return [
        index
        for index, item in enumerate(items)
        if item.given_name is not None
        and item.phase is not Phase.LANDED
        and (item.phase is Phase.PLANNED or _key(item.name) not in known)
    ]


@raises_without_traceback()
def _list(output_path: str, storage_conn_id: str | None) -> list[str]:
    found = try_in_thread(lambda: files_in(open_store(output_path, storage_conn_id)), seconds=LIST_SECONDS)
    if isinstance(found, Exception):
        reason = describe_error(found, output_path, storage_conn_id)
        raise StorageError(
            f"The output path {quote_path(output_path)} cannot be listed: {reason}. Nothing was submitted yet. (With "
            'if_exists="overwrite", it is not listed.)'
        )
    return found


def _by_name(files: Iterable[str]) -> Mapping[str, list[str]]:
    """Return the files that look like outputs, by the key of the name that they begin with."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(files):
        if output := OUTPUT_NAME.fullmatch(file):
            found[_key(output[1])].append(file)
    return dict(found)


def _files_of_others(item: BatchItem, files: Mapping[str, list[str]]) -> list[str]:
    own = set(map(_key, _files_of(item)))
    return [file for file in files.get(_key(item.name), ()) if _key(file) not in own]


def _files_of(item: BatchItem) -> tuple[str, ...]:
    """Return the names of the files that an edit's tries have landed."""
    landed = [output.path.rpartition("/")[2] for output in item.outputs if output.path]
    return tuple(dict.fromkeys((*item.own_files, *landed)))


def _problem(item: BatchItem, files: Sequence[str], where: str) -> Problem:
    shown = ", ".join(files[:MAX_SHOWN]) + (f" and {len(files) - MAX_SHOWN:,} more" if len(files) > MAX_SHOWN else "")
    what = f"{item.name!r} is taken: {shown} in {where} exists, and this task has not made it"
    return Problem(f"edit {item.number}, name", what)


def _with_free_name(item: BatchItem, used: AbstractSet[str]) -> BatchItem:
    """Give an edit the first free variant of its name; names that differ have no variant in common."""
    name = next(name for number in count(2) if _key(name := f"{item.given_name}-{number}") not in used)
    log.info("Edit %d: the name %r is taken; its files get the name %r.", item.number, item.name, name)
    return item.model_copy(update={"name": name})


def _key(name: str) -> str:
    """Return what is the same for names of the same file: some file systems ignore case."""
    return name.casefold()
