"""The tries of one task instance: against the real sandbox, and with notes in files."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import resume
from airflow_provider_odirouter.lifecycle.resume import ResumedRequest
from airflow_provider_odirouter.lifecycle.state import Intent, RequestStore, Submitted
from airflow_provider_odirouter.lifecycle.state_files import NotesBesideOutputs
from airflow_provider_odirouter.protocol import Action, retries
from airflow_provider_odirouter.storage import files
from airflow_provider_odirouter.storage.paths import storage_path
from tests.conftest import DictStore
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


ENDPOINT = "nano_banana_2"
PARAMETERS = {"prompt": "Blue"}


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is repeated, and what is not found is polled again at once."""
    monkeypatch.setattr(retries, "MAX_REPEAT_SECONDS", dict.fromkeys(Action, 0.0))
    monkeypatch.setattr(retries, "MAX_RATE_LIMITED_SECONDS", {})
    monkeypatch.setattr(resume, "PAUSES_WHILE_NOT_FOUND", (0.0, 0.0))


class Tries:
    """The tries of one task instance."""

    def __init__(self, conn_id: str, store: DictStore) -> None:
        self.conn_id = conn_id
        self.request_store = RequestStore(store)

    def intent(self, conn_id: str = "", max_tries: int = 1, **parameters: Any) -> Intent:
        context = cast("Any", {"ti": SimpleNamespace(max_tries=max_tries)})
        return resume.make_intent(context, conn_id or self.conn_id, ENDPOINT, PARAMETERS | parameters)

    def first(self, conn_id: str = "") -> Submitted:
        """A try that dies when its request is noted."""
        hook = OdiRouterHook(conn_id or self.conn_id)
        request = resume.submit(hook, self.request_store, self.intent(conn_id), PARAMETERS)
        self.request_store.note(request)
        return request

    def next(
        self, *, cancel_live: bool = True, on_lost_submit: Any = "submit", max_tries: int = 1, **parameters: Any
    ) -> ResumedRequest | None:
        """What the next try finds."""
        return resume.find_resumable(
            OdiRouterHook(self.conn_id),
            self.request_store,
            self.intent(max_tries=max_tries, **parameters),
            cancel_live=cancel_live,
            on_lost_submit=on_lost_submit,
        )

    def after_clear(self, **arguments: Any) -> ResumedRequest | None:
        """What the next try finds when the user has cleared the task."""
        return self.next(max_tries=2, **arguments)


@pytest.fixture
def tries(conn_id: str, store: DictStore, no_patience: None) -> Tries:
    return Tries(conn_id, store)
