"""What a file really holds: told by its content, never by its name."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import IO

from PIL import Image, UnidentifiedImageError

EXTENSIONS = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "GIF": "gif"}

MOST_PIXELS = 89_478_485
"""Of a picture that is decoded: a quarter of a gigabyte as RGB. Pillow warns above, and refuses at twice that."""

_ORIENTATION = 0x0112
_UPRIGHT = 1


class UnusablePictureError(ValueError):
    """There is no whole picture of a known format; the text continues a sentence that begins with its name."""


@dataclass(frozen=True)
class Picture:
    """
    What is known of a picture.

    :param format: Pillow's name of the format: ``PNG``, ``JPEG``, ``WEBP``, ``GIF``.
    :param width: As it is stored, as is the height.
    :param is_opaque: Whether no pixel is transparent, not even in part.
    :param orientation: EXIF's number: 1 is upright, 2 to 8 are turned or mirrored when shown.
    :param is_animated: Whether it has more frames than the one that was looked at.
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
        """Whether it is shown in another way than it is stored."""
        return self.orientation != _UPRIGHT

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as it is stored."""
        return self.width, self.height

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height, as it is shown."""
        return (self.height, self.width) if self.orientation >= 5 else self.size


def examine(file: IO[bytes]) -> Picture:
    """
    Decode a picture to its end, so that a truncated one is found.

    :raises UnusablePictureError: If it is none, is broken, or is a decompression bomb.
    """
    file.seek(0)
    try:
        with Image.open(file, formats=list(EXTENSIONS)) as image:
            _check_size(image)
            has_alpha = image.has_transparency_data
            image.load()
            return Picture(
                # A JPEG with a preview or a depth map behind it, as many phones make them.
                format="JPEG" if image.format == "MPO" else str(image.format),
                width=image.width,
                height=image.height,
                has_alpha=has_alpha,
                is_opaque=not has_alpha or _is_opaque(image),
                orientation=_orientation(image),
                is_animated=image.format != "MPO" and getattr(image, "is_animated", False),
            )
    except UnidentifiedImageError as error:
        file.seek(0)
        begin = file.read(16)
        raise UnusablePictureError(f"is no PNG, JPEG or WebP picture; its content begins with {begin!r}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusablePictureError(f"is too large a picture to be safe: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise UnusablePictureError(f"is a broken or truncated picture: {error}") from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError(
            f"it has {image.width}x{image.height} pixels; at most {MOST_PIXELS:,} altogether are decoded"
        )


def _is_opaque(image: Image.Image) -> bool:
    alpha = image if "A" in image.getbands() else image.convert("RGBA")
    return alpha.getchannel("A").getextrema()[0] == 255


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error):
        return _UPRIGHT  # The picture is whole, though what its camera says of it is not.
    return orientation if orientation in range(_UPRIGHT, 9) else _UPRIGHT
