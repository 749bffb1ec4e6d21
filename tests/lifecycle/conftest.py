"""The tries of one task instance, which keep their notes in files."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from airflow_provider_odirouter.durability import Intent
from airflow_provider_odirouter.images import files
from airflow_provider_odirouter.images.paths import storage_path
from airflow_provider_odirouter.lifecycle.state import NotesBesideOutputs
from tests.object_store import S3

INTENT = Intent(fingerprint="this input", odirouter_conn_id="conn", endpoint="gpt_image_1_edit", max_tries=1)
REQUEST = INTENT.submitted("mmsu_1", datetime(2026, 11, 22, 12, 30, 1, 500_000, UTC))
NAME = "dag__edit__run-1"
Try = Callable[..., NotesBesideOutputs]

DAY = 24 * 3600.0


def id_of(number: int, days_ago: float = 0.0) -> str:
    """The id that Airflow gives a task instance in a try: a UUID of version 7."""
    milliseconds = int((time.time() - days_ago * DAY) * 1000) + number
    return str(UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62 | number))


def put(output_path: str, file: str, content: str) -> str:
    path = storage_path(output_path) / file
    files.make_folder(path.parent)
    with path.open("wb") as target:
        target.write(content.encode())
    return file


def note(output_path: str, task: str, content: str, *, days_ago: float, number: int = 1) -> str:
    return put(output_path, f".odirouter/{task}/{id_of(number, days_ago)}.json", content)


@pytest.fixture(params=["local", "S3"])
def output_path(request: pytest.FixtureRequest) -> str:
    """A folder of this machine, and one in a store."""
    if request.param == "S3":
        s3: S3 = request.getfixturevalue("s3")
        return s3.url("out", conn_id=s3.conn_id)
    return str(request.getfixturevalue("tmp_path") / "out")


@pytest.fixture
def a_try(output_path: str) -> Try:
    """Makes the notes of a try: ``a_try(2)``."""
    now = {number: id_of(number) for number in range(10)}

    def make(
        number: int, *, path: str = output_path, name: str = NAME, conn_id: str | None = None, has_begun: bool = True
    ) -> NotesBesideOutputs:
        is_first = number == 1
        return NotesBesideOutputs(path, conn_id, name, now[number], is_first_try=is_first, has_begun=has_begun)

    return make
