"""What a file really holds: told by its content, never by its name."""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import IO

from PIL import Image, UnidentifiedImageError

EXTENSIONS = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "GIF": "gif"}


class UnusablePictureError(ValueError):
    """There is no whole picture of a known format; the text continues a sentence that begins with its name."""


@dataclass(frozen=True)
class Picture:
    """
    What is known of a picture.

    :param format: Pillow's name of the format: ``PNG``, ``JPEG``, ``WEBP``, ``GIF``.
    """

    format: str
    width: int
    height: int
    has_alpha: bool

    @property
    def content_type(self) -> str:
        """The media type."""
        return f"image/{self.extension}"

    @property
    def extension(self) -> str:
        """The file name's extension, without the dot."""
        return EXTENSIONS[self.format]


def examine(file: IO[bytes]) -> Picture:
    """
    Decode a picture to its end, so that a truncated one is found.

    :raises UnusablePictureError: If it is none, is broken, or is a decompression bomb.
    """
    file.seek(0)
    try:
        with warnings.catch_warnings():
            # Pillow only warns of pictures above 89 megapixels, and stops at twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=list(EXTENSIONS)) as image:
                # A JPEG with a preview or a depth map behind it, as many phones make them.
                kind = "JPEG" if image.format == "MPO" else image.format or ""
                has_alpha = image.has_transparency_data
                width, height = image.size
                image.load()
    except UnidentifiedImageError as error:
        file.seek(0)
        begin = file.read(16)
        raise UnusablePictureError(f"is no PNG, JPEG or WebP picture; its content begins with {begin!r}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusablePictureError(f"is too large a picture to be safe: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise UnusablePictureError(f"is a broken or truncated picture: {error}") from error
    return Picture(kind, width, height, has_alpha)
