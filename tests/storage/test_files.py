"""
Local files that several processes write at once: each file is whole, and no writer breaks a newer one.

And files that a machine writes which dies: they are synced in the right order.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_odirouter.storage.files import TakenError, is_same_content, make_folder, read, write_whole
from airflow_provider_odirouter.storage.paths import storage_path
from tests.object_store import S3


class Source(io.BytesIO):
    """Content, and what other processes do after the part file is opened and before it is written."""

    def __init__(self, content: bytes, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__(content)
        self._meanwhile: Callable[[], object] = meanwhile

    def read(self, size: int | None = -1, /) -> bytes:
        self._meanwhile()
        self._meanwhile = lambda: None
        return super().read(size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cup.png"


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / ".cup.png.part"


def write(path: Path, content: bytes, meanwhile: Callable[[], object] = lambda: None) -> None:
    write_whole(Source(content, meanwhile), storage_path(str(path)), track_lineage=False)


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def test_the_part_of_a_dead_writer_does_not_stay(path: Path, part: Path) -> None:
    part.write_bytes(b"half of a dead writer's file")
    write(path, b"whole")
    assert files(path) == {"cup.png": b"whole"}


def test_an_older_writer_may_end_while_another_one_writes(path: Path, part: Path) -> None:
    part.write_bytes(b"older")
    write(path, b"newer", meanwhile=lambda: part.replace(path))
    assert files(path) == {"cup.png": b"newer"}


def test_the_part_of_a_newer_writer_is_not_removed(path: Path, part: Path) -> None:
    part.write_bytes(b"older")

    def end_older_and_begin_newer() -> None:
        part.replace(path)
        part.write_bytes(b"newest, still being written")

    write(path, b"newer", meanwhile=end_older_and_begin_newer)
    assert files(path) == {"cup.png": b"newer", ".cup.png.part": b"newest, still being written"}


def test_a_writer_whose_part_was_replaced_does_not_publish_the_half_file(path: Path, part: Path) -> None:
    def land_newer_and_begin_newest() -> None:
        path.write_bytes(b"newer")
        part.unlink()
        part.write_bytes(b"half of the newest")

    with pytest.raises(FileExistsError, match="another process has removed or replaced its temporary file"):
        write(path, b"older", meanwhile=land_newer_and_begin_newest)
    assert files(path) == {"cup.png": b"newer", ".cup.png.part": b"half of the newest"}


def test_a_failed_write_removes_only_its_own_part(path: Path, part: Path) -> None:
    part.write_bytes(b"another writer's")

    def fail() -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write(path, b"mine", meanwhile=fail)
    assert files(path) == {".cup.png.part": b"another writer's"}


# --- Files of others


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_of_others_is_not_replaced(path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    def fail(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not has_links:  # as on a memory stick
        monkeypatch.setattr(Path, "hardlink_to", fail)
    write_whole(io.BytesIO(b"mine"), storage_path(str(path)), track_lineage=False, may_replace=False)
    assert files(path) == {"cup.png": b"mine"}
    with pytest.raises(TakenError):
        write_whole(io.BytesIO(b"new"), storage_path(str(path)), track_lineage=False, may_replace=False)
    assert files(path) == {"cup.png": b"mine"}


def test_a_file_that_others_write_during_the_write_is_not_replaced(path: Path) -> None:
    source = Source(b"mine", lambda: path.write_bytes(b"of others"))
    with pytest.raises(TakenError):
        write_whole(source, storage_path(str(path)), track_lineage=False, may_replace=False)
    assert files(path) == {"cup.png": b"of others"}


def test_an_object_of_others_is_not_replaced(s3: S3) -> None:
    path = storage_path(s3.url("out/cup.png"), s3.conn_id)
    write_whole(io.BytesIO(b"mine"), path, track_lineage=False, may_replace=False)
    with pytest.raises(TakenError):
        write_whole(io.BytesIO(b"new"), path, track_lineage=False, may_replace=False)
    assert s3.objects() == {"out/cup.png": b"mine"}


@pytest.mark.parametrize("there", [b"", b"mine", b"mine, too", b"mini"])
@pytest.mark.parametrize("in_store", [False, True])
def test_the_same_content_is_known(path: Path, s3: S3, there: bytes, in_store: bool) -> None:
    path.write_bytes(there)
    s3.put("cup.png", there)
    where = storage_path(s3.url("cup.png"), s3.conn_id) if in_store else storage_path(str(path))
    assert is_same_content(io.BytesIO(b"mine"), where) is (there == b"mine")


# --- A machine that dies


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is synced and renamed below the test's folder, in order."""
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        fsync(descriptor)
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append(("sync folder" if name.is_dir() else f"sync {name.stat().st_size}", str(name)))

    def noting_replace(self: Path, target: Path) -> Path:
        done.append(("rename", str(target)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    return done


def test_a_file_is_synced_before_its_rename_and_its_name_after_it(
    path: Path, part: Path, steps: list[tuple[str, str]]
) -> None:
    write(path, b"five!")
    assert steps == [("sync 5", str(part)), ("rename", str(path)), ("sync folder", str(path.parent))]


def test_the_names_of_new_folders_are_synced_up_to_the_first_old_one(
    tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    make_folder(storage_path(str(tmp_path / "a" / "b" / "c")))
    assert steps == [("sync folder", str(tmp_path.joinpath(*names))) for names in ("ab", "a", "")]
    make_folder(storage_path(str(tmp_path / "a" / "b" / "c")))
    assert len(steps) == 3


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_takes_files(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail_at_folders(monkeypatch, number)
    write(path, b"whole")
    assert files(path) == {"cup.png": b"whole"}


def test_a_disk_that_fails_at_a_sync_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at_folders(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write(path, b"whole")


def test_a_file_that_cannot_be_synced_gets_no_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"of an earlier try")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device"):
        write(path, b"half")
    assert files(path) == {"cup.png": b"of an earlier try"}


def fail_at_folders(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let each sync of a folder fail; no file system at hand does that."""
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)


@pytest.mark.parametrize("max_bytes", [0, 5, 6, 7, 100])
def test_a_file_is_read_up_to_one_byte_more_than_it_may_have(path: Path, max_bytes: int) -> None:
    path.write_bytes(b"coffee")
    assert read(storage_path(str(path)), max_bytes) == b"coffee"[: max_bytes + 1]


def test_a_pipe_which_has_no_size_is_read_whole(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as others:
        written = others.submit((tmp_path / "pipe").write_bytes, b"coffee")
        assert read(storage_path(str(tmp_path / "pipe")), 100) == b"coffee"
        written.result()
