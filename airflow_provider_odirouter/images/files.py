"""Files in any store: read as far as allowed, written whole or not at all."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from airflow_provider_odirouter.images.lineage import note_input, note_output
from airflow_provider_odirouter.images.paths import is_local, shown
from airflow_provider_odirouter.images.stores import in_words

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

BLOCK_BYTES = 8 * 2**20
"""What a store's client keeps in memory: a larger file goes up in parts. Its own default is 50 MiB for S3."""
COPY_BYTES = 2**20


def read(path: ObjectStoragePath, most: int, *, told: bool = True) -> bytes:
    """
    Return what a file holds, up to one byte more than ``most``.

    :param told: Whether the lineage is told of it.
    :raises IsADirectoryError: If it is a folder.
    """
    if is_local(path):
        if told:
            note_input(path)
        with Path(path.path).open("rb") as local:
            return local.read(most + 1)
    with (path.open if told else partial(path.fs.open, path.path))("rb", block_size=COPY_BYTES) as file:
        data: bytes = file.read(most + 1)
    if not data and path.fs.isdir(path.path):  # which some clients read as an empty file
        raise IsADirectoryError(str(path))
    return data


def write_whole(source: IO[bytes], path: ObjectStoragePath, *, told: bool = True) -> None:
    """
    Write a file so that nobody ever sees half of it under its name, however this ends.

    :param told: Whether the lineage is told of it.
    """
    source.seek(0)
    if is_local(path):
        _write_local(source, Path(path.path))
        if told:
            note_output(path)
        return
    target = (path.open if told else partial(path.fs.open, path.path))("wb", block_size=BLOCK_BYTES)
    try:
        shutil.copyfileobj(source, target, COPY_BYTES)
        target.close()
    except BaseException:
        _discard(target, path)
        raise


def make_folder(folder: ObjectStoragePath) -> None:
    """Make a folder of this worker's own file system; in a store there are none."""
    if is_local(folder):
        Path(folder.path).mkdir(parents=True, exist_ok=True)


def files_below(folder: ObjectStoragePath) -> list[str]:
    """Return the paths of all files in a folder and below it, relative to it; nothing, if there is no folder."""
    if is_local(folder):
        local = Path(folder.path)
        return [str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()]
    fs = folder.fs
    fs.invalidate_cache(folder.path)  # some clients remember what they have listed
    try:
        # Not ls(): for a folder that is not there, S3's client would list all that lie beside it.
        found = fs.find(folder.path)
    except FileNotFoundError:
        return []
    root = f"{folder.path.strip('/')}/"
    return [path.lstrip("/").removeprefix(root) for path in found if path.lstrip("/").startswith(root)]


def remove(path: ObjectStoragePath) -> None:
    """Remove a file, if it is there."""
    try:
        if is_local(path):
            Path(path.path).unlink()
        else:
            path.fs.rm_file(path.path)
    except FileNotFoundError:
        pass


def remove_empty_folder(folder: ObjectStoragePath) -> None:
    """Remove a folder of this worker's own file system, if it is empty; in a store there are none."""
    if is_local(folder):
        with suppress(OSError):  # it is not empty, or is gone already
            Path(folder.path).rmdir()


def try_to_write(folder: ObjectStoragePath) -> None:
    """
    Find out whether files can be written to a folder, and leave nothing there.

    A local folder is created. In a store there are none, and a bucket is not ours to create.
    """
    name = f".odirouter-probe-{uuid4().hex}"
    if is_local(folder):
        make_folder(folder)
        local = Path(folder.path, name)
        local.touch()
        local.unlink()
        return
    # Not through ObjectStoragePath.open: for the lineage, this is no output.
    path = folder / name
    file = path.fs.open(path.path, "wb", autocommit=False)
    if not _can_discard(file):
        file.close()
        path.fs.rm_file(path.path)
        return
    # An upload that is begun and thrown away needs the right to write, and no other. A whole object would also need the
    # right to delete it, would set off the bucket's events, and would stay for ever where versions are kept.
    try:
        file.flush(force=True)
    finally:
        _discard(file, path)


def _write_local(source: IO[bytes], path: Path) -> None:
    left = path.with_name(f".{path.name}.part")
    part = left
    try:
        target = part.open("xb")
    except FileExistsError:
        # A process that died has left it, or one that was frozen would go on with it: never two write to one file.
        part = path.with_name(f".{path.name}.{uuid4().hex}.part")
        target = part.open("xb")
    try:
        with target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if part != left:
        left.unlink(missing_ok=True)


def _can_discard(file: Any) -> bool:
    return isinstance(file, AbstractBufferedFile) and type(file).discard is not AbstractBufferedFile.discard


def _discard(file: Any, path: ObjectStoragePath) -> None:
    """Throw a half-written file away: closing it, and even forgetting it, would publish the half."""
    file = getattr(file, "_obj", file)  # Airflow's wrapper hands on calls, but no assignments.
    try:
        file.discard()
        if not isinstance(file, AbstractBufferedFile):  # It lies there already.
            file.close()
            path.fs.rm_file(path.path)
    except Exception as error:  # noqa: BLE001 - of any store's client; the error before it counts more
        place = str(path)
        log.warning("What was written of %s could not be thrown away: %s", shown(place), in_words(error, place))
    finally:
        if isinstance(file, AbstractBufferedFile):
            file.closed = True
