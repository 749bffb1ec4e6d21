"""Batches of the end-to-end tests."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from tests.e2e.edit_dag import PICTURE

SMALL_PICTURE = PICTURE.with_name("small.png")
EDITS = 100
FEWER = 40


def batch_dag(dag_id: str, *, edits: int = EDITS, **settings: Any) -> DAG:
    """Make a Dag whose task `edit` has so many edits, with the prompts "Edit 0", "Edit 1" …"""
    with DAG(dag_id, params={"conn_id": "", "output_path": ""}) as dag:
        OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=[{"prompt": f"Edit {number}"} for number in range(edits)],
            defaults={"images": str(SMALL_PICTURE)},
            odirouter_conn_id="{{ params.conn_id }}",
            output_path="{{ params.output_path }}",
            poll_interval=2.0,
            retry_delay=timedelta(seconds=1),
            **settings,
        )
    return dag


batch = batch_dag("batch")
batch_with_retry = batch_dag("batch_with_retry", retries=1)
batch_of_few_at_once = batch_dag("batch_of_few_at_once", max_in_flight=40)
batch_of_fewer = batch_dag("batch_of_fewer", edits=FEWER, retries=1)
batch_on_worker = batch_dag("batch_on_worker", edits=FEWER, retries=1, deferrable=False)


def assert_all_landed(outputs: Path, edits: int = EDITS) -> None:
    """Check a batch's manifest and pictures: each edit has its own."""
    [manifest] = outputs.glob("*.jsonl")
    lines: list[dict[str, Any]] = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [line["edit"]["prompt"] for line in lines] == [f"Edit {number}" for number in range(edits)]
    files = {output["path"] for line in lines for output in line["outputs"]}
    assert len(files) == edits
    assert files == {str(path) for path in outputs.glob("*.png")}
