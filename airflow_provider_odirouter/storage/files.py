"""
Files in any store: read up to a limit, written whole or not at all.

What was written survives the death of the machine: a store's object does by itself, and a local file is synced, before
its name is, and the names of new folders, too. A picture is synced like the state that says that it has landed: a new
try pays for no second one.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from airflow_provider_odirouter.storage.lineage import note_input, note_output
from airflow_provider_odirouter.storage.paths import is_local, quote_path
from airflow_provider_odirouter.storage.store_errors import describe_error

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+")
"""Nothing else becomes a part of a store's request."""

BLOCK_BYTES = 8 * 2**20
"""Bytes that a store's client keeps in memory; a larger file is uploaded in parts. S3's own default is 50 MiB."""
COPY_BYTES = 2**20
CANNOT_SYNC_FOLDERS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF})
"""What some network file systems answer, which have no sync of a folder."""


def read(path: ObjectStoragePath, max_bytes: int, *, track_lineage: bool = True) -> bytes:
    """
    Return the content of a file, up to one byte more than ``max_bytes``.

    :param track_lineage: Whether to report the file to Airflow's lineage.
    :raises IsADirectoryError: If it is a folder.
    """
    if is_local(path):
        if track_lineage:
            note_input(path)
        with Path(path.path).open("rb") as local:
            # read() takes memory for all that it is asked for: thousands of calls would leave holes in the heap.
            size = min(os.fstat(local.fileno()).st_size, max_bytes)
            content = local.read(size + 1)
            # A pipe has no size, and a file may grow.
            return content if len(content) <= size else content + local.read(max_bytes - size)
    with (path.open if track_lineage else partial(path.fs.open, path.path))("rb", block_size=COPY_BYTES) as file:
        data: bytes = file.read(max_bytes + 1)
    if not data and path.fs.isdir(path.path):  # Some clients read a folder as an empty file.
        raise IsADirectoryError(str(path))
    return data


def digest_of(path: ObjectStoragePath) -> str:
    """Return the SHA-256 of a file. It is not reported to Airflow's lineage."""
    digest = hashlib.sha256()
    with Path(path.path).open("rb") if is_local(path) else path.fs.open(path.path, "rb", block_size=COPY_BYTES) as file:
        while piece := file.read(COPY_BYTES):
            digest.update(piece)
    return digest.hexdigest()


class TakenError(FileExistsError):
    """Another file has this path, and must not be replaced."""


def write_whole(
    source: IO[bytes],
    path: ObjectStoragePath,
    *,
    content_type: str | None = None,
    track_lineage: bool = True,
    may_replace: bool = True,
) -> None:
    """
    Write a file so that its path never holds half of it, even if the process is killed or the machine dies.

    :param content_type: The media type that a store keeps beside the object; a file system keeps none.
    :param track_lineage: Whether to report the file to Airflow's lineage.
    :param may_replace: Whether a file that is there may be replaced. If not, a store is asked before the write: it may
        replace a file that another process writes meanwhile.
    :raises TakenError: If a file is there, and must not be replaced.
    """
    source.seek(0)
    if is_local(path):
        _write_local(source, Path(path.path), may_replace=may_replace)
        if track_lineage:
            note_output(path)
        return
    if not may_replace:
        path.fs.invalidate_cache(path.parent.path)  # some clients remember what they have listed
        if path.fs.exists(path.path):
            raise TakenError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    open_path = path.open if track_lineage else partial(path.fs.open, path.path)
    target = open_path("wb", block_size=BLOCK_BYTES, **_content_type_option(path.protocol, content_type))
    try:
        shutil.copyfileobj(source, target, COPY_BYTES)
        target.close()
    except BaseException:
        _discard(target, path)
        raise


def _content_type_option(protocol: str, content_type: str | None) -> dict[str, Any]:
    """Return the option by which a store's client learns an object's type; each client has its own."""
    if not content_type or not _CONTENT_TYPE.fullmatch(content_type):
        return {}
    match protocol:
        case "s3" | "s3a" | "s3n":
            return {"ContentType": content_type}
        case "gs" | "gcs":
            return {"content_type": content_type}
        case "abfs" | "abfss" | "adl":
            return {"content_settings": {"content_type": content_type}}  # adlfs before 2026.8 ignores it
    return {}


def make_folder(folder: ObjectStoragePath) -> None:
    """Make a local folder; a store has no folders."""
    if is_local(folder):
        local = Path(folder.path)
        missing = list(takewhile(lambda one: not one.exists(), (local, *local.parents)))
        local.mkdir(parents=True, exist_ok=True)
        for one in missing:
            _sync_folder(one.parent)


def files_below(folder: ObjectStoragePath) -> list[str]:
    """Return the paths of all files below a folder, relative to it; a missing folder has none."""
    if is_local(folder):
        local = Path(folder.path)
        return [str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()]
    return _files_of_store(folder)


def _files_of_store(folder: ObjectStoragePath, *, max_depth: int | None = None) -> list[str]:
    fs = folder.fs
    fs.invalidate_cache(folder.path)  # some clients remember what they have listed
    try:
        # Not ls(): for a missing folder, S3's client lists the files beside it.
        found = fs.find(folder.path, maxdepth=max_depth)
    except FileNotFoundError:
        return []
    root = f"{folder.path.strip('/')}/"
    return [path.lstrip("/").removeprefix(root) for path in found if path.lstrip("/").startswith(root)]


def files_in(folder: ObjectStoragePath) -> list[str]:
    """Return the names of all files in a folder, without those in the folders below it; a missing folder has none."""
    if is_local(folder):
        try:
            return [path.name for path in Path(folder.path).iterdir() if not path.is_dir()]
        except FileNotFoundError:
            return []
    return [name for name in _files_of_store(folder, max_depth=1) if "/" not in name]


def is_same_content(source: IO[bytes], path: ObjectStoragePath) -> bool:
    """Return whether a file holds exactly what a source holds."""
    source.seek(0)
    with Path(path.path).open("rb") if is_local(path) else path.fs.open(path.path, "rb") as file:
        while piece := source.read(COPY_BYTES):
            if file.read(len(piece)) != piece:
                return False
        return not file.read(1)


def remove(path: ObjectStoragePath) -> None:
    """Remove a file, if it exists."""
    try:
        if is_local(path):
            Path(path.path).unlink()
        else:
            path.fs.rm_file(path.path)
    except FileNotFoundError:
        pass


def remove_empty_folder(folder: ObjectStoragePath) -> None:
    """Remove a local folder, if it exists and is empty; a store has no folders."""
    if is_local(folder):
        with suppress(OSError):
            Path(folder.path).rmdir()


def check_writable(folder: ObjectStoragePath) -> None:
    """
    Check that files can be written to a folder, and leave nothing there.

    A local folder is created, but never a bucket of a store.
    """
    name = f".odirouter-probe-{uuid4().hex}"
    if is_local(folder):
        make_folder(folder)
        local = Path(folder.path, name)
        local.touch()
        local.unlink()
        return
    # Not through ObjectStoragePath.open(), which would report an output to the lineage.
    path = folder / name
    file = path.fs.open(path.path, "wb", autocommit=False)
    if not _can_discard(file):
        file.close()
        path.fs.rm_file(path.path)
        return
    # An upload that is begun and discarded needs only the right to write. A whole object would also need the right to
    # delete it, would trigger the bucket's events, and would stay for ever in a bucket that keeps versions.
    try:
        file.flush(force=True)
    finally:
        _discard(file, path)


def _write_local(source: IO[bytes], path: Path, *, may_replace: bool = True) -> None:
    usual_part = part = path.with_name(f".{path.name}.part")
    other: os.stat_result | None = None
    try:
        target = part.open("xb")
    except FileExistsError:
        # Its writer has died, is frozen or still writes: two processes must never write to one file.
        with suppress(FileNotFoundError):
            other = usual_part.stat()
        part = path.with_name(f".{path.name}.{uuid4().hex}.part")
        target = part.open("xb")
    try:
        with target:
            shutil.copyfileobj(source, target, COPY_BYTES)
            target.flush()
            # Before the rename: else a power cut can leave the new name with an empty file, or a file of zeros.
            os.fsync(target.fileno())
            is_own = _is_file(part, os.fstat(target.fileno()))
        if is_own:
            if may_replace:
                part.replace(path)
            else:
                _rename_to_free_name(part, path)
            _sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if not is_own:
        raise FileExistsError(errno.EEXIST, "another process has removed or replaced its temporary file", str(path))
    if other and _is_file(usual_part, other):
        # Its writer began earlier: it must not replace this file with an older one. A newer writer's part stays.
        usual_part.unlink(missing_ok=True)


def _rename_to_free_name(part: Path, path: Path) -> None:
    """
    Rename a file, but replace no other.

    :raises TakenError: If there is another.
    """
    try:
        path.hardlink_to(part)
    except FileExistsError as error:
        raise TakenError(*error.args) from error
    except OSError:  # some file systems have no links
        if os.path.lexists(path):
            raise TakenError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        part.replace(path)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive the death of the machine, if the file system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # A user may write to a folder that he may not read.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def _is_file(path: Path, known: os.stat_result) -> bool:
    """Return whether a path is still the file that it was."""
    try:
        return os.path.samestat(path.stat(), known)
    except FileNotFoundError:
        return False


def _can_discard(file: Any) -> bool:
    return isinstance(file, AbstractBufferedFile) and type(file).discard is not AbstractBufferedFile.discard


def _discard(file: Any, path: ObjectStoragePath) -> None:
    """Discard a half-written file: closing it, or only dropping the last reference to it, would publish the half."""
    file = getattr(file, "_obj", file)  # Airflow's wrapper forwards calls, but no assignments.
    try:
        file.discard()
        if not isinstance(file, AbstractBufferedFile):  # Half of it is in the store already.
            file.close()
            path.fs.rm_file(path.path)
    except Exception as error:  # noqa: BLE001 - any error of a store's client; the error of the write matters more
        reason = describe_error(error, str(path))
        log.warning("The incomplete file %s could not be discarded: %s", quote_path(str(path)), reason)
    finally:
        if isinstance(file, AbstractBufferedFile):
            file.closed = True
