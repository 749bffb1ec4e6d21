"""A process that no longer acts for its task stops where it is: it calls, cancels and writes nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import NotOwnerError
from airflow_provider_odirouter.lifecycle.ownership import Ownership
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from airflow_provider_odirouter.storage import files
from airflow_provider_odirouter.xcoms import FAILURE_XCOM
from tests.conftest import Listener, actions
from tests.dags.batches import FIVE, batch
from tests.dags.conftest import RunDag, edit

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

AT_A_TIME = 4
"""Pictures that land at a time: as many may be under way."""


@pytest.fixture
def ownerships(monkeypatch: pytest.MonkeyPatch) -> list[Ownership]:
    """The ownerships of the running tasks, the newest last; ``dag.test()`` itself never loses one."""
    made: list[Ownership] = []
    begin = Ownership.begin

    def note(ownership: Ownership) -> None:
        made.append(ownership)
        begin(ownership)

    monkeypatch.setattr(Ownership, "begin", note)
    return made


@pytest.fixture
def lose_at(
    ownerships: list[Ownership], listeners: list[Listener], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Let a newer try begin at a call: ``lose_at("submit", 2)`` is the second submit; return what is written later."""

    def make(action: str, number: int) -> list[Path]:
        written: list[Path] = []
        lost: list[bool] = []
        write: Any = files._write_local

        def lose(entry: JournalEntry) -> None:
            if entry.action == action and actions(sandbox).count(action) == number:
                ownerships[-1].lose("a newer try has begun")
                lost.append(True)

        def note(source: Any, path: Path, *arguments: Any, **options: Any) -> None:
            if lost:
                written.append(path)
            write(source, path, *arguments, **options)

        listeners.append(lose)
        monkeypatch.setattr(files, "_write_local", note)
        return written

    return make


@pytest.mark.parametrize(
    ("action", "number"), [("submit", 1), ("submit", 3), ("status", 2), ("result", 2), ("file", 1)]
)
def test_a_batch_stops_wherever_it_is(
    action: str,
    number: int,
    run_dag: RunDag,
    sandbox: Sandbox,
    lose_at: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if action == "status":
        sandbox.configure(run_seconds=60)
    written = lose_at(action, number)
    run = run_dag(batch(FIVE, tmp_path, retries=0))
    assert [type(error) for error in run.errors] == [NotOwnerError]
    then = [place for place, one in enumerate(actions(sandbox)) if one == action][number - 1]
    assert actions(sandbox)[then + 1 :].count("submit") <= 1  # one was under way
    assert "cancel" not in actions(sandbox)
    assert actions(sandbox).count(action) < number + AT_A_TIME + (5 if action == "status" else 0)
    # A save may have been under way, between its check and its write; test_state.py shows that none begins later.
    assert len(written) <= 1
    assert all(path.name.startswith("state-") for path in written)
    assert run.xcom("edit", FAILURE_XCOM) is None
    if action == "submit":
        request_id = sandbox.requests[-1].request_id
        assert f"Request {request_id} was submitted by a process that no longer acts" in caplog.text


@pytest.mark.parametrize("action", ["submit", "status", "result", "file"])
def test_an_edit_stops_wherever_it_is(
    action: str,
    run_dag: RunDag,
    sandbox: Sandbox,
    lose_at: Any,
    pictures: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if action == "status":
        sandbox.configure(run_seconds=60)
    written = lose_at(action, 1)
    run = run_dag(edit(pictures, output_path=str(tmp_path), retries=0))
    assert [type(error) for error in run.errors] == [NotOwnerError]
    assert actions(sandbox)[-1] == action
    assert "cancel" not in actions(sandbox)
    assert written == []
    assert run.xcom("edit", FAILURE_XCOM) is None
    if action in {"submit", "status"}:
        [request] = sandbox.requests
        assert f"Request {request.request_id} is not cancelled: this process no longer acts for the task" in caplog.text


def test_a_sensor_lands_nothing(run_dag: RunDag, sandbox: Sandbox, lose_at: Any, conn_id: str, tmp_path: Path) -> None:
    from airflow.sdk import DAG

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

    request_id = OdiRouterHook(conn_id).submit("nano_banana_2", {"prompt": "Blue"}).request_id
    lose_at("file", 1)
    with DAG("sensor") as dag:
        OdiRouterRequestSensor(
            task_id="wait", request_id=request_id, endpoint="nano_banana_2", output_path=str(tmp_path), deferrable=False
        )
    run = run_dag(dag)
    assert [type(error) for error in run.errors] == [NotOwnerError]
    assert list(tmp_path.rglob("*.*")) == []


def test_the_operator_begins_nothing_if_a_newer_try_has_begun_before(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(ownership: Ownership) -> None:
        ownership.lose("a newer try has begun")
        ownership.check()

    monkeypatch.setattr(Ownership, "begin", begin)
    for dag in (
        edit(pictures, OdiRouterImageEditOperator, output_path=str(tmp_path), retries=0),
        batch(FIVE, tmp_path, OdiRouterImageEditBatchOperator, retries=0),
    ):
        run = run_dag(dag)
        assert isinstance(run.errors[-1], NotOwnerError)
    assert actions(sandbox) == []
    assert list(tmp_path.rglob("*.*")) == []
