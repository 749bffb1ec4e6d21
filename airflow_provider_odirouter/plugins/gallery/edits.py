"""
The edits of a batch, as its manifest lists them, or its state before there is a manifest: one line each.

Neither has a digest: its name alone, which is that of the task instance, is the permission to read it. It is kept in
memory for a moment, since each small picture of a page needs a line of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from airflow_provider_odirouter.addresses import EDIT
from airflow_provider_odirouter.batch.state import BatchStore
from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.images.inputs import is_url
from airflow_provider_odirouter.models import BatchItem, BatchSummary, Manifest, Phase
from airflow_provider_odirouter.plugins.gallery.files import (
    MAX_BYTES,
    DisplayError,
    as_display_errors,
    checked_size,
    now,
    open_file,
    slowness_as_display_error,
    store_of,
)
from airflow_provider_odirouter.plugins.gallery.instances import Instance
from airflow_provider_odirouter.plugins.gallery.subjects import Subject
from airflow_provider_odirouter.plugins.gallery.threads import submit_read, wait_for_shared
from airflow_provider_odirouter.redaction import raises_without_traceback, without_password
from airflow_provider_odirouter.storage.paths import LOCAL_PROTOCOLS, portable_path, scheme_of, storage_path
from airflow_provider_odirouter.storage.state_folder import FOLDER
from airflow_provider_odirouter.storage.store_errors import open_store
from airflow_provider_odirouter.xcoms import BatchRecord, FailureRecord, RequestRecord

MAX_LINES = 100_000
"""Ten times the edits of the largest batch."""
MAX_LINE_BYTES = 2 * 2**20
"""A prompt of 32,000 characters takes at most 384,000 bytes."""
CACHE_SECONDS = 30.0
MAX_CACHE_BYTES = 128 * 2**20
"""For all manifests together; that of a batch of 10,000 edits has about 20 MiB."""
PHASES = {
    Phase.PLANNED: "to be submitted",
    Phase.SUBMITTING: "is submitted now",
    Phase.SUBMITTED: "waits for OdiRouter",
    Phase.SUCCEEDED: "has succeeded, to land",
}
"""What an edit that has not ended does, for people."""
UNEXPLAINED = "This edit has no outputs, and the batch's manifest does not say why."


@dataclass(frozen=True, kw_only=True)
class Edit(Subject):
    """
    An edit of a batch.

    :param number: Its position in the batch, from 1.
    :param total: How many edits the batch has.
    :param folder: The folder of the manifest.
    :param stem: How the names of its files begin, as the manifest says.
    :param error_type: The kind of its failure.
    :param phase: What it does; ``None``: the batch has ended.
    """

    batch: Instance
    number: int
    total: int
    folder: str
    stem: str
    error_type: str | None
    phase: Phase | None = None

    @property
    def heading(self) -> str:
        """Its name for people."""
        # Without a name from the user, the stem begins with the batch's own, which is long and the same for all.
        name = self.stem.removeprefix(f"{self.batch.file_prefix}-")
        return f"{self.number}. {name}" if name != str(self.number) else f"{self.number}."

    @property
    def address(self) -> str:
        """The address of its page, below the gallery's own."""
        return self.address_of(self.number)

    @property
    def state_words(self) -> str:
        """Its state for people, with the kind of its failure."""
        words = super().state_words if self.has_ended or self.phase is None else PHASES[self.phase]
        return f"{words}: {self.error_type}" if self.error_type else words

    def address_of(self, number: int) -> str:
        """Return the address of another edit of the same batch."""
        return self.batch.address + EDIT.format(number=number)

    def can_have_landed(self, path: str) -> bool:
        """Return whether a file lies beside the manifest, and has the name of one of its outputs."""
        folder, _, name = path.rpartition("/")
        return folder == self.folder and name.startswith(f"{self.stem}-")


@dataclass(frozen=True, kw_only=True)
class ReviewedEdit(Edit):
    """An edit that a person reviews; another task has landed its outputs."""

    @property
    def state_words(self) -> str:
        """Its state for people: that of the review."""
        return self.batch.state_words

    def can_have_landed(self, path: str) -> bool:  # noqa: ARG002
        """Return true: like an input, each output is shown only under the digest that the review has recorded."""
        return True


@dataclass(frozen=True)
class Edits:
    """
    All edits of a batch.

    :param lines: Of the manifest, or of the state; each is parsed when it is needed. Those of a review are parsed.
    :param folder: The folder in which the outputs land.
    :param is_state: Whether the lines are of the state: the batch has no manifest yet.
    """

    batch: Instance
    lines: Sequence[bytes | BatchItem] = ()
    folder: str = ""
    is_state: bool = False

    def __len__(self) -> int:
        return len(self.lines)

    def parse_some(self, first: int, limit: int) -> Iterator[Edit | None]:
        """Yield edits in order; ``None`` for a line that cannot be read."""
        for number in range(first, min(first + limit, len(self) + 1)):
            yield self._parse(number)

    def parse(self, number: int) -> Edit:
        """
        Return an edit.

        :raises DisplayError: If there is no such edit, or its line cannot be read.
        """
        if not 1 <= number <= len(self):
            raise DisplayError("This batch has no such edit.", 404)
        edit = self._parse(number)
        if edit is None:
            raise DisplayError(f"Line {number} of the batch's manifest cannot be read.", 502)
        return edit

    def _parse(self, number: int) -> Edit | None:
        line = self.lines[number - 1]
        if isinstance(line, BatchItem):
            return _reviewed_edit(self, line, number)
        if len(line) > MAX_LINE_BYTES:
            return None
        try:
            return _edit(self, BatchItem.model_validate_json(line), number)
        except ValidationError:
            return None


def _edit(edits: Edits, item: BatchItem, number: int) -> Edit:
    batch = edits.batch
    has_ended = not edits.is_state or bool(item.outputs or item.error)
    common: dict[str, Any] = {
        "request_id": item.request_id or "",
        "endpoint": batch.batch_summary.endpoint if batch.batch_summary else "",
        "submitted_at": item.submitted_at,
    }
    pictures = {name: value for name, value in item.edit.items() if _is_pictures(name, value)}
    parameters = {name: value for name, value in item.edit.items() if name not in pictures}
    return Edit(
        state=("success" if item.outputs else "failed") if has_ended else batch.state,
        request=RequestRecord.model_validate(common | pictures | {"sha256": item.sha256, "parameters": parameters}),
        manifest=Manifest(
            # A batch lands all its outputs, so a link is not one of them.
            outputs=tuple(output.model_copy(update={"url": None}) for output in item.outputs),
            completed_at=item.completed_at,
            inference_seconds=item.inference_seconds,
            submits=item.submits or None,
            cost=item.cost,
            **common,
        ),
        failure=FailureRecord(what=item.error or UNEXPLAINED) if has_ended and not item.outputs else None,
        batch=batch,
        number=number,
        total=len(edits),
        folder=edits.folder,
        stem=item.name,
        error_type=item.error_type,
        phase=None if has_ended else item.phase,
    )


def _reviewed_edit(edits: Edits, item: BatchItem, number: int) -> ReviewedEdit:
    edit = _edit(edits, item, number)
    fields = {field.name: getattr(edit, field.name) for field in dataclasses.fields(edit)}
    manifest = edit.manifest and edit.manifest.model_copy(update={"outputs": item.outputs})
    return ReviewedEdit(**(fields | {"state": edits.batch.state, "manifest": manifest}))


def _is_pictures(name: str, value: object) -> bool:
    """Return whether a parameter has the form of an image edit's pictures; that of another endpoint may not."""
    if name == "images":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return name == "mask" and isinstance(value, str)


@dataclass(frozen=True)
class _Version:
    """A manifest or a state as one try of its task has written it: that of another try is never taken for it."""

    path: str
    summary: BatchSummary | BatchRecord


@dataclass(frozen=True)
class _Content:
    lines: Sequence[bytes]
    size: int
    folder: str


@dataclass(frozen=True)
class _Entry:
    read_at: float
    content: Future[_Content]

    @property
    def is_old(self) -> bool:
        """Whether it must be read again. Not while it is being read: jobs for a slow store would pile up."""
        if not self.content.done():
            return False
        return now() >= self.read_at + CACHE_SECONDS or self.content.exception() is not None

    @property
    def size(self) -> int:
        return self.content.result().size if self.content.done() and not self.content.exception() else 0


_cache: dict[_Version, _Entry] = {}
_lock = threading.Lock()


async def read_edits(batch: Instance) -> Edits:
    """
    Return the edits of a batch; none before its task has written a state.

    :raises DisplayError: If the manifest or the state cannot be read.
    """
    if batch.review:
        return Edits(batch, batch.review.edits)
    summary = batch.batch_summary
    manifest, folder = _manifest_path(batch), _folder_of_state(batch)
    path = manifest or folder
    if path is None or summary is None:
        return Edits(batch)
    read = partial(_read, path) if manifest else partial(_read_state, path, _conn_id(summary), batch.file_prefix)
    version = _Version(path, summary)
    with _lock, slowness_as_display_error():
        _trim_cache()
        if version not in _cache:
            _cache[version] = _Entry(now(), submit_read(store_of(path), read))
        content = _cache[version].content
    # It must not stay in memory when no further call comes.
    asyncio.get_running_loop().call_later(CACHE_SECONDS + 1, _trim_cache_later)
    with slowness_as_display_error():
        found = await wait_for_shared(content)
    return Edits(batch, found.lines, found.folder, is_state=manifest is None)


def _manifest_path(batch: Instance) -> str | None:
    """
    Return the path of a batch's manifest; ``None`` before its task has written it.

    :raises DisplayError: If the task cannot have written a file there. Otherwise a person who can write its XComs, but
        cannot read another Dag's, could name the other Dag's manifest here.
    """
    path = batch.batch_summary.manifest if batch.batch_summary else None
    if path is None:
        return None
    name = path.rpartition("/")[2]
    if name != f"{batch.file_prefix}.jsonl" or ".." in PurePosixPath(path).parts or is_url(path):
        raise DisplayError(
            "The task's XComs name a manifest that the task cannot have written, so it is not opened.", 404
        )
    return path


def _folder_of_state(batch: Instance) -> str | None:
    """
    Return the folder below which a batch keeps its state, under the task instance's own name.

    :raises DisplayError: If it cannot be one.
    """
    record = batch.batch_summary
    if not isinstance(record, BatchRecord) or not record.output_path:
        return None
    if ".." in PurePosixPath(record.output_path).parts or is_url(record.output_path):
        raise DisplayError("The task's XComs name a folder that cannot be the task's, so it is not opened.", 404)
    return record.output_path


def _conn_id(summary: BatchSummary | BatchRecord) -> str | None:
    return summary.storage_conn_id if isinstance(summary, BatchRecord) else None


def _trim_cache_later() -> None:
    with _lock:
        _trim_cache()


def _trim_cache() -> None:
    """Remove old manifests; then the first of the others, while all together take too much memory."""
    for version in [version for version, entry in _cache.items() if entry.is_old]:
        del _cache[version]
    while sum(entry.size for entry in _cache.values()) > MAX_CACHE_BYTES:
        del _cache[next(version for version, entry in _cache.items() if entry.size)]


@raises_without_traceback(DisplayError)
def _read(path: str) -> _Content:
    with as_display_errors(path):
        with open_file(path, follow_links=False) as file:
            checked_size(file, path)
            content = file.read(MAX_BYTES)
        if content.count(b"\n") > MAX_LINES:
            raise DisplayError(f"{without_password(path)} has more than {MAX_LINES:,} lines.", 413)
        return _Content([line for line in content.split(b"\n") if line.strip()], len(content), path.rpartition("/")[0])


@raises_without_traceback(DisplayError)
def _read_state(output_path: str, storage_conn_id: str | None, name: str) -> _Content:
    with as_display_errors(output_path):
        folder = open_store(output_path, storage_conn_id)
        _refuse_links(output_path, name)
        try:
            lines = BatchStore(output_path, storage_conn_id, name, max_tries=0).load(None).lines
        except OdiRouterError as error:
            raise DisplayError(f"The edits of this batch are not known here yet. {error.what}", 502) from None
        return _Content(lines, sum(map(len, lines)), portable_path(folder))


def _refuse_links(output_path: str, name: str) -> None:
    """Refuse a local state that is a link: it could lead to that of another task."""
    if scheme_of(output_path) not in LOCAL_PROTOCOLS:
        return
    folder = Path(str(storage_path(output_path)), FOLDER, name)
    if any(path.is_symlink() for path in [folder.parent, folder, *folder.glob("*")]):
        raise DisplayError("The batch's state is a link to another folder or file, so it is not opened.", 404)
