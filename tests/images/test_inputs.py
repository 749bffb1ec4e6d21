"""Input pictures: read as the user names them, checked before anything is paid, all problems at once."""

from __future__ import annotations

import base64
import io
import os
import random
import struct
import threading
import tracemalloc
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from PIL import Image

from airflow_provider_odirouter.errors import StorageError
from airflow_provider_odirouter.images import inputs as inputs_module
from airflow_provider_odirouter.images.inputs import MAX_INPUT_BYTES, is_url, read_inputs
from airflow_provider_odirouter.images.picture import MOST_PIXELS, UnusablePictureError, examine
from tests.images.conftest import Kill, KilledError, Paint, Unprivileged, join_jobs


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
    """A PNG that has exactly this many bytes: before its end, a chunk is put that every reader passes over."""
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
    def test_every_kind_of_png_jpeg_and_webp_is_taken(
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

    def test_a_phones_jpeg_with_a_second_picture_behind_it_is_a_jpeg(self, tmp_path: Path) -> None:
        photo = Image.effect_noise((40, 30), 80).convert("RGB")
        photo.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[photo])
        with Image.open(tmp_path / "phone.jpg") as image:
            assert image.format == "MPO"

        inputs = read_inputs([str(tmp_path / "phone.jpg")], None)
        assert (inputs.problems, inputs.remarks) == ((), ())

    def test_the_content_tells_the_format_not_the_name(self, tmp_path: Path, paint: Paint) -> None:
        assert problems_of(written(tmp_path, paint("JPEG"), "photo.png"), written(tmp_path, paint(), "photo")) == []

    @pytest.mark.parametrize(
        "name",
        ["a b.png", "Füße 🐈.png", "100%.png", "a%20b.png", "a#b?c=d.png", "[a]*.png", "a::b.png", "c:d.png", "-.png"],
    )
    def test_any_name_can_be_read_in_each_way(
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

        assert read_inputs([f"file://{path}"], None).images == (encoded(data),)

    def test_an_object_store_is_read(self, paint: Paint) -> None:
        store = MemoryFileSystem()
        attach("memory", fs=store)
        store.pipe("/bucket/in/picture.png", paint())

        assert problems_of("memory://bucket/in/picture.png") == []
        assert "does not exist" in problems_of("memory://bucket/in/other.png")[0]

    def test_a_file_of_exactly_10_mib_is_taken(self, tmp_path: Path, paint: Paint) -> None:
        data = padded(paint(), MAX_INPUT_BYTES)

        inputs = read_inputs([written(tmp_path, data)], None)

        assert len(data) == 10 * 1024 * 1024
        assert inputs.problems == ()
        assert base64.b64decode(inputs.images[0]) == data

    def test_no_more_than_is_allowed_is_taken_into_memory(self, tmp_path: Path) -> None:
        with (tmp_path / "huge.png").open("wb") as file:
            file.truncate(200 * 2**20)
        tracemalloc.start()
        try:
            assert "more than 10 MiB" in problems_of(str(tmp_path / "huge.png"))[0]
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert most < 50 * 2**20


class TestRemarks:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(2, 9))
    def test_a_photograph_that_is_shown_turned(self, tmp_path: Path, paint: Paint, kind: str, orientation: int) -> None:
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
    def test_a_photograph_that_is_upright_or_says_nothing_sensible_needs_none(
        self, tmp_path: Path, paint: Paint, kind: str, exif: bytes
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, on broken EXIF data
            inputs = read_inputs([written(tmp_path, paint(kind, exif=exif))], None)

        assert (inputs.problems, inputs.remarks) == ((), ())

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_a_picture_that_moves(self, tmp_path: Path, kind: str) -> None:
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
    """A named pipe is a file that does not answer until somebody writes to it."""

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

    def test_a_store_that_does_not_answer_is_given_up(self, pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inputs_module, "READ_SECONDS", 0.01)
        try:
            with pytest.raises(StorageError, match=r"cannot be read: there is no answer within 0\.01 s\. Nothing was"):
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

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "does not exist, as this worker sees it" in self.problem_of(str(tmp_path / "missing.png"))

    def test_a_file_below_another_file(self, pictures: Path) -> None:
        assert "cannot be read" in self.problem_of(str(pictures / "rocket.jpg" / "picture.png"))

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "is a folder, not a picture" in self.problem_of(str(tmp_path))

    def test_a_home_of_nobody(self) -> None:
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

    def test_a_store_that_nobody_knows(self) -> None:
        problem = self.problem_of("nosuch://bucket/picture.png")

        assert problem.endswith("cannot be read: no installed provider of Airflow knows nosuch://")

    def test_text_with_a_pictures_name(self, tmp_path: Path) -> None:
        problem = self.problem_of(written(tmp_path, b"This is no picture.", "text.png"))

        assert "is no PNG, JPEG or WebP picture; its content begins with b'This is no pictu'" in problem

    def test_an_empty_file(self, tmp_path: Path) -> None:
        assert "is no PNG, JPEG or WebP picture; its content begins with b''" in self.problem_of(written(tmp_path, b""))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_a_truncated_picture(self, tmp_path: Path, paint: Paint, kind: str, share: float) -> None:
        data = paint(kind, size=(200, 200))

        problem = self.problem_of(written(tmp_path, data[: int(len(data) * share)]))

        assert "is a broken or truncated picture" in problem or "is no PNG, JPEG or WebP" in problem

    def test_a_truncated_photograph(self, tmp_path: Path, pictures: Path) -> None:
        data = (pictures / "astronaut.png").read_bytes()

        assert "is a broken or truncated picture" in self.problem_of(written(tmp_path, data[: len(data) // 2]))

    @pytest.mark.parametrize("size", [10 * 2**20 + 1, 11 * 2**20])
    def test_too_large_a_file(self, tmp_path: Path, paint: Paint, size: int) -> None:
        assert "has more than 10 MiB; make it smaller" in self.problem_of(written(tmp_path, padded(paint(), size)))

    def test_a_gif(self, tmp_path: Path, paint: Paint) -> None:
        problem = self.problem_of(written(tmp_path, paint("GIF", "P"), "moving.png"))

        assert "is a GIF; the endpoint takes PNG, JPEG or WebP" in problem

    @pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "PPM"])
    def test_another_format(self, tmp_path: Path, paint: Paint, kind: str) -> None:
        assert "is no PNG, JPEG or WebP picture" in self.problem_of(written(tmp_path, paint(kind)))

    def test_a_drawing(self, tmp_path: Path) -> None:
        assert "is no PNG" in self.problem_of(written(tmp_path, b"<svg xmlns='http://www.w3.org/2000/svg'/>"))

    @pytest.mark.parametrize("side", [9_460, 10_000, 20_000, 2**31 - 1])
    @pytest.mark.parametrize("pillows_warning", ["error", "ignore"])
    def test_a_decompression_bomb(self, tmp_path: Path, side: int, pillows_warning: Any) -> None:
        bomb = written(tmp_path, whole_png(side, side))

        with warnings.catch_warnings():
            warnings.simplefilter(pillows_warning)
            assert "is too large a picture to be safe" in self.problem_of(bomb)

    def test_a_picture_may_have_as_many_pixels_as_is_safe(self, tmp_path: Path) -> None:
        assert problems_of(written(tmp_path, whole_png(MOST_PIXELS // 5, 5))) == []
        assert "is too large" in problems_of(written(tmp_path, whole_png(MOST_PIXELS // 5 + 1, 5)))[0]

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

    def test_how_many_pictures_there_may_be_is_not_decided_here(self, pictures: Path) -> None:
        assert len(read_inputs([str(pictures / "coffee-mask.png")] * 17, None).images) == 17
        assert read_inputs([], None).images == ()
