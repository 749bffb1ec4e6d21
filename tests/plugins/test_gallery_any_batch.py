"""The pages of a batch for any endpoint, which has really run against the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.operators.batch import OdiRouterBatchOperator
from airflow_provider_odirouter.sandbox import Sandbox
from tests.dags.conftest import RunDag
from tests.plugins.conftest import Browser, images_in, path_of
from tests.plugins.test_gallery_batch import edit_page, texts_in

pytestmark = pytest.mark.usefixtures("poll_at_once")


def dag_of(items: list[dict[str, Any]], output: Path) -> DAG:
    with DAG("edit") as dag:
        OdiRouterBatchOperator(
            task_id="edit",
            endpoint="nano_banana_2",
            items=items,
            file_parameters=["images", "audio"],
            output_path=str(output),
            deferrable=False,
            poll_interval=0.1,
            max_concurrent_submits=1,
        )
    return dag


def test_each_edit_has_a_card_and_a_page(
    run_dag: RunDag, sandbox: Sandbox, browser: Browser, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    items: list[dict[str, Any]] = [
        {"prompt": "Blue", "images": [str(pictures / "coffee.png")], "name": "cup"},
        {"prompt": "Green", "audio": str(tmp_path / "a.wav"), "mask": 5, "images": "https://example.com/a.png?s3cret"},
        {"prompt": "Red", "images": ["https://example.com/b.png"], "mask": {"of": "another form"}},
    ]
    run = run_dag(dag_of(items, tmp_path / "out"))
    assert run.state == "success", run.errors
    page = browser.page(run)

    text = texts_in(page)
    assert "3 edits: 3 landed" in text
    assert "1. cup succeeded" in text
    assert "2. succeeded" in text
    assert "cannot be read" not in text
    outputs = [path_of(run, rest=f"/edits/{number}/outputs/0/small") for number in (1, 2, 3)]
    assert [source for source in images_in(page) if "outputs" in source] == outputs
    for source in outputs:
        assert browser.get(source).status_code == 200
    own = edit_page(browser, run, 2)
    assert "nano_banana_2" in own
    assert "a.wav" in own
    assert "https://example.com/a.png?***" in own
    assert "s3cret" not in own
    assert "another form" in edit_page(browser, run, 3)


def test_the_page_of_a_batch_whose_requests_are_refused_says_why(
    run_dag: RunDag, sandbox: Sandbox, browser: Browser, tmp_path: Path
) -> None:
    sandbox.configure(error_type="CONTENT_BLOCKED")
    run = run_dag(dag_of([{"images": "https://example.com/a.png", "audio": "https://example.com/a.wav"}] * 2, tmp_path))
    assert run.state == "failed"
    assert "2 edits: 0 landed, 2 failed" in texts_in(browser.page(run))
    assert "CONTENT_BLOCKED" in edit_page(browser, run, 2)
