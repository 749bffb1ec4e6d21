"""One way to land pictures, in its own process: ``python -m benchmarks.landing_process {…}``."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from PIL import Image

SMALL = (8, 8)
CHUNK = 65536
"""Bytes of a download at a time."""

Land = Callable[[bytes, int], None]
"""Lands a number of copies of a picture."""


def main(order: dict[str, Any]) -> None:
    """Land the pictures, and print the figures."""
    small, large = _noise(*SMALL), _noise(*order["size"])
    land = WAYS[order["way"]](order)
    land(small, 1)  # loads what is loaded only once
    before = _peak()
    rounds = [_round(lambda: land(large, order["pictures"])) for _ in range(order["rounds"])]
    grown = (_peak() - before) / 2**20
    fixed = {"peak_mib": grown, "picture_mb": len(large) / 1e6}
    print(
        json.dumps(
            [
                {"pictures_per_s": order["pictures"] / wall, "cpu_ms_per_picture": 1000 * cpu / order["pictures"]}
                | fixed
                for wall, cpu in rounds
            ]
        ),
        flush=True,
    )


def _round(land: Callable[[], None]) -> tuple[float, float]:
    began, cpu = time.monotonic(), time.process_time()
    land()
    return time.monotonic() - began, time.process_time() - cpu


def _ours(order: dict[str, Any]) -> Land:
    from airflow_provider_odirouter.images import landing
    from airflow_provider_odirouter.models import OutputFile

    landing.probe(order["output_path"])

    def land(picture: bytes, count: int) -> None:
        def download(_: str, into: IO[bytes]) -> None:
            chunks = range(0, len(picture), CHUNK)
            for begin in chunks:
                into.write(picture[begin : begin + CHUNK])
                if order["download_seconds"]:
                    time.sleep(order["download_seconds"] / len(chunks))

        outputs = [OutputFile(url=str(number)) for number in range(count)]
        landing.land(
            outputs, output_path=order["output_path"], name="mine", download=download, workers=order["at_a_time"]
        )

    return land


def _fsspec(order: dict[str, Any]) -> Land:
    from airflow.sdk import ObjectStoragePath

    folder = ObjectStoragePath(order["output_path"])

    def land(picture: bytes, count: int) -> None:
        folder.fs.mkdirs(folder.path, exist_ok=True)
        for number in range(count):
            folder.fs.pipe_file(f"{folder.path}/mine-{number}.png", picture)

    return land


def _shutil(order: dict[str, Any]) -> Land:
    def land(picture: bytes, count: int) -> None:
        folder = Path(order["output_path"])
        folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile() as file:
            file.write(picture)
            file.flush()
            for number in range(count):
                shutil.copyfile(file.name, folder / f"mine-{number}.png")

    return land


WAYS: dict[str, Callable[[dict[str, Any]], Land]] = {"ours": _ours, "fsspec": _fsspec, "shutil": _shutil}


def _noise(width: int, height: int) -> bytes:
    """Return a PNG that cannot be compressed."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (width, height), os.urandom(3 * width * height)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _peak() -> int:
    """Return the peak of this process's memory, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
