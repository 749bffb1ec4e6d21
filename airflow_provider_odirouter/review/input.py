"""The pictures to review, as upstream tasks have returned them: manifests, or batches' summaries, lines and chunks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_odirouter.errors import InvalidParametersError, Problem, ReviewError, StorageError
from airflow_provider_odirouter.images.inputs import is_url, portable_source
from airflow_provider_odirouter.models import BatchItem, LandedOutput, Manifest, Phase, ReviewRecord
from airflow_provider_odirouter.parameter_checks import unset_problem
from airflow_provider_odirouter.redaction import raises_without_traceback
from airflow_provider_odirouter.storage.files import digest_of, read
from airflow_provider_odirouter.storage.paths import quote_path
from airflow_provider_odirouter.storage.store_errors import (
    LAST_STORE_ADVICE,
    STORE_ADVICE,
    describe_error,
    is_transient,
    open_store,
)
from airflow_provider_odirouter.storage.threads import TooSlowError, run_parallel, try_in_thread
from airflow_provider_odirouter.xcoms import RequestRecord

log = logging.getLogger(__name__)

OPERATOR = "OdiRouterReviewOperator"
MAX_OUTPUTS = 100
"""On one page of a review."""
MAX_MANIFEST_BYTES = 256 * 2**20
READ_SECONDS = 300.0
MAX_PROMPT = 1_000
"""Characters of a prompt in a review's record."""
MAX_SHOWN = 5
"""Files that an error names."""
NOT_EDITS = (
    "must be a manifest, a list of manifests, or the summary of a batch, as the upstream task returns it, not {}"
)


class Chunk(BaseModel):
    """A batch's summary, or some lines of its manifest, see :func:`make_chunks`."""

    model_config = ConfigDict(frozen=True)

    manifest: str
    first: int = Field(default=1, ge=1)
    """The number of its first line, from 1."""
    last: int | None = Field(default=None, ge=1)
    """The number of its last line; ``None``: that of the manifest."""


@dataclass(frozen=True)
class ReviewedEdit:
    """
    An edit under review.

    :param entry: Its manifest, or its line of a batch's manifest, as the upstream task has written it.
    :param item: The same as an edit of a batch; its outputs are those of the entry, in the same order.
    """

    entry: Mapping[str, Any]
    item: BatchItem

    def outputs(self) -> Iterator[tuple[int, LandedOutput]]:
        """Yield the outputs that can be looked at, with their positions: not those that are lost."""
        for index, output in enumerate(self.item.outputs):
            if output.path or output.url:
                yield index, output

    def with_outputs(self, indexes: Sequence[int]) -> dict[str, Any]:
        """Return the entry with just some of its outputs, which a next edit takes as its pictures."""
        return {**self.entry, "outputs": [self.entry["outputs"][index] for index in indexes]}


def count_outputs(edits: Iterable[ReviewedEdit]) -> int:
    """Return how many pictures can be looked at."""
    return sum(1 for edit in edits for _ in edit.outputs())


@raises_without_traceback()
def read_review(
    edits: object, records: Mapping[str, RequestRecord], *, storage_conn_id: str | None = None
) -> list[ReviewedEdit]:
    """
    Return the edits to review, without those that have no outputs.

    :param edits: As the operator's parameter, rendered.
    :param records: What upstream tasks have recorded of their requests, by request id: a manifest names neither its
        inputs nor its prompt.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :raises InvalidParametersError: If it is something else, or too much for one page.
    :raises StorageError: If a manifest cannot be read now, but may be readable later.
    """
    try:
        found = [_edit(number, *one, records) for number, one in enumerate(_entries(edits, storage_conn_id), start=1)]
    except _NoEditsError as error:
        raise InvalidParametersError(OPERATOR, [Problem("edits", str(error))]) from None
    shown = [edit for edit in found if any(edit.outputs())]
    if len(shown) < len(found):
        log.warning("%d of %d edits have no pictures, and are left out.", len(found) - len(shown), len(found))
    if (count := count_outputs(shown)) > MAX_OUTPUTS:
        problem = (
            f"holds {count:,} pictures; a person can review {MAX_OUTPUTS} on one page. Split them: map the review over "
            "the chunks that review_chunks() makes of a batch's summary (from airflow_provider_odirouter.operators."
            "review), or over the upstream task's manifests: OdiRouterReviewOperator.partial(…).expand(edits=…)"
        )
        raise InvalidParametersError(OPERATOR, [Problem("edits", problem)])
    return [
        replace(edit, item=_with_portable_paths(edit.item.model_copy(update={"number": number}), storage_conn_id))
        for number, edit in enumerate(shown, start=1)
    ]


@raises_without_traceback()
def make_chunks(summary: Mapping[str, Any], size: int, *, storage_conn_id: str | None = None) -> list[dict[str, Any]]:
    """Split a batch, see :func:`~airflow_provider_odirouter.operators.review.review_chunks`."""
    problems = []
    if not isinstance(size, int) or isinstance(size, bool) or not 10 <= size <= MAX_OUTPUTS:
        problems.append(Problem("size", f"must be a whole number from 10 to {MAX_OUTPUTS}, not {size!r:.60}"))
    try:
        lines = list(_lines(_chunk(summary), storage_conn_id)) if _is_chunk(summary) else None
    except _NoEditsError as error:
        raise InvalidParametersError("review_chunks()", [Problem("summary", str(error)), *problems]) from None
    if lines is None:
        problems.insert(0, Problem("summary", f"must be what a batch returns, not {type(summary).__name__}"))
    if problems or lines is None:
        raise InvalidParametersError("review_chunks()", problems)
    chunks: list[tuple[int, int]] = []
    in_chunk = size  # full: the first edit begins a chunk
    for number, (_, item, _) in enumerate(lines, start=1):
        if not item or not item.outputs:
            continue
        in_chunk += len(item.outputs)
        if in_chunk > size:
            chunks.append((number, number))
            in_chunk = len(item.outputs)
        else:
            chunks[-1] = (chunks[-1][0], number)
    return [{"manifest": summary["manifest"], "first": first, "last": last} for first, last in chunks]


@raises_without_traceback()
def with_digests(edits: Sequence[ReviewedEdit]) -> list[ReviewedEdit]:
    """
    Read all pictures, and return their edits with the digests of those that have none.

    :raises ReviewError: If a picture is missing, or is not the one that its edit has written.
    :raises StorageError: If a store cannot be read now, but may be readable later.
    """
    known = {output.path: output.sha256 for edit in edits for _, output in edit.outputs() if output.path}
    try:
        digests = run_parallel([partial(_digest, path) for path in known], seconds=READ_SECONDS)
    except TooSlowError as error:
        what = f"The pictures to review cannot be read: {error}."
        raise StorageError(what, advice=STORE_ADVICE, last_advice=LAST_STORE_ADVICE) from error
    found = dict(zip(known, digests, strict=True))
    wrong = [
        f"{quote_path(path)} {digest if isinstance(digest, _Unreadable) else 'has changed'}"
        for path, digest in found.items()
        if isinstance(digest, _Unreadable) or known[path] not in {None, digest}
    ]
    if wrong:
        more = f" and {len(wrong) - MAX_SHOWN:,} more" if len(wrong) > MAX_SHOWN else ""
        raise ReviewError(
            f"Pictures are not what their edit has written: {', '.join(wrong[:MAX_SHOWN])}{more}.",
            advice="Clear the edit: it makes them again, and this task then asks for a review of them.",
        )
    return [replace(edit, item=_with_digests(edit.item, found)) for edit in edits]


def make_record(edits: Sequence[ReviewedEdit]) -> ReviewRecord:
    """Return the record of a review, with which the gallery shows the pictures, and which knows them again later."""
    return ReviewRecord(edits=tuple(_recorded(edit.item) for edit in edits))


def is_same_review(one: ReviewRecord, other: ReviewRecord) -> bool:
    """Return whether two records are about the same pictures, in the same order."""
    return _pictures(one) == _pictures(other)


def _pictures(record: ReviewRecord) -> list[list[tuple[str | None, str | None]]]:
    return [[(output.path or output.url, output.sha256) for output in item.outputs] for item in record.edits]


def _recorded(item: BatchItem) -> BatchItem:
    kept = {name: value for name, value in item.edit.items() if name in {"prompt", "images", "mask"}}
    if isinstance(prompt := kept.get("prompt"), str) and len(prompt) > MAX_PROMPT:
        kept["prompt"] = f"{prompt[:MAX_PROMPT]}…"
    return BatchItem(
        number=item.number,
        name=item.name,
        edit=kept,
        sha256=item.sha256,
        request_id=item.request_id,
        outputs=item.outputs,
    )


# --- Entries


class _NoEditsError(Exception):
    """The value is no edits; the text says why, as the rest of a sentence."""


_Entry = tuple[Mapping[str, Any], BatchItem | None, str]
"""A manifest or a line, the same as an edit of a batch if it is a line, and how the names of its batch begin."""


def _entries(value: object, storage_conn_id: str | None) -> Iterator[_Entry]:
    if isinstance(value, Mapping):
        if _is_chunk(value):
            yield from _lines(_chunk(value), storage_conn_id)
        elif isinstance(value.get("outputs"), list | tuple):
            yield value, _parse_line(value) if "edit" in value else None, ""
        elif "error" not in value or "edit" not in value:  # A line of a batch's manifest may have failed.
            raise _NoEditsError(NOT_EDITS.format(f"a dictionary with the keys {', '.join(map(repr, value))}"[:200]))
    elif isinstance(value, str) and value.strip().startswith(("{", "[")):
        raise _NoEditsError(
            "looks like a manifest that a template rendered to text; pass the upstream task's output itself, or set "
            "render_template_as_native_obj=True on the Dag"
        )
    elif problem := unset_problem(value):
        raise _NoEditsError(f"{problem}; has the upstream task run, and does it push its return value?")
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for one in value:
            yield from _entries(one, storage_conn_id)
    else:
        raise _NoEditsError(NOT_EDITS.format(repr(value)[:60]))


def _is_chunk(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("manifest"), str)


def _chunk(value: Mapping[str, Any]) -> Chunk:
    try:
        return Chunk.model_validate(value)
    except ValidationError:
        raise _NoEditsError("holds a part of a manifest whose first or last line is no number from 1") from None


def _lines(chunk: Chunk, storage_conn_id: str | None) -> Iterator[_Entry]:
    prefix = f"{PurePosixPath(chunk.manifest).stem}-"
    lines = [line for line in _read(chunk.manifest, storage_conn_id).split(b"\n") if line.strip()]
    path = quote_path(chunk.manifest)
    if chunk.last is not None and chunk.last > len(lines):
        raise _NoEditsError(f"names line {chunk.last:,} of {path}, which has {len(lines):,}; make the chunks again")
    for number, line in enumerate(lines, start=1):
        if chunk.first <= number <= (chunk.last or len(lines)):
            try:
                value = json.loads(line)
                entry = value if isinstance(value, dict) else {}
            except (ValueError, RecursionError):
                entry = {}
            yield {"outputs": [], **entry}, _parse_line(entry, f"line {number} of {path}"), prefix


def _parse_line(entry: Mapping[str, Any], position: str = "an entry") -> BatchItem:
    try:
        return BatchItem.model_validate(entry)
    except ValidationError:
        raise _NoEditsError(f"{position} is no edit of a batch: the manifest has been changed") from None


@raises_without_traceback()
def _read(manifest: str, storage_conn_id: str | None) -> bytes:
    try:
        content = try_in_thread(
            lambda: read(open_store(manifest, storage_conn_id, is_file=True), MAX_MANIFEST_BYTES), seconds=READ_SECONDS
        )
    except TooSlowError as error:
        content = error
    if isinstance(content, bytes):
        return content
    words = describe_error(content, manifest, storage_conn_id)
    if isinstance(content, TooSlowError) or is_transient(content, manifest):
        what = f"The batch's manifest {quote_path(manifest)} cannot be read: {words}."
        raise StorageError(what, advice=STORE_ADVICE, last_advice=LAST_STORE_ADVICE)
    raise _NoEditsError(f"the batch's manifest {quote_path(manifest)} cannot be read: {words}")


def _edit(
    number: int, entry: Mapping[str, Any], line: BatchItem | None, prefix: str, records: Mapping[str, RequestRecord]
) -> ReviewedEdit:
    if line is not None:
        return ReviewedEdit(entry, line.model_copy(update={"name": line.name.removeprefix(prefix)}))
    try:
        manifest = Manifest.model_validate(entry)
    except ValidationError:
        raise _NoEditsError("holds a dictionary with outputs that is not the manifest of an edit") from None
    if not manifest.outputs:
        raise _NoEditsError(
            f"holds the manifest of request {manifest.request_id} without outputs: its task only submitted the request "
            "(wait_for_completion=False); use the manifest of the task that waited for it"
        )
    record = records.get(manifest.request_id) or RequestRecord(endpoint=manifest.endpoint, request_id="")
    pictures: dict[str, Any] = {"images": list(record.images)} | ({"mask": record.mask} if record.mask else {})
    sources = [*record.images, *(output.path or "" for output in manifest.outputs)]
    item = BatchItem(
        number=number,
        name=next(filter(None, (PurePosixPath(source).name for source in sources)), manifest.request_id),
        edit={name: value for name, value in (record.parameters | pictures).items() if value},
        sha256=record.sha256,
        request_id=manifest.request_id,
        outputs=manifest.outputs,
        phase=Phase.LANDED,
    )
    return ReviewedEdit(entry, item)


# --- Pictures


def _with_portable_paths(item: BatchItem, storage_conn_id: str | None) -> BatchItem:
    def portable(output: LandedOutput) -> LandedOutput:
        if output.path is None or is_url(output.path):
            return output
        return output.model_copy(update={"path": portable_source(output.path, storage_conn_id)})

    return item.model_copy(update={"outputs": tuple(map(portable, item.outputs))})


def _with_digests(item: BatchItem, found: Mapping[str, Any]) -> BatchItem:
    outputs = [one.model_copy(update={"sha256": found[one.path]}) if one.path else one for one in item.outputs]
    return item.model_copy(update={"outputs": tuple(outputs)})


class _Unreadable(str):
    """Why a picture cannot be read, as the rest of a sentence."""

    __slots__ = ()


def _digest(path: str) -> str | _Unreadable:
    try:
        return digest_of(open_store(path, None, is_file=True))
    except FileNotFoundError:
        return _Unreadable("is missing")
    except Exception as error:  # noqa: BLE001 - each store's client has its own
        words = describe_error(error, path)
        if is_transient(error, path):
            what = f"The picture {quote_path(path)} cannot be read: {words}."
            raise StorageError(what, advice=STORE_ADVICE, last_advice=LAST_STORE_ADVICE) from None
        return _Unreadable(f"cannot be read: {words}")
