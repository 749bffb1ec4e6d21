"""Reading the pictures to edit, and checking them before anything is paid."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_odirouter.errors import Problem
from airflow_provider_odirouter.images.paths import storage_path
from airflow_provider_odirouter.images.picture import Picture, UnusablePictureError, examine

MAX_INPUT_BYTES = 10 * 2**20
"""The service takes at most 10 MiB a file."""
INPUT_FORMATS = frozenset({"PNG", "JPEG", "WEBP"})


@dataclass(frozen=True)
class Inputs:
    """
    Input pictures as the API takes them: URLs untouched, everything else as bare base64.

    :param problems: Every picture that cannot be used; then the inputs must not be sent.
    """

    images: tuple[str, ...]
    mask: str | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Read:
    encoded: str
    picture: Picture | None
    """``None``: it lies behind a URL and is not looked at."""


def is_url(source: str) -> bool:
    """Return whether the service fetches this input itself."""
    return source.lower().startswith(("http://", "https://"))


def read_inputs(images: Sequence[str], mask: str | None) -> Inputs:
    """
    Read and check all input pictures.

    :param images: ``http(s)`` URLs, or paths that ``ObjectStoragePath`` understands.
    :param mask: The same; checked against the first image, if both are at hand.
    """
    problems: list[Problem] = []
    read = [_read(f"images[{index}]", source, problems) for index, source in enumerate(images)]
    read_mask = _read("mask", mask, problems) if mask else None
    if read_mask and read_mask.picture:
        problems += _mask_problems(read_mask.picture, read[0] if read else None)
    return Inputs(
        images=tuple(one.encoded for one in read if one),
        mask=read_mask.encoded if read_mask else None,
        problems=tuple(problems),
    )


def _read(field: str, source: str, problems: list[Problem]) -> _Read | None:
    if is_url(source):
        return _Read(source, None)
    try:
        data = _bytes_of(source)
        picture = examine(io.BytesIO(data))
    except UnusablePictureError as error:
        problems.append(Problem(field, f"{_shown(source)} {error}"))
        return None
    if picture.format not in INPUT_FORMATS:
        problems.append(Problem(field, f"{_shown(source)} is a {picture.format}; the endpoint takes PNG, JPEG or WebP"))
    return _Read(base64.b64encode(data).decode(), picture)


def _bytes_of(source: str) -> bytes:
    if source.startswith("data:"):
        raise UnusablePictureError("is a data: URL; give a path or an http(s) URL")
    if source.startswith("[") and source.endswith("]"):
        raise UnusablePictureError(
            "looks like a list that a template rendered to text; set render_template_as_native_obj=True on the Dag, "
            "or pass the upstream task's output itself"
        )
    try:
        with storage_path(source).open("rb") as file:
            data: bytes = file.read(MAX_INPUT_BYTES + 1)
    except FileNotFoundError as error:
        raise UnusablePictureError("does not exist, as this worker sees it") from error
    except IsADirectoryError as error:
        raise UnusablePictureError("is a folder, not a picture") from error
    except (OSError, ValueError, ImportError) as error:
        raise UnusablePictureError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_INPUT_BYTES:
        raise UnusablePictureError(f"has more than {MAX_INPUT_BYTES // 2**20} MiB; make it smaller")
    return data


def _mask_problems(mask: Picture, first: _Read | None) -> list[Problem]:
    problems = []
    if not mask.has_alpha:
        problems.append(Problem("mask", "has no alpha channel; its transparent part is what may be edited"))
    edited = first.picture if first else None
    if edited and mask.format != edited.format:
        problems.append(
            Problem("mask", f"is a {mask.format}, but images[0] is a {edited.format}; both must be the same")
        )
    if edited and (mask.width, mask.height) != (edited.width, edited.height):
        size = f"{mask.width}x{mask.height}"
        problems.append(Problem("mask", f"has {size} pixels, but images[0] has {edited.width}x{edited.height}"))
    return problems


def _shown(source: str) -> str:
    return repr(source if len(source) <= 200 else source[:199] + "…")
