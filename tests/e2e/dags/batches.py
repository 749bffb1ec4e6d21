"""Batches of the end-to-end tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from tests.e2e.edit_dag import PICTURE

SMALL_PICTURE = PICTURE.with_name("small.png")
EDITS = 100


def batch_dag(dag_id: str, **settings: Any) -> DAG:
    """Make a Dag whose task `edit` has a hundred edits, with the prompts "Edit 0", "Edit 1" …"""
    with DAG(dag_id, params={"conn_id": "", "output_path": ""}) as dag:
        OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=[{"prompt": f"Edit {number}"} for number in range(EDITS)],
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
batch_in_waves = batch_dag("batch_in_waves", max_in_flight=40)
