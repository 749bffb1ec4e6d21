"""Small previews of the pictures that the service takes and returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO, NamedTuple

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from airflow_provider_odirouter.images.formats import Format, identify
from airflow_provider_odirouter.images.picture import (
    BROKEN,
    DECODED,
    ORIENTATION,
    UnusablePictureError,
    open_pixels,
    orientation_in,
)
from airflow_provider_odirouter.images.picture import MAX_PIXELS as MAX_INPUT_PIXELS
from airflow_provider_odirouter.images.structure import Structure, walk, without_notes
from airflow_provider_odirouter.images.transparency import set_transparency

THUMBNAIL_SIZE = (512, 512)
"""Pixels; a smaller picture keeps its size."""
MAX_DECODE_BYTES = 320 * 2**20
"""
What decoding may take, as estimated from the header. The service's pictures take 20 MiB; this is enough for 25 million
pixels as PNG, 19 million as WebP, and 50 million as a progressive JPEG of the largest kind.
"""
BYTES_PER_PIXEL = {"PNG": 13, "GIF": 6, "WEBP": 17, "JPEG": 9}
"""Of a decode and of what follows it, as measured with the worst kind of each format."""
BYTES_PER_COEFFICIENT = 2
"""A JPEG of several scans is decoded in two steps: all its coefficients are in memory, at its full size."""
MAX_SCANS = 64
"""Of a progressive JPEG, which usually has about ten. Thousands take minutes to decode, in a small file, too."""
START_OF_SCAN = b"\xff\xda"
MARKERS_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
MAX_HEADER_BYTES = 2**20
"""Before the first scan of a JPEG, without its notes. Behind more, it counts as one of several scans."""
BLOCK_SIZE = 8
"""Pixels of a JPEG's block in each direction."""
CHUNK_BYTES = 2**20

COVER = (214, 51, 132, 140)
"""The colour over the editable part: half transparent, and rare in photographs."""


def content_type(file: IO[bytes]) -> str:
    """
    Return the media type of a picture, from its content, without decoding it.

    :raises UnusablePictureError: If the content is not a picture, such as SVG or HTML, whatever its name is.
    """
    with _opened(file) as opened:
        return opened.format.content_type


def thumbnail(file: IO[bytes]) -> bytes:
    """
    Make a small WebP of a picture, turned upright as its EXIF data say.

    :raises UnusablePictureError: If the file is not a picture, is broken, or is too large to be decoded.
    """
    with _opened(file) as opened:
        _prepare(opened)
        small = _in_8_bits(opened.image)
        small.thumbnail(THUMBNAIL_SIZE)
        small.getexif()[ORIENTATION] = orientation_in(opened.structure.exif)
        return _webp(ImageOps.exif_transpose(small))


def editable_part(mask: IO[bytes]) -> bytes:
    """
    Make a small WebP that covers the editable part of a mask, and is transparent elsewhere.

    :raises UnusablePictureError: As :func:`thumbnail`.
    """
    with _opened(mask) as opened:
        _prepare(opened)
        alpha = opened.image.convert("RGBA").getchannel("A")
        alpha.thumbnail(THUMBNAIL_SIZE)
        cover = Image.new("RGBA", alpha.size, COVER)
        cover.putalpha(alpha.point(lambda opacity: (255 - opacity) * COVER[3] // 255))
        return _webp(cover)


class TooLargePictureError(UnusablePictureError):
    """Decoding a picture would take too much memory or time."""


class _Opened(NamedTuple):
    """A picture whose header is read."""

    image: Image.Image
    format: Format
    structure: Structure
    pixels: IO[bytes]
    """The file without its notes."""


@contextmanager
def _opened(file: IO[bytes]) -> Iterator[_Opened]:
    known = identify(file)
    if known is None or known not in DECODED.values():
        raise UnusablePictureError("is not a PNG, JPEG, WebP or GIF picture")
    try:
        structure = walk(file, known)
        with open_pixels(file, structure) as image:
            set_transparency(image, structure)
            yield _Opened(image, known, structure, without_notes(file, structure))
    except Image.DecompressionBombError as error:
        raise TooLargePictureError(f"has too many pixels to be shown: {error}") from error
    except UnusablePictureError:
        raise
    except BROKEN as error:
        raise UnusablePictureError(f"is a broken or truncated picture: {error}") from error


def _prepare(opened: _Opened) -> None:
    """
    Let a JPEG be decoded at a smaller size, and estimate what decoding takes.

    :raises TooLargePictureError: If it takes too much.
    """
    image = opened.image
    size, kept = image.size, 0
    if size[0] * size[1] > MAX_INPUT_PIXELS:
        raise TooLargePictureError(f"has {size[0]}x{size[1]} pixels, too many to be shown")
    if isinstance(image, JpegImageFile):
        if _has_many_scans(opened.pixels):
            raise TooLargePictureError("is a JPEG with too many scans to be shown")
        kept = _coefficients(image, opened.pixels) * BYTES_PER_COEFFICIENT
        image.draft("RGB", THUMBNAIL_SIZE)
    if kept + image.width * image.height * BYTES_PER_PIXEL[str(image.format)] > MAX_DECODE_BYTES:
        why = ", as a JPEG of several scans" if kept else ""
        raise TooLargePictureError(f"has {size[0]}x{size[1]} pixels{why}, too many to be shown")


def _has_many_scans(pixels: IO[bytes]) -> bool:
    pixels.seek(0)
    scans, end = 0, b""
    while chunk := pixels.read(CHUNK_BYTES):
        scans += (end + chunk).count(START_OF_SCAN)
        end = chunk[-1:]
    return scans > MAX_SCANS


def _coefficients(image: JpegImageFile, pixels: IO[bytes]) -> int:
    """Return how many coefficients are in memory at once: none, if the first scan has all components and is whole."""
    components = [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer]
    if not image.info.get("progressive") and _components_of_first_scan(pixels) == len(components):
        return 0
    widest, highest = (max(factors) for factors in zip(*components, strict=True))
    return sum(
        _blocks(image.width, horizontal, widest) * _blocks(image.height, vertical, highest) * BLOCK_SIZE**2
        for horizontal, vertical in components
    )


def _blocks(pixels: int, factor: int, largest: int) -> int:
    """Return the number of a component's blocks in one direction, which is a multiple of its sampling factor."""
    return -(-pixels // (BLOCK_SIZE * largest)) * factor


def _components_of_first_scan(pixels: IO[bytes]) -> int:
    """Return how many components the first scan of a JPEG has; 0, if it cannot be found."""
    pixels.seek(0)
    data = pixels.read(MAX_HEADER_BYTES)
    position = 2
    while position + 4 < len(data):
        marker = data[position : position + 2]
        if marker == START_OF_SCAN:
            return data[position + 4]
        if marker[0] != 0xFF or marker[1] == 0xFF:
            position += 1  # Decoders skip what lies between segments.
        elif marker[1] in MARKERS_WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return 0


def _in_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion makes every value above 255, of 65,535, white.
        return image.point(lambda value: value * (1 / 256)).convert("L")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _webp(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
