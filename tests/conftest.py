"""What all tests share: a throwaway Airflow home, the sandbox on a socket, and a connection to it."""

from __future__ import annotations

import atexit
import gc
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

# Airflow reads its configuration when it is imported, which pytest does below.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="odirouter-tests-")
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = tempfile.mkdtemp(prefix="dags-", dir=os.environ["AIRFLOW_HOME"])
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{os.environ['AIRFLOW_HOME']}/airflow.db"
# Or a Dag is not written if another test has written one of its name within 30 seconds.
os.environ["AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL"] = "0"

import certifi
import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox, studio
from airflow_provider_odirouter.sandbox.pictures import PictureFile, edit, encode

if TYPE_CHECKING:
    from tests.object_store import S3

atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

PICTURES = Path(__file__).parent / "pictures"


class ByFile(LoadFileScheduling):  # type: ignore[misc]
    """Gives whole files to the workers, and all of the gallery's to one: only that one builds Airflow's API server."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return GALLERY if file.startswith(GALLERY) else file


GALLERY = "tests/plugins/"
LONGEST = (GALLERY, "tests/dags/test_openlineage.py", "tests/listeners/test_costs.py")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, and end with short ones: no process works alone at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Never look for garbage among Airflow's modules and the tests themselves, and elsewhere seldom: it is a fifth."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()
    return collected


@pytest.fixture
def pictures() -> Path:
    """The folder of real photographs."""
    return PICTURES


@pytest.fixture(scope="session", autouse=True)
def _one_public_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All servers are on this machine, and to read the 140 public authorities takes each client 50 ms."""
    certificate, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    file = tmp_path_factory.mktemp("public") / "authority.pem"
    file.write_text(certificate + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture
def own_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a command that runs in this process from making it one of Airflow's servers."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")


@lru_cache(64)
def paint(order: tuple[Any, ...], options: frozenset[tuple[str, Any]], *file_options: Any) -> PictureFile:
    """Make a picture as the sandbox does."""
    return encode(edit(*order, **dict(options)), *file_options)


@pytest.fixture(autouse=True)
def _paint_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paint each picture once for all tests: most of them order the same few, and each takes 0.2 s."""
    monkeypatch.setattr(studio, "edit", lambda *order, **options: (order, frozenset(options.items())))
    monkeypatch.setattr(studio, "encode", lambda order, *file_options: paint(*order, *file_options))


Listener = Callable[[JournalEntry], None]
ConfigureAt = Callable[..., None]
Kill = Callable[[], None]


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
def poll_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first poll of a trigger comes after 7 s, which test_polling.py shows."""
    monkeypatch.setattr("airflow_provider_odirouter.triggers.request.FIRST_POLL_DELAY", 0.0)


class KilledError(RuntimeError):
    """What a signal handler raises, as Airflow's does for a task that is killed."""


@pytest.fixture
def kill() -> Iterator[Kill]:
    """Sends this process a signal whose handler raises ``KilledError``, wherever the main thread is."""

    def die(signum: int, frame: FrameType | None) -> None:
        raise KilledError

    before = signal.signal(signal.SIGUSR1, die)
    yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a job can wait for; it is set when the test is over, and the jobs' threads are waited for."""
    event = threading.Event()
    yield event
    event.set()
    join_jobs()


def join_jobs() -> None:
    """Wait for the jobs that were left running."""
    while jobs := [thread for thread in threading.enumerate() if thread.name.startswith("odirouter-job")]:
        for job in jobs:
            with suppress(RuntimeError):  # It is just about to begin: a kill can come in the middle of that.
                job.join(timeout=60)
                assert not job.is_alive(), "a job does not end"


def actions(sandbox: Sandbox) -> list[str]:
    """What was called, in order."""
    return [entry.action for entry in sandbox.journal]


def spent(sandbox: Sandbox) -> tuple[int, int]:
    """How many submits and cancels there were."""
    return len(sandbox.submits), len(sandbox.cancels)


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
