"""Tasks that wait for a retry that comes too late, and one that is none of ours."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Never

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG
from airflow.triggers.base import BaseTrigger

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from tests.e2e.edit_dag import PICTURE, edit_dag

NEVER = timedelta(hours=1)
EDITS = 20


class ShopEdit(OdiRouterImageEditOperator):
    """Has submitted, and does not come to its deferral. Its class is a user's own."""

    def defer(self, *, trigger: BaseTrigger, **deferral: Any) -> Never:
        time.sleep(NEVER.total_seconds())
        super().defer(trigger=trigger, **deferral)


def batch_dag(dag_id: str, **settings: Any) -> DAG:
    """Make a Dag whose task `edit` has some edits, two of which are submitted at a time."""
    with DAG(dag_id, params={"conn_id": "", "output_path": ""}) as dag:
        OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=[{"prompt": f"Edit {number}"} for number in range(EDITS)],
            defaults={"images": str(PICTURE.with_name("small.png"))},
            odirouter_conn_id="{{ params.conn_id }}",
            output_path="{{ params.output_path }}",
            max_concurrent_submits=2,
            poll_interval=2.0,
            **settings,
        )
    return dag


edit_that_waits_for_its_retry = edit_dag("edit_that_waits_for_its_retry", ShopEdit, retries=1, retry_delay=NEVER)
batch_that_waits_for_its_retry = batch_dag("batch_that_waits_for_its_retry", retries=1, retry_delay=NEVER)
deferred_batch = batch_dag("deferred_batch")

with DAG("ends_from_its_trigger") as ends_from_its_trigger:
    # Airflow refuses such a task wherever it knows of any listener.
    DateTimeSensorAsync(task_id="wait", target_time="2026-01-01T00:00:00+00:00", end_from_trigger=True)
