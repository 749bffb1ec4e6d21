"""The pictures that the sandbox paints."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

if TYPE_CHECKING:
    import httpx

PICTURES = Path(__file__).parent.parent / "pictures"
COFFEE = Image.open(PICTURES / "coffee.png").convert("RGB")
MASK = Image.open(PICTURES / "coffee-mask.png").convert("RGBA").getchannel("A")
Painted = Callable[..., list[Image.Image]]


@pytest.fixture
def painted(finished: Callable[..., dict[str, Any]], anonymous: httpx.Client, encoded: Callable[[str], str]) -> Painted:
    """Edits the photograph of the coffee, and opens the outputs."""

    def run(**parameters: Any) -> list[Image.Image]:
        outputs = finished(**{"images": [encoded("coffee.png")], **parameters})["outputs"]
        pictures: list[Image.Image] = [Image.open(BytesIO(anonymous.get(output["url"]).content)) for output in outputs]
        assert [picture.size for picture in pictures] == [(o["width"], o["height"]) for o in outputs]
        return pictures

    return run


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures' colours, from 0 to 255."""
    means = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean
    return sum(means) / len(means)


def test_an_edit_is_visible(painted: Painted) -> None:
    (picture,) = painted()
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (600, 400))
    assert difference(picture, COFFEE) > 20


def test_the_same_prompt_paints_the_same_picture(painted: Painted) -> None:
    assert painted()[0].tobytes() == painted()[0].tobytes()


def test_pictures_of_other_prompts_and_numbers_differ(painted: Painted) -> None:
    pictures = [*painted(n=5), *painted(prompt="A teapot")]
    for i, picture in enumerate(pictures):
        assert all(difference(picture, other) > 5 for other in pictures[:i])


def test_only_the_masks_transparent_part_changes(painted: Painted, encoded: Callable[[str], str]) -> None:
    for picture in painted(mask=encoded("coffee-mask.png"), n=4):
        changed = ImageChops.difference(picture.convert("RGB"), COFFEE)
        outside = Image.composite(changed, Image.new("RGB", changed.size), MASK)
        assert outside.getbbox() is None
        assert difference(picture, COFFEE) > 5


def test_a_mask_is_resized_along_with_its_picture(painted: Painted, encoded: Callable[[str], str]) -> None:
    (picture,) = painted(mask=encoded("coffee-mask.png"), size="1024x1024")
    changed = ImageChops.difference(picture.convert("RGB"), ImageOps.fit(COFFEE, (1024, 1024)))
    left, upper, right, lower = changed.getbbox() or (0, 0, 0, 0)
    assert picture.size == (1024, 1024)
    assert left < 200 < 800 < right
    assert 200 <= upper < 230
    assert 830 < lower <= 850


def test_an_opaque_mask_changes_nothing(painted: Painted, pictured: Callable[..., str]) -> None:
    (picture,) = painted(images=[pictured()], mask=pictured(mode="LA"))
    assert difference(picture, Image.new("RGB", (40, 30))) > 0
    (picture,) = painted(images=[pictured()], mask=_base64(Image.new("RGBA", (40, 30), "black")))
    assert difference(picture, Image.new("RGB", (40, 30))) == 0


@pytest.mark.parametrize("size", ["1024x1024", "1024x1536", "1536x1024"])
def test_a_size_is_honoured(size: str, painted: Painted, encoded: Callable[[str], str]) -> None:
    (picture,) = painted(images=[encoded("rocket.jpg")], size=size)
    assert f"{picture.width}x{picture.height}" == size


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_format_is_honoured(output_format: str, painted: Painted) -> None:
    (picture,) = painted(output_format=output_format)
    assert picture.format == output_format.upper()


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_compression_makes_files_smaller(
    output_format: str, finished: Callable[..., dict[str, Any]], encoded: Callable[[str], str]
) -> None:
    sizes = [
        finished(images=[encoded("coffee.png")], output_format=output_format, output_compression=compression)[
            "outputs"
        ][0]["file_size"]
        for compression in (10, 60, 100)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_a_transparent_background_fades_out(output_format: str, painted: Painted) -> None:
    (picture,) = painted(background="transparent", output_format=output_format)
    alpha = picture.getchannel("A")
    assert (alpha.getpixel((0, 0)), alpha.getpixel((300, 200))) == (0, 255)


def test_a_transparent_background_does_not_change_the_masked_part(
    painted: Painted, encoded: Callable[[str], str]
) -> None:
    (picture,) = painted(background="transparent", mask=encoded("coffee-mask.png"))
    assert picture.getpixel((0, 0)) == (*_pixel(COFFEE, (0, 0)), 255)
    assert picture.getchannel("A").getpixel((152, 205)) == 0


def _pixel(picture: Image.Image, at: tuple[int, int]) -> tuple[int, ...]:
    pixel = picture.getpixel(at)
    assert isinstance(pixel, tuple)
    return tuple(int(value) for value in pixel)


def test_transparency_of_the_input_stays_unless_opaque(painted: Painted, pictured: Callable[..., str]) -> None:
    clear = pictured(mode="RGBA")
    assert painted(images=[clear])[0].getchannel("A").getextrema() == (0, 0)
    assert painted(images=[clear], background="opaque")[0].getpixel((1, 1)) == (255, 255, 255)
    assert painted(images=[clear], output_format="jpeg")[0].mode == "RGB"


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [("png", "P"), ("png", "1"), ("png", "L"), ("png", "LA"), ("png", "I;16"), ("jpeg", "CMYK"), ("webp", "RGBA")],
)
def test_every_kind_of_input_is_edited(
    file_format: str, mode: str, painted: Painted, pictured: Callable[..., str]
) -> None:
    (picture,) = painted(images=[pictured(file_format, mode)])
    assert picture.size == (40, 30)


def test_a_photograph_is_rotated_by_its_orientation(painted: Painted, pictured: Callable[..., str]) -> None:
    assert painted(images=[pictured(exif=_sideways())])[0].size == (30, 40)


def test_a_mask_is_rotated_like_its_photograph(painted: Painted, pictured: Callable[..., str]) -> None:
    mask = Image.new("RGBA", (40, 30), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 10, 30))
    (picture,) = painted(images=[pictured(exif=_sideways())], mask=_base64(mask))
    changed = ImageChops.difference(picture.convert("RGB"), Image.new("RGB", (30, 40)))
    assert changed.getbbox() == (0, 0, 30, 10)


def _sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _base64(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_picture_of_one_pixel_is_edited(painted: Painted, pictured: Callable[..., str]) -> None:
    (picture,) = painted(images=[pictured(size=(1, 1))], background="transparent")
    assert picture.size == (1, 1)


def test_a_picture_has_a_label_of_the_sandbox(painted: Painted, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_odirouter.sandbox import styles

    marked = painted()[0]
    monkeypatch.setattr(styles, "label", lambda *_: None)
    monkeypatch.setattr("airflow_provider_odirouter.sandbox.studio._MAX_KEPT", 0)
    plain = painted()[0]
    box = ImageChops.difference(marked.convert("RGB"), plain.convert("RGB")).getbbox()
    assert box is not None
    assert box[0] < 12
    assert 350 < box[1] < box[3] < 400
