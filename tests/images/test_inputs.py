"""Input pictures: read from every form of path, checked before anything is paid, with all problems in one error."""

from __future__ import annotations

import base64
import io
import os
import platform
import random
import struct
import threading
import tracemalloc
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from PIL import Image

from airflow_provider_odirouter.errors import StorageError
from airflow_provider_odirouter.images import inputs as inputs_module
from airflow_provider_odirouter.images.inputs import MAX_INPUT_BYTES, is_url, read_inputs
from airflow_provider_odirouter.images.picture import MAX_PIXELS, UnusablePictureError, examine
from tests.conftest import Kill, KilledError, join_jobs
from tests.images.conftest import Paint, Unprivileged


def problems_of(*images: str, mask: str | None = None) -> list[str]:
    return [str(problem) for problem in read_inputs(images, mask).problems]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def written(folder: Path, data: bytes, name: str = "picture.png") -> str:
    file = folder / name
    file.write_bytes(data)
    return str(file)


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def padded(picture: bytes, size: int) -> bytes:
    """A PNG that has exactly this many bytes: before its end is a chunk that every reader ignores."""
    end = picture[-12:]
    return picture[:-12] + chunk(b"teSt", bytes(size - len(picture) - 12)) + end


def whole_png(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, all black; of a large one, only the beginning."""
    row = bytes(1 + (width + 7) // 8)
    pixels = zlib.compress(row * height if len(row) * height < 100_000_000 else bytes(1_000_000), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def oriented(orientation: int) -> bytes:
    """EXIF data that turn a picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


class TestReading:
    @pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
    def test_a_photograph_is_sent_as_bare_base64(self, pictures: Path, name: str) -> None:
        inputs = read_inputs([str(pictures / name)], None)

        assert inputs.problems == ()
        assert inputs.images == (encoded((pictures / name).read_bytes()),)
        assert inputs.mask is None

    def test_the_order_is_kept(self, pictures: Path) -> None:
        names = ["rocket.jpg", "coffee.png", "https://example.com/a.png", "chelsea.png"]

        inputs = read_inputs([name if is_url(name) else str(pictures / name) for name in names], None)

        assert inputs.images == tuple(
            name if is_url(name) else encoded((pictures / name).read_bytes()) for name in names
        )

    @pytest.mark.parametrize(
        "url",
        [
            "https://example.com/a.png",
            "HTTPS://example.com/a b.png?signature=a%2Fb#c",
            "http://127.0.0.1:1/not-there.png",
            "https://example.com/no-picture.txt",
        ],
    )
    def test_a_url_is_left_untouched_and_unread(self, url: str) -> None:
        inputs = read_inputs([url], url)

        assert inputs == read_inputs([url], url)
        assert (inputs.images, inputs.mask, inputs.problems) == ((url,), url, ())

    @pytest.mark.parametrize(
        ("kind", "mode", "options"),
        [
            ("PNG", "RGB", {}),
            ("PNG", "RGBA", {}),
            ("PNG", "L", {}),
            ("PNG", "LA", {}),
            ("PNG", "1", {}),
            ("PNG", "P", {}),
            ("PNG", "P", {"transparency": 0}),
            ("PNG", "RGB", {"transparency": (0, 0, 0)}),
            ("PNG", "I;16", {}),
            ("JPEG", "RGB", {}),
            ("JPEG", "RGB", {"progressive": True}),
            ("JPEG", "L", {}),
            ("JPEG", "CMYK", {}),
            ("WEBP", "RGB", {}),
            ("WEBP", "RGBA", {"lossless": True}),
        ],
    )
    def test_every_kind_of_png_jpeg_and_webp_is_accepted(
        self, tmp_path: Path, paint: Paint, kind: str, mode: str, options: dict[str, bool]
    ) -> None:
        if mode == "I;16":
            buffer = io.BytesIO()
            Image.new("I;16", (40, 30), 40_000).save(buffer, "PNG")
            data = buffer.getvalue()
        else:
            data = paint(kind, mode, **options)

        inputs = read_inputs([written(tmp_path, data)], None)

        assert (inputs.problems, inputs.remarks) == ((), ())
        assert inputs.images == (encoded(data),)

    def test_a_phones_jpeg_with_a_second_picture_in_its_file_is_a_jpeg(self, tmp_path: Path) -> None:
        photo = Image.effect_noise((40, 30), 80).convert("RGB")
        photo.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[photo])
        with Image.open(tmp_path / "phone.jpg") as image:
            assert image.format == "MPO"

        inputs = read_inputs([str(tmp_path / "phone.jpg")], None)
        assert (inputs.problems, inputs.remarks) == ((), ())

    def test_the_content_decides_the_format_not_the_name(self, tmp_path: Path, paint: Paint) -> None:
        assert problems_of(written(tmp_path, paint("JPEG"), "photo.png"), written(tmp_path, paint(), "photo")) == []

    @pytest.mark.parametrize(
        "name",
        ["a b.png", "Füße 🐈.png", "100%.png", "a%20b.png", "a#b?c=d.png", "[a]*.png", "a::b.png", "c:d.png", "-.png"],
    )
    def test_any_name_can_be_read_in_every_form_of_path(
        self, tmp_path: Path, paint: Paint, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = paint()
        path = written(tmp_path, data, name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))

        inputs = read_inputs([path, name, f"./{name}", f"~/{name}"], None)

        assert inputs.problems == ()
        assert inputs.images == (encoded(data),) * 4

    @pytest.mark.parametrize("name", ["a b.png", "Füße 🐈.png", "a%20b.png"])
    def test_a_file_url_is_read(self, tmp_path: Path, paint: Paint, name: str) -> None:
        data = paint()
        path = written(tmp_path, data, name)

        assert read_inputs([f"file://{quote(str(path))}"], None).images == (encoded(data),)

    def test_an_object_store_is_read(self, paint: Paint) -> None:
        store = MemoryFileSystem()
        attach("memory", fs=store)
        store.pipe("/bucket/in/picture.png", paint())

        assert problems_of("memory://bucket/in/picture.png") == []
        assert "does not exist" in problems_of("memory://bucket/in/other.png")[0]

    def test_a_file_of_exactly_10_mib_is_accepted(self, tmp_path: Path, paint: Paint) -> None:
        data = padded(paint(), MAX_INPUT_BYTES)

        inputs = read_inputs([written(tmp_path, data)], None)

        assert len(data) == 10 * 1024 * 1024
        assert inputs.problems == ()
        assert base64.b64decode(inputs.images[0]) == data

    def test_a_huge_file_is_not_read_into_memory(self, tmp_path: Path) -> None:
        with (tmp_path / "huge.png").open("wb") as file:
            file.truncate(200 * 2**20)
        tracemalloc.start()
        try:
            assert "more than 10 MiB" in problems_of(str(tmp_path / "huge.png"))[0]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 50 * 2**20


def png_with(*chunks: bytes, behind: bool = False) -> bytes:
    """A PNG with further chunks before or behind its pixels."""
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert("RGB").save(buffer, "PNG")
    data = buffer.getvalue()
    position = len(data) - 12 if behind else 33
    return data[:position] + b"".join(chunks) + data[position:]


def jpeg_with(marker: int, content: bytes, **options: Any) -> bytes:
    """A JPEG with a further segment."""
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert("RGB").save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]


def webp_with(kind: bytes, content: bytes, *, length: int | None = None, mode: str = "RGB") -> bytes:
    """
    A WebP with a further part, ``ICCP`` before and any other behind its pixels.

    :param length: What the part says of its own. Default: the right one.
    """
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert(mode).save(buffer, "WEBP")
    parts = buffer.getvalue()[12:]
    part = kind + struct.pack("<I", len(content) if length is None else length) + content + b"\0" * (len(content) % 2)
    extended = b"VP8X" + struct.pack("<IIHBHB", 10, 0x2C, 39, 0, 29, 0)
    parts = extended + (part + parts if kind == b"ICCP" else parts + part)
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts


LARGE = b"x" * (2 * 2**20)


class TestOnlyPixelsDecide:
    @pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind the pixels"])
    @pytest.mark.parametrize(
        "part",
        [
            chunk(b"tEXt", b"Comment\0" + LARGE),
            chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)),
            chunk(b"zTXt", b"Comment\0\7nonsense"),
            chunk(b"zTXt", b"Comment\0\0nonsense"),
            chunk(b"iTXt", b"Comment\0\1\0en\0\0" + zlib.compress(LARGE)),
            chunk(b"iTXt", b""),
            chunk(b"tEXt", b"Comment\0broken")[:-1] + b"?",
            chunk(b"iCCP", b"icc\0\0" + zlib.compress(LARGE)),
            chunk(b"iCCP", b"icc\0\0" + zlib.compress(LARGE)[:100]),
            chunk(b"iCCP", b"icc\0"),
            chunk(b"iCCP", b"icc"),
            *(chunk(kind, b"\1") for kind in (b"gAMA", b"pHYs", b"cHRM", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"tRNS")),
            chunk(b"eXIf", LARGE),
            chunk(b"sRGB", b""),
        ],
        ids=lambda part: part[4:8].decode(),
    )
    def test_of_a_png(self, tmp_path: Path, part: bytes, behind: bool) -> None:
        inputs = read_inputs([written(tmp_path, png_with(part, behind=behind))], None)
        assert (inputs.problems, inputs.remarks) == ((), ())

    @pytest.mark.parametrize(
        ("marker", "content"),
        [
            (0xE2, b"ICC_PROFILE\0"),
            (0xE2, b"ICC_PROFILE\0\1"),
            (0xE2, b"ICC_PROFILE\0\1\7cut"),
            (0xE2, b"MPF\0"),
            (0xE1, b"Exif\0\0"),
            (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
            (0xE0, b"JFIF\0"),
            (0xED, b"Photoshop 3.0\x008BIM\3\xed"),
            (0xEE, b"Adobe"),
        ],
    )
    def test_of_a_jpeg(self, tmp_path: Path, marker: int, content: bytes) -> None:
        inputs = read_inputs([written(tmp_path, jpeg_with(marker, content))], None)
        assert (inputs.problems, inputs.remarks) == ((), ())

    @pytest.mark.parametrize("length", [0, 1, 3, 4, 26, 27, 1000, 2**31, 2**32 - 16, 2**32 - 1])
    @pytest.mark.parametrize("kind", [b"EXIF", b"XMP "])
    def test_of_a_webp_a_wrong_length_behind_the_pixels(self, tmp_path: Path, kind: bytes, length: int) -> None:
        data = webp_with(kind, oriented(1)[6:], length=length)
        inputs = read_inputs([written(tmp_path, data)], None)
        assert (inputs.problems, inputs.remarks, inputs.images) == ((), (), (encoded(data),))

    def test_a_webp_that_is_cut_behind_its_pixels_or_has_a_wrong_length_itself(self, tmp_path: Path) -> None:
        whole = webp_with(b"EXIF", LARGE)
        for data in (whole[:-1], whole[:-1000], whole + b"Attached.", whole[:4] + b"\xff\xff\xff\x7f" + whole[8:]):
            assert problems_of(written(tmp_path, data)) == []

    def test_a_webp_whose_pixels_are_cut_is_truncated(self, tmp_path: Path) -> None:
        profile = webp_with(b"ICCP", b"icc", length=100_000)
        pixels = webp_with(b"EXIF", b"")
        pixels = pixels[: pixels.index(b"EXIF") - 2]
        for data in (profile, pixels, profile[:30], profile[:12]):
            (problem,) = problems_of(written(tmp_path, data))
            assert "is a broken or truncated picture" in problem

    def test_an_animated_webp_without_its_last_pictures_is_truncated(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        frames = [Image.effect_noise((40, 30), 80).convert("RGB") for _ in range(3)]
        frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
        data = buffer.getvalue()
        assert problems_of(written(tmp_path, data)) == []
        (problem,) = problems_of(written(tmp_path, data[: data.rindex(b"ANMF")]))
        assert "its last pictures are missing" in problem

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
    def test_a_large_profile_does_not(self, tmp_path: Path, paint: Paint, kind: str) -> None:
        assert problems_of(written(tmp_path, paint(kind, icc_profile=LARGE))) == []

    @pytest.mark.parametrize("missing", [1, 4, 12])
    def test_a_png_without_its_end_is_truncated(self, tmp_path: Path, paint: Paint, missing: int) -> None:
        (problem,) = problems_of(written(tmp_path, paint()[:-missing]))
        assert "is a broken or truncated picture" in problem

    def test_a_file_that_ends_in_a_text_behind_the_pixels_is_truncated(self, tmp_path: Path, paint: Paint) -> None:
        cut = paint()[:-12] + struct.pack(">I", 1000) + b"tEXtComment\0cut"
        (problem,) = problems_of(written(tmp_path, cut))
        assert "the file ends in the middle of its part 'tEXt'" in problem

    def test_what_follows_the_end_of_a_png_does_not(self, tmp_path: Path, paint: Paint) -> None:
        assert problems_of(written(tmp_path, paint() + b"Attached by a tool.")) == []

    def test_pixels_in_many_parts_are_read_as_one(self, tmp_path: Path) -> None:
        png = whole_png(4000, 4000)
        header, pixels, end = png[:33], png[41:-16], png[-12:]
        parts = (chunk(b"IDAT", pixels[at : at + 7]) + chunk(b"zTXt", b"?") for at in range(0, len(pixels), 7))

        assert problems_of(written(tmp_path, header + b"".join(parts) + end)) == []


class TestRemarks:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(2, 9))
    def test_a_photograph_that_viewers_turn_needs_a_remark(
        self, tmp_path: Path, paint: Paint, kind: str, orientation: int
    ) -> None:
        data = paint(kind, exif=oriented(orientation))
        path = written(tmp_path, data)

        inputs = read_inputs(["https://example.com/a.png", path], None)

        assert inputs.problems == ()
        assert inputs.images[1] == encoded(data)
        (remark,) = inputs.remarks
        assert remark == (
            f"images[1]: {path!r} is stored as 40x30 and shown turned or mirrored (EXIF orientation {orientation}); "
            "the service may edit it as it is stored."
        )

    @pytest.mark.parametrize(
        "exif",
        [oriented(1), oriented(0), oriented(9), b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01", b"Exif\0\0nonsense"],
        ids=["upright", "0", "9", "broken off", "nonsense"],
    )
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_an_upright_photograph_or_broken_exif_data_need_no_remark(
        self, tmp_path: Path, paint: Paint, kind: str, exif: bytes
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, on broken EXIF data
            inputs = read_inputs([written(tmp_path, paint(kind, exif=exif))], None)

        assert (inputs.problems, inputs.remarks) == ((), ())

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_an_animated_picture_needs_a_remark(self, tmp_path: Path, kind: str) -> None:
        frames = [Image.effect_noise((40, 30), 80).convert("RGB") for _ in range(3)]
        path = str(tmp_path / "moving")
        frames[0].save(path, kind, save_all=True, append_images=frames[1:])

        inputs = read_inputs([path], None)

        assert inputs.problems == ()
        assert inputs.images == (encoded(Path(path).read_bytes()),)
        assert inputs.remarks == (
            f"images[0]: {path!r} is animated; the service edits one picture, probably the first.",
        )


class TestWaiting:
    """A named pipe is a file that does not answer until another process writes to it."""

    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Path:
        os.mkfifo(tmp_path / "pipe")
        return tmp_path / "pipe"

    def test_a_kill_does_not_wait_for_a_store(self, pipe: Path, kill: Kill) -> None:
        def answer() -> None:
            with pipe.open("wb"):  # which waits for the reader
                kill()
                killed.wait()

        killed = threading.Event()
        store = threading.Thread(target=answer)
        store.start()
        try:
            with pytest.raises(KilledError):
                read_inputs([str(pipe)], None)
        finally:
            killed.set()
            store.join()
            join_jobs()

    def test_a_store_that_does_not_answer_ends_the_read(self, pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inputs_module, "MAX_READ_SECONDS", 0.01)
        try:
            with pytest.raises(StorageError, match=r"cannot be read: no answer within 0\.01 s\. Nothing was"):
                read_inputs([str(pipe)], None)
        finally:
            pipe.open("wb").close()
            join_jobs()


class TestBadPictures:
    @staticmethod
    def problem_of(path: str) -> str:
        inputs = read_inputs([path], None)
        (problem,) = inputs.problems
        assert problem.field == "images[0]"
        assert repr(path)[:100] in problem.message
        return problem.message

    def test_a_missing_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(platform, "node", lambda: "worker-7")
        assert self.problem_of("in/missing.png") == (
            f"'in/missing.png' does not exist, as this worker sees it (host worker-7, path '{tmp_path}/in/missing.png')"
        )
        assert self.problem_of(f"{tmp_path}/missing.png").endswith("as this worker sees it (host worker-7)")

    def test_a_file_below_another_file(self, pictures: Path) -> None:
        assert "cannot be read" in self.problem_of(str(pictures / "rocket.jpg" / "picture.png"))

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "is a folder, not a file" in self.problem_of(str(tmp_path))

    def test_a_home_of_an_unknown_user(self) -> None:
        assert "does not exist" in self.problem_of("~no-such-user/picture.png")

    @pytest.mark.parametrize("name", ["a\0b.png", "a" * 5000 + ".png"])
    def test_a_name_that_no_file_can_have(self, name: str) -> None:
        assert "cannot be read" in read_inputs([name], None).problems[0].message

    def test_an_unreadable_file(self, open_folder: Path, unprivileged: Unprivileged, paint: Paint) -> None:
        path = written(open_folder, paint())
        Path(path).chmod(0)

        with unprivileged():
            problem = self.problem_of(path)

        assert "cannot be read: Permission denied" in problem

    def test_a_store_without_an_installed_provider(self) -> None:
        problem = self.problem_of("nosuch://bucket/picture.png")

        assert problem.endswith("cannot be read: no installed Airflow provider supports nosuch://")

    def test_text_with_a_pictures_name(self, tmp_path: Path) -> None:
        problem = self.problem_of(written(tmp_path, b"This is no picture.", "text.png"))

        assert "is not a PNG, JPEG or WebP picture; its content begins with b'This is no pictu'" in problem

    def test_an_empty_file(self, tmp_path: Path) -> None:
        assert "is empty (0 bytes)" in self.problem_of(written(tmp_path, b""))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_a_truncated_picture(self, tmp_path: Path, paint: Paint, kind: str, share: float) -> None:
        data = paint(kind, size=(200, 200))

        problem = self.problem_of(written(tmp_path, data[: int(len(data) * share)]))

        assert "is a broken or truncated picture" in problem or "is not a PNG, JPEG or WebP" in problem

    def test_a_truncated_photograph(self, tmp_path: Path, pictures: Path) -> None:
        data = (pictures / "astronaut.png").read_bytes()

        assert "is a broken or truncated picture" in self.problem_of(written(tmp_path, data[: len(data) // 2]))

    @pytest.mark.parametrize("size", [10 * 2**20 + 1, 11 * 2**20])
    def test_too_large_a_file(self, tmp_path: Path, paint: Paint, size: int) -> None:
        assert "has more than 10 MiB; make it smaller" in self.problem_of(written(tmp_path, padded(paint(), size)))

    def test_a_gif(self, tmp_path: Path, paint: Paint) -> None:
        problem = self.problem_of(written(tmp_path, paint("GIF", "P"), "moving.png"))

        assert "is a GIF; the endpoint takes PNG, JPEG or WebP" in problem

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC; convert it to JPEG"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "is HEIC; convert it to JPEG"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "is AVIF; convert it to JPEG"),
            (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", "is AVIF; convert it to JPEG"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG; convert it to JPEG"),
            (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a --><!DOCTYPE svg><svg/>", "is SVG; convert it to JPEG"),
            (b"<?xml version='1.0'?><svg:svg xmlns:svg='http://www.w3.org/2000/svg'/>", "is SVG; convert it to JPEG"),
            (b"%PDF-1.7\n", "is PDF; convert it to JPEG"),
            (b"8BPS\0\x01", "is PSD; convert it to JPEG"),
            (b"\xff\x0a\xfa\x7f", "is JPEG XL; convert it to JPEG"),
            (b"\n<!DOCTYPE html>\n<html>", "is an HTML page, not a PNG, JPEG or WebP picture"),
            (b"<!-- " + b"x" * 3000 + b" --><body>", "is an HTML page, not a PNG, JPEG or WebP picture"),
            ("<html>".encode("utf-16"), "is an HTML page, not a PNG, JPEG or WebP picture"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML document, not a PNG"),
            (b'{"error": "not found"}', "is a JSON document, not a PNG"),
            (b"\0\0\0\x18ftypisom\0\0\0\0isomavif", "is an MP4, not a PNG"),
            (b"\0\0\0\x14ftypqt  ", "is a QuickTime, not a PNG"),
            (b"PK\x03\x04", "is a ZIP archive, not a PNG"),
            (b"BM is how this text begins", "its content begins with b'BM is how this t'"),
        ],
    )
    def test_another_format_has_its_name_in_the_message(self, tmp_path: Path, content: bytes, words: str) -> None:
        assert words in self.problem_of(written(tmp_path, content))

    @pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "AVIF", "PCX", "TGA"])
    def test_a_picture_of_another_format_has_its_name(self, tmp_path: Path, paint: Paint, kind: str) -> None:
        assert f"is {kind}; convert it to JPEG" in self.problem_of(written(tmp_path, paint(kind)))

    def test_a_png_that_breaks_off_in_its_header_is_a_broken_picture(self, tmp_path: Path, paint: Paint) -> None:
        assert "is a broken or truncated picture" in self.problem_of(written(tmp_path, paint()[:20]))

    @pytest.mark.parametrize("side", [9_460, 10_000, 20_000, 2**31 - 1])
    @pytest.mark.parametrize("pillows_warning", ["error", "ignore"])
    def test_a_decompression_bomb(self, tmp_path: Path, side: int, pillows_warning: Any) -> None:
        bomb = written(tmp_path, whole_png(side, side))

        with warnings.catch_warnings():
            warnings.simplefilter(pillows_warning)
            assert "is too large a picture to be safe" in self.problem_of(bomb)

    def test_a_picture_may_have_as_many_pixels_as_is_safe(self, tmp_path: Path) -> None:
        assert problems_of(written(tmp_path, whole_png(MAX_PIXELS // 5, 5))) == []
        assert "is too large" in problems_of(written(tmp_path, whole_png(MAX_PIXELS // 5 + 1, 5)))[0]

    def test_a_data_url(self) -> None:
        assert "is a data: URL; give a path or an http(s) URL" in self.problem_of("data:image/png;base64,iVBORw0KGgo=")

    @pytest.mark.parametrize("text", ["['/a.png', '/b.png']", "{'request_id': 'mmsu_1', 'outputs': []}"])
    def test_a_list_or_a_manifest_that_a_template_rendered_to_text(self, text: str) -> None:
        assert "render_template_as_native_obj=True" in self.problem_of(text)

    def test_a_long_name_is_shown_in_part(self) -> None:
        (problem,) = read_inputs(["data:image/png;base64," + "A" * 1_000_000], None).problems

        assert len(str(problem)) < 400

    def test_bytes_that_are_wrong_anywhere_never_raise_anything_else(self, paint: Paint) -> None:
        sources = [
            paint("PNG"),
            paint("PNG", "P"),
            paint("JPEG"),
            paint("JPEG", "CMYK"),
            paint("WEBP"),
            paint("GIF", "P"),
        ]
        chance = random.Random(2026)
        usable = 0
        with warnings.catch_warnings():
            # Pillow's own remarks, such as on broken EXIF data; in a worker they are only logged.
            warnings.simplefilter("ignore")
            for _ in range(1500):
                data = bytearray(chance.choice(sources))
                for _ in range(chance.choice([1, 1, 2, 5, 30])):
                    data[chance.randrange(len(data))] = chance.randrange(256)
                if chance.random() < 0.3:
                    del data[chance.randrange(len(data)) :]
                with suppress(UnusablePictureError):
                    usable += examine(io.BytesIO(bytes(data))).width > 0

        assert 0 < usable < 1500

    def test_all_of_them_are_reported_together(self, tmp_path: Path, pictures: Path, paint: Paint) -> None:
        inputs = read_inputs(
            [
                str(tmp_path / "missing.png"),
                str(pictures / "coffee.png"),
                written(tmp_path, b"text", "text.png"),
                "https://example.com/a.png",
                written(tmp_path, paint("GIF", "P"), "moving.gif"),
            ],
            str(tmp_path / "no-mask.png"),
        )

        assert [problem.field for problem in inputs.problems] == ["images[0]", "images[2]", "images[4]", "mask"]

    def test_the_number_of_pictures_is_not_checked_here(self, pictures: Path) -> None:
        assert len(read_inputs([str(pictures / "coffee-mask.png")] * 17, None).images) == 17
        assert read_inputs([], None).images == ()
