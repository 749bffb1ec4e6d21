"""A bad list of edits fails its task in a real Airflow: one final error names every line, and nothing is paid."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter.errors import BatchStateMissingError
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import actions, spent
from tests.dags.conftest import Run, RunDag, needs_store
from tests.object_store import S3

DO_THIS = "Correct this; nothing was sent, nothing was paid, and a retry would fail in the same way."


def batch(edits: Any, output: str | Path, dag_id: str, **arguments: Any) -> DAG:
    """A Dag of one batch on the worker, with one retry at once."""
    defaults: dict[str, Any] = {
        "poll_interval": 0.1,
        "deferrable": False,
        "retries": 1,
        "retry_delay": timedelta(0),
    }
    with DAG(dag_id) as dag:
        OdiRouterImageEditBatchOperator(task_id="edit", edits=edits, output_path=str(output), **(defaults | arguments))
    return dag


def refused(run: Run, sandbox: Sandbox) -> str:
    """The error of a batch of which nothing was sent, and which is not tried again."""
    assert run.state == "failed"
    assert run.is_final
    assert actions(sandbox) == []
    return run.error


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def edits(pictures: Path) -> list[dict[str, Any]]:
    return [{"prompt": f"Blue {number}", "images": str(pictures / "coffee.png")} for number in range(3)]


def test_a_line_that_is_not_json_fails_the_task_at_once_and_for_good(
    run_dag: RunDag, sandbox: Sandbox, edits: list[dict[str, Any]], tmp_path: Path, out: Path
) -> None:
    lines = [json.dumps(edits[0] | {"n": 1, "prompt": f"Blue {number}"}) for number in range(1, 1_001)]
    lines[730] = "Blue"
    lines[999] = json.dumps(edits[0] | {"images": f"{tmp_path}/missing.png"})
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(lines))
    message = refused(run_dag(batch(str(path), out, "bad_line")), sandbox)
    assert f"2 parameters of gpt_image_1_edit in '{path}' cannot be used:\n" in message
    assert "  - line 731: is not JSON: Expecting value at character 1\n" in message
    assert (
        f"  - line 1000, images[0]: '{tmp_path}/missing.png' does not exist, as this worker sees it (host " in message
    )
    assert message.endswith("Correct this, then clear the task; nothing was sent, and nothing was paid.")
    assert not out.exists()


def test_what_the_gallery_shows_of_a_refused_batch_is_its_error(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, out: Path
) -> None:
    path = tmp_path / "edits.csv"
    path.write_text("prompt,picture\nBlue,a.png\n")
    run = run_dag(batch(str(path), out, "bad_column"))
    assert "line 1, column 'picture': is not a parameter of an edit; the parameters are " in refused(run, sandbox)
    assert "column 'picture'" in json.dumps(run.xcom("edit", key="odirouter_failure"))


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ([{"prompt": "Blue", "images": "https://example.com/a.png"}] * 12_000, "edits: holds 12,000 edits; at most"),
        ([{"prompt": "Blue", "images": "https://example.com/a.png"}] * 2, "edits[1]: is the same edit as edits[0]"),
        ("no-such-list.jsonl", "edits: 'no-such-list.jsonl' cannot be read: No such file or directory"),
        (7, "edits: must be a list of dictionaries, or the path of a .jsonl or .csv file, not int"),
    ],
    ids=["too many", "twice the same", "a missing file", "a number"],
)
def test_an_upstream_task_that_returns_no_good_list(
    run_dag: RunDag, sandbox: Sandbox, out: Path, upstream: Any, message: str
) -> None:
    with DAG("bad_upstream") as dag:

        @task
        def make() -> Any:
            return upstream

        OdiRouterImageEditBatchOperator(task_id="edit", edits=make(), output_path=str(out), deferrable=False)
    assert message in refused(run_dag(dag), sandbox)


def test_a_list_that_a_template_rendered_to_text(run_dag: RunDag, sandbox: Sandbox, out: Path) -> None:
    dag = batch("{{ dag_run.conf.edits }}", out, "as_text")
    run = run_dag(dag, edits=[{"prompt": "Blue", "images": "https://example.com/a.png"}])
    assert "a template rendered to text; set render_template_as_native_obj=True" in refused(run, sandbox)


def test_a_mapped_batch_is_checked_when_it_runs(run_dag: RunDag, sandbox: Sandbox, out: Path) -> None:
    with DAG("mapped_badly") as dag:
        OdiRouterImageEditBatchOperator.partial(task_id="edit", output_path=str(out), deferrable=False).expand(
            edits=[[{"prompt": "Blue"}], [{"prompt": "Red"}]]
        )
    run = run_dag(dag)
    assert [type(error).__name__ for error in run.errors] == ["AirflowFailException"] * 2
    assert all("edits[0], images: is required" in str(error) for error in run.errors)
    assert actions(sandbox) == []


def test_all_that_is_wrong_is_named_at_once(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, out: Path) -> None:
    path = tmp_path / "edits.csv"
    path.write_text("prompt;images\nNone;missing.png\n")
    dag = batch("{{ dag_run.conf.edits }}", out, "all_at_once", odirouter_conn_id="{{ none }}")
    setattr(dag.get_task("edit"), "timeout", 0)  # noqa: B010 - a mapped task has none
    setattr(dag.get_task("edit"), "defaults", {"quallity": "high"})  # noqa: B010
    message = refused(run_dag(dag, edits=str(path)), sandbox)
    assert f"5 parameters of gpt_image_1_edit in '{path}' cannot be used:\n" in message
    assert re.findall(r"^  - ([^:]+): ", message, re.MULTILINE) == [
        "odirouter_conn_id",
        "timeout",
        "defaults, quallity",
        "line 2, prompt",
        "line 2, images[0]",
    ]
    assert not out.exists()


@pytest.mark.parametrize("native", [True, False])
def test_an_output_path_that_renders_to_none_lands_nothing(
    native: bool, run_dag: RunDag, sandbox: Sandbox, edits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dag = batch(edits, "{{ none }}", f"no_output_{native}")
    dag.render_template_as_native_obj = native
    message = refused(run_dag(dag), sandbox)
    words = "must be a path" if native else "is 'None', which is what a template, str() or pandas writes for a missing"
    assert f"  - output_path: {words}" in message
    assert list(tmp_path.iterdir()) == []


def test_a_list_in_a_store_is_edited(run_dag: RunDag, sandbox: Sandbox, pictures: Path, s3: S3) -> None:
    s3.put("in/coffee.png", (pictures / "coffee.png").read_bytes())
    picture = s3.url("in/coffee.png")
    rows = f'name,prompt,images,n\ncup,Blue,{picture},2\n,"Red,\nplease","[""{picture}""]",\n'
    s3.put("in/edits.csv", rows.encode())
    dag = batch(s3.url("in/edits.csv"), s3.url("out"), "in_a_store", storage_conn_id=s3.conn_id)
    run = run_dag(dag)
    assert run.state == "success", run.errors
    assert spent(sandbox) == (2, 0)
    summary = run.xcom("edit")
    assert (summary["succeeded"], summary["outputs"]) == (2, 3)
    assert summary["manifest"].startswith(s3.url("out/", conn_id=s3.conn_id))
    written = s3.objects()
    assert {"out/cup-0.png", "out/cup-1.png"} < set(written)
    [manifest] = [text for key, text in written.items() if key.startswith("out/in_a_store") and key.endswith(".jsonl")]
    assert [json.loads(line)["edit"]["prompt"] for line in manifest.splitlines()] == ["Blue", "Red,\nplease"]


def test_a_state_that_was_edited_by_hand_stops_a_retry_before_it_pays(
    run_dag: RunDag, sandbox: Sandbox, edits: list[dict[str, Any]], out: Path
) -> None:
    broken: list[Path] = []

    def break_it(context: Any) -> None:
        for path in (out / ".odirouter").rglob("state-*.jsonl"):
            path.write_text(path.read_text().replace('"phase":"', '"phase":"not ', 1))
            broken.append(path)

    sandbox.configure(file_fault="404")
    dag = batch(edits, out, "by_hand", on_retry_callback=break_it)
    run = run_dag(dag)
    assert run.state == "failed"
    [path] = broken
    assert f"{path}, line 2: " in str(run.errors[-1])
    assert "repair it and clear the task" in str(run.errors[-1])
    assert spent(sandbox) == (3, 0)


@needs_store
def test_an_output_path_that_is_missing_in_a_retry_is_not_taken_for_a_first_try(
    run_dag: RunDag, sandbox: Sandbox, edits: list[dict[str, Any]], out: Path
) -> None:
    sandbox.configure(file_fault="404")
    dag = batch(edits, out, "missing", on_retry_callback=lambda context: out.rename(out.with_name("away")))
    run = run_dag(dag)
    assert isinstance(run.errors[-1], BatchStateMissingError)
    assert "owner-*.json is missing." in str(run.errors[-1])
    assert spent(sandbox) == (3, 0)


def test_a_retry_whose_list_has_changed_pays_only_for_what_is_new(
    run_dag: RunDag, sandbox: Sandbox, edits: list[dict[str, Any]], tmp_path: Path, out: Path
) -> None:
    path = tmp_path / "edits.jsonl"

    def write(*found: dict[str, Any]) -> None:
        path.write_text("".join(json.dumps(edit) + "\n" for edit in found))

    def insert(context: Any) -> None:
        sandbox.configure(file_fault="none")
        write(edits[0] | {"prompt": "New"}, *edits[1:], edits[0] | {"name": "renamed"})

    write(*edits)
    sandbox.configure(file_fault="404")
    run = run_dag(batch(str(path), out, "changed", on_retry_callback=insert))
    assert run.state == "success", run.errors
    assert spent(sandbox) == (4, 0)
    found = [json.loads(line) for line in Path(run.xcom("edit")["manifest"]).read_text().splitlines()]
    assert [line["edit"]["prompt"] for line in found] == ["New", "Blue 1", "Blue 2", "Blue 0"]
    assert len({line["request_id"] for line in found}) == 4
    assert found[3]["outputs"][0]["path"] == str(out / "renamed-0.png")
