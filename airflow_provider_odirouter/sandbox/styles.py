"""Four styles of pictures, in colours that depend on the prompt."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from random import Random
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]


def stylise(image: Image.Image, prompt: str, number: int) -> Image.Image:
    """
    Repaint a picture in one of the styles.

    :param image: An RGB picture.
    :param prompt: Decides on style and colours.
    :param number: Which of several pictures this is.
    """
    random = Random(prompt)
    first, hue = random.randrange(len(_STYLES)), random.random()
    style = _STYLES[(first + number) % len(_STYLES)]
    return style(image, _palette(hue + number * 0.382))


def invent(prompt: str, size: tuple[int, int]) -> Image.Image:
    """
    Make a picture without an input: soft discs of light.

    :param prompt: Decides where they are.
    :param size: Width and height.
    """
    random = Random(f"invent {prompt}")
    small = Image.new("RGB", (256, 256), _palette(random.random())[0])
    draw = ImageDraw.Draw(small)
    for _ in range(24):
        x, y, radius = random.randrange(256), random.randrange(256), random.randrange(12, 80)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), _palette(random.random())[random.randrange(3)])
    return small.filter(ImageFilter.GaussianBlur(3)).resize(size, Image.Resampling.BICUBIC).convert("RGBA")


def vignette(size: tuple[int, int], box: Box) -> Image.Image:
    """
    Draw an alpha channel that fades from the middle of a box to its borders.

    :param size: Width and height of the channel.
    :param box: The box; outside of it, everything is transparent.
    """
    left, upper, right, lower = box
    # radial_gradient() reaches 128 a quarter of its side from the centre.
    fade = Image.radial_gradient("L").point(lambda distance: max(0, min(255, round((178 - distance) * 5))))
    channel = Image.new("L", size, 0)
    channel.paste(fade.resize((right - left, lower - upper)), (left, upper))
    return channel


def label(image: Image.Image, text: str, box: Box, position: Literal["head", "middle", "foot"]) -> None:
    """
    Write a small ribbon on a picture.

    :param image: The picture, which is changed.
    :param text: What to write; what does not fit is left out.
    :param box: The part of the picture that the ribbon may cover.
    :param position: ``head`` and ``foot`` are the upper and the lower left corner of the box; ``middle`` is below its
        middle, inside of a round mask, too.
    """
    left, upper, right, lower = box
    width, height = right - left, lower - upper
    font = ImageFont.load_default(max(11.0, min(22.0, max(image.size) / 45)))
    text = _shorten("".join(c if c.isprintable() and ord(c) < 0x250 else " " for c in text), font, width * 0.66)
    if not text:
        return
    x0, y0, x1, y1 = font.getbbox(text)
    pad = round((y1 - y0) * 0.55)
    ribbon = (round(x1 - x0) + 3 * pad, round(y1 - y0) + 2 * pad)
    x, y = {
        "head": (left + pad, upper + pad),
        "middle": (left + (width - ribbon[0]) // 2, upper + round(height * 0.76) - ribbon[1] // 2),
        "foot": (left + pad, lower - ribbon[1] - pad),
    }[position]
    shade = Image.new("L", image.size, 0)
    ImageDraw.Draw(shade).rounded_rectangle((x, y, x + ribbon[0], y + ribbon[1]), ribbon[1] // 2, fill=165)
    image.paste((16, 16, 20), (0, 0), shade)
    ImageDraw.Draw(image).text((x + 1.5 * pad - x0, y + pad - y0), text, (255, 255, 255), font)


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    words = text.split()
    for count in range(min(len(words), 9), 0, -1):
        line = " ".join(words[:count]).rstrip(" ·") + ("…" if count < len(words) and count > 2 else "")
        if font.getlength(line) <= width:
            return line
    return ""


def _palette(hue: float) -> tuple[Color, Color, Color]:
    """Three colours that go together: a dark, a strong and a light one."""
    return _color(hue, 0.75, 0.20), _color(hue + 0.06, 0.78, 0.86), _color(hue + 0.45, 0.16, 1.0)


def _color(hue: float, saturation: float, value: float) -> Color:
    # Leaves the yellowish greens out.
    red, green, blue = colorsys.hsv_to_rgb((hue % 1 * 0.72 + 0.44) % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _gray(image: Image.Image) -> Image.Image:
    return ImageOps.autocontrast(image.convert("L"), cutoff=1)


def _duotone(image: Image.Image, palette: tuple[Color, Color, Color]) -> Image.Image:
    dark, strong, light = palette
    toned = ImageOps.colorize(_gray(image), dark, light, strong)
    return Image.blend(toned, image, 0.12)


def _poster(image: Image.Image, palette: tuple[Color, Color, Color]) -> Image.Image:
    dark, strong, light = palette
    soft = _gray(image).filter(ImageFilter.GaussianBlur(max(image.size) / 300))
    flat = ImageOps.posterize(soft, 2)
    toned = ImageOps.colorize(ImageOps.autocontrast(flat), dark, light, strong)
    return ImageChops.multiply(toned, _lines(image, 2).convert("RGB"))


def _drawing(image: Image.Image, palette: tuple[Color, Color, Color]) -> Image.Image:
    dark, strong, light = palette
    wash = Image.blend(ImageOps.colorize(_gray(image), strong, light), Image.new("RGB", image.size, light), 0.45)
    ink = ImageOps.colorize(_lines(image, 3), dark, (255, 255, 255))
    return ImageChops.multiply(wash, ink)


def _halftone(image: Image.Image, palette: tuple[Color, Color, Color]) -> Image.Image:
    dark, strong, light = palette
    cell = max(6, max(image.size) // 110)
    dot = Image.radial_gradient("L").resize((cell, cell), Image.Resampling.BICUBIC)
    screen = Image.new("L", image.size)
    for row, y in enumerate(range(0, image.height, cell)):
        for x in range(-(row % 2) * (cell // 2), image.width, cell):
            screen.paste(dot, (x, y))
    gray = _gray(image)
    dots = ImageChops.subtract(gray, screen, 1, 96).point(lambda value: max(0, min(255, (value - 96) * 4 + 128)))
    paper = Image.blend(ImageOps.colorize(gray, strong, light), ImageEnhance.Color(image).enhance(0.4), 0.2)
    return Image.composite(paper, Image.new("RGB", image.size, dark), dots)


def _lines(image: Image.Image, strength: int) -> Image.Image:
    """Dark lines on white where the picture has edges."""
    soft = _gray(image).filter(ImageFilter.GaussianBlur(1.2))
    edges = ImageChops.difference(soft, soft.filter(ImageFilter.GaussianBlur(2.4)))
    return ImageOps.invert(edges.point(lambda value: min(255, max(0, value - 4) * 6 * strength)))


_STYLES: tuple[Callable[[Image.Image, tuple[Color, Color, Color]], Image.Image], ...] = (
    _duotone,
    _poster,
    _drawing,
    _halftone,
)
