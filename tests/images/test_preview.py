"""Small pictures: upright, in true colours, transparent where the picture is, and none of what would take minutes."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

from airflow_provider_odirouter.images import preview
from airflow_provider_odirouter.images.picture import UnusablePictureError
from airflow_provider_odirouter.images.preview import content_type, editable_part, thumbnail
from tests.images.conftest import Paint


def saved(image: Image.Image, kind: str, **options: object) -> BytesIO:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer


def small(file: BytesIO) -> Image.Image:
    with Image.open(BytesIO(thumbnail(file))) as image:
        image.load()
        assert image.format == "WEBP"
        return image.copy()


def test_a_large_picture_becomes_small_and_a_small_one_stays() -> None:
    assert small(saved(Image.new("RGB", (2000, 1000)), "PNG")).size == (512, 256)
    assert small(saved(Image.new("RGB", (40, 30)), "PNG")).size == (40, 30)


def test_a_photograph_is_shown_as_its_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert small(saved(Image.new("RGB", (60, 40)), "JPEG", exif=exif)).size == (40, 60)


def test_16_bits_are_not_all_white() -> None:
    shade = small(saved(Image.new("I;16", (40, 30), 0x8000), "PNG")).convert("L").getpixel((5, 5))
    assert shade == pytest.approx(0x80, abs=4)


def test_cmyk_has_its_colour() -> None:
    ink = Image.new("CMYK", (40, 30), (0, 255, 255, 0))
    pixel = small(saved(ink, "JPEG")).convert("RGB").getpixel((5, 5))
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    assert (red > 180, green < 90, blue < 90) == (True, True, True)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_stays_so(mode: str) -> None:
    clear = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    file = saved(clear.quantize(4) if mode == "PA" else clear.convert(mode), "PNG")
    assert small(file).convert("RGBA").getchannel("A").getextrema() == (0, 0)


def test_a_mask_covers_where_it_is_transparent_alone() -> None:
    mask = Image.new("RGBA", (40, 30), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (20, 0, 40, 30))
    with Image.open(BytesIO(editable_part(saved(mask, "PNG")))) as cover:
        alpha = cover.convert("RGBA").getchannel("A")
    assert (alpha.getpixel((2, 15)), alpha.getpixel((37, 15))) == (0, preview.COVER[3])


@pytest.mark.parametrize(
    ("kind", "mode", "type_"), [("PNG", "RGB", "png"), ("JPEG", "RGB", "jpeg"), ("WEBP", "RGB", "webp")]
)
def test_the_content_tells_the_type(paint: Paint, kind: str, mode: str, type_: str) -> None:
    assert content_type(BytesIO(paint(kind, mode))) == f"image/{type_}"


def test_a_phones_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    photo = Image.effect_noise((40, 30), 80).convert("RGB")
    file = saved(photo, "MPO", save_all=True, append_images=[photo])
    assert (content_type(file), small(file).size) == ("image/jpeg", (40, 30))


@pytest.mark.parametrize("make", [thumbnail, editable_part])
def test_what_would_take_all_memory_is_not_decoded(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MOST_PIXELS", 100)
    with pytest.raises(UnusablePictureError, match="11x10 pixels, too many to be shown"):
        make(saved(Image.new("RGBA", (11, 10)), "PNG"))  # type: ignore[operator]


def test_a_jpeg_of_many_scans_is_not_decoded() -> None:
    data = saved(Image.effect_noise((64, 64), 80).convert("RGB"), "JPEG", progressive=True).getvalue()
    scan = data.rindex(b"\xff\xda")
    bomb = data[:scan] + data[scan:-2] * 100 + data[-2:]
    assert len(thumbnail(BytesIO(data))) > 0
    with pytest.raises(UnusablePictureError, match="too many scans"):
        thumbnail(BytesIO(bomb))


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    for look in (content_type, thumbnail, editable_part):
        with pytest.raises(UnusablePictureError):
            look(BytesIO(content))
