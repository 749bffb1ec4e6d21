"""What all tests share: a throwaway Airflow home, the sandbox on a socket, and a connection to it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Airflow reads its configuration when it is imported, which pytest does below.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="odirouter-tests-")
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = tempfile.mkdtemp(prefix="dags-", dir=os.environ["AIRFLOW_HOME"])
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{os.environ['AIRFLOW_HOME']}/airflow.db"

import pytest

from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox

if TYPE_CHECKING:
    from tests.object_store import S3

atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture
def pictures() -> Path:
    """The folder of real photographs."""
    return PICTURES


Listener = Callable[[JournalEntry], None]
ConfigureAt = Callable[..., None]


@pytest.fixture
def listeners() -> list[Listener]:
    """What is called on each call that the sandbox gets: for what must happen at a certain moment."""
    return []


class Clock:
    """The sandbox's clock, which a test can put forward."""

    def __init__(self) -> None:
        self._time = time.time  # not the one that a test puts in its place
        self._ahead = 0.0

    def __call__(self) -> float:
        return self._time() + self._ahead

    def skip(self, seconds: float) -> None:
        """Let so much time have passed."""
        self._ahead += seconds


@pytest.fixture
def clock() -> Clock:
    """What the sandbox takes for the time."""
    return Clock()


@pytest.fixture
def sandbox(listeners: list[Listener], clock: Clock) -> Sandbox:
    """A sandbox whose requests end at once, so that no test sleeps for one."""

    def tell(entry: JournalEntry) -> None:
        for listener in listeners:
            listener(entry)

    return Sandbox(queue_seconds=0, run_seconds=0, clock=clock, on_call=tell)


@pytest.fixture
def configure_at(sandbox: Sandbox, listeners: list[Listener]) -> ConfigureAt:
    """Changes settings after calls of a kind: ``configure_at("cancel", run_seconds=0)``."""

    def listen(action: str, **settings: Any) -> None:
        def change(entry: JournalEntry) -> None:
            if entry.action == action:
                sandbox.configure(**settings)

        listeners.append(change)

    return listen


@pytest.fixture
def base_url(sandbox: Sandbox) -> Iterator[str]:
    """The sandbox on a real socket."""
    with sandbox.serve() as server:
        yield server.base_url


@pytest.fixture
def conn_id(base_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An Airflow connection to the sandbox."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_ODIROUTER_DEFAULT",
        f'{{"conn_type": "odirouter", "password": "sandbox-key", "host": "{base_url}"}}',
    )
    return "odirouter_default"


class DictStore:
    """A task state store: like Airflow's, it keeps plain JSON."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.retention: timedelta | None = None
        """Of what was written last."""

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        self.values[key] = json.dumps(value, allow_nan=False)
        self.retention = retention

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


@pytest.fixture
def store() -> DictStore:
    """A task state store with nothing in it."""
    return DictStore()


@pytest.fixture
def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look of a trigger comes after 7 s, which test_polling.py shows."""
    for module in ("request", "batch"):
        monkeypatch.setattr(f"airflow_provider_odirouter.triggers.{module}.FIRST_LOOK_IN_TRIGGER", 0.0)


def actions(sandbox: Sandbox) -> list[str]:
    """What was called, in order."""
    return [entry.action for entry in sandbox.journal]


def spent(sandbox: Sandbox) -> tuple[int, int]:
    """How many submits and cancels there were."""
    return actions(sandbox).count("submit"), actions(sandbox).count("cancel")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server that speaks S3's protocol, on a real socket."""
    from tests.object_store import serve

    with serve() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str) -> Iterator[S3]:
    """A bucket of its own, and an Airflow connection to it."""
    from tests.object_store import S3

    store = S3(s3_endpoint)
    yield store
    store.close()
