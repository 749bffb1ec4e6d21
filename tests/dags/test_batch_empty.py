"""A batch with nothing to do is no failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import ConfigureAt, actions, spent
from tests.dags.batches import THREE, batch, manifest
from tests.dags.conftest import RunDag, clear
from tests.dags.test_batch_retries import fail_after_submits  # noqa: F401 - a fixture

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

EMPTY: dict[str, Any] = {
    "a.jsonl": "\n",
    "b.jsonl": "",
    "a.csv": "",
    "header.csv": "name,images,prompt\n\n",
    "list": [],
}


@pytest.fixture(params=EMPTY)
def edits(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A list, or a file, without an edit."""
    content = EMPTY[request.param]
    if not isinstance(content, str):
        return content
    path = tmp_path / request.param
    path.write_text(content)
    return str(path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_an_empty_list_skips_the_task_which_leaves_nothing(
    edits: Any, run_dag: RunDag, sandbox: Sandbox, out: Path
) -> None:
    run = run_dag(batch(edits, out))
    assert run.state_of("edit") == ["skipped"]
    assert "The list of edits is empty: there is nothing to do." in run.error
    assert actions(sandbox) == []
    assert not out.exists()


def test_an_empty_list_lets_the_task_succeed_if_that_is_wanted(
    edits: Any, run_dag: RunDag, sandbox: Sandbox, out: Path
) -> None:
    run = run_dag(batch(edits, out, on_empty="succeed"))
    assert (run.state_of("edit"), run.errors) == (["success"], [])
    summary = run.xcom("edit")
    assert [summary[name] for name in ("edits", "succeeded", "failed", "outputs")] == [0, 0, 0, 0]
    assert manifest(out) == []
    assert str(out / Path(summary["manifest"]).name) == summary["manifest"]
    assert actions(sandbox) == []


def test_an_empty_list_fails_the_task_for_good_if_that_is_wanted(
    edits: Any, run_dag: RunDag, sandbox: Sandbox, out: Path
) -> None:
    run = run_dag(batch(edits, out, on_empty="fail"))
    assert run.state_of("edit") == ["failed"]
    assert run.is_final
    assert "edits: holds no edit" in run.error
    assert not out.exists()


def test_an_upstream_task_may_find_nothing_to_do(run_dag: RunDag, sandbox: Sandbox, out: Path) -> None:
    with DAG("empty_upstream") as dag:

        @task
        def make() -> list[dict[str, Any]]:
            return []

        OdiRouterImageEditBatchOperator(task_id="edit", edits=make(), output_path=str(out))
    assert run_dag(dag).state_of("edit") == ["skipped"]


def test_a_list_that_cannot_be_read_is_not_empty(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, out: Path) -> None:
    (tmp_path / "edits.csv").write_text("picture\n")
    run = run_dag(batch(str(tmp_path / "edits.csv"), out))
    assert (run.state, run.is_final) == ("failed", True)


@pytest.mark.parametrize("on_empty", ["skip", "succeed"])
def test_a_cleared_task_whose_list_is_empty_now_cancels_its_live_requests(
    on_empty: str,
    run_dag: RunDag,
    sandbox: Sandbox,
    configure_at: ConfigureAt,
    tmp_path: Path,
    out: Path,
    fail_after_submits: Any,  # noqa: F811
) -> None:
    listed = tmp_path / "edits.jsonl"
    listed.write_text("\n".join(map(json.dumps, THREE)))

    def empty(context: Any) -> None:
        listed.write_text("")
        clear(context)

    sandbox.configure(run_seconds=60)
    fail_after_submits(1)
    run = run_dag(batch(str(listed), out, dag_id="emptied", on_empty=on_empty, on_retry_callback=empty))
    assert run.state_of("edit") == ["skipped" if on_empty == "skip" else "success"]
    assert [one for one in actions(sandbox) if one in {"submit", "cancel"}] == ["submit"] * 3 + ["cancel"] * 3
    assert spent(sandbox) == (3, 3)
