"""Reads the pictures to edit, and other files that are sent, and checks them before anything is paid."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from airflow.sdk import ObjectStoragePath

from airflow_provider_odirouter.errors import Problem, StorageError
from airflow_provider_odirouter.images.masks import mask_problems, mask_remarks
from airflow_provider_odirouter.images.picture import Picture, UnusablePictureError, examine
from airflow_provider_odirouter.redaction import raises_without_traceback
from airflow_provider_odirouter.storage.files import read
from airflow_provider_odirouter.storage.paths import is_local, portable_path, quote_path, storage_path
from airflow_provider_odirouter.storage.store_errors import (
    LAST_STORE_ADVICE,
    STORE_ADVICE,
    describe_error,
    is_transient,
    open_store,
)
from airflow_provider_odirouter.storage.threads import TooSlowError, run_in_thread, run_parallel

log = logging.getLogger(__name__)

MAX_INPUT_BYTES = 10 * 2**20
"""Of one file: the service takes at most 10 MiB."""
INPUT_FORMATS = frozenset({"PNG", "JPEG", "WEBP"})
MAX_READ_SECONDS = 300.0
"""For all inputs together: a store that does not answer must not hold a worker for ever."""

Content = bytes | Exception | None
"""A file's content, or why it cannot be read; ``None``: the input is a URL, which is not read here."""


@dataclass(frozen=True)
class Inputs:
    """
    Input pictures as the API takes them: URLs untouched, everything else as bare base64.

    :param problems: Every picture that cannot be used; if there are any, the inputs must not be sent.
    :param remarks: Warnings for the log.
    :param sha256: Of the files that were read, by their source as it was given.
    """

    images: tuple[str, ...]
    mask: str | None
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """Return the pictures as an edit's parameters."""
        return {"images": list(self.images)} | ({"mask": self.mask} if self.mask else {})


@dataclass(frozen=True)
class _Input:
    encoded: str
    picture: Picture | None
    """``None``: the input is a URL, which is not read here."""
    sha256: str | None = None

    @property
    def is_read(self) -> bool:
        return self.picture is not None


@dataclass(frozen=True)
class Files:
    """
    Files of any kind as the API takes them: URLs untouched, everything else as bare base64.

    :param encoded: By the names of the sources.
    :param problems: Every file that cannot be used; if there are any, none must be sent.
    :param sha256: Of the files that were read, by their source as it was given.
    """

    encoded: Mapping[str, str]
    problems: tuple[Problem, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)


def is_url(source: str) -> bool:
    """Return whether the service fetches this input itself."""
    return source.lower().startswith(("http://", "https://"))


def portable_source(source: str, storage_conn_id: str | None) -> str:
    """Return a source as text that means the same in any process: a store's URL with its connection."""
    return source if is_url(source) else portable_path(storage_path(source, storage_conn_id))


@raises_without_traceback()
def read_inputs(images: Sequence[str], mask: str | None, *, storage_conn_id: str | None = None) -> Inputs:
    """
    Read and check all input pictures.

    :param images: ``http(s)`` URLs, or paths that ``ObjectStoragePath`` understands.
    :param mask: The same; compared with the first image, if both are read.
    :param storage_conn_id: The connection of a store whose URL does not name one.
    :raises StorageError: If a store cannot be read now, but perhaps later.
    """
    sources = {f"images[{index}]": source for index, source in enumerate(images)} | ({"mask": mask} if mask else {})
    contents = _contents(list(sources.values()), storage_conn_id)
    usable: dict[str, _Input] = {}
    problems: list[Problem] = []
    remarks: list[str] = []
    for (name, source), content in zip(sources.items(), contents, strict=True):
        try:
            usable[name] = _check(source, content, storage_conn_id)
            remarks += _remarks(f"{name}: {quote_path(source)}", usable[name].picture)
        except UnusablePictureError as error:
            log.debug("%s cannot be used.", name, exc_info=error)
            problems.append(Problem(name, f"{quote_path(source)} {error}"))
    sha256 = {sources[name]: one.sha256 for name, one in usable.items() if one.sha256}
    usable_mask, first = usable.pop("mask", None), usable.get("images[0]")
    if usable_mask:
        remarks += mask_remarks(mask_is_read=usable_mask.is_read, first_is_read=not first or first.is_read)
        if usable_mask.picture:
            problems += mask_problems(usable_mask.picture, first.picture if first else None)
    return Inputs(
        images=tuple(one.encoded for one in usable.values()),
        mask=usable_mask.encoded if usable_mask else None,
        problems=tuple(problems),
        remarks=tuple(remarks),
        sha256=sha256,
    )


@raises_without_traceback()
def read_files(sources: Mapping[str, str], *, storage_conn_id: str | None = None) -> Files:
    """
    Read files of any kind, within the size that the service takes.

    :param sources: ``http(s)`` URLs, or paths that ``ObjectStoragePath`` understands, by the names for problems.
    :param storage_conn_id: The connection of a store whose URL does not name one.
    :raises StorageError: If a store cannot be read now, but perhaps later.
    """
    encoded: dict[str, str] = {}
    problems: list[Problem] = []
    sha256: dict[str, str] = {}
    contents = _contents(list(sources.values()), storage_conn_id)
    for (name, source), content in zip(sources.items(), contents, strict=True):
        if content is None:
            encoded[name] = source
            continue
        try:
            data = _data(source, content, storage_conn_id)
            encoded[name], sha256[source] = base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest()
        except UnusablePictureError as error:
            log.debug("%s cannot be used.", name, exc_info=error)
            problems.append(Problem(name, f"{quote_path(source)} {error}"))
    return Files(encoded, tuple(problems), sha256)


def _contents(sources: Sequence[str], storage_conn_id: str | None) -> list[Content]:
    """Read the files, a few at a time."""
    try:
        # One after the other, since this asks Airflow for the connections.
        paths = run_in_thread(lambda: [_path(source, storage_conn_id) for source in sources], seconds=MAX_READ_SECONDS)
        return run_parallel([partial(_content, path) for path in paths], seconds=MAX_READ_SECONDS)
    except TooSlowError as error:
        raise StorageError(
            f"The input pictures cannot be read: {error}. Nothing was submitted yet.",
            advice=STORE_ADVICE,
            last_advice=LAST_STORE_ADVICE,
        ) from error


def _path(source: str, storage_conn_id: str | None) -> ObjectStoragePath | Exception | None:
    if is_url(source):
        return None
    if source.lower().startswith("data:"):
        return UnusablePictureError("is a data: URL; give a path or an http(s) URL")
    if (source[:1], source[-1:]) in {("[", "]"), ("{", "}")}:
        return UnusablePictureError(
            "looks like a list or a manifest that a template rendered to text; set render_template_as_native_obj=True "
            "on the Dag, or pass the upstream task's output itself"
        )
    try:
        return open_store(source, storage_conn_id, is_file=True)
    except Exception as error:  # noqa: BLE001 - any error of a store's client; it is reported with all others
        return error


def _content(path: ObjectStoragePath | Exception | None) -> Content:
    if not isinstance(path, ObjectStoragePath):
        return path
    try:
        return read(path, MAX_INPUT_BYTES)
    except Exception as error:  # noqa: BLE001 - as above
        return error


def _check(source: str, content: Content, storage_conn_id: str | None) -> _Input:
    if content is None:
        return _Input(source, None)
    data = _data(source, content, storage_conn_id)
    picture = examine(io.BytesIO(data))
    if picture.format not in INPUT_FORMATS:
        raise UnusablePictureError(f"is a {picture.format}; the endpoint takes PNG, JPEG or WebP")
    return _Input(base64.b64encode(data).decode(), picture, hashlib.sha256(data).hexdigest())


def _data(source: str, content: bytes | Exception, storage_conn_id: str | None) -> bytes:
    """Return what a file holds, or raise why it cannot be sent."""
    if isinstance(content, Exception):
        raise _failure(source, content, storage_conn_id)
    if not content:
        raise UnusablePictureError("is empty (0 bytes)")
    if len(content) > MAX_INPUT_BYTES:
        raise UnusablePictureError(f"has more than {MAX_INPUT_BYTES // 2**20} MiB; make it smaller")
    return content


def _failure(source: str, error: Exception, storage_conn_id: str | None) -> Exception:
    """Return the error of an input that could not be read."""
    match error:
        case UnusablePictureError():
            return error
        case FileNotFoundError():
            return UnusablePictureError(f"does not exist, as this worker sees it{_where(source, storage_conn_id)}")
        case IsADirectoryError():
            return UnusablePictureError("is a folder, not a file")
    words = f"cannot be read: {describe_error(error, source, storage_conn_id)}"
    if is_transient(error, source):
        return StorageError(
            f"The input {quote_path(source)} {words}. Nothing was submitted yet.",
            advice=STORE_ADVICE,
            last_advice=LAST_STORE_ADVICE,
        )
    return UnusablePictureError(words)


def _where(source: str, storage_conn_id: str | None) -> str:
    """Return where the worker has looked for a file: the path may mean another folder, or another host's disk."""
    path = storage_path(source, storage_conn_id)
    if not is_local(path):
        return ""
    host = f"host {platform.node()}"
    return f" ({host})" if source == path.path else f" ({host}, path {quote_path(path.path)})"


def _remarks(name: str, picture: Picture | None) -> Iterator[str]:
    if picture and picture.is_turned:
        yield (
            f"{name} is stored as {picture.width}x{picture.height} and shown turned or mirrored (EXIF orientation "
            f"{picture.orientation}); the service may edit it as it is stored."
        )
    if picture and picture.is_animated:
        yield f"{name} is animated; the service edits one picture, probably the first."
