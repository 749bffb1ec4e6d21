"""Bringing outputs home: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from airflow_provider_odirouter.errors import LandingError, StorageError
from airflow_provider_odirouter.images.paths import storage_path
from airflow_provider_odirouter.images.picture import UnusablePictureError, examine
from airflow_provider_odirouter.models import LandedOutput, OutputFile

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

Download = Callable[[str, IO[bytes]], None]
"""Writes what lies behind a URL into a file."""

LONGEST_NAME = 120
"""Characters: file systems end at 255 bytes, and a number and an extension follow."""


def stable_name(*parts: str) -> str:
    """
    Make the name that a task instance's files begin with.

    The same parts give the same name in every try, other parts another one, and every store can hold it.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "__".join(parts)).strip(".-")[:LONGEST_NAME]
    # Of the parts, not of what they are together: dag a, task b__c is not dag a__b, task c.
    return f"{readable}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"


def probe(output_path: str) -> None:
    """
    Find out whether files can be written, before anything is paid.

    :raises StorageError: If they cannot.
    """
    try:
        folder = storage_path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f".odirouter-probe-{uuid4().hex}"
        with file.open("wb") as stream:
            stream.write(b"")
        file.unlink()
    except (OSError, ValueError, ImportError) as error:
        raise StorageError(
            f"The output path {output_path!r} cannot be written: {error}. Nothing was submitted yet."
        ) from error


def land(outputs: Sequence[OutputFile], *, output_path: str, name: str, download: Download) -> tuple[LandedOutput, ...]:
    """
    Bring outputs home as ``{output_path}/{name}-{i}.{ext}``, in order.

    :raises LandingError: If one cannot be brought home; those before it are there, whole.
    """
    folder = storage_path(output_path)
    return tuple(_land(output, folder, f"{name}-{index}", download) for index, output in enumerate(outputs))


def _land(output: OutputFile, folder: ObjectStoragePath, name: str, download: Download) -> LandedOutput:
    place: object = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile() as file:
            download(output.url, file)
            landed = _describe(output, file)
            place = path = folder / f"{name}.{_extension(output, landed)}"
            _write_whole(file, path)
    except OSError as error:
        raise StorageError(f"{place} cannot be written: {error}.") from error
    return landed.model_copy(update={"path": str(path)})


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


def _write_whole(file: IO[bytes], path: ObjectStoragePath) -> None:
    """Write a file so that nobody ever sees half of it under its name."""
    file.seek(0)
    if path.protocol not in {"file", ""}:
        # Object stores show an object when it is complete, and not before.
        with path.open("wb") as target:
            shutil.copyfileobj(file, target)
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as target:
            shutil.copyfileobj(file, target)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
