"""Bringing outputs home: whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from airflow_provider_odirouter.errors import LandingError, StorageError
from airflow_provider_odirouter.images.files import make_folder, try_to_write, write_whole
from airflow_provider_odirouter.images.paths import shown, url_of
from airflow_provider_odirouter.images.picture import UnusablePictureError, examine
from airflow_provider_odirouter.images.stores import in_words, reached
from airflow_provider_odirouter.images.threads import StoppedError, TooSlowError, aside, side_by_side
from airflow_provider_odirouter.models import LandedOutput, OutputFile
from airflow_provider_odirouter.redaction import raises_bare, without_password

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath
    from typing_extensions import Buffer

Download = Callable[[str, IO[bytes]], None]
"""Writes what lies behind a URL into a file."""

LONGEST_NAME = 120
"""Characters: file systems end at 255 bytes, and a number and an extension follow."""
PROBE_SECONDS = 60.0
"""For a store to answer: the client of S3 alone would try for minutes to reach one that is silent."""


def stable_name(*parts: str) -> str:
    """
    Make the name that a task instance's files begin with.

    The same parts give the same name in every try, other parts another one, and every store can hold it.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "__".join(parts)).strip(".-")[:LONGEST_NAME]
    # Of the parts, not of what they are together: dag a, task b__c is not dag a__b, task c.
    return f"{readable}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"


@raises_bare()
def probe(output_path: str, storage_conn_id: str | None = None) -> None:
    """
    Find out whether files can be written, before anything is paid.

    :param storage_conn_id: The connection of a store whose URL names none itself.
    :raises StorageError: If they cannot.
    """
    try:
        aside(lambda: _probe(output_path, storage_conn_id), seconds=PROBE_SECONDS)
    except (_NotWrittenError, TooSlowError) as error:
        reason = in_words(error.reason, output_path, storage_conn_id) if isinstance(error, _NotWrittenError) else error
        raise StorageError(
            f"The output path {shown(output_path)} cannot be written: {reason}. Nothing was submitted yet."
        ) from error


@raises_bare()
def make_output_folder(output_path: str, storage_conn_id: str | None = None) -> None:
    """
    Make the folder of the outputs, where a task resumes on another worker than that which has tried it.

    :param storage_conn_id: The connection of a store whose URL names none itself.
    :raises StorageError: If it cannot be made.
    """
    try:
        aside(lambda: _make_folder(output_path, storage_conn_id))
    except _NotWrittenError as error:
        reason = in_words(error.reason, output_path, storage_conn_id)
        raise StorageError(f"The output path {shown(output_path)} cannot be written: {reason}.") from error


@raises_bare()
def land(
    outputs: Sequence[OutputFile],
    *,
    output_path: str,
    name: str,
    download: Download,
    before_write: Callable[[], object] = lambda: None,
    storage_conn_id: str | None = None,
    workers: int | None = None,
) -> tuple[LandedOutput, ...]:
    """
    Bring outputs home as ``{output_path}/{name}-{i}.{ext}``, a few at a time, and describe them in order.

    What an earlier try has left under these names is replaced. If it has left more, or files with another extension,
    they stay: nothing is ever deleted, and the manifest says what belongs to the result.

    :param download: Called from several threads at once.
    :param before_write: Called before each file is written; what it raises ends the landing.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :param workers: How many at a time.
    :raises LandingError: If one cannot be brought home; those that are there are whole.
    """
    stop = threading.Event()
    try:
        folder = aside(lambda: _reached(output_path, storage_conn_id))
        jobs = [
            partial(_land, output, f"{name}-{index}", folder, download, before_write, stop)
            for index, output in enumerate(outputs)
        ]
        return tuple(side_by_side(jobs, stop=stop, workers=workers))
    except _NotWrittenError as error:
        reason = in_words(error.reason, output_path, storage_conn_id)
        raise StorageError(f"{without_password(error.place)} cannot be written: {reason}.") from error


def _probe(output_path: str, storage_conn_id: str | None) -> None:
    with _writing(output_path):
        try_to_write(reached(output_path, storage_conn_id))


def _reached(output_path: str, storage_conn_id: str | None) -> ObjectStoragePath:
    with _writing(output_path):
        return reached(output_path, storage_conn_id)


def _make_folder(output_path: str, storage_conn_id: str | None) -> None:
    with _writing(output_path):
        make_folder(reached(output_path, storage_conn_id))


def _land(
    output: OutputFile,
    name: str,
    folder: ObjectStoragePath,
    download: Download,
    before_write: Callable[[], object],
    stop: threading.Event,
) -> LandedOutput:
    with _writing(tempfile.gettempdir(), OSError), _Incoming(stop) as file:
        download(output.url, file)
        landed = _describe(output, file)
        path = folder / f"{name}.{_extension(output, landed)}"
        place = url_of(path)
        before_write()
        with _writing(place):
            write_whole(file, path)
    return landed.model_copy(update={"path": place})


class _Incoming(io.BufferedRandom):
    """A temporary file that takes nothing more once it is not wanted: a download ends there with its next piece."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - closed with this one
        self._stop = stop

    def write(self, data: Buffer, /) -> int:
        self._go_on()
        return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        self._go_on()  # A download that is tried again empties it first.
        return super().truncate(size)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError


class _NotWrittenError(Exception):
    """Something could not be written; which words that needs is found out in the main thread."""

    def __init__(self, place: str, reason: Exception) -> None:
        super().__init__(place, reason)
        self.place = place
        self.reason = reason


@contextmanager
def _writing(place: str, kind: type[Exception] = Exception) -> Iterator[None]:
    # Whatever a store's client raises, see stores.py. Not in the main thread, where it could be a kill.
    try:
        yield
    except kind as error:
        raise _NotWrittenError(place, error) from error


def _describe(output: OutputFile, file: IO[bytes]) -> LandedOutput:
    size = file.seek(0, 2)
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if not _is_picture(output):
        return LandedOutput(content_type=output.content_type, size_bytes=size, sha256=sha256)
    try:
        picture = examine(file)
    except UnusablePictureError as error:
        raise LandingError(f"The file that OdiRouter gave out as a picture {error}.") from error
    return LandedOutput(
        content_type=picture.content_type,
        width=picture.width,
        height=picture.height,
        size_bytes=size,
        sha256=sha256,
    )


def _is_picture(output: OutputFile) -> bool:
    if output.content_type:
        return output.content_type.startswith("image/")
    return output.type in {"image", None}


def _extension(output: OutputFile, landed: LandedOutput) -> str:
    if _is_picture(output) and landed.content_type:
        return landed.content_type.removeprefix("image/")
    suffix = PurePosixPath(output.file_name or "").suffix or mimetypes.guess_extension(output.content_type or "")
    return re.sub(r"[^A-Za-z0-9]", "", suffix or "")[:8] or "bin"
