"""A process that no longer acts for its task stops where it is: it calls, cancels and writes nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import NotOwnerError
from airflow_provider_odirouter.lifecycle.ownership import Ownership
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.records import FAILURE_XCOM
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from tests.conftest import Listener, actions
from tests.dags.batches import FIVE, batch
from tests.dags.conftest import RunDag, edit

pytestmark = pytest.mark.usefixtures("look_at_once")

AT_A_TIME = 4
"""Pictures that land at a time: as many may be under way."""


@pytest.fixture
def ownerships(monkeypatch: pytest.MonkeyPatch) -> list[Ownership]:
    """Those of the tasks that run, the newest last; ``dag.test()`` itself lets none be lost."""
    made: list[Ownership] = []
    begin = Ownership.begin

    def note(ownership: Ownership) -> None:
        made.append(ownership)
        begin(ownership)

    monkeypatch.setattr(Ownership, "begin", note)
    return made


@pytest.fixture
def lose_at(ownerships: list[Ownership], listeners: list[Listener], sandbox: Sandbox, tmp_path: Path) -> Any:
    """Let a newer try begin at the so manyth call of a kind: ``lose_at("submit", 2)``; returns what was there then."""

    def make(action: str, number: int) -> dict[Path, bytes]:
        found: dict[Path, bytes] = {}

        def lose(entry: JournalEntry) -> None:
            if entry.action == action and actions(sandbox).count(action) == number:
                ownerships[-1].lose("a newer try has begun")
                found.update(files(tmp_path))

        listeners.append(lose)
        return found

    return make


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    before = lose_at(action, number)
    run = run_dag(batch(FIVE, tmp_path, retries=0))
    assert [type(error) for error in run.errors] == [NotOwnerError]
    assert actions(sandbox).count("submit") == (number if action == "submit" else 5)
    assert "cancel" not in actions(sandbox)
    assert actions(sandbox).count(action) < number + AT_A_TIME + (5 if action == "status" else 0)
    assert files(tmp_path) == before
    assert run.xcom("edit", FAILURE_XCOM) is None
    if action == "submit":
        assert f"Request {sandbox.requests[-1].request_id} was submitted by a try that no longer acts" in caplog.text


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
    before = lose_at(action, 1)
    run = run_dag(edit(pictures, output_path=str(tmp_path), retries=0))
    assert [type(error) for error in run.errors] == [NotOwnerError]
    assert actions(sandbox)[-1] == action
    assert "cancel" not in actions(sandbox)
    assert files(tmp_path) == before
    assert run.xcom("edit", FAILURE_XCOM) is None
    if action in {"submit", "status"}:
        [request] = sandbox.requests
        assert f"Request {request.request_id} is left alone: this process no longer acts for the task" in caplog.text


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
    assert files(tmp_path) == {}


def test_a_newer_try_that_has_begun_before_the_operator_does_lets_it_begin_nothing(
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
    assert files(tmp_path) == {}
