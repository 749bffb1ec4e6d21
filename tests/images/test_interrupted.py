"""A write that is interrupted leaves no half object: not by an error, not by a kill, not when it is forgotten."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import sys

import pytest

from airflow_provider_odirouter.storage.files import BLOCK_BYTES, write_whole
from airflow_provider_odirouter.storage.paths import storage_path
from airflow_provider_odirouter.storage.store_errors import open_store
from tests.object_store import S3

BEFORE_A_PART_HAS_GONE = BLOCK_BYTES // 2
AFTER_TWO_PARTS_HAVE_GONE = 2 * BLOCK_BYTES + BLOCK_BYTES // 2
SIZES = [0, BEFORE_A_PART_HAS_GONE, AFTER_TWO_PARTS_HAVE_GONE]

KILLED_WRITER = """
import io, sys
from airflow_provider_odirouter.storage.files import write_whole
from airflow_provider_odirouter.storage.paths import storage_path

class HalfFile(io.BytesIO):
    def read(self, size=-1):
        data = super().read(size)
        if not data:
            write_the_next()
        return data

def write_the_next():
    if sizes:
        size = sizes.pop()
        write_whole(HalfFile(bytes(int(size))), folder / f"{size}.png")
    else:
        print("half", flush=True)
        sys.stdin.read()

folder, sizes = storage_path(sys.argv[1]), sys.argv[2:]
write_the_next()
"""


class Breaking(io.BytesIO):
    """A file whose end cannot be read."""

    def __init__(self, size: int, error: BaseException) -> None:
        super().__init__(bytes(size))
        self.error = error

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise self.error
        return data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"of an earlier try"])
def test_an_error_leaves_the_earlier_object(s3: S3, size: int, kind: type[BaseException], before: bytes | None) -> None:
    if before:
        s3.put("out/a.png", before)

    def interrupt() -> None:
        with pytest.raises(kind):
            write_whole(Breaking(size, kind()), storage_path(s3.url("out/a.png"), s3.conn_id))

    gc.freeze()  # All that was there before: to look through that as well takes half a second.
    interrupt()
    gc.collect()  # Nobody knows the file any more; it would now publish what it has.

    assert s3.objects() == ({"out/a.png": before} if before else {})
    assert s3.uploads_in_progress() == []


def test_a_killed_process_leaves_nothing(s3: S3) -> None:
    command = [sys.executable, "-c", KILLED_WRITER, s3.url("out", conn_id=s3.conn_id), *map(str, SIZES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        while b"half" not in (line := writer.stdout.readline()):
            assert line, "the writer has ended by itself"
        os.kill(writer.pid, signal.SIGKILL)

    assert s3.objects() == {}


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, AFTER_TWO_PARTS_HAVE_GONE])
def test_a_write_that_is_not_interrupted_is_whole(s3: S3, size: int) -> None:
    data = os.urandom(size)

    write_whole(io.BytesIO(data), storage_path(s3.url("out/a.png"), s3.conn_id))

    assert s3.objects() == {"out/a.png": data}
    assert s3.uploads_in_progress() == []


@pytest.mark.parametrize("size", [1, AFTER_TWO_PARTS_HAVE_GONE])
def test_a_store_that_fails_at_the_end_leaves_nothing(s3: S3, size: int) -> None:
    class TakesRightsAway(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                s3.forbid_everything()
            return data

    path = open_store(s3.url("out/a.png"), s3.conn_id)
    with pytest.raises(PermissionError), s3.rights_restored():
        write_whole(TakesRightsAway(bytes(size)), path)

    assert s3.objects() == {}
