"""Pictures of others are safe: a batch with names overwrites only what its own task instance has made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.batch import report
from airflow_provider_odirouter.lifecycle import failures
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Listener, actions, spent
from tests.dags.batches import PICTURE, batch, changing, manifest, prompts, submits
from tests.dags.conftest import RunDag, anywhere, clear
from tests.object_store import S3

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

CUP = {"images": PICTURE, "prompt": "Red", "name": "cup"}
HAT = {"images": PICTURE, "prompt": "Green", "name": "hat"}
BAG = {"images": PICTURE, "prompt": "Blue", "name": "bag"}
OTHERS = b"a picture of somebody else"


def pictures_in(folder: Path) -> dict[str, bool]:
    """Each picture in a folder, and whether it is still that of others."""
    return {path.name: path.read_bytes() == OTHERS for path in sorted(folder.glob("*-*.png"))}


@pytest.fixture
def fail_when_all_have_landed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the first try fail when its pictures have landed, and before it has ended."""
    write, calls = report.write_manifest, [0]

    def fail_once(*arguments: Any, **keywords: Any) -> str:
        calls[0] += 1
        if calls[0] == 1:
            raise OSError("no manifest today")
        return write(*arguments, **keywords)

    monkeypatch.setattr(report, "write_manifest", fail_once)
    return calls


def test_names_that_are_taken_fail_the_task_for_good_before_anything_is_paid(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    for name in ("cup-0.png", "bag-0.webp"):
        (tmp_path / name).write_bytes(OTHERS)
    run = run_dag(batch([CUP, HAT, BAG], tmp_path))
    assert run.state == "failed"
    assert run.is_final
    assert "edit 1, name: 'cup' is taken: cup-0.png" in run.error
    assert "edit 3, name: 'bag' is taken: bag-0.webp" in run.error
    assert 'if_exists="new_name"' in run.error
    assert actions(sandbox) == []
    assert pictures_in(tmp_path) == {"cup-0.png": True}


def test_others_pictures_are_replaced_if_that_is_wanted(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "cup-0.png").write_bytes(OTHERS)
    run = run_dag(batch([CUP, HAT], tmp_path, if_exists="overwrite"))
    assert (run.state, run.errors) == ("success", [])
    assert pictures_in(tmp_path) == {"cup-0.png": False, "hat-0.png": False}


@anywhere
def test_a_new_name_is_the_same_in_each_try(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_when_all_have_landed: list[int]
) -> None:
    (tmp_path / "cup-0.png").write_bytes(OTHERS)
    run = run_dag(batch([CUP, HAT], tmp_path, if_exists="new_name", deferrable=deferrable))
    assert (run.state, run.error) == ("success", "no manifest today")
    assert [line["name"] for line in manifest(tmp_path)] == ["cup-2", "hat"]
    assert pictures_in(tmp_path) == {"cup-0.png": True, "cup-2-0.png": False, "hat-0.png": False}
    assert spent(sandbox) == (2, 0)


def test_a_task_replaces_its_own_pictures_when_its_edit_has_changed(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_when_all_have_landed: list[int]
) -> None:
    listed = tmp_path / "edits.jsonl"
    listed.write_text(json.dumps(CUP))
    run = run_dag(
        batch(
            str(listed),
            tmp_path / "out",
            on_retry_callback=lambda _: listed.write_text(json.dumps(CUP | {"prompt": "White"})),
        )
    )
    assert (run.state, submits(sandbox)) == ("success", ["Red", "White"])
    assert pictures_in(tmp_path / "out") == {"cup-0.png": False}


def test_half_a_result_that_has_landed_is_the_tasks_own(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, listeners: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_again(context: Any) -> None:
        sandbox.configure(file_fault="none")
        clear(context)

    monkeypatch.setattr(failures, "will_be_retried", lambda *_: False)
    listeners.append(changing(sandbox, "file", {"file_fault": "html"}))
    run = run_dag(batch([CUP | {"n": 2}], tmp_path, dag_id="half", on_retry_callback=start_again))
    assert (run.state, spent(sandbox)) == ("success", (2, 0))
    assert "HTML page" in run.error
    assert pictures_in(tmp_path) == {"cup-0.png": False, "cup-1.png": False}


def test_two_runs_with_the_same_names_do_not_overwrite_each_others_pictures(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    dag = batch([CUP, HAT], tmp_path, dag_id="twice", retries=0)
    assert run_dag(dag).state == "success"
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    again = batch([CUP | {"prompt": "White"}, HAT], tmp_path, dag_id="twice", retries=0)
    run = run_dag(again)
    assert run.state == "failed"
    assert "'cup' is taken" in run.error
    assert spent(sandbox) == (2, 0)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == before


@pytest.mark.parametrize("in_store", [False, True], ids=["on a disk", "in a store"])
def test_a_picture_that_others_write_while_the_request_runs_is_not_overwritten(
    in_store: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, s3: S3, listeners: list[Listener]
) -> None:
    def write(entry: JournalEntry) -> None:
        if entry.action == "submit":
            s3.put("out/cup-0.png", OTHERS)
            (tmp_path / "cup-0.png").write_bytes(OTHERS)

    listeners.append(write)
    output = s3.url("out", conn_id=s3.conn_id) if in_store else str(tmp_path)
    run = run_dag(batch([CUP, HAT], output, if_exists="fail", retries=0))
    assert run.state == "success"
    assert run.xcom("edit")["succeeded"] == 1
    assert s3.objects()["out/cup-0.png"] == OTHERS
    assert (tmp_path / "cup-0.png").read_bytes() == OTHERS
    if not in_store:
        [line, _] = manifest(tmp_path)
        assert line["error_type"] == "OutputExistsError"
        assert f"Another process has written {tmp_path}/cup-0.png since the names were checked" in line["error"]
        assert "pays nothing" in line["error"]


def test_such_a_picture_lands_under_a_new_name_in_the_retry(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, listeners: list[Listener]
) -> None:
    def write(entry: JournalEntry) -> None:
        if entry.action == "submit":
            (tmp_path / "cup-0.png").write_bytes(OTHERS)

    listeners.append(write)
    run = run_dag(batch([CUP, HAT], tmp_path, if_exists="new_name"))
    assert run.state == "success"
    assert "1 OutputExistsError" in run.error
    assert pictures_in(tmp_path) == {"cup-0.png": True, "cup-2-0.png": False, "hat-0.png": False}
    assert spent(sandbox) == (2, 0)


def test_mapped_batches_with_the_same_names_do_not_overwrite_each_others_pictures(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    with DAG("mapped_names") as dag:
        OdiRouterImageEditBatchOperator.partial(
            task_id="edit", output_path=str(tmp_path), deferrable=False, poll_interval=0.1, if_exists="new_name"
        ).expand(edits=[[CUP], [CUP]])
    run = run_dag(dag)
    assert run.state_of("edit") == ["success"] * 2
    assert pictures_in(tmp_path) == {"cup-0.png": False, "cup-2-0.png": False}


def test_an_edit_without_a_name_is_its_task_instances_own(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    run = run_dag(batch(prompts("Red"), tmp_path, dag_id="unnamed"))
    [path] = tmp_path.glob("*.png")
    assert run.state == "success"
    assert path.name.startswith("unnamed__edit__")
