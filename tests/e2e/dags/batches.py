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


def lines(edits: int) -> list[dict[str, str]]:
    """Make a list of so many edits, with the prompts "Edit 0", "Edit 1" …"""
    return [{"prompt": f"Edit {number}"} for number in range(edits)]


def batch_dag(dag_id: str, *, edits: int = EDITS, **settings: Any) -> DAG:
    """Make a Dag whose task `edit` has so many edits, or those of a list at the path in the run's conf."""
    params = {"conn_id": "", "output_path": "", "image": str(SMALL_PICTURE), "list": ""}
    with DAG(dag_id, params=params) as dag:
        OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=lines(edits) if edits else "{{ params.list }}",
            defaults={"images": "{{ params.image }}"},
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
batch_from_list = batch_dag("batch_from_list", edits=0, retries=1)
batch_on_worker = batch_dag("batch_on_worker", edits=FEWER, retries=1, deferrable=False)


def assert_all_landed(outputs: Path, edits: int = EDITS) -> None:
    """Check a batch's manifest and pictures: each edit has its own."""
    [manifest] = outputs.glob("*.jsonl")
    assert_each_has_one(edits, manifest.read_text(), {str(path) for path in outputs.glob("*.png")})


def assert_each_has_one(edits: int, manifest: str, pictures: set[str]) -> None:
    """Check what a manifest says against the paths of the pictures that lie there."""
    entries: list[dict[str, Any]] = [json.loads(line) for line in manifest.splitlines()]
    assert [entry["edit"]["prompt"] for entry in entries] == [line["prompt"] for line in lines(edits)]
    named = {output["path"] for entry in entries for output in entry["outputs"]}
    assert len(named) == edits
    assert named == pictures
