"""Outputs land whole or not at all, in order, under names that stay, described by their content."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import resource
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem  # type: ignore[import-untyped]
from PIL import Image

from airflow_provider_odirouter.errors import (
    FileExpiredError,
    LandingError,
    NotOwnerError,
    StorageError,
    UnusablePathError,
)
from airflow_provider_odirouter.images.landing import MAX_NAME_LENGTH, land, make_output_folder, probe, stable_name
from airflow_provider_odirouter.models import LandedOutput, OutputFile
from tests.conftest import Kill, KilledError, join_jobs
from tests.images.conftest import Paint, Unprivileged

Download = Callable[[str, IO[bytes]], None]


def give(*files: bytes) -> Download:
    """Makes a download: the URL is the number of the file."""

    def download(url: str, into: IO[bytes]) -> None:
        into.write(files[int(url)])

    return download


def outputs(count: int = 1, **fields: Any) -> list[OutputFile]:
    return [OutputFile(url=str(number), **fields) for number in range(count)]


def land_one(folder: Path | str, data: bytes, name: str = "mine", **fields: Any) -> LandedOutput:
    (landed,) = land(outputs(**fields), output_path=str(folder), name=name, download=give(data))
    return landed


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class TestLanding:
    def test_the_files_are_the_downloads_in_their_order(self, tmp_path: Path, paint: Paint) -> None:
        files = [paint(size=(10 + number, 10)) for number in range(12)]

        landed = land(outputs(12), output_path=str(tmp_path), name="mine", download=give(*files))

        assert [one.path for one in landed] == [str(tmp_path / f"mine-{number}.png") for number in range(12)]
        assert [Path(one.path or "").read_bytes() for one in landed] == files
        assert len(everything_in(tmp_path)) == 12

    @pytest.mark.parametrize("name", ["astronaut.png", "rocket.jpg", "coffee-mask.png"])
    def test_outputs_are_described_by_their_content_not_by_the_service(
        self, tmp_path: Path, pictures: Path, name: str
    ) -> None:
        data = (pictures / name).read_bytes()
        wrong: dict[str, Any] = {
            "content_type": "image/webp",
            "file_name": "x.webp",
            "file_size": 1,
            "width": 2,
            "height": 3,
        }

        landed = land_one(tmp_path, data, **wrong)

        with Image.open(pictures / name) as image:
            assert (landed.width, landed.height) == image.size
            assert landed.content_type == Image.MIME[image.format or ""]
        assert landed.size_bytes == len(data)
        assert landed.sha256 == hashlib.sha256(data).hexdigest()
        assert landed.url is None

    @pytest.mark.parametrize(
        ("kind", "mode", "extension"),
        [("PNG", "RGBA", "png"), ("JPEG", "RGB", "jpeg"), ("WEBP", "RGBA", "webp"), ("GIF", "P", "gif")],
    )
    def test_the_extension_is_that_of_the_real_format(
        self, tmp_path: Path, paint: Paint, kind: str, mode: str, extension: str
    ) -> None:
        landed = land_one(tmp_path, paint(kind, mode), content_type="image/tiff", file_name="../evil.exe")

        assert landed.path == str(tmp_path / f"mine-0.{extension}")
        assert landed.content_type == f"image/{extension}"

    def test_a_jpeg_with_a_second_picture_in_its_file_is_a_jpeg(self, tmp_path: Path) -> None:
        photo = Image.effect_noise((40, 30), 80).convert("RGB")
        buffer = BytesIO()
        photo.save(buffer, "MPO", save_all=True, append_images=[photo])

        assert land_one(tmp_path, buffer.getvalue()).path == str(tmp_path / "mine-0.jpeg")

    @pytest.mark.parametrize(
        ("fields", "extension"),
        [
            ({"content_type": "video/mp4", "file_name": "a.mp4"}, "mp4"),
            ({"content_type": "application/json"}, "json"),
            ({"file_name": "a.tar.GZ"}, "GZ"),
            ({"file_name": "a.p/../../n g?"}, "bin"),
            ({"file_name": "a.../e/t.c*f g!"}, "cfg"),
            ({"file_name": "a.averyveryverylongextension"}, "averyver"),
            ({"file_name": "."}, "bin"),
            ({}, "bin"),
        ],
    )
    def test_a_file_that_is_not_a_picture_lands_unchanged(
        self, tmp_path: Path, fields: dict[str, str], extension: str
    ) -> None:
        landed = land_one(tmp_path, b"anything", type="video", **fields)

        assert landed.path == str(tmp_path / f"mine-0.{extension}")
        assert (landed.width, landed.height, landed.size_bytes) == (None, None, 8)
        assert landed.content_type == fields.get("content_type")
        assert everything_in(tmp_path) == [f"mine-0.{extension}"]

    def test_a_data_url_lands_without_a_download(self, tmp_path: Path, paint: Paint) -> None:
        data = paint()
        output = OutputFile(url=f"data:image/png;base64,{base64.b64encode(data).decode()}")

        (landed,) = land([output], output_path=str(tmp_path), name="mine", download=give())

        assert (landed.path, landed.url, landed.width) == (str(tmp_path / "mine-0.png"), None, 40)
        assert (tmp_path / "mine-0.png").read_bytes() == data

    def test_a_file_that_is_no_picture_is_refused_where_pictures_are_due(self, tmp_path: Path) -> None:
        with pytest.raises(LandingError, match="not a PNG"):
            land(outputs(type="file"), output_path=str(tmp_path), name="a", download=give(b"x"), picture_due=True)

        land(outputs(), output_path=str(tmp_path), name="a", download=give(b"x"), picture_due=False)
        assert everything_in(tmp_path) == ["a-0.bin"]

    def test_files_of_an_earlier_try_that_are_not_replaced_stay(self, tmp_path: Path, paint: Paint) -> None:
        land(outputs(2), output_path=str(tmp_path), name="mine", download=give(paint(), paint()))

        landed = land_one(tmp_path, paint("WEBP"))

        assert landed.path == str(tmp_path / "mine-0.webp")
        assert everything_in(tmp_path) == ["mine-0.png", "mine-0.webp", "mine-1.png"]

    def test_an_older_file_of_ours_is_replaced_and_no_other(self, tmp_path: Path, paint: Paint) -> None:
        (tmp_path / "mine-0.png").write_bytes(b"of an earlier try")
        (tmp_path / "mine-1.png").write_bytes(b"of another task")
        (tmp_path / "yours-0.png").write_bytes(b"yours")

        land_one(tmp_path, paint())

        assert (tmp_path / "mine-0.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "mine-1.png").read_bytes() == b"of another task"
        assert (tmp_path / "yours-0.png").read_bytes() == b"yours"

    def test_no_outputs_land_nothing(self, tmp_path: Path) -> None:
        assert land([], output_path=str(tmp_path), name="mine", download=give()) == ()

    @pytest.mark.parametrize("form", ["{folder}", "{folder}/", "file://{folder}", "out", "./out", "~/out"])
    def test_every_form_of_path_is_accepted(
        self, tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "out").mkdir()

        landed = land_one(form.format(folder=tmp_path / "out"), paint())

        assert everything_in(tmp_path) == ["out", "out/mine-0.png"]
        assert (landed.path or "").removeprefix("file://") == str(tmp_path / "out" / "mine-0.png")

    @pytest.mark.parametrize("name", ["a b", "Füße 🐈", "a#b?c", "a::b", "c:d", "[a]*", "a%20b"])
    def test_the_folder_can_have_any_name(self, tmp_path: Path, paint: Paint, name: str) -> None:
        (tmp_path / name).mkdir()

        land_one(tmp_path / name, paint())

        assert everything_in(tmp_path) == sorted([name, f"{name}/mine-0.png"])


class TestWholeOrNotAtAll:
    @pytest.mark.parametrize("error", [LandingError("Too much."), FileExpiredError("Expired."), KeyboardInterrupt()])
    def test_a_download_that_breaks_leaves_nothing(self, tmp_path: Path, paint: Paint, error: BaseException) -> None:
        def download(url: str, into: IO[bytes]) -> None:
            into.write(paint()[:200])
            raise error

        with pytest.raises(type(error)):
            land(outputs(), output_path=str(tmp_path), name="mine", download=download)

        assert everything_in(tmp_path) == []

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (
                b"<html><body>Please log in.</body></html>",
                "is an HTML page, not a PNG, JPEG or WebP picture",
            ),
            (b"", r"is empty \(0 bytes\)"),
            (b"\x89PNG\r\n\x1a\n", "broken or truncated|is not a PNG"),
        ],
    )
    def test_a_file_that_is_not_the_picture_the_service_announced_is_refused(
        self, tmp_path: Path, content: bytes, words: str
    ) -> None:
        with pytest.raises(LandingError, match=words):
            land_one(tmp_path, content, content_type="image/png", file_name="a.png")

        assert everything_in(tmp_path) == []

    def test_a_picture_of_the_type_file_is_checked_too(self, tmp_path: Path) -> None:
        with pytest.raises(LandingError):
            land_one(tmp_path, b"<html>", type="file", content_type="image/png")

    @pytest.mark.parametrize("name", ["astronaut.png", "rocket.jpg"])
    def test_half_a_picture_is_refused(self, tmp_path: Path, pictures: Path, name: str) -> None:
        data = (pictures / name).read_bytes()

        with pytest.raises(LandingError, match="broken or truncated"):
            land_one(tmp_path, data[: len(data) // 2])

        assert everything_in(tmp_path) == []

    def test_the_outputs_beside_a_broken_one_are_whole(self, tmp_path: Path, paint: Paint) -> None:
        files = [paint(size=(40 + number, 30)) for number in range(12)]
        files[5] = b"broken"

        with pytest.raises(LandingError, match="is not a PNG"):
            land(outputs(12), output_path=str(tmp_path), name="mine", download=give(*files))

        landed = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        # Two have ended at least, or the broken one would not have had its turn.
        assert len(landed) >= 2
        assert "mine-5.png" not in landed
        assert landed == {name: files[int(name[5:-4])] for name in landed}

    def test_running_downloads_end_with_their_next_piece_after_another_failed(self, tmp_path: Path) -> None:
        running = threading.Event()
        ended: list[str] = []

        def download(url: str, into: IO[bytes]) -> None:
            if url == "1":
                running.wait()
                raise FileExpiredError("Expired.")
            try:
                while True:
                    into.seek(0)
                    into.write(b"a piece")
                    running.set()
            finally:
                ended.append(url)

        with pytest.raises(FileExpiredError):
            land(outputs(2), output_path=str(tmp_path), name="mine", download=download)

        assert ended == ["0"]
        assert everything_in(tmp_path) == []

    def test_a_download_that_is_repeated_ends_before_it_begins_again(self, tmp_path: Path) -> None:
        ended: list[str] = []

        def download(url: str, into: IO[bytes]) -> None:
            if url == "1":
                raise FileExpiredError("Expired.")
            try:
                while True:  # as the hook does, for a host that answers nothing
                    into.seek(0)
                    into.truncate()
            finally:
                ended.append(url)

        with pytest.raises(FileExpiredError):
            land(outputs(2), output_path=str(tmp_path), name="mine", download=download)

        assert ended == ["0"]

    def test_a_kill_does_not_wait_for_downloads_and_nothing_lands_after_it(
        self, tmp_path: Path, paint: Paint, kill: Kill
    ) -> None:
        killed = threading.Event()

        def download(url: str, into: IO[bytes]) -> None:
            into.write(paint()[:100])
            if url == "0":
                kill()
            killed.wait()
            into.write(paint()[100:])

        try:
            with pytest.raises(KilledError):
                land(outputs(12), output_path=str(tmp_path), name="mine", download=download)
        finally:
            killed.set()
            join_jobs()
        assert everything_in(tmp_path) == []

    @pytest.mark.parametrize("before", [None, b"of an earlier try"])
    def test_a_write_that_fails_half_way_leaves_the_earlier_file(
        self, tmp_path: Path, paint: Paint, before: bytes | None
    ) -> None:
        data = paint(size=(400, 400))
        if before:
            (tmp_path / "mine-0.png").write_bytes(before)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        def download(url: str, into: IO[bytes]) -> None:
            into.write(data)
            into.flush()
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) // 2, limits[1]))

        try:
            with pytest.raises(StorageError, match=r"mine-0\.png cannot be written: .*File too large"):
                land(outputs(), output_path=str(tmp_path), name="mine", download=download)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == (
            {"mine-0.png": before} if before else {}
        )

    def test_a_full_temporary_folder_is_a_storage_error_too(self, tmp_path: Path, paint: Paint) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        def download(url: str, into: IO[bytes]) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            into.write(paint(size=(400, 400)))
            into.flush()

        try:
            with pytest.raises(StorageError, match="File too large"):
                land(outputs(), output_path=str(tmp_path), name="mine", download=download)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        assert everything_in(tmp_path) == []

    def test_a_part_file_of_a_killed_worker_is_removed(self, tmp_path: Path, paint: Paint) -> None:
        (tmp_path / ".mine-0.png.part").write_bytes(b"half of an earlier try" * 1000)
        data = paint()

        land_one(tmp_path, data)

        assert everything_in(tmp_path) == ["mine-0.png"]
        assert (tmp_path / "mine-0.png").read_bytes() == data

    def test_a_worker_that_wakes_from_a_freeze_never_replaces_a_newer_file(
        self, tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        newer = paint(size=(400, 400))

        def freeze(source: IO[bytes], target: IO[bytes], _: int) -> None:
            """Write a half, freeze while a newer try lands the same file, wake, and write the rest."""
            monkeypatch.undo()
            data = source.read()
            target.write(data[:1000])
            land_one(tmp_path, newer)
            target.write(data[1000:])

        monkeypatch.setattr("airflow_provider_odirouter.storage.files.shutil.copyfileobj", freeze)
        with pytest.raises(
            StorageError, match=r"mine-0\.png cannot be written: another process has removed or replaced its temporary"
        ):
            land_one(tmp_path, paint(size=(300, 300)))
        assert everything_in(tmp_path) == ["mine-0.png"]
        assert (tmp_path / "mine-0.png").read_bytes() == newer

    def test_a_worker_that_is_no_longer_the_owner_does_not_write(self, tmp_path: Path, paint: Paint) -> None:
        def refuse() -> None:
            raise NotOwnerError("another try has begun")

        with pytest.raises(NotOwnerError):
            land(outputs(), output_path=str(tmp_path), name="mine", download=give(paint()), before_write=refuse)
        assert everything_in(tmp_path) == []

    def test_a_file_has_its_name_only_when_it_is_whole(
        self, tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = paint(size=(400, 400))
        seen = []
        replace = os.replace

        def watch(source: Any, target: Any) -> None:
            seen.append((everything_in(tmp_path), Path(source).read_bytes() == data))
            replace(source, target)

        monkeypatch.setattr(os, "replace", watch)

        land_one(tmp_path, data)

        assert seen == [([".mine-0.png.part"], True)]

    def test_a_folder_that_was_removed_meanwhile_is_a_storage_error(self, tmp_path: Path, paint: Paint) -> None:
        with pytest.raises(StorageError, match="cannot be written"):
            land_one(tmp_path / "missing", paint())

    def test_a_missing_output_folder_is_made(self, tmp_path: Path) -> None:
        make_output_folder(str(tmp_path / "not" / "there"))
        assert everything_in(tmp_path) == ["not", "not/there"]
        (tmp_path / "a file").touch()
        with pytest.raises(StorageError, match="cannot be written"):
            make_output_folder(str(tmp_path / "a file"))


class TestStoreOfAnotherKind:
    """A store whose files exist as soon as they are opened, and that cannot discard a half file."""

    @pytest.fixture
    def store(self) -> MemoryFileSystem:
        store = MemoryFileSystem()
        store.store.clear()
        store.pseudo_dirs[:] = [""]
        attach("memory", fs=store)
        return store

    def test_pictures_land_in_such_a_store(self, store: MemoryFileSystem, paint: Paint) -> None:
        data = paint()
        probe("memory://bucket/out")

        landed = land_one("memory://bucket/out", data)

        assert (landed.path or "").replace(":///", "://") == "memory://bucket/out/mine-0.png"
        assert store.cat("/bucket/out/mine-0.png") == data
        assert list(store.store) == ["/bucket/out/mine-0.png"]

    def test_a_probe_leaves_nothing(self, store: MemoryFileSystem) -> None:
        store.pipe("/bucket/out/picture.png", b"mine")

        probe("memory://bucket/out")

        assert list(store.store) == ["/bucket/out/picture.png"]

    def test_a_write_that_fails_half_way_leaves_nothing(
        self, store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, paint: Paint
    ) -> None:
        def fail(self: Any, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(MemoryFile, "write", fail)
        with pytest.raises(StorageError, match=r"mine-0\.png cannot be written: No space left on device\."):
            land_one("memory://bucket/out", paint())

        assert list(store.store) == []

    @pytest.mark.parametrize("key", ["edited?", "edited#", "../edited"])
    def test_a_folder_that_would_be_another_one_is_refused_for_good(self, store: MemoryFileSystem, key: str) -> None:
        with pytest.raises(UnusablePathError, match="cannot be written") as caught:
            probe(f"memory://bucket/{key}")
        assert not caught.value.retry_helps

    def test_a_file_that_is_not_a_picture_does_not_land(self, store: MemoryFileSystem) -> None:
        with pytest.raises(LandingError):
            land_one("memory://bucket/out", b"<html>")

        assert list(store.store) == []


class TestProbe:
    def test_a_probe_creates_missing_folders_and_leaves_them_empty(self, tmp_path: Path) -> None:
        probe(str(tmp_path / "a" / "b c" / "ü"))

        assert everything_in(tmp_path) == ["a", "a/b c", "a/b c/ü"]

    def test_a_probe_leaves_existing_files_alone(self, tmp_path: Path) -> None:
        (tmp_path / "picture.png").write_bytes(b"mine")

        probe(str(tmp_path))
        probe(f"file://{tmp_path}")

        assert everything_in(tmp_path) == ["picture.png"]
        assert (tmp_path / "picture.png").read_bytes() == b"mine"

    @pytest.mark.parametrize("below", ["", "out", "deep/er/out"])
    def test_a_file_in_the_way_is_found(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").write_bytes(b"mine")

        with pytest.raises(StorageError, match="Nothing was submitted yet"):
            probe(str(tmp_path / "file" / below))

        assert everything_in(tmp_path) == ["file"]

    @pytest.mark.parametrize("below", [".", "out"])
    def test_a_folder_that_may_not_be_written_is_found(
        self, open_folder: Path, unprivileged: Unprivileged, below: str
    ) -> None:
        open_folder.chmod(0o555)

        with unprivileged(), pytest.raises(StorageError, match="Permission denied"):
            probe(str(open_folder / below))

        assert everything_in(open_folder) == []

    @pytest.mark.parametrize("path", ["nosuch://bucket/out", "https://example.com/out", "a\0b"])
    def test_an_impossible_store_or_name_is_found(self, path: str) -> None:
        with pytest.raises(StorageError, match=r"cannot be written.*Nothing was submitted yet"):
            probe(path)


class TestNames:
    def test_the_same_parts_give_the_same_name_in_each_process(self) -> None:
        assert stable_name("dag", "run", "task") == "dag__run__task-d824d3c7"

    def test_other_parts_give_another_name(self) -> None:
        names = {
            stable_name(*parts)
            for parts in [
                ("a", "b"),
                ("a__b",),
                ("a", "b__c"),
                ("a__b", "c"),
                ("a", "B"),
                ("a", "", "b"),
                ("a", "b", ""),
                ("a b",),
                ("a-b",),
                ("a/b",),
                ("ä",),
                ("ö",),
                ("",),
                ("x" * 500,),
                ("x" * 501,),
            ]
        }

        assert len(names) == 15

    @pytest.mark.parametrize(
        "parts",
        [
            ("../../etc", "passwd"),
            ("..",),
            ("",),
            ("/",),
            (".hidden",),
            ("-rf",),
            ("manual__2026-01-01T00:00:00+00:00",),
            ("Füße 🐈",),
            ("a\nb\0c",),
            ("CON", 'a*b?c<d>|e:f"g\\h'),
            ("x" * 1000,),
            ("ü" * 1000,),
        ],
    )
    def test_every_store_allows_a_stable_name(self, parts: tuple[str, ...], tmp_path: Path, paint: Paint) -> None:
        name = stable_name(*parts)

        landed = land_one(tmp_path, paint(), name=name)

        assert re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*)?-[0-9a-f]{8}", name)
        assert len(name) <= MAX_NAME_LENGTH + 9
        assert landed.path == str(tmp_path / f"{name}-0.png")

    def test_the_parts_can_be_read_in_the_name(self) -> None:
        assert stable_name("my_dag", "manual__2026", "edit", "3").startswith("my_dag__manual__2026__edit__3-")
