"""Lands outputs: downloads them, and writes them to the user's storage, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING

from airflow_provider_odirouter.errors import OdiRouterError, OutputExistsError, StorageError, UnusablePathError
from airflow_provider_odirouter.images.outputs import describe, extension, is_data_url, write_data_url
from airflow_provider_odirouter.models import LandedOutput, OutputFile
from airflow_provider_odirouter.redaction import raises_without_traceback, without_password
from airflow_provider_odirouter.storage.files import (
    TakenError,
    check_writable,
    is_same_content,
    make_folder,
    write_whole,
)
from airflow_provider_odirouter.storage.paths import PathError, portable_path, quote_path
from airflow_provider_odirouter.storage.store_errors import describe_error, missing_connection, open_store
from airflow_provider_odirouter.storage.threads import StoppedError, TooSlowError, run_in_thread, run_parallel

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath
    from typing_extensions import Buffer

Download = Callable[[str, IO[bytes]], None]
"""Writes the content of a URL into a file."""

MAX_NAME_LENGTH = 120
"""Characters: file systems allow 255 bytes, and a hash, a number and an extension follow."""
MAX_PROBE_SECONDS = 60.0
"""For a store to answer: S3's client alone would try for minutes to reach a silent one."""


def stable_name(*parts: str) -> str:
    """
    Make the name that a task instance's files begin with.

    The same parts make the same name in every try; other parts make another name. Every store allows it.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "__".join(parts)).strip(".-")[:MAX_NAME_LENGTH]
    # The hash of the parts, not of the joined text: Dag a, task b__c is not Dag a__b, task c.
    return f"{readable}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"


@raises_without_traceback()
def probe(output_path: str, storage_conn_id: str | None = None) -> None:
    """
    Check that files can be written, before anything is paid.

    :param storage_conn_id: The connection of a store whose URL does not name one.
    :raises UnusablePathError: If they cannot in any try, since the path itself cannot be used.
    :raises StorageError: If they cannot, or if Airflow does not find the connection.
    """
    if problem := missing_connection(output_path, storage_conn_id):
        raise StorageError(
            f"The output path {quote_path(output_path)} cannot be written: {problem}. Nothing was submitted yet.",
            advice="Create the connection, or name one that exists; a retry helps then.",
            last_advice="Create the connection, or name one that exists, then clear the task.",
        )
    try:
        run_in_thread(lambda: _probe(output_path, storage_conn_id), seconds=MAX_PROBE_SECONDS)
    except (_NotWrittenError, TooSlowError) as error:
        reason = (
            describe_error(error.reason, output_path, storage_conn_id) if isinstance(error, _NotWrittenError) else error
        )
        is_unusable = isinstance(error, _NotWrittenError) and isinstance(error.reason, PathError)
        kind = UnusablePathError if is_unusable else StorageError
        raise kind(
            f"The output path {quote_path(output_path)} cannot be written: {reason}. Nothing was submitted yet."
        ) from error


@raises_without_traceback()
def make_output_folder(output_path: str, storage_conn_id: str | None = None) -> None:
    """
    Make the folder of the outputs: a task may resume on another worker than the one that has probed it.

    :param storage_conn_id: The connection of a store whose URL does not name one.
    :raises StorageError: If it cannot be made.
    """
    try:
        run_in_thread(lambda: _make_folder(output_path, storage_conn_id))
    except _NotWrittenError as error:
        reason = describe_error(error.reason, output_path, storage_conn_id)
        raise StorageError(f"The output path {quote_path(output_path)} cannot be written: {reason}.") from error


@raises_without_traceback()
def land(
    outputs: Sequence[OutputFile],
    *,
    output_path: str,
    name: str,
    download: Download,
    before_write: Callable[[], object] = lambda: None,
    may_replace: Callable[[str], bool] = lambda name: True,  # noqa: ARG005
    storage_conn_id: str | None = None,
    workers: int | None = None,
    picture_due: bool | None = None,
) -> tuple[LandedOutput, ...]:
    """
    Land outputs as ``{output_path}/{name}-{i}.{ext}``, a few at a time, and describe them in order.

    Files of an earlier try with these names are replaced. Its other files stay, such as those with another extension:
    no file is ever deleted, and the manifest lists the files of the result.

    :param download: Called from several threads at once.
    :param before_write: Called before each file is written; an exception ends the landing.
    :param may_replace: Returns of a file's name whether a file that is there may be replaced. One with the same content
        counts as landed all the same: a worker that died may have written it. Default: all may be.
    :param storage_conn_id: The connection of a store whose URL does not name one.
    :param workers: Outputs at a time. Default: :data:`~airflow_provider_odirouter.storage.threads.MAX_WORKERS`.
    :param picture_due: Whether each output must be a picture, whatever the service calls it. Default: not known, see
        :func:`~.outputs.describe`.
    :raises LandingError: If an output cannot be landed; the files that have landed are whole, and the error names them.
    """
    stop = threading.Event()
    landed: list[str] = []
    try:
        folder = run_in_thread(lambda: _open_folder(output_path, storage_conn_id))
        jobs = [
            partial(
                _land, output, f"{name}-{index}", folder, download, before_write, may_replace, landed, stop, picture_due
            )
            for index, output in enumerate(outputs)
        ]
        return tuple(run_parallel(jobs, stop=stop, workers=workers))
    except _NotWrittenError as error:
        reason = describe_error(error.reason, output_path, storage_conn_id)
        not_written = StorageError(f"{without_password(error.path)} cannot be written: {reason}.")
        not_written.landed = tuple(landed)
        raise not_written from error
    except OdiRouterError as error:
        error.landed = tuple(landed)
        raise


def _probe(output_path: str, storage_conn_id: str | None) -> None:
    with _writing(output_path):
        check_writable(open_store(output_path, storage_conn_id))


def _open_folder(output_path: str, storage_conn_id: str | None) -> ObjectStoragePath:
    with _writing(output_path):
        return open_store(output_path, storage_conn_id)


def _make_folder(output_path: str, storage_conn_id: str | None) -> None:
    with _writing(output_path):
        make_folder(open_store(output_path, storage_conn_id))


def _land(
    output: OutputFile,
    name: str,
    folder: ObjectStoragePath,
    download: Download,
    before_write: Callable[[], object],
    may_replace: Callable[[str], bool],
    landed_files: list[str],
    stop: threading.Event,
    picture_due: bool | None,
) -> LandedOutput:
    with _writing(tempfile.gettempdir(), OSError), _DownloadedFile(stop) as file:
        if is_data_url(output.url):
            write_data_url(output.url, file)
        else:
            download(output.url, file)
        landed = describe(output, file, picture_due=picture_due)
        path = folder / f"{name}.{extension(output, landed, file)}"
        text = portable_path(path)
        before_write()
        with _writing(text):
            is_landed = _write(file, path, landed.content_type, may_replace=may_replace(path.name))
        if not is_landed:
            raise OutputExistsError(without_password(text))
        landed_files.append(path.name)
    return landed.model_copy(update={"path": text})


def _write(file: IO[bytes], path: ObjectStoragePath, content_type: str | None, *, may_replace: bool) -> bool:
    """Write a file, and return whether it is there now: another one may have its path."""
    try:
        write_whole(file, path, content_type=content_type, may_replace=may_replace)
    except TakenError:
        return is_same_content(file, path)
    return True


class _DownloadedFile(io.BufferedRandom):
    """A temporary file that refuses writes after a stop, so that a running download ends with its next piece."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - closed with this one
        self._stop = stop

    def write(self, data: Buffer, /) -> int:
        self._check_stop()
        return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        self._check_stop()  # A download that is repeated empties the file first.
        return super().truncate(size)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError


class _NotWrittenError(Exception):
    """A path could not be written; the main thread finds the words for the reason."""

    def __init__(self, path: str, reason: Exception) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


@contextmanager
def _writing(path: str, kind: type[Exception] = Exception) -> Iterator[None]:
    # Any exception of a store's client, see store_errors.py. Never in the main thread, where it could be a kill.
    try:
        yield
    except kind as error:
        raise _NotWrittenError(path, error) from error
