"""The connection in a real Airflow: where it is stored, what breaks before anything is paid, a rotated key."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.models.connection import Connection
from airflow.sdk import DAG
from airflow.utils.session import create_session

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import guard
from airflow_provider_odirouter.lifecycle.cancel import cancel_on_worker
from airflow_provider_odirouter.lifecycle.state import RequestStore
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Listener, actions, spent
from tests.dags.batches import THREE, batch, landed, phases
from tests.dags.conftest import RunDag, anywhere, edit, kill_task

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

KINDS = ["one edit", "a batch"]
MakeDag = Callable[..., DAG]


@pytest.fixture(params=KINDS)
def make_dag(request: pytest.FixtureRequest, pictures: Path, tmp_path: Path) -> MakeDag:
    """Makes a Dag of either operator."""

    def make(**arguments: Any) -> DAG:
        if request.param == "one edit":
            return edit(pictures, output_path=str(tmp_path), **arguments)
        return batch(THREE, tmp_path, **arguments)

    return make


def store(base_url: str, key: str) -> None:
    """Write a connection to Airflow's database; it replaces one of the same name."""
    with create_session() as session:
        session.query(Connection).filter_by(conn_id="in_database").delete()
        session.add(Connection(conn_id="in_database", conn_type="odirouter", password=key, host=base_url))


@pytest.fixture
def in_database(airflow_db: None, base_url: str) -> Iterator[str]:
    """A connection to the sandbox that lies in Airflow's database."""
    store(base_url, "sandbox-key")
    yield "in_database"
    with create_session() as session:
        session.query(Connection).filter_by(conn_id="in_database").delete()


class TestInDatabase:
    @anywhere
    def test_dag_test_finds_the_connection_wherever_the_task_waits(
        self,
        deferrable: bool,
        make_dag: MakeDag,
        in_database: str,
        run_dag: RunDag,
        sandbox: Sandbox,
        tmp_path: Path,
    ) -> None:
        sandbox.configure(run_seconds=0.5)
        run = run_dag(make_dag(deferrable=deferrable, odirouter_conn_id=in_database, retries=0))

        assert run.state == "success", run.errors
        assert len(landed(tmp_path)) == sandbox.paid
        assert "status" in actions(sandbox)
        assert spent(sandbox)[1] == 0

    def test_a_key_that_is_rotated_during_the_wait_is_found(
        self,
        make_dag: MakeDag,
        in_database: str,
        base_url: str,
        run_dag: RunDag,
        sandbox: Sandbox,
        listeners: list[Listener],
    ) -> None:
        sandbox.configure(run_seconds=0.5)
        listeners.append(rotating(sandbox, "status", lambda: store(base_url, "new-key")))
        run = run_dag(make_dag(deferrable=True, odirouter_conn_id=in_database, retries=0))

        assert run.state == "success", run.errors


def rotating(sandbox: Sandbox, action: str, change: Callable[[], object]) -> Listener:
    """Has the service take a new key alone after the first call of a kind."""
    done: list[bool] = []

    def rotate(entry: JournalEntry) -> None:
        if entry.action == action and not done:
            done.append(True)
            change()
            sandbox.configure(api_key="new-key")

    return rotate


class TestRotatedKey:
    @pytest.fixture
    def rotate(self, base_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Puts the new key into the connection."""
        document = {"conn_type": "odirouter", "password": "new-key", "host": base_url}
        return lambda: monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", json.dumps(document))

    @anywhere
    @pytest.mark.parametrize("action", ["submit", "status", "result"])
    def test_waiting_requests_use_the_rotated_key(
        self,
        deferrable: bool,
        action: str,
        make_dag: MakeDag,
        rotate: Callable[[], None],
        run_dag: RunDag,
        sandbox: Sandbox,
        listeners: list[Listener],
        tmp_path: Path,
    ) -> None:
        sandbox.configure(run_seconds=0.5)
        listeners.append(rotating(sandbox, action, rotate))
        run = run_dag(make_dag(deferrable=deferrable, retries=0))

        assert run.state == "success", run.errors
        assert len(landed(tmp_path)) == sandbox.paid
        assert spent(sandbox)[1] == 0

    def test_a_kill_cancels_with_the_key_that_the_wait_has_found(
        self,
        make_dag: MakeDag,
        rotate: Callable[[], None],
        run_dag: RunDag,
        sandbox: Sandbox,
        listeners: list[Listener],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def ask(_: object) -> None:
            raise AssertionError("Airflow was asked for the connection after the kill")

        def kill(entry: JournalEntry) -> None:
            if entry.action == "status" and actions(sandbox).count("status") == 12:
                monkeypatch.setattr(OdiRouterHook, "get_connection", ask)
                monkeypatch.setattr(OdiRouterHook, "aget_connection", ask)
                kill_task()

        sandbox.configure(run_seconds=60)
        listeners.append(rotating(sandbox, "status", rotate))
        listeners.append(kill)
        run = run_dag(make_dag(retries=0))

        assert run.error == "The task was killed."
        assert not sandbox.alive

    def test_a_kill_asks_nothing_though_the_key_is_refused_then(
        self,
        make_dag: MakeDag,
        run_dag: RunDag,
        sandbox: Sandbox,
        listeners: list[Listener],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        asked: list[object] = []
        cancel: Any = cancel_on_worker

        def kill(entry: JournalEntry) -> None:
            if entry.action == "status" and actions(sandbox).count("status") == 2:
                kill_task()

        def cancel_with_another_key(*arguments: Any, **options: Any) -> Any:
            # Not sooner: until the kill is handled, a poll that is refused may ask.
            monkeypatch.setattr(OdiRouterHook, "get_connection", asked.append)
            monkeypatch.setattr(OdiRouterHook, "aget_connection", asked.append)
            sandbox.configure(api_key="another")
            return cancel(*arguments, **options)

        monkeypatch.setattr(guard, "cancel_on_worker", cancel_with_another_key)
        sandbox.configure(run_seconds=60)
        listeners.append(kill)
        run = run_dag(make_dag(retries=0))

        assert run.error == "The task was killed."
        assert asked == []
        assert len(sandbox.alive) == sandbox.paid
        assert "To cancel by hand" in caplog.text


class TestBrokenEnvironment:
    """What needs no network is tried before the intent to submit is noted, so that no submit counts as lost for it."""

    @pytest.fixture(
        params=[
            {"NO_PROXY": "localhost,[::1", "HTTP_PROXY": "http://127.0.0.1:9"},
            {"ALL_PROXY": "socks5://user:word@127.0.0.1:1"},
            {"http_proxy": "http://user:word@127.0.0.1:port"},
            {"SSL_CERT_FILE": "/no/such/file.pem"},
            {"SSL_CERT_DIR": "/no/such/folder", "SSL_CERT_FILE": ""},
            {"SSLKEYLOGFILE": "/no/such/folder/keys.log"},
        ],
        ids=lambda environment: next(iter(environment)),
    )
    def broken(self, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
        """The environment of the first try; its first variable has to be named."""
        with pytest.MonkeyPatch.context() as patch:
            for name in request.param:
                patch.delenv(name, raising=False)
            yield dict(request.param)

    def test_a_wrong_environment_leaves_no_note_and_a_retry_in_a_right_one_runs(
        self,
        broken: dict[str, str],
        make_dag: MakeDag,
        run_dag: RunDag,
        sandbox: Sandbox,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        note, noted, left = RequestStore.note, list[object](), list[Any]()

        def spy(request_store: RequestStore, what: Any) -> None:
            noted.append(what)
            note(request_store, what)

        def set_up(context: Any) -> None:
            os.environ.update(broken if context["ti"].try_number == 1 else {})

        def tear_down(_: object) -> None:
            left.append((list(noted), phases(tmp_path), actions(sandbox)))
            for name in broken:
                del os.environ[name]

        monkeypatch.setattr(RequestStore, "note", spy)
        dag = make_dag(on_lost_submit="fail", pre_execute=set_up, on_retry_callback=tear_down, retries=1)
        run = run_dag(dag)

        assert left == [([], [], [])]
        assert run.state == "success", run.errors
        assert next(iter(broken)) in run.error
        assert "word" not in run.error.replace("http://user:password@proxy:3128", "")
        assert spent(sandbox) == (sandbox.paid, 0)
