"""Small pictures for people to look at, made of pictures of any kind that the service takes or gives."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from airflow_provider_odirouter.images.picture import EXTENSIONS, UnusablePictureError
from airflow_provider_odirouter.images.picture import MOST_PIXELS as MOST_INPUT_PIXELS

THUMBNAIL_SIZE = (512, 512)
"""Pixels; a smaller picture stays as it is."""
MOST_PIXELS = 25_000_000
"""
The service's own have 1.6 million. This many take up to 400 MB while they are decoded; a JPEG, which can be decoded
small, may have as many as an input.
"""
MOST_SCANS = 64
"""Of a progressive JPEG, which has about ten. One of thousands takes minutes to decode, however small it is."""
START_OF_SCAN = b"\xff\xda"

COVER = (214, 51, 132, 140)
"""What lies over the editable part: half transparent, and of a colour that photographs seldom have."""


def content_type(file: IO[bytes]) -> str:
    """
    Tell the media type of a picture from its content, without decoding it.

    :raises UnusablePictureError: If it is no picture: what is SVG or HTML, say, whatever its name is.
    """
    with _opened(file) as image:
        return "image/jpeg" if image.format == "MPO" else f"image/{EXTENSIONS[str(image.format)]}"


def thumbnail(file: IO[bytes]) -> bytes:
    """
    Make a small WebP of a picture, upright as its camera was held.

    :raises UnusablePictureError: If it is no picture, is broken, or is too large to be decoded.
    """
    with _opened(file) as image:
        _check_effort(image, file)
        # A JPEG can be decoded at an eighth of its size.
        image.draft("RGB", THUMBNAIL_SIZE)
        small = _in_8_bits(image)
        small.thumbnail(THUMBNAIL_SIZE)
        return _webp(ImageOps.exif_transpose(small))


def editable_part(mask: IO[bytes]) -> bytes:
    """
    Make a small WebP that covers what a mask lets the service edit, and is transparent elsewhere.

    :raises UnusablePictureError: As :func:`thumbnail`.
    """
    with _opened(mask) as image:
        _check_effort(image, mask)
        alpha = image.convert("RGBA").getchannel("A")
        alpha.thumbnail(THUMBNAIL_SIZE)
        cover = Image.new("RGBA", alpha.size, COVER)
        cover.putalpha(alpha.point(lambda opacity: (255 - opacity) * COVER[3] // 255))
        return _webp(cover)


@contextmanager
def _opened(file: IO[bytes]) -> Iterator[Image.Image]:
    try:
        with Image.open(file, formats=list(EXTENSIONS)) as image:
            yield image
    except UnidentifiedImageError as error:
        raise UnusablePictureError("is no PNG, JPEG, WebP or GIF picture") from error
    except Image.DecompressionBombError as error:
        raise UnusablePictureError(f"has too many pixels to be shown: {error}") from error
    except UnusablePictureError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise UnusablePictureError(f"is a broken or truncated picture: {error}") from error


def _check_effort(image: Image.Image, file: IO[bytes]) -> None:
    is_jpeg = image.format in {"JPEG", "MPO"}
    if image.width * image.height > (MOST_INPUT_PIXELS if is_jpeg else MOST_PIXELS):
        raise UnusablePictureError(f"has {image.width}x{image.height} pixels, too many to be shown")
    if is_jpeg:
        position = file.tell()
        file.seek(0)
        if file.read().count(START_OF_SCAN) > MOST_SCANS:
            raise UnusablePictureError("is a JPEG with too many scans to be shown")
        file.seek(position)


def _in_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion would show all that is brighter than 255 of 65,535 as white.
        return image.point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _webp(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
