"""What an output is: its content decides, and the service's word counts only where the content says nothing."""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

import pytest
from PIL import Image

from airflow_provider_odirouter.errors import LandingError
from airflow_provider_odirouter.images import picture
from airflow_provider_odirouter.images.outputs import describe, extension, write_data_url
from airflow_provider_odirouter.models import LandedOutput, OutputFile
from tests.images.conftest import Paint
from tests.images.test_inputs import webp_with

PAGE = b"<!DOCTYPE html><html><body>Please log in.</body></html>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="20px" height="10"><rect/></svg>'
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + b"\0\0\0\x08mdat"


class Counted(io.BytesIO):
    """A file that knows the longest piece that was read from it at once."""

    longest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.longest = max(self.longest, len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self.longest = max(self.longest, count)
        return count


def described(data: bytes, *, picture_due: bool | None = None, **announced: Any) -> LandedOutput:
    return describe(OutputFile(url="https://cdn.example/0", **announced), io.BytesIO(data), picture_due=picture_due)


def refused(data: bytes, *, picture_due: bool | None = None, **announced: Any) -> str:
    with pytest.raises(LandingError) as caught:
        described(data, picture_due=picture_due, **announced)
    return caught.value.what


class TestFormats:
    @pytest.mark.parametrize("announced", ["image/png", "IMAGE/PNG", "application/octet-stream", None, "text/html"])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "AVIF", "TIFF", "BMP"])
    def test_a_picture_is_what_its_content_says(self, paint: Paint, kind: str, announced: str | None) -> None:
        landed = described(paint(kind, "P" if kind == "GIF" else "RGB"), content_type=announced)
        assert (landed.content_type, landed.width, landed.height) == (f"image/{kind.lower()}", 40, 30)

    @pytest.mark.parametrize(
        ("head", "size"),
        [
            ('<svg width="20" height="10">', (20, 10)),
            ('<svg width="20.4px" height=" 10px ">', (20, 10)),
            ('<svg viewBox="0 0 30 40">', (30, 40)),
            ('<svg width="100%" height="100%" viewBox="-1,-1,30,40">', (30, 40)),
            ('<svg width="2cm" height="1cm">', (None, None)),
            ("<svg>", (None, None)),
        ],
    )
    def test_a_drawing_has_the_size_that_it_names(self, head: str, size: tuple[int | None, int | None]) -> None:
        landed = described(f"{head}<rect/></svg>".encode(), type="image")
        assert (landed.content_type, landed.width, landed.height) == ("image/svg+xml", *size)

    def test_a_tiff_may_be_big_or_turned_round(self) -> None:
        for order, big in (("<", False), (">", False), ("<", True), (">", True)):
            mark = b"II" if order == "<" else b"MM"
            fields = [(256, 3, 60), (257, 4, 50), (273, 4, 8), (279, 4, 2)]
            if big:
                entries = b"".join(_entry(order, "HHQ", 8, field) for field in fields)
                data = mark + struct.pack(f"{order}HHHQQ", 43, 8, 0, 16, len(fields)) + entries
            else:
                entries = b"".join(_entry(order, "HHI", 4, field) for field in fields)
                data = mark + struct.pack(f"{order}HIH", 42, 8, len(fields)) + entries
            landed = described(data, type="image")
            assert (landed.content_type, landed.width, landed.height) == ("image/tiff", 60, 50)

    def test_the_largest_size_of_tiles_is_the_pictures(self) -> None:
        sizes = [struct.pack(">I4sIII", 20, b"ispe", 0, *size) for size in ((64, 64), (4000, 3000), (320, 240))]
        boxes = b"\0\0\0\x10ftypheic\0\0\0\0" + struct.pack(">I4s", 8 + 60, b"meta") + b"".join(sizes)
        landed = described(boxes, type="image")
        assert (landed.content_type, landed.width, landed.height) == ("image/heic", 4000, 3000)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
    def test_a_picture_that_is_too_large_to_be_decoded_lands_by_its_header(
        self, paint: Paint, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = paint(kind, "P" if kind == "GIF" else "RGB")
        monkeypatch.setattr(picture, "MAX_PIXELS", 1199)
        monkeypatch.setattr(Image, "open", None)
        landed = described(data, picture_due=True)
        assert (landed.content_type, landed.width, landed.height) == (f"image/{kind.lower()}", 40, 30)
        assert "truncated" in refused(data[:-2], picture_due=True)

    @pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\0\0"}], ids=["VP8L", "VP8X"])
    def test_every_kind_of_webp_has_its_size(
        self, paint: Paint, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = paint("WEBP", **options)
        monkeypatch.setattr(picture, "MAX_PIXELS", 1)
        landed = described(data)
        assert (landed.width, landed.height) == (40, 30)

    @pytest.mark.parametrize("max_pixels", [picture.MAX_PIXELS, 1])
    def test_a_webp_with_a_wrong_length_behind_its_pixels_lands(
        self, max_pixels: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(picture, "MAX_PIXELS", max_pixels)
        for length in (1, 10_000, 2**32 - 16):
            landed = described(webp_with(b"EXIF", b"II*\0", length=length), picture_due=True)
            assert (landed.content_type, landed.width, landed.height) == ("image/webp", 40, 30)

    @pytest.mark.parametrize("announced", ["image", "image/png", "application/octet-stream"])
    @pytest.mark.parametrize(
        ("kind", "modes", "content_type"),
        [
            ("PCX", ["1", "L", "P", "RGB"], "image/vnd.zbrush.pcx"),
            ("TGA", ["1", "L", "LA", "P", "RGB", "RGBA"], "image/x-tga"),
        ],
    )
    def test_a_picture_of_an_old_program_lands_as_it_is(
        self, paint: Paint, kind: str, modes: list[str], content_type: str, announced: str
    ) -> None:
        field = {"type": announced} if announced == "image" else {"content_type": announced}
        for mode in modes:
            for options in ({}, {"compression": "tga_rle"}) if kind == "TGA" and mode != "1" else ({},):
                data = paint(kind, mode, **options)
                output = OutputFile(url="u", **field)
                landed = describe(output, io.BytesIO(data), picture_due=True)
                assert (landed.content_type, landed.width, landed.height) == (content_type, 40, 30)
                assert extension(output, landed, io.BytesIO(data)) == kind.lower()

    @pytest.mark.parametrize(
        ("data", "content_type"),
        [
            (b"\x01\xda\x01\x01\x00\x03", "image/x-sgi"),
            (b"icns\0\0\1\0", "image/x-icns"),
            (b"II\xbc\1", "image/jxr"),
            (b"\x0a\x05\x01\x08\0\0", "image/vnd.zbrush.pcx"),
        ],
    )
    def test_a_picture_whose_size_is_not_known_lands(self, data: bytes, content_type: str) -> None:
        landed = described(data, type="image")
        assert (landed.content_type, landed.width) == (content_type, None if content_type[-3:] != "pcx" else 1)

    def test_a_film_lands_with_the_size_that_the_service_names(self) -> None:
        landed = described(MP4, content_type="application/octet-stream", width=1920, height=1080)
        assert (landed.content_type, landed.width, landed.height) == ("video/mp4", 1920, 1080)

    @pytest.mark.parametrize(
        ("data", "announced", "content_type", "suffix"),
        [
            (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", "video/mp4", "video/webm", "webm"),
            (b"\0\0\0\x14ftypqt  ", None, "video/quicktime", "mov"),
            (b"ID3\x04", "application/octet-stream", "audio/mpeg", "mp3"),
            (b"RIFF\0\0\0\0WAVEfmt ", None, "audio/wav", "wav"),
            (b"glTF\2\0\0\0", None, "model/gltf-binary", "glb"),
            (b"PK\3\4", "model/vnd.usdz+zip", "model/vnd.usdz+zip", "usdz"),
            (b"PK\3\4", "binary/octet-stream", "application/zip", "zip"),
            (b'{"a": 1}', "Application/JSON; charset=utf-8", "application/json", "json"),
            (b"solid cube", "model/stl", "model/stl", "stl"),
            (b"anything", "application/octet-stream", "application/octet-stream", "usdz"),
        ],
    )
    def test_of_other_files_the_content_decides_if_it_says_something(
        self, data: bytes, announced: str | None, content_type: str, suffix: str
    ) -> None:
        output = OutputFile(url="u", type="file", content_type=announced, file_name=f"a.{suffix}")
        landed = describe(output, io.BytesIO(data))
        assert landed.content_type == content_type
        assert extension(output, landed, io.BytesIO(data)) == suffix

    def test_a_page_lands_where_the_service_announces_one(self) -> None:
        assert described(PAGE, type="file", content_type="text/html", picture_due=False).content_type == "text/html"


class TestRefused:
    @pytest.mark.parametrize("announced", [None, "image/png", "IMAGE/PNG", "application/octet-stream", "text/html"])
    @pytest.mark.parametrize("kind", [None, "image", "video", "Image"])
    @pytest.mark.parametrize("picture_due", [None, True, False])
    def test_a_page_in_place_of_a_file(self, announced: str | None, kind: str | None, picture_due: bool | None) -> None:
        assert "is an HTML page" in refused(PAGE, content_type=announced, type=kind, picture_due=picture_due)

    @pytest.mark.parametrize("kind", ["file", "video", None])
    def test_where_the_endpoint_makes_pictures_nothing_else_counts(self, kind: str | None) -> None:
        for announced in ("text/html", "application/json", "application/octet-stream", "video/mp4"):
            for data in (PAGE, b'{"error": "no"}', b"anything", b"<?xml version='1.0'?><Error/>"):
                what = refused(data, content_type=announced, type=kind, picture_due=True)
                assert "not a PNG, JPEG or WebP picture" in what

    def test_a_hosts_error_in_place_of_a_film(self) -> None:
        error = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code></Error>"
        assert refused(error, type="video") == "The file that OdiRouter returned as video is an XML document."

    @pytest.mark.parametrize("kind", ["image", "video", "file"])
    def test_an_empty_file(self, kind: str) -> None:
        assert refused(b"", type=kind) == "The file that OdiRouter returned is empty (0 bytes)."

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "AVIF", "TIFF", "BMP"])
    @pytest.mark.parametrize("announced", ["image/png", "application/octet-stream"])
    def test_a_picture_without_its_last_byte(self, paint: Paint, kind: str, announced: str) -> None:
        data = paint(kind, "P" if kind == "GIF" else "RGB")
        # Pillow writes the pixels of a TIFF last.
        assert "broken or truncated" in refused(data[:-1], content_type=announced)

    @pytest.mark.parametrize(
        "data",
        [
            b"\0" * 40,
            b"\0\0\2" + bytes(9) + b"\0\0\x1e\0\x18\0",
            b"\0\0\2" + bytes(9) + b"\x1e\0\x1e\0\x19\0",
            b"\n\5\1 and a text",
            b"Service unavailable",
        ],
    )
    def test_what_only_looks_like_the_picture_of_an_old_program(self, data: bytes) -> None:
        assert "is not a PNG, JPEG or WebP picture" in refused(data, type="image")

    def test_a_drawing_without_its_end(self) -> None:
        assert described(SVG, type="image").width == 20
        assert "the end of the SVG is missing" in refused(SVG[:-1], type="image")

    def test_a_film_where_a_picture_is_due_lands_with_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        assert described(MP4, picture_due=True).content_type == "video/mp4"
        assert "An output is an MP4, and no picture; it is landed as it is." in caplog.text


def test_a_large_file_is_never_in_memory() -> None:
    film, png = Counted(MP4 + bytes(5 * 2**20)), Counted(_png_with_large_text())
    for file in (film, png):
        describe(OutputFile(url="u"), file)
        assert 0 < file.longest <= 2**20


class TestDataUrls:
    @staticmethod
    def written(url: str) -> bytes:
        into = io.BytesIO()
        write_data_url(url, into)
        return into.getvalue()

    @pytest.mark.parametrize("length", [0, 1, 2, 3, 1000, 3 * 2**20 + 1])
    def test_base64_is_decoded(self, length: int) -> None:
        data = bytes(number % 251 for number in range(length))
        encoded = base64.b64encode(data).decode()
        assert self.written(f"data:image/png;base64,{encoded}") == data
        assert self.written(f"DATA:;BASE64,{encoded.rstrip('=')}") == data

    def test_every_spelling_of_base64_is_decoded(self) -> None:
        data = bytes(range(250, 256)) * 20
        lines = base64.encodebytes(data).decode()
        assert self.written(f"data:;base64,{lines}") == data
        assert self.written(f"data:;base64,{base64.urlsafe_b64encode(data).decode()}") == data
        assert self.written("data:;base64,%2B%2F8%3D") == b"\xfb\xff"

    def test_text_is_decoded(self) -> None:
        assert self.written("data:image/svg+xml,%3Csvg/%3E") == b"<svg/>"

    @pytest.mark.parametrize("data", ["?", "A", "secret!secret", "ü"])
    def test_what_cannot_be_decoded_is_an_error_that_does_not_show_it(self, data: str) -> None:
        with pytest.raises(LandingError, match="a data: URL that cannot be decoded") as caught:
            self.written(f"data:image/png;base64,{data}")
        assert caught.value.__cause__ is None
        assert "secret" not in str(caught.value)

    def test_the_media_type_in_the_url_counts_if_the_content_says_nothing(self) -> None:
        output = OutputFile(url="data:Model/STL;base64,c29saWQ=", type="file")
        assert describe(output, io.BytesIO(b"solid")).content_type == "model/stl"


def _entry(order: str, form: str, width: int, field: tuple[int, int, int]) -> bytes:
    tag, kind, value = field
    content = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(width, b"\0")
    return struct.pack(f"{order}{form}", tag, kind, 1) + content


def _png_with_large_text() -> bytes:
    from tests.images.test_inputs import chunk, png_with

    return png_with(chunk(b"tEXt", b"Comment\0" + bytes(5 * 2**20)))
