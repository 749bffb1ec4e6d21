"""Picture files: reading them, editing them inside their mask, writing them."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple
from urllib.parse import urlsplit

from PIL import Image, ImageChops, ImageOps

from airflow_provider_odirouter.sandbox import styles

_FORMATS = ("PNG", "JPEG", "WEBP")
_MAX_PIXELS = 50_000_000
_ORIENTATION = 0x0112


class UnreadablePictureError(Exception):
    """These bytes are no picture that the service takes."""


class Facts(NamedTuple):
    """What a file says of its picture."""

    format: str
    size: tuple[int, int]
    alpha: bool


@dataclass(frozen=True)
class PictureFile:
    """
    A picture, ready to be served.

    :param data: The file's bytes.
    :param format: ``png``, ``jpeg`` or ``webp``.
    :param width: Width in pixels.
    :param height: Height in pixels.
    """

    data: bytes
    format: str
    width: int
    height: int

    @property
    def content_type(self) -> str:
        """The MIME type."""
        return f"image/{self.format}"


def read(data: bytes) -> Image.Image:
    """
    Decode a picture.

    :param data: The file's bytes.
    :raises UnreadablePictureError: It is no whole PNG, JPEG or WebP.
    """
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
        if image.width * image.height > _MAX_PIXELS:
            raise UnreadablePictureError(f"has more than {_MAX_PIXELS} pixels")
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadablePictureError("is not a whole PNG, JPEG or WebP picture") from error
    return image


def inspect(data: bytes) -> Facts:
    """
    Say what a file holds.

    :param data: The file's bytes.
    :raises UnreadablePictureError: It is no whole PNG, JPEG or WebP.
    """
    image = read(data)
    return Facts(str(image.format), image.size, image.has_transparency_data)


def edit(
    prompt: str,
    image: bytes | str | None,
    mask: bytes | str | None,
    *,
    number: int,
    size: tuple[int, int] | None,
    background: str,
) -> Image.Image:
    """
    Make one picture.

    :param prompt: Decides on style and colours, and is written on the picture.
    :param image: The picture to edit; a URL gets a stand-in that names it; without it, a picture is invented.
    :param mask: Its transparent pixels are edited, the others stay as they are; without it, or with a URL, all are.
    :param number: Which of several pictures this is: each looks different.
    :param size: Width and height; ``None`` is that of the input.
    :param background: ``transparent`` fades the edited part out to its borders, ``opaque`` removes transparency.
    """
    original = _original(prompt, image)
    editable = Image.new("L", original.size, 255)
    if isinstance(mask, bytes):
        turned = read(image).getexif().get(_ORIENTATION, 1) if isinstance(image, bytes) else 1
        editable = ImageOps.fit(_editable(read(mask), turned), original.size, Image.Resampling.NEAREST)
    if size is not None:
        original = ImageOps.fit(original, size)
        editable = ImageOps.fit(editable, size, Image.Resampling.NEAREST)
    box = editable.getbbox()
    if box is not None:
        edited = styles.stylise(original.convert("RGB"), prompt, number)
        whole = mask is None and background != "transparent"
        styles.label(edited, f"SANDBOX · {prompt}", box, "foot" if whole else "middle")
        if isinstance(image, str):
            styles.label(edited, _stand_in_name(image), box, "head")
        alpha = original.getchannel("A")
        if background == "transparent":
            alpha = ImageChops.multiply(alpha, styles.vignette(original.size, box))
        edited.putalpha(alpha)
        original = Image.composite(edited, original, editable)
    return _on_white(original) if background == "opaque" else original


def encode(picture: Image.Image, output_format: str, compression: int) -> PictureFile:
    """
    Write a picture into a file.

    :param picture: The picture.
    :param output_format: ``png``, ``jpeg`` or ``webp``.
    :param compression: Quality of a JPEG or WebP.
    """
    if output_format == "jpeg" or picture.getchannel("A").getextrema() == (255, 255):
        picture = _on_white(picture).convert("RGB")
    buffer = BytesIO()
    if output_format == "png":
        picture.save(buffer, "png", compress_level=4)
    else:
        picture.save(buffer, output_format, quality=compression)
    return PictureFile(buffer.getvalue(), output_format, picture.width, picture.height)


def _original(prompt: str, image: bytes | str | None) -> Image.Image:
    if isinstance(image, bytes):
        upright = ImageOps.exif_transpose(read(image))
        # CMYK cannot become RGBA in one step.
        return (upright.convert("RGB") if upright.mode == "CMYK" else upright).convert("RGBA")
    return styles.invent(image or prompt, (1024, 1024))


def _stand_in_name(url: str) -> str:
    address = urlsplit(url)
    return f"STAND-IN FOR {address.hostname} {address.path.rpartition('/')[2]}"


def _editable(mask: Image.Image, orientation: int) -> Image.Image:
    # The mask covers the stored pixels of the image: it turns the way the image turns.
    mask.getexif()[_ORIENTATION] = orientation
    return ImageOps.invert(ImageOps.exif_transpose(mask).convert("RGBA").getchannel("A"))


def _on_white(picture: Image.Image) -> Image.Image:
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white
