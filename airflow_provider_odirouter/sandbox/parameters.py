"""The service's own checks of the parameters of ``gpt_image_1_edit``."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_odirouter.sandbox.pictures import Facts, UnreadablePictureError, inspect

MAX_BYTES = 10 * 1024 * 1024
MAX_IMAGES = 16
MAX_PROMPT = 32_000
_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_CHOICES = {
    "input_fidelity": ("high", "low"),
    "size": ("1024x1024", "1024x1536", "1536x1024", "auto"),
    "quality": ("low", "medium", "high", "auto"),
    "background": ("transparent", "opaque", "auto"),
    "output_format": ("png", "jpeg", "webp"),
    "moderation": ("auto", "low"),
}
_SIZE = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")


@dataclass(frozen=True)
class Order:
    """
    The pictures to make.

    :param prompt: The prompt.
    :param images: Input pictures: the bytes, or a URL that has yet to be fetched.
    :param mask: The mask, likewise.
    :param n: How many pictures.
    :param size: Width and height; ``None`` is that of the first input.
    :param background: ``transparent``, ``opaque`` or ``auto``.
    :param output_format: ``png``, ``jpeg`` or ``webp``.
    :param output_compression: Quality of a JPEG or WebP.
    """

    prompt: str
    images: tuple[bytes | str, ...] = field(default=(), repr=False)
    mask: bytes | str | None = field(default=None, repr=False)
    n: int = 1
    size: tuple[int, int] | None = None
    background: str = "auto"
    output_format: str = "png"
    output_compression: int = 100

    @property
    def urls(self) -> list[str]:
        """The inputs that have yet to be fetched."""
        return [source for source in (*self.images, self.mask) if isinstance(source, str)]


def read_edit(body: dict[str, Any]) -> tuple[Order, list[str]]:
    """
    Read the parameters of ``gpt_image_1_edit``.

    :param body: A submit's JSON.
    :return: The order, and every broken rule; if there is one, do not use the order.
    """
    broken: list[str] = []
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not 1 <= len(prompt) <= MAX_PROMPT:
        broken.append(f"prompt: must be a string of 1 to {MAX_PROMPT} characters")
    images = body.get("images")
    if not isinstance(images, list) or not 1 <= len(images) <= MAX_IMAGES:
        broken.append(f"images: must be a list of 1 to {MAX_IMAGES} pictures")
        images = []
    sources = tuple(_read_picture(f"images[{i}]", image, broken) for i, image in enumerate(images))
    mask = _read_picture("mask", body["mask"], broken) if "mask" in body else None
    if not broken:
        broken += check_mask(sources[0], mask)
    for name, choices in _CHOICES.items():
        if name in body and body[name] not in choices:
            broken.append(f"{name}: must be one of {', '.join(choices)}")
    n = _read_integer(body, "n", 1, 10, 1, broken)
    compression = _read_integer(body, "output_compression", 0, 100, 100, broken)
    if "user" in body and not isinstance(body["user"], str):
        broken.append("user: must be a string")
    output_format = body.get("output_format", "png")
    if "output_compression" in body and output_format == "png":
        broken.append("output_compression: is only for jpeg and webp")
    background = body.get("background", "auto")
    if background == "transparent" and output_format == "jpeg":
        broken.append("background: transparent needs png or webp")
    size = _read_size(body)
    return Order(str(prompt), sources, mask, n, size, str(background), str(output_format), compression), broken


def read_anything(body: dict[str, Any]) -> Order:
    """Read the parameters of a model whose rules the sandbox does not know: use those with familiar names."""
    found = [body.get(name) for name in ("images", "image_urls", "image", "image_url")]
    candidates = [item for value in found for item in (value if isinstance(value, list) else [value])]
    sources = [_read_picture("image", item, []) for item in candidates if isinstance(item, str)]
    n, output_format, prompt = body.get("n", 1), body.get("output_format"), body.get("prompt", "")
    return Order(
        str(prompt),
        tuple(source for source in sources if source)[:MAX_IMAGES],
        n=n if type(n) is int and 1 <= n <= 10 else 1,
        size=_read_size(body),
        output_format=output_format if output_format in _CHOICES["output_format"] else "png",
    )


def check_mask(image: bytes | str, mask: bytes | str | None) -> list[str]:
    """
    Compare a mask with the picture that it masks, if both are bytes.

    :param image: The picture's bytes, or its URL.
    :param mask: The mask's bytes, or its URL.
    :return: Every broken rule.
    """
    if not isinstance(mask, bytes):
        return []
    facts = inspect(mask)
    broken = [] if facts.alpha else ["mask: has no alpha channel"]
    if isinstance(image, bytes):
        broken += _differences(facts, inspect(image))
    return broken


def _differences(mask: Facts, image: Facts) -> list[str]:
    broken = []
    if mask.format != image.format:
        broken.append(f"mask: is {mask.format}, the image is {image.format}")
    if mask.size != image.size:
        broken.append(f"mask: is {_by(mask.size)}, the image is {_by(image.size)}")
    return broken


def _by(size: Sequence[int]) -> str:
    return "x".join(str(length) for length in size)


def _read_picture(name: str, value: Any, broken: list[str]) -> bytes | str:
    if not isinstance(value, str) or not value:
        broken.append(f"{name}: must be a URL or base64")
        return b""
    if _URL.fullmatch(value):
        return value
    if value.startswith("data:"):
        broken.append(f"{name}: must be bare base64, without a data: prefix")
        return b""
    try:
        data = base64.b64decode(value, validate=True)
        check_picture(data)
    except binascii.Error:
        broken.append(f"{name}: is neither a URL nor base64")
    except UnreadablePictureError as error:
        broken.append(f"{name}: {error}")
    else:
        return data
    return b""


def check_picture(data: bytes) -> None:
    """
    Check an input's bytes.

    :raises UnreadablePictureError: Its message is the reason.
    """
    if len(data) > MAX_BYTES:
        raise UnreadablePictureError(f"has {len(data)} bytes, more than {MAX_BYTES}")
    inspect(data)


def _read_integer(body: dict[str, Any], name: str, low: int, high: int, default: int, broken: list[str]) -> int:
    value = body.get(name, default)
    if type(value) is int and low <= value <= high:
        return value
    broken.append(f"{name}: must be an integer from {low} to {high}")
    return default


def _read_size(body: dict[str, Any]) -> tuple[int, int] | None:
    match = _SIZE.fullmatch(str(body.get("size", "auto")))
    return (int(match[1]), int(match[2])) if match else None
