"""Pictures out of their stores, for a browser: as they are, or small."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from functools import lru_cache, partial
from io import BytesIO
from typing import IO

from airflow_provider_odirouter.images.preview import content_type, editable_part, thumbnail
from airflow_provider_odirouter.plugins.gallery.files import (
    CHUNK,
    MOST_BYTES,
    NotShownError,
    not_shown,
    not_too_slow,
    open_file,
    size_of,
)
from airflow_provider_odirouter.plugins.gallery.turns import in_turn, making, reading
from airflow_provider_odirouter.redaction import raises_bare, without_password

CACHED = 256
"""Thumbnails, about 30 KiB each."""


class WholePicture:
    """
    A picture as it is, looked into before the first byte goes out.

    :param sha256: What it must have: nothing else may be served in its place.
    :raises NotShownError: If it is not there, or no picture.
    """

    @raises_bare(NotShownError)
    def __init__(self, place: str, sha256: str) -> None:
        with not_shown(place):
            self._file = open_file(place)
            try:
                self.size = size_of(self._file, place)
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
    with not_too_slow():
        return await in_turn(reading, partial(WholePicture, place, sha256), unwanted=WholePicture.close)


async def small_picture(place: str, sha256: str, *, cover: bool = False) -> bytes:
    """Return a small WebP of a picture; see :func:`make_small`."""
    with not_too_slow():
        return await in_turn(making, partial(make_small, place, sha256, cover=cover))


@lru_cache(maxsize=CACHED)
@raises_bare(NotShownError)
def make_small(place: str, sha256: str, *, cover: bool = False) -> bytes:
    """
    Return a small WebP of a picture.

    :param sha256: What it must have: nothing else may be served in its place.
    :param cover: What covers the editable part, if the picture is a mask.
    :raises NotShownError: If it is not there, or cannot be decoded.
    """
    with not_shown(place):
        with open_file(place) as file:
            size_of(file, place)
            content = BytesIO(file.read(MOST_BYTES))
        _check_digest(content, place, sha256)
        return editable_part(content) if cover else thumbnail(content)


def _check_digest(file: IO[bytes], place: str, sha256: str) -> None:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    file.seek(0)
    if digest.hexdigest() != sha256:
        raise NotShownError(f"{without_password(place)} is not the picture any more that the task has seen.", 410)
