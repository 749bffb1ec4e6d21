"""The tries of one task instance, which keep their notes in files."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

import pytest

from airflow_provider_odirouter.lifecycle.state import NotesBesideOutputs
from tests.object_store import S3

NAME = "dag__edit__run-1"
Try = Callable[..., NotesBesideOutputs]

DAY = 24 * 3600.0


def id_of(number: int, days_ago: float = 0.0) -> str:
    """The id that Airflow gives a task instance in a try: a UUID of version 7."""
    milliseconds = int((time.time() - days_ago * DAY) * 1000) + number
    return str(UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62 | number))


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
