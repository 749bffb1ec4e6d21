"""Small pictures: upright, in true colours, with their transparency; pictures that need minutes are refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from airflow_provider_odirouter.images import preview
from airflow_provider_odirouter.images.picture import UnusablePictureError
from airflow_provider_odirouter.images.preview import TooLargePictureError, content_type, editable_part, thumbnail
from airflow_provider_odirouter.images.structure import walk_jpeg, without_notes
from tests.images.conftest import Paint
from tests.images.test_inputs import LARGE, chunk, jpeg_with, oriented, png_with, webp_with
from tests.images.test_masks import sampled


def saved(image: Image.Image, kind: str, **options: object) -> BytesIO:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer


def small(file: BytesIO) -> Image.Image:
    with Image.open(BytesIO(thumbnail(file))) as image:
        image.load()
        assert image.format == "WEBP"
        return image.copy()


def test_a_large_picture_becomes_small_and_a_small_one_keeps_its_size() -> None:
    assert small(saved(Image.new("RGB", (2000, 1000)), "PNG")).size == (512, 256)
    assert small(saved(Image.new("RGB", (40, 30)), "PNG")).size == (40, 30)


def test_a_photograph_is_turned_upright() -> None:
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
def test_transparent_pixels_stay_transparent(mode: str) -> None:
    clear = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    file = saved(clear.quantize(4) if mode == "PA" else clear.convert(mode), "PNG")
    assert small(file).convert("RGBA").getchannel("A").getextrema() == (0, 0)


def test_only_the_transparent_part_of_a_mask_is_covered() -> None:
    mask = Image.new("RGBA", (40, 30), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (20, 0, 40, 30))
    with Image.open(BytesIO(editable_part(saved(mask, "PNG")))) as cover:
        alpha = cover.convert("RGBA").getchannel("A")
    assert (alpha.getpixel((2, 15)), alpha.getpixel((37, 15))) == (0, preview.COVER[3])


@pytest.mark.parametrize(
    ("kind", "mode", "type_"), [("PNG", "RGB", "png"), ("JPEG", "RGB", "jpeg"), ("WEBP", "RGB", "webp")]
)
def test_the_content_decides_the_media_type(paint: Paint, kind: str, mode: str, type_: str) -> None:
    assert content_type(BytesIO(paint(kind, mode))) == f"image/{type_}"


def test_a_phones_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    photo = Image.effect_noise((40, 30), 80).convert("RGB")
    file = saved(photo, "MPO", save_all=True, append_images=[photo])
    assert (content_type(file), small(file).size) == ("image/jpeg", (40, 30))


@pytest.mark.parametrize("make", [thumbnail, editable_part])
def test_a_picture_of_too_many_pixels_is_not_decoded(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MAX_DECODE_BYTES", 1300)
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
def test_a_file_that_is_not_a_picture_is_refused(content: bytes) -> None:
    for read in (content_type, thumbnail, editable_part):
        with pytest.raises(UnusablePictureError):
            read(BytesIO(content))


TURNED = chunk(b"eXIf", oriented(6)[6:])


class TestOnlyPixelsDecide:
    """What a file holds beside its pixels may be huge, broken or cut, and only the orientation counts."""

    @pytest.mark.parametrize("make", [thumbnail, editable_part])
    @pytest.mark.parametrize(
        "file",
        [
            png_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE))),
            png_with(*[chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE[: 2**20]))] * 80),
            png_with(chunk(b"iTXt", b""), behind=True),
            png_with(chunk(b"iCCP", b"icc\0\0" + zlib.compress(LARGE))),
            png_with(chunk(b"iCCP", b"icc")),
            png_with(chunk(b"pHYs", b"\1")),
            png_with(chunk(b"tRNS", b"\1")),
            jpeg_with(0xE2, b"ICC_PROFILE\0"),
            jpeg_with(0xE2, b"MPF\0"),
            jpeg_with(0xE0, b"JFIF\0"),
            jpeg_with(0xEE, b"Adobe"),
            jpeg_with(0xFE, preview.START_OF_SCAN * (preview.MAX_SCANS + 1)),
            webp_with(b"ICCP", LARGE),
        ],
        ids=lambda data: repr(data[35:45]),
    )
    def test_a_picture_is_shown_whatever_lies_beside_its_pixels(
        self, make: Callable[[BytesIO], bytes], file: bytes
    ) -> None:
        with Image.open(BytesIO(make(BytesIO(file)))) as image:
            assert image.size == (40, 30)
        assert content_type(BytesIO(file)).startswith("image/")

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_each_orientation_is_kept(self, kind: str, orientation: int) -> None:
        stored = Image.new("RGB", (60, 40), (255, 255, 255))
        stored.paste((200, 0, 0), (0, 0, 30, 20))
        shown = small(saved(stored, kind, exif=oriented(orientation)))

        corners = {"top left": (2, 2), "top right": (-3, 2), "bottom right": (-3, -3), "bottom left": (2, -3)}
        positions = {name: (x % shown.width, y % shown.height) for name, (x, y) in corners.items()}
        red = [name for name, at in positions.items() if shown.convert("RGB").getpixel(at)[1] < 120]  # type: ignore[index]
        assert red == [[*corners][(orientation - 1) % 4]]
        assert shown.size == ((40, 60) if orientation > 4 else (60, 40))

    @pytest.mark.parametrize(
        "file",
        [
            png_with(chunk(b"iCCP", b"icc"), TURNED),
            png_with(chunk(b"eXIf", oriented(6)[6:] + LARGE)),
            png_with(chunk(b"iCCP", b"icc"), TURNED, behind=True),
            jpeg_with(0xE2, b"ICC_PROFILE\0", exif=oriented(6)),
            webp_with(b"EXIF", oriented(6)[6:] + LARGE),
            webp_with(b"EXIF", oriented(6)[6:], length=10_000),
            webp_with(b"EXIF", oriented(6), length=2**32 - 16),
        ],
        ids=lambda data: repr(data[35:45]),
    )
    def test_it_is_kept_beside_what_is_huge_or_broken(self, file: bytes) -> None:
        assert small(BytesIO(file)).size == (30, 40)

    def test_broken_exif_data_turn_nothing(self) -> None:
        assert small(BytesIO(png_with(chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff")))).size == (40, 30)

    def test_a_jpeg_has_the_colours_that_its_notes_say(self) -> None:
        red = saved(Image.new("RGB", (40, 30), (200, 10, 20)), "JPEG", keep_rgb=True, quality=95)
        # Without the usual names of its components, only the note says that they are not YCbCr.
        data = red.getvalue().replace(b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0")
        data = data.replace(b"R\0G\0B\0", b"\1\0\2\0\3\0")
        assert (b"Adobe" in data, b"R\x11" in data) == (True, False)
        assert small(BytesIO(data)).convert("RGB").getpixel((5, 5)) == pytest.approx((200, 10, 20), abs=6)

    def test_a_decompression_bomb_behind_broken_notes_is_not_decoded(self) -> None:
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        parts = [
            chunk(b"IHDR", header),
            chunk(b"iCCP", b"icc"),
            chunk(b"IDAT", zlib.compress(b"")),
            chunk(b"IEND", b""),
        ]
        with pytest.raises(TooLargePictureError, match="too many"):
            thumbnail(BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts)))


class TestTransparentColour:
    """A PNG may name one colour that is transparent, in as many bits as its samples have."""

    @staticmethod
    def opacities(make: Callable[[BytesIO], bytes], file: bytes) -> list[int]:
        with Image.open(BytesIO(make(BytesIO(file)))) as image:
            return list(image.convert("RGBA").getchannel("A").tobytes())

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_of_grey(self, bits: int) -> None:
        value = 2**bits // 2
        file = sampled(bits, 0, [0, value, 0, value], colour=struct.pack(">H", value))
        assert self.opacities(thumbnail, file) == [255, 0, 255, 0]
        assert self.opacities(editable_part, file) == [0, preview.COVER[3]] * 2

    @pytest.mark.parametrize("bits", [8, 16])
    def test_of_three_samples(self, bits: int) -> None:
        wanted = [(1 << bits) - 2, 1 << (bits - 3), 1 << (bits - 2)]
        file = sampled(bits, 2, [0, 0, 0, *wanted], colour=struct.pack(">3H", *wanted))
        assert self.opacities(thumbnail, file) == [255, 0]
        assert self.opacities(editable_part, file) == [0, preview.COVER[3]]

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_of_a_palette(self, bits: int) -> None:
        file = sampled(bits, 3, [0, 1, 0], colour=b"\xff\x40", palette=bytes(3 * 2**bits))
        assert self.opacities(thumbnail, file) == [255, 0x40, 255]


def coefficients_of(file: BytesIO) -> int:
    pixels = without_notes(file, walk_jpeg(file))
    with Image.open(file) as image:
        assert isinstance(image, JpegImageFile)
        return preview._coefficients(image, pixels)


@pytest.mark.parametrize(
    ("mode", "options", "count"),
    [
        ("RGB", {}, 0),
        ("L", {}, 0),
        ("RGB", {"progressive": True, "subsampling": 0}, 3 * 104 * 56),
        ("RGB", {"progressive": True, "subsampling": 2}, 112 * 64 + 2 * 56 * 32),
        ("L", {"progressive": True}, 104 * 56),
        ("CMYK", {"progressive": True}, 4 * 104 * 56),
    ],
)
def test_a_progressive_jpeg_keeps_all_its_coefficients(mode: str, options: dict[str, object], count: int) -> None:
    assert coefficients_of(saved(Image.new(mode, (100, 50)), "JPEG", **options)) == count


def test_a_jpeg_with_a_scan_for_each_component_keeps_all_its_coefficients() -> None:
    data = bytearray(saved(Image.new("RGB", (100, 50)), "JPEG", subsampling=0).getvalue())
    scan = data.index(preview.START_OF_SCAN)
    data[scan + 4] = 1
    assert coefficients_of(BytesIO(bytes(data))) == 3 * 104 * 56


def test_a_small_picture_in_the_metadata_is_not_the_first_scan() -> None:
    inner = saved(Image.new("L", (8, 8)), "JPEG").getvalue()
    exif = b"Exif\0\0" + inner
    file = saved(Image.new("RGB", (100, 50)), "JPEG", exif=exif, comment=inner)
    assert coefficients_of(file) == 0


def test_a_large_profile_is_not_the_first_scan() -> None:
    file = saved(Image.new("RGB", (100, 50)), "JPEG", icc_profile=LARGE)
    assert coefficients_of(file) == 0


def claiming(size: tuple[int, int], **options: object) -> BytesIO:
    """A small JPEG whose header claims a size."""
    data = bytearray(saved(Image.new("RGB", (8, 8)), "JPEG", **options).getvalue())
    frame = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[frame + 5 : frame + 9] = size[1].to_bytes(2) + size[0].to_bytes(2)
    return BytesIO(bytes(data))


@pytest.mark.parametrize("make", [thumbnail, editable_part])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((9_400, 9_400), {"progressive": True, "subsampling": 0}),
        ((60_000, 1_023), {}),  # too low to be decoded at a smaller size
    ],
)
def test_a_small_jpeg_that_would_take_much_memory_is_not_decoded(
    make: Callable[[BytesIO], bytes], size: tuple[int, int], options: dict[str, object]
) -> None:
    with pytest.raises(TooLargePictureError, match=f"has {size[0]}x{size[1]} pixels"):
        make(claiming(size, **options))


@pytest.mark.parametrize(("kind", "limit"), [("PNG", 13), ("WEBP", 17), ("GIF", 6), ("JPEG", 9)])
def test_each_format_has_its_own_limit(kind: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(Image.new("RGB", (20, 20)), kind)
    monkeypatch.setattr(preview, "MAX_DECODE_BYTES", 400 * limit)
    assert small(file).size == (20, 20)
    monkeypatch.setattr(preview, "MAX_DECODE_BYTES", 400 * limit - 1)
    with pytest.raises(TooLargePictureError):
        thumbnail(file)


@pytest.mark.parametrize("make", [thumbnail, editable_part])
def test_a_large_photograph_is_decoded_at_a_smaller_size(make: Callable[[BytesIO], bytes]) -> None:
    file = saved(Image.new("L", (9_000, 9_000)), "JPEG")
    with Image.open(BytesIO(make(file))) as image:
        assert image.size == preview.THUMBNAIL_SIZE
