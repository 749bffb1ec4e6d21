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
_CONTENT_TYPES = {"svg": "image/svg+xml", "mp4": "video/mp4"}
_EMPTY_MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + b"\0\0\0\x08mdat"


class UnreadablePictureError(Exception):
    """The service does not accept these bytes as a picture."""


class Facts(NamedTuple):
    """Format, size and transparency of a picture file."""

    format: str
    size: tuple[int, int]
    alpha: bool


@dataclass(frozen=True)
class PictureFile:
    """
    A picture, ready to be served.

    :param data: The file's bytes.
    :param format: ``png``, ``jpeg`` or ``webp``, or that of another model's file.
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
        return _CONTENT_TYPES.get(self.format, f"image/{self.format}")


def read(data: bytes) -> Image.Image:
    """
    Decode a picture.

    :param data: The file's bytes.
    :raises UnreadablePictureError: If it is not a whole PNG, JPEG or WebP.
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
    Return a file's format, size and transparency.

    :param data: The file's bytes.
    :raises UnreadablePictureError: If it is not a whole PNG, JPEG or WebP.
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
    :param image: The picture to edit; for a URL, a stand-in with its name; ``None``: an invented picture.
    :param mask: Its transparent pixels are edited, the others stay as they are; ``None`` or a URL: all are.
    :param number: Which of several pictures this is: each looks different.
    :param size: Width and height; ``None`` is that of the input.
    :param background: ``transparent`` fades the edited part out to its borders, ``opaque`` removes transparency.
    """
    original = _original(prompt, image)
    editable = Image.new("L", original.size, 255)
    if isinstance(mask, bytes):
        orientation = read(image).getexif().get(_ORIENTATION, 1) if isinstance(image, bytes) else 1
        editable = ImageOps.fit(_editable(read(mask), orientation), original.size, Image.Resampling.NEAREST)
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


def converted(file: PictureFile, file_format: str) -> PictureFile:
    """
    Write a picture in a format of another model.

    :param file: The picture.
    :param file_format: ``svg``, ``avif``, ``tiff``, ``bmp``, ``mp4``; ``ordered`` changes nothing.
    """
    match file_format:
        case "ordered":
            return file
        case "svg":
            size = f'width="{file.width}" height="{file.height}"'
            data = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect {size}/></svg>'.encode()
        case "mp4":
            data = _EMPTY_MP4
        case _:
            buffer = BytesIO()
            read(file.data).convert("RGB").save(buffer, file_format)
            data = buffer.getvalue()
    return PictureFile(data, file_format, file.width, file.height)


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
    # The mask covers the image's stored pixels, so it is rotated as the image is.
    mask.getexif()[_ORIENTATION] = orientation
    return ImageOps.invert(ImageOps.exif_transpose(mask).convert("RGBA").getchannel("A"))


def _on_white(picture: Image.Image) -> Image.Image:
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white
