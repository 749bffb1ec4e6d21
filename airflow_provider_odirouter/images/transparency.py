"""Whether a decoded picture has transparent pixels: by an alpha channel, a palette, or a PNG's transparent colour."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from PIL import Image, ImageChops

from airflow_provider_odirouter.images.structure import Structure

GREY, RGB, PALETTE = 0, 2, 3
"""A PNG's colour types that have no alpha channel."""
COLOUR_BYTES = {GREY: 2, RGB: 6, PALETTE: 1}
"""Of a ``tRNS``, at least: a colour, or the opacity of one entry of the palette."""
OPAQUE = 255
LOW_BYTES = "RGB;16L"
"""How Pillow reads the lower half of each sample of a PNG with 16 bits: as if the samples were turned round."""


def has_alpha(image: Image.Image, structure: Structure) -> bool:
    """Return whether a picture can have transparent pixels."""
    return image.has_transparency_data or _has_colour(structure)


def set_transparency(image: Image.Image, structure: Structure) -> None:
    """
    Give a picture that is not decoded yet the transparent colour of its PNG, in as many bits as Pillow decodes.

    :param image: Opened without its ``tRNS``, which Pillow does not translate.
    """
    if not _has_colour(structure):
        return
    if structure.colour_type == PALETTE:
        image.info["transparency"] = structure.transparency
        return
    bits, values = structure.bits, _colour_values(structure)
    if structure.colour_type == RGB:
        # Of 16 bits, Pillow decodes the upper half: near colours become transparent, too.
        image.info["transparency"] = tuple(value >> (bits - 8) for value in values)
    else:
        image.info["transparency"] = values[0] * _grey_factor(bits)


def is_opaque(image: Image.Image, structure: Structure, reopen: Callable[[], Image.Image]) -> bool:
    """
    Return whether no pixel of a picture is transparent, not even partly.

    :param image: Decoded without the ``tRNS`` of a PNG, which Pillow compares in another number of bits.
    :param reopen: Opens the picture again, to decode it in another way.
    """
    if not _has_colour(structure):
        alpha = image if "A" in image.getbands() else image.convert("RGBA")
        return alpha.getchannel("A").getextrema()[0] == OPAQUE
    if structure.colour_type == PALETTE:
        used = image.histogram()
        return not any(count and alpha < OPAQUE for count, alpha in zip(used, structure.transparency, strict=False))
    matches = None
    for band, value in _bands_and_values(image, structure, reopen):
        match = band.point([OPAQUE * (one == value) for one in range(2**16 if band.mode == "I" else 2**8)], "L")
        matches = match if matches is None else ImageChops.darker(matches, match)
    return matches is None or matches.getextrema()[1] != OPAQUE


def _has_colour(structure: Structure) -> bool:
    needed = COLOUR_BYTES.get(structure.colour_type)
    return needed is not None and len(structure.transparency) >= needed


def _bands_and_values(
    image: Image.Image, structure: Structure, reopen: Callable[[], Image.Image]
) -> Iterator[tuple[Image.Image, int]]:
    """Yield each band with the value that all bands of a transparent pixel have."""
    bits, values = structure.bits, _colour_values(structure)
    if structure.colour_type == GREY:
        yield image.convert("I" if bits == 16 else "L"), values[0] * _grey_factor(bits)
    elif bits == 8:
        yield from zip(image.split(), values, strict=True)
    else:
        # Pillow's RGB has eight bits: the upper half of each sample, and then the lower one.
        yield from zip(image.split(), (value >> 8 for value in values), strict=True)
        with reopen() as low:
            low.tile = [tile._replace(args=LOW_BYTES) for tile in low.tile]  # type: ignore[attr-defined]
            low.load()
            yield from zip(low.split(), (value & 0xFF for value in values), strict=True)


def _colour_values(structure: Structure) -> tuple[int, ...]:
    """Return the transparent colour of a PNG in as many bits as its samples have; more bits mean nothing."""
    colour = structure.transparency[: COLOUR_BYTES[structure.colour_type]]
    return tuple(value & (2**structure.bits - 1) for value in struct.unpack(f">{len(colour) // 2}H", colour))


def _grey_factor(bits: int) -> int:
    """Return by how much Pillow spreads fewer than eight bits over 0 to 255."""
    return OPAQUE // (2**bits - 1) if bits < 8 else 1
