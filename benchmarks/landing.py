"""
Landing: download and write pictures, against a plain copy of the same bytes.

Pictures of 4 MB that cannot be compressed go from memory into a folder and into S3 (moto's server on loopback, in its
own process). Each way runs in its own process and writes 40 of them, three times; the peak is the largest growth of
its memory.

- *odirouter* is the whole landing: download into a temporary file, SHA-256, a check of the picture's format and size,
  and a write after which the file is complete or absent; four at a time.
- *fsspec* is ``pipe_file``, *shutil* is ``copyfile``: one after another, unchecked, and a file may be incomplete after
  an error.

So a plain copy is faster; the question is whether landing takes longer than the download itself. The rows *slow host*
show this: there the host sends each file at 16 MB a second, so that one at a time cannot be faster than 4 pictures a
second.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3  # type: ignore[import-untyped]

from benchmarks import processes
from benchmarks.report import Report, Run, Table, medians, shown

SIZE = (1180, 1180)
"""Pixels of noise: 4.2 MB as a PNG."""
PICTURES = 40
SLOW_DOWNLOAD_SECONDS = 0.25
MAX_SECONDS = 120.0
"""Seconds for one process."""
S3_PATH = "s3://store@bucket/out"


@dataclass(frozen=True)
class Row:
    """A way to write pictures into the stores."""

    title: str
    way: str
    download_seconds: float = 0.0
    at_a_time: int | None = None
    rounds: int = 3
    stores: Sequence[str] = ("folder", "S3")


ROWS = (
    Row("odirouter", "ours"),
    Row("odirouter, slow host", "ours", SLOW_DOWNLOAD_SECONDS),
    Row("odirouter, slow host, one at a time", "ours", SLOW_DOWNLOAD_SECONDS, at_a_time=1, rounds=1, stores=["S3"]),
    Row("fsspec pipe_file", "fsspec"),
    Row("shutil.copyfile", "shutil", stores=["folder"]),
)


def run(*, quick: bool, progress: Callable[[str], None]) -> Report:
    """Land with each way in each store."""
    runs: list[Run] = []
    found: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        plain = processes.environment(home)
        with processes.serving("store", {}, environment=plain) as s3:
            environment = plain | {"AIRFLOW_CONN_STORE": _connection(s3.address)}
            for store, row in _plan(quick=quick):
                order = {
                    "way": row.way,
                    "output_path": f"{home}/out" if store == "folder" else S3_PATH,
                    "pictures": 8 if quick else PICTURES,
                    "size": SIZE,
                    "download_seconds": row.download_seconds,
                    "rounds": 1 if quick else row.rounds,
                    "at_a_time": row.at_a_time,
                }
                progress(f"{row.title}, {store}")
                rounds = processes.measured("landing_process", order, environment=environment, seconds=MAX_SECONDS)
                repetitions = [{"row": row.title, "store": store} | result for result in rounds]
                runs.extend(repetitions)
                found.append(medians(repetitions))
    columns = ("landing", "into", "pictures/s", "MB/s", "CPU ms/picture", "peak MiB", "rounds")
    rows = [
        [
            line["row"],
            line["store"],
            shown(line["pictures_per_s"], 1),
            shown(line["pictures_per_s"] * line["picture_mb"], 0),
            shown(line["cpu_ms_per_picture"], 1),
            shown(line["peak_mib"], 0),
            str(line["repetitions"]),
        ]
        for line in found
    ]
    return Report([Table(f"Landing, pictures of {found[0]['picture_mb']:.1f} MB", columns, rows)], found, runs)


def _plan(*, quick: bool) -> list[tuple[str, Row]]:
    rows = [ROWS[0], ROWS[-1]] if quick else ROWS
    return [(store, row) for store in ("folder", "S3") for row in rows if store in row.stores]


def _connection(endpoint: str) -> str:
    keys = {"aws_access_key_id": "any-login", "aws_secret_access_key": "any-secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="bucket")
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": "any-login", "password": "any-secret", "extra": extra})
