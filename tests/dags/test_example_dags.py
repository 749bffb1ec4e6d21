"""Every example Dag is run, unchanged."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from airflow.sdk import DAG, BaseHook

from airflow_provider_odirouter.sandbox import Sandbox
from tests.dags.conftest import RunDag

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

FOLDER = Path(__file__).parents[2] / "example_dags"
FILES = sorted(FOLDER.glob("*.py"))


def load(file: Path) -> DAG:
    """Import a Dag file as Airflow does: by its path."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return find_dag(module)


def find_dag(module: ModuleType) -> DAG:
    [dag] = [value for value in vars(module).values() if isinstance(value, DAG)]
    return dag


def test_the_folder_has_the_documented_examples() -> None:
    assert {file.stem for file in FILES} >= {
        "odirouter_edit_batch",
        "odirouter_edit_chain",
        "odirouter_edit_photo",
        "odirouter_edit_products",
        "odirouter_review",
        "odirouter_submit_then_wait",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_short_has_a_doc_and_opens_no_connection_at_parse(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened when the Dag was parsed")

    monkeypatch.setattr(BaseHook, "get_connection", refuse)
    dag = load(file)
    assert dag.dag_id == file.stem
    assert dag.doc_md
    assert dag.tags == {"example", "odirouter"}
    assert len(file.read_text().splitlines()) <= 60


# That of a review waits for a person: tests/e2e/test_review.py answers it in a browser.
ALONE = [file for file in FILES if file.stem != "odirouter_review"]


@pytest.mark.parametrize("file", ALONE, ids=lambda file: file.stem)
def test_an_example_runs_to_success(
    file: Path, run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    params = {"image": str(pictures / "coffee.png"), "folder": str(pictures), "output_path": str(tmp_path)}
    dag = load(file)
    run = run_dag(dag, **{name: value for name, value in params.items() if name in dag.params})
    assert run.state == "success", run.errors
    assert list(tmp_path.iterdir())
    assert not sandbox.alive
