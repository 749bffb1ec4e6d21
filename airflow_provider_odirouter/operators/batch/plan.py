"""Checking all edits of a batch before the first one is paid, and giving names to their files."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from airflow_provider_odirouter.durability import fingerprint
from airflow_provider_odirouter.errors import InvalidParametersError, Problem, StorageError
from airflow_provider_odirouter.images.inputs import Inputs, is_url, place_of, read_inputs
from airflow_provider_odirouter.images.threads import side_by_side
from airflow_provider_odirouter.models import BatchItem, ImageEdit
from airflow_provider_odirouter.operators.batch.edits import NAME, Given, Listing
from airflow_provider_odirouter.operators.literals import count_problem, defaults_problems, merged, name_problem

log = logging.getLogger(__name__)

MOST_REMARKS = 20
"""Lines in the log about pictures that are odd, but can be used."""
LONGEST_STEM = 40
NOTHING_READ = Inputs(images=(), mask=None, problems=())


@dataclass(frozen=True)
class _Checked:
    """An edit that follows the rules for its parameters, and what was found of its pictures."""

    given: Given
    edit: ImageEdit
    name: str | None
    inputs: Inputs = NOTHING_READ


def plan(
    listing: Listing,
    defaults: Mapping[str, Any],
    *,
    odirouter_conn_id: str,
    storage_conn_id: str | None,
    prefix: str,
) -> list[BatchItem]:
    """
    Check all edits and all pictures.

    :param defaults: Parameters of all edits that do not set them themselves.
    :param prefix: What the files of an edit without a name begin with.
    :raises InvalidParametersError: If rules are broken; it names them all, with their lines.
    :raises StorageError: If pictures cannot be read now, but may be later.
    """
    problems = [*defaults_problems(defaults), *listing.problems]
    found = len(listing.edits) + len(listing.problems)
    checked: list[_Checked] = []
    items: list[BatchItem] = []
    if counted := count_problem(found):
        problems.insert(0, counted)
    elif len(problems) == len(listing.problems):
        good = list(_good(listing.edits, defaults, problems.append))
        checked = _with_pictures(good, storage_conn_id)
        for one in checked:
            problems += [one.given.problem(problem.message, problem.field) for problem in one.inputs.problems]
        items = [
            _item(number, one, odirouter_conn_id, storage_conn_id, prefix)
            for number, one in enumerate(checked, start=1)
        ]
        problems += _same_files(checked, items)
    if problems:
        raise InvalidParametersError(ImageEdit.ENDPOINT, problems)
    _tell(checked)
    return items


def _good(
    edits: Iterable[Given], defaults: Mapping[str, Any], complain: Callable[[Problem], object]
) -> Iterator[_Checked]:
    for given in edits:
        values = merged(given.values, defaults)
        name = values.pop(NAME, None)
        if wrong_name := name_problem(name):
            complain(given.problem(wrong_name, NAME))
        try:
            edit = ImageEdit.parse(values)
        except InvalidParametersError as error:
            for problem in error.problems:
                complain(given.problem(problem.message, problem.field))
        else:
            yield _Checked(given, edit, None if name is None else str(name))


def _with_pictures(good: Sequence[_Checked], storage_conn_id: str | None) -> list[_Checked]:
    """Check each choice of pictures once: it may be the same in thousands of edits."""
    stop = threading.Event()

    def check(images: Sequence[str], mask: str | None) -> Inputs:
        if stop.is_set():
            return NOTHING_READ
        # Without the pictures themselves, which would not all fit into the memory.
        return replace(read_inputs(images, mask, storage_conn_id=storage_conn_id), images=(), mask=None)

    choices = list(dict.fromkeys((one.edit.images, one.edit.mask) for one in good))
    inputs = dict(zip(choices, side_by_side([partial(check, *choice) for choice in choices], stop=stop), strict=True))
    return [replace(one, inputs=inputs[one.edit.images, one.edit.mask]) for one in good]


def _item(number: int, one: _Checked, odirouter_conn_id: str, storage_conn_id: str | None, prefix: str) -> BatchItem:
    # What cannot be read may be no path at all.
    place = str if one.inputs.problems else partial(place_of, storage_conn_id=storage_conn_id)
    edit = one.edit.to_parameters() | {"images": list(map(place, one.edit.images))}
    if one.edit.mask:
        edit["mask"] = place(one.edit.mask)
    sha256 = {place(source): digest for source, digest in one.inputs.sha256.items()}
    mark = _fingerprint(odirouter_conn_id, edit, sha256)
    name = one.name or f"{prefix}-{_stem(one.edit.images[0])}-{mark[:10]}"
    return BatchItem(number=number, name=name, edit=edit, sha256=sha256, fingerprint=mark)


def _fingerprint(odirouter_conn_id: str, edit: Mapping[str, Any], sha256: Mapping[str, str]) -> str:
    """Tell one edit from another, whatever its pictures are called."""
    pictures = {"images": [sha256.get(source, source) for source in edit["images"]]}
    if mask := edit.get("mask"):
        pictures["mask"] = sha256.get(mask, mask)
    body = json.dumps({**edit, **pictures}, sort_keys=True)
    return fingerprint(odirouter_conn_id, ImageEdit.ENDPOINT, body.encode())


def _stem(source: str) -> str:
    path = re.split("[?#]", source)[0] if is_url(source) else source
    return re.sub(r"[^A-Za-z0-9_-]+", "-", PurePosixPath(path).stem)[:LONGEST_STEM].strip("-") or "edit"


def _same_files(checked: Iterable[_Checked], items: Iterable[BatchItem]) -> Iterator[Problem]:
    """Find edits that would write over each other's files."""
    first: dict[str, _Checked] = {}
    for one, item in zip(checked, items, strict=True):
        # Some file systems do not tell upper case from lower.
        other = first.setdefault(item.name.casefold(), one)
        if other is one:
            continue
        if one.name:
            what = f"{one.name!r} is that of {other.given.place}, too: both would write one file"
            yield one.given.problem(what, NAME)
        else:
            what = f"is the same edit as {other.given.place}, and would write the same file"
            yield one.given.problem(f"{what}; if both are meant, give each a {NAME}")


def _tell(checked: Iterable[_Checked]) -> None:
    remarks = [f"{one.given.place}, {remark}" for one in checked for remark in one.inputs.remarks]
    for remark in remarks[:MOST_REMARKS]:
        log.warning(remark)
    if len(remarks) > MOST_REMARKS:
        log.warning("… and %d more remarks on pictures.", len(remarks) - MOST_REMARKS)


def parameters_of(item: BatchItem) -> dict[str, Any]:
    """
    Return what is sent for an edit, its pictures read once more.

    :raises InvalidParametersError: If they cannot be used any more.
    :raises StorageError: If they cannot be read now, or are not what was checked.
    """
    inputs = read_inputs(item.edit["images"], item.edit.get("mask"))
    if inputs.problems:
        raise InvalidParametersError(ImageEdit.ENDPOINT, inputs.problems)
    if inputs.sha256 != item.sha256:
        raise StorageError(
            "The pictures have changed since they were checked, and are not submitted.",
            advice="A retry takes them as they are then.",
        )
    return item.edit | inputs.parameters()
