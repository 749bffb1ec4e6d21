"""What all tests share: a throwaway Airflow home, the sandbox on a socket, and a connection to it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Airflow reads its configuration when it is imported, which pytest does below.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="odirouter-tests-")
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = tempfile.mkdtemp(prefix="dags-", dir=os.environ["AIRFLOW_HOME"])
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{os.environ['AIRFLOW_HOME']}/airflow.db"

import pytest

from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox

atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture
def pictures() -> Path:
    """The folder of real photographs."""
    return PICTURES


Listener = Callable[[JournalEntry], None]


@pytest.fixture
def listeners() -> list[Listener]:
    """What is called on each call that the sandbox gets: for what must happen at a certain moment."""
    return []


@pytest.fixture
def sandbox(listeners: list[Listener]) -> Sandbox:
    """A sandbox whose requests end at once, so that no test sleeps for one."""

    def tell(entry: JournalEntry) -> None:
        for listener in listeners:
            listener(entry)

    return Sandbox(queue_seconds=0, run_seconds=0, on_call=tell)


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
