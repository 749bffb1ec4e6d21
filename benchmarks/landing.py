"""
Landing: bringing pictures home, against a plain copy of the same bytes.

Pictures of 4 MB that cannot be compressed go from memory into a folder and into S3 (moto's server on loopback, in a
process of its own). Each way is a process of its own that brings 40 of them home, three times; the peak is the most
memory that it had beyond what it had before.

- *odirouter* is the whole landing: download into a temporary file, SHA-256, a look into the picture for its format and
  size, and a write that others see whole or not at all; four at a time.
- *fsspec* is ``pipe_file``, *shutil* is ``copyfile``: one after another, looked at by nobody, half there if it breaks.

So a plain copy is faster; the question is whether landing adds to what a download takes. The rows *from afar* tell:
there the host gives out each file at 16 MB a second, so that one at a time cannot be faster than 4 pictures a second.
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
SECONDS_FROM_AFAR = 0.25
LONGEST = 120.0
"""Seconds for one process."""
STORE = "s3://store@bucket/out"


@dataclass(frozen=True)
class Row:
    """A way to a place."""

    title: str
    way: str
    download_seconds: float = 0.0
    at_a_time: int | None = None
    rounds: int = 3
    places: Sequence[str] = ("folder", "S3")


ROWS = (
    Row("odirouter", "ours"),
    Row("odirouter, from afar", "ours", SECONDS_FROM_AFAR),
    Row("odirouter, from afar, one at a time", "ours", SECONDS_FROM_AFAR, at_a_time=1, rounds=1, places=["S3"]),
    Row("fsspec pipe_file", "fsspec"),
    Row("shutil.copyfile", "shutil", places=["folder"]),
)


def run(*, quick: bool, progress: Callable[[str], None]) -> Report:
    """Land with each way in each place."""
    runs: list[Run] = []
    found: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        plain = processes.environment(home)
        with processes.serving("store", {}, environment=plain) as store:
            environment = plain | {"AIRFLOW_CONN_STORE": _connection(store.address)}
            for place, row in _plan(quick=quick):
                order = {
                    "way": row.way,
                    "place": f"{home}/out" if place == "folder" else STORE,
                    "pictures": 8 if quick else PICTURES,
                    "size": SIZE,
                    "download_seconds": row.download_seconds,
                    "rounds": 1 if quick else row.rounds,
                    "at_a_time": row.at_a_time,
                }
                progress(f"{row.title}, {place}")
                rounds = processes.measured("landing_process", order, environment=environment, seconds=LONGEST)
                repetitions = [{"row": row.title, "place": place} | result for result in rounds]
                runs.extend(repetitions)
                found.append(medians(repetitions))
    columns = ("landing", "into", "pictures/s", "MB/s", "CPU ms/picture", "peak MiB", "rounds")
    rows = [
        [
            line["row"],
            line["place"],
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
    return [(place, row) for place in ("folder", "S3") for row in rows if place in row.places]


def _connection(endpoint: str) -> str:
    keys = {"aws_access_key_id": "anybody", "aws_secret_access_key": "any-secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="bucket")
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": "anybody", "password": "any-secret", "extra": extra})
