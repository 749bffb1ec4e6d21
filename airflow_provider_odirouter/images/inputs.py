"""Reading the pictures to edit, and checking them before anything is paid."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from airflow.sdk import ObjectStoragePath

from airflow_provider_odirouter.errors import Problem, StorageError
from airflow_provider_odirouter.images.files import read
from airflow_provider_odirouter.images.masks import mask_problems, mask_remarks
from airflow_provider_odirouter.images.paths import shown, storage_path, url_of
from airflow_provider_odirouter.images.picture import Picture, UnusablePictureError, examine
from airflow_provider_odirouter.images.stores import STORE_ADVICE, in_words, may_pass, reached
from airflow_provider_odirouter.images.threads import TooSlowError, aside, side_by_side
from airflow_provider_odirouter.redaction import raises_bare

log = logging.getLogger(__name__)

MAX_INPUT_BYTES = 10 * 2**20
"""The service takes at most 10 MiB a file."""
INPUT_FORMATS = frozenset({"PNG", "JPEG", "WEBP"})
READ_SECONDS = 300.0
"""For all inputs together: a store that does not answer must not hold a worker for ever."""

Content = bytes | Exception | None
"""What a file holds, or why it cannot be read; ``None``: it lies behind a URL and is not looked at."""


@dataclass(frozen=True)
class Inputs:
    """
    Input pictures as the API takes them: URLs untouched, everything else as bare base64.

    :param problems: Every picture that cannot be used; then the inputs must not be sent.
    :param remarks: What is no error, but should stand in the log.
    :param sha256: Of what was read, by the source as it was given.
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
class _Taken:
    encoded: str
    picture: Picture | None
    """``None``: it lies behind a URL and is not looked at."""
    sha256: str | None = None

    @property
    def is_seen(self) -> bool:
        return self.picture is not None


def is_url(source: str) -> bool:
    """Return whether the service fetches this input itself."""
    return source.lower().startswith(("http://", "https://"))


def place_of(source: str, storage_conn_id: str | None) -> str:
    """Return the text that means the same picture in any process: with the connection of its store."""
    return source if is_url(source) else url_of(storage_path(source, storage_conn_id))


@raises_bare()
def read_inputs(images: Sequence[str], mask: str | None, *, storage_conn_id: str | None = None) -> Inputs:
    """
    Read and check all input pictures.

    :param images: ``http(s)`` URLs, or paths that ``ObjectStoragePath`` understands.
    :param mask: The same; checked against the first image, if both are at hand.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :raises StorageError: If a store does not give them out now, but may do so later.
    """
    sources = {f"images[{index}]": source for index, source in enumerate(images)} | ({"mask": mask} if mask else {})
    contents = _contents(list(sources.values()), storage_conn_id)
    taken: dict[str, _Taken] = {}
    problems: list[Problem] = []
    remarks: list[str] = []
    for (name, source), content in zip(sources.items(), contents, strict=True):
        try:
            taken[name] = _take(source, content, storage_conn_id)
            remarks += _remarks(f"{name}: {shown(source)}", taken[name].picture)
        except UnusablePictureError as error:
            log.debug("%s cannot be used.", name, exc_info=error)
            problems.append(Problem(name, f"{shown(source)} {error}"))
    sha256 = {sources[name]: one.sha256 for name, one in taken.items() if one.sha256}
    taken_mask, first = taken.pop("mask", None), taken.get("images[0]")
    if taken_mask:
        remarks += mask_remarks(mask_seen=taken_mask.is_seen, edited_seen=not first or first.is_seen)
        if taken_mask.picture:
            problems += mask_problems(taken_mask.picture, first.picture if first else None)
    return Inputs(
        images=tuple(one.encoded for one in taken.values()),
        mask=taken_mask.encoded if taken_mask else None,
        problems=tuple(problems),
        remarks=tuple(remarks),
        sha256=sha256,
    )


def _contents(sources: Sequence[str], storage_conn_id: str | None) -> list[Content]:
    """Read what has to be read, a few files at a time."""
    try:
        # One after the other: the connections are read here.
        paths = aside(lambda: [_path(source, storage_conn_id) for source in sources], seconds=READ_SECONDS)
        return side_by_side([partial(_content, path) for path in paths], seconds=READ_SECONDS)
    except TooSlowError as error:
        raise StorageError(
            f"The input pictures cannot be read: {error}. Nothing was submitted yet.", advice=STORE_ADVICE
        ) from error


def _path(source: str, storage_conn_id: str | None) -> ObjectStoragePath | Exception | None:
    if is_url(source):
        return None
    if source.startswith("data:"):
        return UnusablePictureError("is a data: URL; give a path or an http(s) URL")
    if (source[:1], source[-1:]) in {("[", "]"), ("{", "}")}:
        return UnusablePictureError(
            "looks like a list or a manifest that a template rendered to text; set render_template_as_native_obj=True "
            "on the Dag, or pass the upstream task's output itself"
        )
    try:
        return reached(source, storage_conn_id)
    except Exception as error:  # noqa: BLE001 - whatever a store's library raises; it is told with all others
        return error


def _content(path: ObjectStoragePath | Exception | None) -> Content:
    if not isinstance(path, ObjectStoragePath):
        return path
    try:
        return read(path, MAX_INPUT_BYTES)
    except Exception as error:  # noqa: BLE001 - the same
        return error


def _take(source: str, content: Content, storage_conn_id: str | None) -> _Taken:
    if content is None:
        return _Taken(source, None)
    if isinstance(content, Exception):
        raise _failure(source, content, storage_conn_id)
    if len(content) > MAX_INPUT_BYTES:
        raise UnusablePictureError(f"has more than {MAX_INPUT_BYTES // 2**20} MiB; make it smaller")
    picture = examine(io.BytesIO(content))
    if picture.format not in INPUT_FORMATS:
        raise UnusablePictureError(f"is a {picture.format}; the endpoint takes PNG, JPEG or WebP")
    return _Taken(base64.b64encode(content).decode(), picture, hashlib.sha256(content).hexdigest())


def _failure(source: str, error: Exception, storage_conn_id: str | None) -> Exception:
    """Return what is to be raised of an input that could not be read."""
    match error:
        case UnusablePictureError():
            return error
        case FileNotFoundError():
            return UnusablePictureError("does not exist, as this worker sees it")
        case IsADirectoryError():
            return UnusablePictureError("is a folder, not a picture")
    words = f"cannot be read: {in_words(error, source, storage_conn_id)}"
    if may_pass(error, source):
        return StorageError(f"The input {shown(source)} {words}. Nothing was submitted yet.", advice=STORE_ADVICE)
    return UnusablePictureError(words)


def _remarks(name: str, picture: Picture | None) -> Iterator[str]:
    if picture and picture.is_turned:
        yield (
            f"{name} is stored as {picture.width}x{picture.height} and shown turned or mirrored (EXIF orientation "
            f"{picture.orientation}); the service may edit it as it is stored."
        )
    if picture and picture.is_animated:
        yield f"{name} is animated; the service edits one picture, probably the first."
