"""Masks: what must be so for the service to take one, what cannot be told, and what would be paid for nothing."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from airflow_provider_odirouter.errors import Problem
from airflow_provider_odirouter.images.inputs import read_inputs
from tests.images.conftest import Paint
from tests.images.test_inputs import encoded, oriented, problems_of, written

URL = "https://example.com/a.png"
NO_ALPHA = "mask: has no alpha channel; its transparent part is what may be edited"
OPAQUE = "mask: is opaque everywhere; its transparent part is what may be edited"


def test_a_good_one_is_sent_as_the_pictures_are(pictures: Path) -> None:
    inputs = read_inputs([str(pictures / "coffee.png")], str(pictures / "coffee-mask.png"))

    assert inputs.problems == ()
    assert inputs.mask == encoded((pictures / "coffee-mask.png").read_bytes())


def test_one_without_an_alpha_channel_is_refused(pictures: Path) -> None:
    mask = str(pictures / "coffee-mask-no-alpha.png")

    assert problems_of(str(pictures / "coffee.png"), mask=mask) == [NO_ALPHA]


def test_one_of_another_size_is_refused(pictures: Path) -> None:
    (problem,) = problems_of(str(pictures / "coffee.png"), mask=str(pictures / "coffee-mask-wrong-size.png"))

    with Image.open(pictures / "coffee.png") as edited, Image.open(pictures / "coffee-mask-wrong-size.png") as mask:
        sizes = [f"{image.width}x{image.height}" for image in (mask, edited)]
    assert problem == f"mask: has {sizes[0]} pixels, but images[0] has {sizes[1]}"


def test_one_of_another_format_is_refused(tmp_path: Path, paint: Paint) -> None:
    image, mask = written(tmp_path, paint("PNG"), "a"), written(tmp_path, paint("WEBP", "RGBA"), "b")

    assert problems_of(image, mask=mask) == [
        "mask: is a WEBP, but images[0] is a PNG; both must be the same",
    ]


def test_all_that_is_wrong_with_it_is_said_at_once(tmp_path: Path, paint: Paint) -> None:
    image, mask = written(tmp_path, paint("PNG"), "a"), written(tmp_path, paint("JPEG", size=(10, 10)), "b")

    assert len(problems_of(image, mask=mask)) == 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_any_alpha_channel_will_do(tmp_path: Path, paint: Paint, mode: str) -> None:
    assert problems_of(written(tmp_path, paint(), "a"), mask=written(tmp_path, paint("PNG", mode), "b")) == []


def test_a_palette_with_a_transparent_colour_will_do(tmp_path: Path, paint: Paint) -> None:
    mask = written(tmp_path, paint("PNG", "P", transparency=0), "b")

    assert problems_of(written(tmp_path, paint(), "a"), mask=mask) == []


def test_a_palette_without_one_will_not(tmp_path: Path, paint: Paint) -> None:
    assert "alpha" in problems_of(written(tmp_path, paint(), "a"), mask=written(tmp_path, paint("PNG", "P"), "b"))[0]


def test_it_is_compared_with_the_first_picture_alone(tmp_path: Path, paint: Paint) -> None:
    first, mask = written(tmp_path, paint(), "a"), written(tmp_path, paint("PNG", "RGBA"), "b")
    second = written(tmp_path, paint("JPEG", size=(7, 7)), "c")

    assert problems_of(first, second, mask=mask) == []
    assert len(problems_of(second, first, mask=mask)) == 2


def test_it_is_checked_alone_if_the_picture_lies_behind_a_url(pictures: Path) -> None:
    url = "https://example.com/a.png"

    assert problems_of(url, mask=str(pictures / "coffee-mask-wrong-size.png")) == []
    assert len(problems_of(url, mask=str(pictures / "coffee-mask-no-alpha.png"))) == 1


def test_it_is_not_checked_if_it_lies_behind_a_url_itself(pictures: Path) -> None:
    inputs = read_inputs([str(pictures / "coffee.png")], "https://example.com/mask.png")

    assert (inputs.mask, inputs.problems) == ("https://example.com/mask.png", ())


def test_it_is_checked_alone_if_the_picture_is_broken(tmp_path: Path, pictures: Path) -> None:
    problems = read_inputs([str(tmp_path / "missing.png")], str(pictures / "coffee-mask-no-alpha.png")).problems

    assert [problem.field for problem in problems] == ["images[0]", "mask"]
    assert problems[1] == Problem("mask", "has no alpha channel; its transparent part is what may be edited")


def opaque(kind: str = "PNG", mode: str = "RGBA", **options: object) -> bytes:
    """A picture with an alpha channel in which nothing is transparent."""
    buffer = BytesIO()
    picture = Image.new("L", (40, 30)).convert(mode)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "mask",
    [
        opaque("PNG", "RGBA"),
        opaque("PNG", "LA"),
        opaque("PNG", "P", transparency=bytes([255] * 256)),
        opaque("PNG", "1", transparency=1),
    ],
    ids=["RGBA", "LA", "palette", "a colour that is not there"],
)
def test_one_that_is_opaque_everywhere_would_be_paid_for_nothing(tmp_path: Path, paint: Paint, mask: bytes) -> None:
    image = written(tmp_path, paint(), "a")

    assert problems_of(image, mask=written(tmp_path, mask, "b")) == [OPAQUE]


def test_one_transparent_pixel_is_enough(tmp_path: Path, paint: Paint) -> None:
    mask = Image.new("RGBA", (40, 30), (0, 0, 0, 255))
    mask.putpixel((39, 29), (0, 0, 0, 254))
    mask.save(tmp_path / "mask.png")

    assert problems_of(written(tmp_path, paint(), "a"), mask=str(tmp_path / "mask.png")) == []


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_mask_of_several_frames_is_judged_by_the_first(tmp_path: Path, paint: Paint, kind: str) -> None:
    frames = [Image.new("RGBA", (40, 30), (0, 0, 0, number)) for number in (0, 100, 200)]
    path = str(tmp_path / "mask")
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100)

    inputs = read_inputs([written(tmp_path, paint(kind), "a")], path)

    assert inputs.problems == ()
    assert inputs.remarks == (f"mask: {path!r} is animated; the service edits one picture, probably the first.",)


class TestTurnedPhotograph:
    """A camera that was held upright stores 40x30 pixels, which are shown as 30x40."""

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_a_mask_for_what_is_shown_does_not_fit(self, tmp_path: Path, paint: Paint, orientation: int) -> None:
        image = written(tmp_path, paint("WEBP", exif=oriented(orientation)), "a")
        mask = written(tmp_path, paint("WEBP", "RGBA", size=(30, 40)), "b")

        assert problems_of(image, mask=mask)[0] == (
            "mask: has 30x40 pixels, but images[0] has 40x30 as it is stored, and is only shown as 30x40 (EXIF "
            f"orientation {orientation}); save images[0] turned, or make the mask for it as it is stored"
        )

    @pytest.mark.parametrize("orientation", [1, 2, 3, 4, 6, 8])
    def test_a_mask_for_what_is_stored_fits(self, tmp_path: Path, paint: Paint, orientation: int) -> None:
        image = written(tmp_path, paint("WEBP", exif=oriented(orientation)), "a")
        mask = written(tmp_path, paint("WEBP", "RGBA", size=(40, 30)), "b")

        assert problems_of(image, mask=mask) == []

    @pytest.mark.parametrize(("orientation", "size"), [(3, (30, 40)), (6, (31, 40))])
    def test_a_mask_that_fits_neither_is_told_no_more(
        self, tmp_path: Path, paint: Paint, orientation: int, size: tuple[int, int]
    ) -> None:
        image = written(tmp_path, paint("WEBP", exif=oriented(orientation)), "a")
        mask = written(tmp_path, paint("WEBP", "RGBA", size=size), "b")

        assert problems_of(image, mask=mask) == [f"mask: has {size[0]}x{size[1]} pixels, but images[0] has 40x30"]


class TestBehindUrls:
    def test_a_mask_behind_a_url_is_not_checked_which_is_said(self, pictures: Path) -> None:
        inputs = read_inputs([str(pictures / "coffee.png")], URL)

        assert (inputs.mask, inputs.problems) == (URL, ())
        (remark,) = inputs.remarks
        assert remark == (
            "The mask lies behind a URL and is not checked: it must have an alpha channel, and the format and size of "
            "images[0]."
        )

    def test_a_picture_behind_a_url_is_not_compared_which_is_said(self, pictures: Path) -> None:
        inputs = read_inputs([URL], str(pictures / "coffee-mask.png"))

        assert inputs.problems == ()
        assert inputs.remarks == (
            "images[0] lies behind a URL, so that the mask is not compared with it: it must have its format and size.",
        )

    def test_both_behind_urls_need_one_remark(self) -> None:
        assert len(read_inputs([URL], URL).remarks) == 1

    def test_without_a_mask_there_is_nothing_to_say(self, pictures: Path) -> None:
        assert read_inputs([URL, str(pictures / "coffee.png")], None).remarks == ()

    def test_a_picture_that_cannot_be_read_is_a_problem_and_no_remark(self, tmp_path: Path, pictures: Path) -> None:
        inputs = read_inputs([str(tmp_path / "missing.png")], str(pictures / "coffee-mask.png"))

        assert [problem.field for problem in inputs.problems] == ["images[0]"]
        assert inputs.remarks == ()
