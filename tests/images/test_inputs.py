"""Input pictures: read as the user names them, checked before anything is paid, all problems at once."""

from __future__ import annotations

import base64
import io
import random
import struct
import tracemalloc
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from PIL import Image

from airflow_provider_odirouter.errors import Problem
from airflow_provider_odirouter.images.inputs import MAX_INPUT_BYTES, is_url, read_inputs
from airflow_provider_odirouter.images.picture import UnusablePictureError, examine
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
    """A PNG that has exactly this many bytes: before its end, a chunk is put that every reader passes over."""
    end = picture[-12:]
    return picture[:-12] + chunk(b"teSt", bytes(size - len(picture) - 12)) + end


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

        assert inputs.problems == ()
        assert inputs.images == (encoded(data),)

    def test_a_phones_jpeg_with_a_second_picture_behind_it_is_a_jpeg(self, tmp_path: Path) -> None:
        photo = Image.effect_noise((40, 30), 80).convert("RGB")
        photo.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[photo])
        with Image.open(tmp_path / "phone.jpg") as image:
            assert image.format == "MPO"

        assert problems_of(str(tmp_path / "phone.jpg")) == []

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

    @pytest.mark.parametrize("path", ["s3://bucket/picture.png", "nosuch://bucket/picture.png"])
    def test_a_store_that_this_worker_does_not_know(self, path: str) -> None:
        assert "cannot be read" in self.problem_of(path)

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

    @pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
    def test_a_decompression_bomb(self, tmp_path: Path, side: int) -> None:
        rows = zlib.compress(bytes(1_000_000), 9)
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

        assert "is too large a picture to be safe" in self.problem_of(written(tmp_path, bomb))

    def test_a_data_url(self) -> None:
        assert "is a data: URL; give a path or an http(s) URL" in self.problem_of("data:image/png;base64,iVBORw0KGgo=")

    def test_a_list_that_a_template_rendered_to_text(self) -> None:
        assert "render_template_as_native_obj=True" in self.problem_of("['/a.png', '/b.png']")

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


class TestMask:
    def test_a_good_one_is_sent_as_the_pictures_are(self, pictures: Path) -> None:
        inputs = read_inputs([str(pictures / "coffee.png")], str(pictures / "coffee-mask.png"))

        assert inputs.problems == ()
        assert inputs.mask == encoded((pictures / "coffee-mask.png").read_bytes())

    def test_one_without_an_alpha_channel_is_refused(self, pictures: Path) -> None:
        mask = str(pictures / "coffee-mask-no-alpha.png")

        assert problems_of(str(pictures / "coffee.png"), mask=mask) == [
            "mask: has no alpha channel; its transparent part is what may be edited"
        ]

    def test_one_of_another_size_is_refused(self, pictures: Path) -> None:
        (problem,) = problems_of(str(pictures / "coffee.png"), mask=str(pictures / "coffee-mask-wrong-size.png"))

        with Image.open(pictures / "coffee.png") as edited, Image.open(pictures / "coffee-mask-wrong-size.png") as mask:
            sizes = [f"{image.width}x{image.height}" for image in (mask, edited)]
        assert problem == f"mask: has {sizes[0]} pixels, but images[0] has {sizes[1]}"

    def test_one_of_another_format_is_refused(self, tmp_path: Path, paint: Paint) -> None:
        image, mask = written(tmp_path, paint("PNG"), "a"), written(tmp_path, paint("WEBP", "RGBA"), "b")

        assert problems_of(image, mask=mask) == [
            "mask: is a WEBP, but images[0] is a PNG; both must be the same",
        ]

    def test_all_that_is_wrong_with_it_is_said_at_once(self, tmp_path: Path, paint: Paint) -> None:
        image, mask = written(tmp_path, paint("PNG"), "a"), written(tmp_path, paint("JPEG", size=(10, 10)), "b")

        assert len(problems_of(image, mask=mask)) == 3

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_any_alpha_channel_will_do(self, tmp_path: Path, paint: Paint, mode: str) -> None:
        assert problems_of(written(tmp_path, paint(), "a"), mask=written(tmp_path, paint("PNG", mode), "b")) == []

    def test_a_palette_with_a_transparent_colour_will_do(self, tmp_path: Path, paint: Paint) -> None:
        mask = written(tmp_path, paint("PNG", "P", transparency=0), "b")

        assert problems_of(written(tmp_path, paint(), "a"), mask=mask) == []

    def test_a_palette_without_one_will_not(self, tmp_path: Path, paint: Paint) -> None:
        assert (
            "alpha" in problems_of(written(tmp_path, paint(), "a"), mask=written(tmp_path, paint("PNG", "P"), "b"))[0]
        )

    def test_it_is_compared_with_the_first_picture_alone(self, tmp_path: Path, paint: Paint) -> None:
        first, mask = written(tmp_path, paint(), "a"), written(tmp_path, paint("PNG", "RGBA"), "b")
        second = written(tmp_path, paint("JPEG", size=(7, 7)), "c")

        assert problems_of(first, second, mask=mask) == []
        assert len(problems_of(second, first, mask=mask)) == 2

    def test_it_is_checked_alone_if_the_picture_lies_behind_a_url(self, pictures: Path) -> None:
        url = "https://example.com/a.png"

        assert problems_of(url, mask=str(pictures / "coffee-mask-wrong-size.png")) == []
        assert len(problems_of(url, mask=str(pictures / "coffee-mask-no-alpha.png"))) == 1

    def test_it_is_not_checked_if_it_lies_behind_a_url_itself(self, pictures: Path) -> None:
        inputs = read_inputs([str(pictures / "coffee.png")], "https://example.com/mask.png")

        assert (inputs.mask, inputs.problems) == ("https://example.com/mask.png", ())

    def test_it_is_checked_alone_if_the_picture_is_broken(self, tmp_path: Path, pictures: Path) -> None:
        problems = read_inputs([str(tmp_path / "missing.png")], str(pictures / "coffee-mask-no-alpha.png")).problems

        assert [problem.field for problem in problems] == ["images[0]", "mask"]
        assert problems[1] == Problem("mask", "has no alpha channel; its transparent part is what may be edited")
