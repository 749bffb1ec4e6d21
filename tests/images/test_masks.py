"""Masks: what the service requires, what cannot be checked, and what would be paid for nothing."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from airflow_provider_odirouter.errors import Problem
from airflow_provider_odirouter.images.inputs import read_inputs
from tests.images.conftest import Paint
from tests.images.test_inputs import chunk, encoded, oriented, problems_of, written

URL = "https://example.com/a.png"
NO_ALPHA = "mask: has no alpha channel; only its transparent part may be edited"
OPAQUE = "mask: is opaque everywhere; only its transparent part may be edited"


def test_a_good_mask_is_sent_as_base64(pictures: Path) -> None:
    inputs = read_inputs([str(pictures / "coffee.png")], str(pictures / "coffee-mask.png"))

    assert inputs.problems == ()
    assert inputs.mask == encoded((pictures / "coffee-mask.png").read_bytes())


def test_a_mask_without_an_alpha_channel_is_refused(pictures: Path) -> None:
    mask = str(pictures / "coffee-mask-no-alpha.png")

    assert problems_of(str(pictures / "coffee.png"), mask=mask) == [NO_ALPHA]


def test_a_mask_of_another_size_is_refused(pictures: Path) -> None:
    (problem,) = problems_of(str(pictures / "coffee.png"), mask=str(pictures / "coffee-mask-wrong-size.png"))

    with Image.open(pictures / "coffee.png") as edited, Image.open(pictures / "coffee-mask-wrong-size.png") as mask:
        sizes = [f"{image.width}x{image.height}" for image in (mask, edited)]
    assert problem == f"mask: has {sizes[0]} pixels, but images[0] has {sizes[1]}"


def test_a_mask_of_another_format_is_refused(tmp_path: Path, paint: Paint) -> None:
    image, mask = written(tmp_path, paint("PNG"), "a"), written(tmp_path, paint("WEBP", "RGBA"), "b")

    assert problems_of(image, mask=mask) == [
        "mask: is a WEBP, but images[0] is a PNG; both must be the same",
    ]


def test_all_problems_of_a_mask_are_reported_together(tmp_path: Path, paint: Paint) -> None:
    image, mask = written(tmp_path, paint("PNG"), "a"), written(tmp_path, paint("JPEG", size=(10, 10)), "b")

    assert len(problems_of(image, mask=mask)) == 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_any_alpha_channel_is_accepted(tmp_path: Path, paint: Paint, mode: str) -> None:
    assert problems_of(written(tmp_path, paint(), "a"), mask=written(tmp_path, paint("PNG", mode), "b")) == []


def test_a_palette_with_a_transparent_colour_is_accepted(tmp_path: Path, paint: Paint) -> None:
    mask = written(tmp_path, paint("PNG", "P", transparency=0), "b")

    assert problems_of(written(tmp_path, paint(), "a"), mask=mask) == []


def test_a_palette_without_a_transparent_colour_is_refused(tmp_path: Path, paint: Paint) -> None:
    assert "alpha" in problems_of(written(tmp_path, paint(), "a"), mask=written(tmp_path, paint("PNG", "P"), "b"))[0]


def test_a_mask_is_compared_only_with_the_first_picture(tmp_path: Path, paint: Paint) -> None:
    first, mask = written(tmp_path, paint(), "a"), written(tmp_path, paint("PNG", "RGBA"), "b")
    second = written(tmp_path, paint("JPEG", size=(7, 7)), "c")

    assert problems_of(first, second, mask=mask) == []
    assert len(problems_of(second, first, mask=mask)) == 2


def test_a_mask_is_checked_alone_if_the_picture_is_a_url(pictures: Path) -> None:
    url = "https://example.com/a.png"

    assert problems_of(url, mask=str(pictures / "coffee-mask-wrong-size.png")) == []
    assert len(problems_of(url, mask=str(pictures / "coffee-mask-no-alpha.png"))) == 1


def test_a_mask_that_is_a_url_is_not_checked(pictures: Path) -> None:
    inputs = read_inputs([str(pictures / "coffee.png")], "https://example.com/mask.png")

    assert (inputs.mask, inputs.problems) == ("https://example.com/mask.png", ())


def test_a_mask_is_checked_alone_if_the_picture_is_broken(tmp_path: Path, pictures: Path) -> None:
    problems = read_inputs([str(tmp_path / "missing.png")], str(pictures / "coffee-mask-no-alpha.png")).problems

    assert [problem.field for problem in problems] == ["images[0]", "mask"]
    assert problems[1] == Problem("mask", "has no alpha channel; only its transparent part may be edited")


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
def test_a_mask_that_is_opaque_everywhere_is_refused(tmp_path: Path, paint: Paint, mask: bytes) -> None:
    image = written(tmp_path, paint(), "a")

    assert problems_of(image, mask=written(tmp_path, mask, "b")) == [OPAQUE]


def test_one_transparent_pixel_is_enough(tmp_path: Path, paint: Paint) -> None:
    mask = Image.new("RGBA", (40, 30), (0, 0, 0, 255))
    mask.putpixel((39, 29), (0, 0, 0, 254))
    mask.save(tmp_path / "mask.png")

    assert problems_of(written(tmp_path, paint(), "a"), mask=str(tmp_path / "mask.png")) == []


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_only_the_first_frame_of_a_mask_counts(tmp_path: Path, paint: Paint, kind: str) -> None:
    frames = [Image.new("RGBA", (40, 30), (0, 0, 0, number)) for number in (0, 100, 200)]
    path = str(tmp_path / "mask")
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100)

    inputs = read_inputs([written(tmp_path, paint(kind), "a")], path)

    assert inputs.problems == ()
    assert inputs.remarks == (f"mask: {path!r} is animated; the service edits one picture, probably the first.",)


class TestTurnedPhotograph:
    """A camera that was held upright stores 40x30 pixels, which are shown as 30x40."""

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_a_mask_of_the_shown_size_does_not_fit(self, tmp_path: Path, paint: Paint, orientation: int) -> None:
        image = written(tmp_path, paint("WEBP", exif=oriented(orientation)), "a")
        mask = written(tmp_path, paint("WEBP", "RGBA", size=(30, 40)), "b")

        assert problems_of(image, mask=mask)[0] == (
            "mask: has 30x40 pixels, but images[0] has 40x30 as it is stored, and is only shown as 30x40 (EXIF "
            f"orientation {orientation}); save images[0] turned, or make a mask of the stored size"
        )

    @pytest.mark.parametrize("orientation", [1, 2, 3, 4, 6, 8])
    def test_a_mask_of_the_stored_size_fits(self, tmp_path: Path, paint: Paint, orientation: int) -> None:
        image = written(tmp_path, paint("WEBP", exif=oriented(orientation)), "a")
        mask = written(tmp_path, paint("WEBP", "RGBA", size=(40, 30)), "b")

        assert problems_of(image, mask=mask) == []

    @pytest.mark.parametrize(("orientation", "size"), [(3, (30, 40)), (6, (31, 40))])
    def test_a_mask_of_a_third_size_gets_no_advice_on_orientation(
        self, tmp_path: Path, paint: Paint, orientation: int, size: tuple[int, int]
    ) -> None:
        image = written(tmp_path, paint("WEBP", exif=oriented(orientation)), "a")
        mask = written(tmp_path, paint("WEBP", "RGBA", size=size), "b")

        assert problems_of(image, mask=mask) == [f"mask: has {size[0]}x{size[1]} pixels, but images[0] has 40x30"]


class TestBehindUrls:
    def test_a_remark_says_that_a_mask_behind_a_url_is_not_checked(self, pictures: Path) -> None:
        inputs = read_inputs([str(pictures / "coffee.png")], URL)

        assert (inputs.mask, inputs.problems) == (URL, ())
        (remark,) = inputs.remarks
        assert remark == (
            "The mask is a URL and is not checked: it must have an alpha channel, and the format and size of images[0]."
        )

    def test_a_remark_says_that_a_picture_behind_a_url_is_not_compared(self, pictures: Path) -> None:
        inputs = read_inputs([URL], str(pictures / "coffee-mask.png"))

        assert inputs.problems == ()
        assert inputs.remarks == (
            "images[0] is a URL, and the mask is not compared with it: the mask must have the same format and size.",
        )

    def test_both_behind_urls_need_one_remark(self) -> None:
        assert len(read_inputs([URL], URL).remarks) == 1

    def test_no_remark_without_a_mask(self, pictures: Path) -> None:
        assert read_inputs([URL, str(pictures / "coffee.png")], None).remarks == ()

    def test_a_picture_that_cannot_be_read_is_a_problem_without_a_remark(self, tmp_path: Path, pictures: Path) -> None:
        inputs = read_inputs([str(tmp_path / "missing.png")], str(pictures / "coffee-mask.png"))

        assert [problem.field for problem in inputs.problems] == ["images[0]"]
        assert inputs.remarks == ()


def sampled(bits: int, colour_type: int, row: list[int], *, colour: bytes | None, palette: bytes = b"") -> bytes:
    """A PNG of one row of samples, with a ``tRNS``."""
    width = len(row) // (3 if colour_type == 2 else 1)
    digits = "".join(f"{value:0{bits}b}" for value in row)
    digits += "0" * (-len(digits) % 8)
    pixels = bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8))
    chunks = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0)),
        chunk(b"PLTE", palette) if palette else b"",
        chunk(b"tRNS", colour) if colour is not None else b"",
        chunk(b"IDAT", zlib.compress(b"\0" + pixels)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class TestTransparentColour:
    """A PNG may name one colour that is transparent, in as many bits as its samples have."""

    @staticmethod
    def problems_of_mask(folder: Path, paint: Paint, mask: bytes) -> list[str]:
        return problems_of(written(folder, paint(size=(8, 1)), "a"), mask=written(folder, mask, "b"))

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    def test_of_grey_is_found_in_every_number_of_bits(self, tmp_path: Path, paint: Paint, bits: int) -> None:
        for value in {1, 2**bits - 1, 2**bits // 2}:
            colour = struct.pack(">H", value)
            found = sampled(bits, 0, [0] * 7 + [value], colour=colour)
            missing = sampled(bits, 0, [value - 1] * 8, colour=colour)
            assert self.problems_of_mask(tmp_path, paint, found) == []
            assert self.problems_of_mask(tmp_path, paint, missing) == [OPAQUE]

    @pytest.mark.parametrize("bits", [8, 16])
    def test_of_three_samples_is_found_only_if_all_agree(self, tmp_path: Path, paint: Paint, bits: int) -> None:
        wanted = [(1 << bits) - 2, 1, 7]
        colour = struct.pack(">3H", *wanted)
        found = sampled(bits, 2, [0] * 21 + wanted, colour=colour)
        assert self.problems_of_mask(tmp_path, paint, found) == []
        for index in range(3):
            near = [value + (one == index) for one, value in enumerate(wanted)]
            mask = sampled(bits, 2, near * 8, colour=colour)
            assert self.problems_of_mask(tmp_path, paint, mask) == [OPAQUE]

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_of_a_palette_counts_only_if_a_pixel_uses_it(self, tmp_path: Path, paint: Paint, bits: int) -> None:
        palette = bytes(3 * 2**bits)
        for opacity in (0, 254):
            alphas = bytes([255, opacity])
            used = sampled(bits, 3, [0] * 7 + [1], colour=alphas, palette=palette)
            unused = sampled(bits, 3, [0] * 8, colour=alphas, palette=palette)
            assert self.problems_of_mask(tmp_path, paint, used) == []
            assert self.problems_of_mask(tmp_path, paint, unused) == [OPAQUE]

    @pytest.mark.parametrize(("colour_type", "colour"), [(0, b""), (0, b"\0"), (2, b"\0\1\0\1"), (2, bytes(300))])
    def test_that_is_cut_or_too_long_is_none(
        self, tmp_path: Path, paint: Paint, colour_type: int, colour: bytes
    ) -> None:
        mask = sampled(8, colour_type, [0] * (8 if colour_type == 0 else 24), colour=colour)
        assert self.problems_of_mask(tmp_path, paint, mask) == [NO_ALPHA]

    def test_behind_the_pixels_is_none(self, tmp_path: Path, paint: Paint) -> None:
        mask = sampled(8, 0, [0] * 8, colour=None)
        late = mask[:-12] + chunk(b"tRNS", b"\0\0") + mask[-12:]
        assert self.problems_of_mask(tmp_path, paint, late) == [NO_ALPHA]
