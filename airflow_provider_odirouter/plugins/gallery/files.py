"""
Files of any store for a browser: pictures as they are or small, and the reason if one cannot be shown.

A person who can write a task's XComs can name any file here. So a missing file, one with another content than the task
has recorded, and one that is not a picture get the same answer: it must not tell which files exist.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from airflow.sdk.io import get_fs

from airflow_provider_odirouter.images.picture import UnusablePictureError
from airflow_provider_odirouter.images.preview import TooLargePictureError, content_type, editable_part, thumbnail
from airflow_provider_odirouter.plugins.gallery.threads import decoder, run_read, submit_read, wait_for_shared
from airflow_provider_odirouter.redaction import raises_without_traceback, shorten_url
from airflow_provider_odirouter.storage.paths import LOCAL_PROTOCOLS, PathError, connection_of, scheme_of, storage_path
from airflow_provider_odirouter.storage.store_errors import describe_error
from airflow_provider_odirouter.storage.threads import TooSlowError

log = logging.getLogger(__name__)

MAX_BYTES = 100 * 2**20
"""Of a picture that is shown."""
MAX_MEMORY_BYTES = 8 * 2**20
"""Of a picture that is read to be decoded; the rest is on the disk."""
CHUNK_BYTES = 2**20
CLIENT_SECONDS = 300
"""How long a store's client is used. Airflow would keep one for ever, with the connection as it was at first."""
MAX_THUMBNAILS = 256
"""In the cache; each has about 30 KiB."""


NOT_FOUND = "not found, or changed since the task wrote it."


class DisplayError(Exception):
    """
    Something cannot be shown; the text says why, for the person at the browser.

    :param status_code: HTTP's status of the answer.
    """

    def __init__(self, what: str, status_code: int) -> None:
        super().__init__(what)
        self.status_code = status_code


class _OtherContentError(Exception):
    """A file is not the one that the task has recorded."""


def store_of(path: str) -> str:
    """Return a name of the store of a path: its scheme and its connection."""
    scheme = scheme_of(path)
    return "" if scheme in LOCAL_PROTOCOLS else f"{scheme}://{connection_of(path) or ''}"


def now() -> float:
    """Return the seconds of a clock that is never set."""
    return time.monotonic()


def open_file(path: str, *, follow_links: bool = True) -> IO[bytes]:
    """
    Open a file of a store.

    :param follow_links: Whether to follow a symbolic link. No, where the name alone is the permission to read the file.
    """
    if scheme_of(path) in LOCAL_PROTOCOLS:
        local = Path(storage_path(path).path)
        if not local.is_file() or not local.stat().st_size:
            # Reading a pipe, a device or some files of /proc could take for ever.
            raise FileNotFoundError(path)
        flags = 0 if follow_links else os.O_NOFOLLOW
        return open(local, "rb", opener=lambda name, mode: os.open(name, mode | flags))
    store = _store(scheme_of(path), connection_of(path), int(now() // CLIENT_SECONDS))
    # By default, S3's client reads 50 MiB ahead.
    file: IO[bytes] = store.open(re.sub("://[^/?#]*@", "://", path, count=1), "rb", block_size=CHUNK_BYTES)
    return file


def checked_size(file: IO[bytes], path: str) -> int:
    """
    Return the size of a file in bytes.

    :raises DisplayError: If it is more than :data:`MAX_BYTES`.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if size > MAX_BYTES:
        raise DisplayError(f"{shorten_url(path)} has more than {MAX_BYTES // 2**20} MiB.", 413)
    return size


@contextmanager
def as_display_errors(path: str) -> Iterator[None]:
    """Turn each error of reading a file into a :class:`DisplayError`."""
    try:
        yield
    except DisplayError:
        raise
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DisplayError(f"The API server finds no file {shorten_url(path)}.", 404) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise DisplayError(f"{shorten_url(path)} is a symbolic link, which is not followed.", 404) from error
        # Each store's client has its own errors.
        raise DisplayError(
            f"The API server cannot read {shorten_url(path)}: {describe_error(error, path)}.", 502
        ) from error


@contextmanager
def as_one_answer(path: str) -> Iterator[None]:
    """Turn each error of reading a picture into a :class:`DisplayError` that does not tell whether the file exists."""
    with as_display_errors(path):
        try:
            yield
        except TooLargePictureError as error:  # It is the file that the task has recorded.
            raise DisplayError(f"{shorten_url(path)} {error}.", 413) from error
        except (FileNotFoundError, IsADirectoryError, _OtherContentError, UnusablePictureError) as error:
            raise _not_found(path, error) from error
        except (OSError, PathError) as error:
            if scheme_of(path) in LOCAL_PROTOCOLS:
                raise _not_found(path, error) from error
            raise


def _not_found(path: str, error: Exception) -> DisplayError:
    log.info("The gallery does not show %s: %r", shorten_url(path), error)
    return DisplayError(f"{shorten_url(path)}: {NOT_FOUND}", 404)


@contextmanager
def slowness_as_display_error() -> Iterator[None]:
    """Turn :class:`TooSlowError` into a :class:`DisplayError`."""
    try:
        yield
    except TooSlowError as error:
        raise DisplayError("The store or the API server is too slow. Load the page again later.", 503) from error


class WholePicture:
    """
    A picture as it is; its digest and its type are checked before its first byte is sent.

    :param sha256: The digest that the picture must have: no other file may be served in its place.
    :param any_file: Whether the file may be another one than a picture that browsers show; its type is neutral then.
    :raises DisplayError: If the file is missing, or may not be sent.
    """

    @raises_without_traceback(DisplayError)
    def __init__(self, path: str, sha256: str, *, any_file: bool = False) -> None:
        self._store = store_of(path)
        with as_one_answer(path):
            self._file = open_file(path)
            try:
                self.size = _size(self._file)
                _copy(self._file, None, sha256)
                self.content_type = _type_of_any(self._file) if any_file else content_type(self._file)
            except BaseException:
                self._file.close()
                raise

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield its content, and close it."""
        try:
            self._file.seek(0)
            while chunk := await run_read(self._store, partial(self._file.read, CHUNK_BYTES)):
                yield chunk
        finally:
            self.close()

    def close(self) -> None:
        """Close its file."""
        self._file.close()


def _type_of_any(file: IO[bytes]) -> str:
    """Return the media type of a file: of one that browsers could run, such as SVG, a neutral one."""
    try:
        return content_type(file)
    except UnusablePictureError:
        return "application/octet-stream"


async def open_whole(path: str, sha256: str, *, any_file: bool = False) -> WholePicture:
    """Open a picture in a thread; see :class:`WholePicture`."""
    with slowness_as_display_error():
        return await run_read(
            store_of(path), partial(WholePicture, path, sha256, any_file=any_file), discard=WholePicture.close
        )


_small: dict[tuple[str, str, bool], Future[bytes]] = {}
"""Small pictures that are made, or are being made, in the order of their first use."""
_lock = threading.Lock()


async def small_picture(path: str, sha256: str, *, cover: bool = False) -> bytes:
    """
    Make a small picture in a thread, once for all who ask for it at the same time or soon after.

    :param sha256: The digest that the picture must have: no other file may be served in its place.
    :param cover: Whether the picture is a mask, and the small one covers its editable part.
    :raises DisplayError: If the picture is missing, or cannot be decoded.
    """
    key = (path, sha256, cover)
    with slowness_as_display_error():
        with _lock:
            future = _small.get(key)
            is_new = future is None
            if future is None:
                future = _small[key] = submit_read(store_of(path), partial(_make_small, path, sha256, cover=cover))
            if len(_small) > MAX_THUMBNAILS:
                del _small[next(iter(_small))]
        if is_new:
            future.add_done_callback(partial(_forget_failure, key))
        return await wait_for_shared(future)


def _forget_failure(key: tuple[str, str, bool], future: Future[bytes]) -> None:
    if future.cancelled() or future.exception():
        with _lock:
            if _small.get(key) is future:
                del _small[key]


@raises_without_traceback(DisplayError)
def _make_small(path: str, sha256: str, *, cover: bool) -> bytes:
    with as_one_answer(path), SpooledTemporaryFile(MAX_MEMORY_BYTES) as content:
        with open_file(path) as file:
            _size(file)
            _copy(file, content, sha256)
        # The store's thread waits, so that a store has no more than its share of what is read and not decoded yet.
        return decoder.submit(editable_part if cover else thumbnail, content).result()


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    if size > MAX_BYTES:
        raise _OtherContentError(f"it has more than {MAX_BYTES // 2**20} MiB")
    return size


def _copy(file: IO[bytes], copy: IO[bytes] | None, sha256: str) -> None:
    """Read a whole file, and check its digest."""
    digest, left = hashlib.sha256(), MAX_BYTES
    while left > 0 and (chunk := file.read(CHUNK_BYTES)):
        digest.update(chunk)
        left -= len(chunk)
        if copy is not None:
            copy.write(chunk)
    if digest.hexdigest() != sha256:
        raise _OtherContentError("its content is not the one that the task has recorded")
    (copy or file).seek(0)


@lru_cache(maxsize=16)
def _store(scheme: str, conn_id: str | None, _period: int) -> Any:
    """Return a store's client; each new period makes a new one."""
    return get_fs(scheme, conn_id)
