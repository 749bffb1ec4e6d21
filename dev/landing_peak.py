"""
Lands 100 pictures of about 4 MB in S3 and in a folder, and tells time and memory: ``python -m dev.landing_peak``.

The store is moto's server in a process of its own, so that its memory does not count. Downloads come from memory, each
as slowly as from a host that gives out 16 MB a second. Each landing runs in a process of its own: the peak is its own.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

PICTURES = 100
SIZE = (1180, 1180)
"""Pixels of noise, which PNG cannot compress: 4.2 MB."""
DOWNLOAD_SECONDS = 0.25
SERVER = """
import threading
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("http://{}:{}".format(*server.get_host_and_port()), flush=True)
threading.Event().wait()
"""


def main() -> None:
    """Measure each way in a process of its own."""
    with tempfile.TemporaryDirectory() as home, store() as endpoint:
        extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        environment = os.environ | {
            "AIRFLOW_HOME": home,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW_CONN_STORE": json.dumps(
                {"conn_type": "aws", "login": "anybody", "password": "any-secret", "extra": extra}
            ),
        }
        print(f"{PICTURES} pictures into …    workers    seconds    peak over what was there before")
        for place in ("s3://store@bucket/out", f"{home}/out"):
            for workers in ("4", "1"):
                subprocess.run([sys.executable, "-m", "dev.landing_peak", place, workers], env=environment, check=True)


@contextmanager
def store() -> Iterator[str]:
    """Serve S3 with one bucket; the value is the endpoint."""
    import boto3  # type: ignore[import-untyped]

    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout
            endpoint = server.stdout.readline().strip()
            keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
            boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="bucket")
            yield endpoint
        finally:
            server.kill()


def measure(place: str, workers: int) -> None:
    """Land the pictures, and tell what it took."""
    from airflow_provider_odirouter.images import landing, threads
    from airflow_provider_odirouter.models import OutputFile

    threads.WORKERS = workers
    small, large = (noise(size) for size in ((8, 8), SIZE))

    def land(picture: bytes, count: int) -> None:
        def download(_: str, into: IO[bytes]) -> None:
            pieces = range(0, len(picture), 65536)
            for begin in pieces:
                into.write(picture[begin : begin + 65536])
                time.sleep(DOWNLOAD_SECONDS / len(pieces))

        outputs = [OutputFile(url=str(number)) for number in range(count)]
        landing.land(outputs, output_path=place, name="mine", download=download)

    landing.probe(place)
    land(small, 1)  # loads what is only loaded once
    before, began = peak(), time.monotonic()
    land(large, PICTURES)
    seconds, grown = time.monotonic() - began, peak() - before
    kind = "S3" if "://" in place else "a folder"
    print(f"{kind:<24}{workers:>7}{seconds:>11.1f}{grown / 2**20:>14.0f} MiB ({len(large) / 1e6:.1f} MB each)")


def noise(size: tuple[int, int]) -> bytes:
    """A PNG that nobody can compress."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.frombytes("RGB", size, os.urandom(3 * size[0] * size[1])).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        main()
