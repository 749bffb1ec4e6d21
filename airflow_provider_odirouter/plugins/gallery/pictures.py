"""Pictures out of their stores, for a browser: as they are, or small."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import BoundedSemaphore
from typing import IO

from airflow_provider_odirouter.images.paths import is_local, storage_path, without_password
from airflow_provider_odirouter.images.picture import UnusablePictureError
from airflow_provider_odirouter.images.preview import content_type, editable_part, thumbnail
from airflow_provider_odirouter.images.stores import in_words

MOST_BYTES = 100 * 2**20
"""As many as an output may have to be landed."""
CHUNK = 2**20
CACHED = 256
"""Thumbnails, about 30 KiB each."""
MOST_AT_ONCE = 2
"""Thumbnails in the making: a decoded picture takes memory, which the API server needs for others too."""

PATIENCE = 20.0
"""Seconds to wait for one's turn: each who waits holds one of the API server's threads."""

_making = BoundedSemaphore(MOST_AT_ONCE)


class NotShownError(Exception):
    """
    A picture cannot be shown.

    :param status_code: What the browser is told.
    """

    def __init__(self, what: str, status_code: int) -> None:
        super().__init__(what)
        self.status_code = status_code


class WholePicture:
    """
    A picture as it is, looked into before the first byte goes out.

    :param sha256: What it must have: nothing else may be served in its place.
    :raises NotShownError: If it is not there, or no picture.
    """

    def __init__(self, place: str, sha256: str) -> None:
        with _not_shown(place):
            self._file = _open(place)
            try:
                self.size = _size(self._file, place)
                _check_digest(self._file, place, sha256)
                self.content_type = content_type(self._file)
            except BaseException:
                self._file.close()
                raise

    def chunks(self) -> Iterator[bytes]:
        """Yield its content."""
        try:
            self._file.seek(0)
            while chunk := self._file.read(CHUNK):
                yield chunk
        finally:
            self._file.close()


@lru_cache(maxsize=CACHED)
def small_picture(place: str, sha256: str, *, cover: bool = False) -> bytes:
    """
    Return a small WebP of a picture.

    :param sha256: What it must have: nothing else may be served in its place.
    :param cover: What covers the editable part, if the picture is a mask.
    :raises NotShownError: If it is not there, or cannot be decoded.
    """
    if not _making.acquire(timeout=PATIENCE):
        raise NotShownError("The API server is busy with other pictures. Load the page again later.", 503)
    try:
        with _not_shown(place):
            with _open(place) as file:
                _size(file, place)
                content = BytesIO(file.read(MOST_BYTES))
            _check_digest(content, place, sha256)
            return editable_part(content) if cover else thumbnail(content)
    finally:
        _making.release()


def _open(place: str) -> IO[bytes]:
    path = storage_path(place)
    if is_local(path) and not Path(path.path).is_file():
        # To open a pipe or a device could take for ever.
        raise FileNotFoundError(place)
    file: IO[bytes] = path.open("rb")
    return file


def _size(file: IO[bytes], place: str) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    if size > MOST_BYTES:
        raise NotShownError(f"{without_password(place)} has more than {MOST_BYTES // 2**20} MiB.", 413)
    return size


def _check_digest(file: IO[bytes], place: str, sha256: str) -> None:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    file.seek(0)
    if digest.hexdigest() != sha256:
        raise NotShownError(f"{without_password(place)} is not the picture any more that the task has seen.", 410)


@contextmanager
def _not_shown(place: str) -> Iterator[None]:
    try:
        yield
    except NotShownError:
        raise
    except UnusablePictureError as error:
        raise NotShownError(f"{without_password(place)} {error}.", 415) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotShownError(f"The API server finds no file {without_password(place)}.", 404) from error
    except Exception as error:
        # Each store's client has errors of its own.
        raise NotShownError(
            f"The API server cannot read {without_password(place)}: {in_words(error, place)}.", 502
        ) from error
