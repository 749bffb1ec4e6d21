"""A picture, as its content describes it; its file's name does not count."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from PIL import Image

from airflow_provider_odirouter.images import formats
from airflow_provider_odirouter.images.formats import Format, Kind, identify
from airflow_provider_odirouter.images.structure import (
    Structure,
    check_end,
    size_of,
    walk,
    without_notes,
)
from airflow_provider_odirouter.images.transparency import has_alpha, is_opaque

EXTENSIONS = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "GIF": "gif"}

MAX_PIXELS = 89_478_485
"""Of a decoded picture: a quarter of a gigabyte as RGB. Pillow warns above it, and refuses at twice as many."""

BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow raises on broken files. Not every exception: a kill raises its own, in the main thread."""
DECODED = {"PNG": formats.PNG, "JPEG": formats.JPEG, "WEBP": formats.WEBP, "GIF": formats.GIF}
"""The formats that are decoded, by Pillow's names."""

ORIENTATION = 0x0112
"""EXIF's number of the field."""
_UPRIGHT = 1


class UnusablePictureError(ValueError):
    """A file is not a whole picture of a known format; the text continues a sentence that begins with its name."""


@dataclass(frozen=True)
class Picture:
    """
    The properties of a picture.

    :param format: Pillow's name of the format: ``PNG``, ``JPEG``, ``WEBP``, ``GIF``.
    :param width: Pixels as they are stored; so is the height.
    :param is_opaque: Whether no pixel is transparent, not even partly.
    :param orientation: EXIF's number: 1 is upright, 2 to 8 are turned or mirrored when shown.
    :param is_animated: Whether it has more than one frame; only the first is decoded.
    """

    format: str
    width: int
    height: int
    has_alpha: bool
    is_opaque: bool = True
    orientation: int = _UPRIGHT
    is_animated: bool = False

    @property
    def content_type(self) -> str:
        """The media type."""
        return f"image/{self.extension}"

    @property
    def extension(self) -> str:
        """The file name's extension, without the dot."""
        return EXTENSIONS[self.format]

    @property
    def is_turned(self) -> bool:
        """Whether viewers turn or mirror it."""
        return self.orientation != _UPRIGHT

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as they are stored."""
        return self.width, self.height

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as viewers show it."""
        return (self.height, self.width) if self.orientation >= 5 else self.size


def examine(file: IO[bytes]) -> Picture:
    """
    Decode a whole picture, so that a truncated one is found. Only its pixels decide.

    :raises UnusablePictureError: If the file is not a picture, is broken, or is a decompression bomb.
    """
    known = identify(file)
    if known is None or known not in DECODED.values():
        raise UnusablePictureError(describe_other(file, known))
    with _decoded(file, known) as (image, structure):
        can_be_transparent = has_alpha(image, structure)
        return Picture(
            format=next(name for name, one in DECODED.items() if one == known),
            width=image.width,
            height=image.height,
            has_alpha=can_be_transparent,
            is_opaque=not can_be_transparent or is_opaque(image, structure, lambda: open_pixels(file, structure)),
            orientation=orientation_in(structure.exif),
            # The second picture of an MPO is a preview or a depth map, as many phones make them.
            is_animated=structure.frames > 1 or (known != formats.JPEG and getattr(image, "is_animated", False)),
        )


def measure(file: IO[bytes], known: Format) -> tuple[int, int] | None:
    """
    Return width and height of a picture, and find out whether it is whole; ``None``: its size is not known.

    It is decoded if it can be and is not too large; of any other, only the structure is checked.

    :raises UnusablePictureError: If it is broken or truncated.
    """
    try:
        size = size_of(file, known)
        if known not in DECODED.values() or (size and size[0] * size[1] > MAX_PIXELS):
            check_end(file, known)
            return size
        if known == formats.GIF:  # Only its first frame is decoded.
            check_end(file, known)
    except BROKEN as error:
        raise UnusablePictureError(f"is a broken or truncated {known.name}: {error}") from error
    with _decoded(file, known) as (image, _):
        return image.size


def describe_other(file: IO[bytes], known: Format | None) -> str:
    """Say what a file is that is none of the pictures that are decoded."""
    if known and (known.kind is Kind.PICTURE or known == formats.PDF):
        return f"is {known.name}; convert it to JPEG or PNG"
    if known:
        return f"is {known.with_article}, not a PNG, JPEG or WebP picture"
    file.seek(0)
    begin = file.read(16)
    if not begin:
        return "is empty (0 bytes)"
    return f"is not a PNG, JPEG or WebP picture; its content begins with {begin!r}"


@contextmanager
def _decoded(file: IO[bytes], known: Format) -> Iterator[tuple[Image.Image, Structure]]:
    """Decode a picture, without what its file holds beside the pixels."""
    try:
        if size := size_of(file, known):
            _check_size(size)
        structure = walk(file, known)
        with open_pixels(file, structure) as image:
            image.load()
            yield image, structure
    except Image.DecompressionBombError as error:
        raise UnusablePictureError(f"is too large a picture to be safe: {error}") from error
    except BROKEN as error:
        raise UnusablePictureError(f"is a broken or truncated picture: {error}") from error


def open_pixels(file: IO[bytes], structure: Structure) -> Image.Image:
    """Open a picture with Pillow, without what its file holds beside the pixels: it may be huge, broken or cut."""
    return Image.open(without_notes(file, structure), formats=list(EXTENSIONS))


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(
            f"it has {width}x{height} pixels; at most {MAX_PIXELS:,} altogether are decoded"
        )


def orientation_in(exif: bytes) -> int:
    """Return how viewers turn a picture; broken EXIF data turn nothing."""
    found = Image.Exif()
    try:
        found.load(exif)
        orientation = found.get(ORIENTATION, _UPRIGHT)
    except (*BROKEN, Warning):
        return _UPRIGHT
    return orientation if orientation in range(_UPRIGHT, 9) else _UPRIGHT
