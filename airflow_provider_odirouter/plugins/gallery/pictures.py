"""Pictures out of their stores, for a browser: as they are, or small."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from airflow.sdk.io import get_fs

from airflow_provider_odirouter.images.paths import (
    LOCAL_PROTOCOLS,
    connection_of,
    scheme_of,
    storage_path,
    without_password,
)
from airflow_provider_odirouter.images.picture import UnusablePictureError
from airflow_provider_odirouter.images.preview import content_type, editable_part, thumbnail
from airflow_provider_odirouter.images.stores import in_words
from airflow_provider_odirouter.plugins.gallery.turns import TooSlowError, in_turn, making, reading

MOST_BYTES = 100 * 2**20
"""As many as an output may have to be landed."""
CHUNK = 2**20
CACHED = 256
"""Thumbnails, about 30 KiB each."""
STORE_SECONDS = 300
"""How long a store's client is used: Airflow's own would be kept for ever, with the connection as it was."""


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

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield its content."""
        try:
            self._file.seek(0)
            while chunk := await in_turn(reading, partial(self._file.read, CHUNK)):
                yield chunk
        finally:
            self.close()

    def close(self) -> None:
        """Close it, if nobody wants its content any more."""
        self._file.close()


async def whole_picture(place: str, sha256: str) -> WholePicture:
    """Open a picture; see :class:`WholePicture`."""
    with _not_too_slow():
        return await in_turn(reading, partial(WholePicture, place, sha256), unwanted=WholePicture.close)


async def small_picture(place: str, sha256: str, *, cover: bool = False) -> bytes:
    """Return a small WebP of a picture; see :func:`make_small`."""
    with _not_too_slow():
        return await in_turn(making, partial(make_small, place, sha256, cover=cover))


@lru_cache(maxsize=CACHED)
def make_small(place: str, sha256: str, *, cover: bool = False) -> bytes:
    """
    Return a small WebP of a picture.

    :param sha256: What it must have: nothing else may be served in its place.
    :param cover: What covers the editable part, if the picture is a mask.
    :raises NotShownError: If it is not there, or cannot be decoded.
    """
    with _not_shown(place):
        with _open(place) as file:
            _size(file, place)
            content = BytesIO(file.read(MOST_BYTES))
        _check_digest(content, place, sha256)
        return editable_part(content) if cover else thumbnail(content)


def now() -> float:
    """Seconds of a clock that nobody sets."""
    return time.monotonic()


def _open(place: str) -> IO[bytes]:
    if scheme_of(place) in LOCAL_PROTOCOLS:
        path = Path(storage_path(place).path)
        if not path.is_file() or not path.stat().st_size:
            # To read a pipe, a device or some of /proc could take for ever.
            raise FileNotFoundError(place)
        return path.open("rb")
    store = _store(scheme_of(place), connection_of(place), int(now() // STORE_SECONDS))
    # By default, S3's client reads 50 MiB ahead.
    file: IO[bytes] = store.open(re.sub("://[^/?#]*@", "://", place, count=1), "rb", block_size=CHUNK)
    return file


@lru_cache(maxsize=16)
def _store(scheme: str, conn_id: str | None, _: int) -> Any:
    """Return a store's client; the last argument makes it a new one now and then."""
    return get_fs(scheme, conn_id)


@contextmanager
def _not_too_slow() -> Iterator[None]:
    try:
        yield
    except TooSlowError as error:
        raise NotShownError("The store, or the API server, is too slow. Load the page again later.", 503) from error


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
