"""Files out of any store: opened as they are, and why they cannot be."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from airflow.sdk.io import get_fs

from airflow_provider_odirouter.images.paths import (
    LOCAL_PROTOCOLS,
    connection_of,
    scheme_of,
    storage_path,
)
from airflow_provider_odirouter.images.picture import UnusablePictureError
from airflow_provider_odirouter.images.stores import in_words
from airflow_provider_odirouter.plugins.gallery.turns import TooSlowError
from airflow_provider_odirouter.redaction import without_password

MOST_BYTES = 100 * 2**20
"""As many as an output may have to be landed."""
CHUNK = 2**20
STORE_SECONDS = 300
"""How long a store's client is used: Airflow's own would be kept for ever, with the connection as it was."""


class NotShownError(Exception):
    """
    Something cannot be shown.

    :param status_code: What the browser is told.
    """

    def __init__(self, what: str, status_code: int) -> None:
        super().__init__(what)
        self.status_code = status_code


def now() -> float:
    """Seconds of a clock that nobody sets."""
    return time.monotonic()


def open_file(place: str, *, follow: bool = True) -> IO[bytes]:
    """
    Open a file of a store.

    :param follow: Whether a symbolic link is followed: not where it is the name alone that gives the right to read.
    """
    if scheme_of(place) in LOCAL_PROTOCOLS:
        path = Path(storage_path(place).path)
        if not path.is_file() or not path.stat().st_size:
            # To read a pipe, a device or some of /proc could take for ever.
            raise FileNotFoundError(place)
        flags = 0 if follow else os.O_NOFOLLOW
        return open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags))
    store = _store(scheme_of(place), connection_of(place), int(now() // STORE_SECONDS))
    # By default, S3's client reads 50 MiB ahead.
    file: IO[bytes] = store.open(re.sub("://[^/?#]*@", "://", place, count=1), "rb", block_size=CHUNK)
    return file


def size_of(file: IO[bytes], place: str) -> int:
    """
    Return how many bytes a file has.

    :raises NotShownError: If they are too many.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if size > MOST_BYTES:
        raise NotShownError(f"{without_password(place)} has more than {MOST_BYTES // 2**20} MiB.", 413)
    return size


@contextmanager
def not_shown(place: str) -> Iterator[None]:
    """Say in words why a file cannot be shown."""
    try:
        yield
    except NotShownError:
        raise
    except UnusablePictureError as error:
        raise NotShownError(f"{without_password(place)} {error}.", 415) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotShownError(f"The API server finds no file {without_password(place)}.", 404) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise NotShownError(f"{without_password(place)} is a link, which is not followed.", 404) from error
        # Each store's client has errors of its own.
        raise NotShownError(
            f"The API server cannot read {without_password(place)}: {in_words(error, place)}.", 502
        ) from error


@contextmanager
def not_too_slow() -> Iterator[None]:
    """Say in words that something has taken too long."""
    try:
        yield
    except TooSlowError as error:
        raise NotShownError("The store, or the API server, is too slow. Load the page again later.", 503) from error


@lru_cache(maxsize=16)
def _store(scheme: str, conn_id: str | None, _: int) -> Any:
    """Return a store's client; the last argument makes it a new one now and then."""
    return get_fs(scheme, conn_id)
