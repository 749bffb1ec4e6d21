"""The same edits, as one batch and as mapped tasks; the environment may hold more arguments for either, as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator

PARAMS: dict[str, Any] = {"image": "", "output_path": "", "prompt": "Edit", "edits": 1}

BATCH: dict[str, Any] = json.loads(os.environ.get("BENCHMARK_BATCH", "{}"))
MAPPED: dict[str, Any] = json.loads(os.environ.get("BENCHMARK_MAPPED", "{}"))


@task
def prompts(params: dict[str, Any] | None = None) -> list[str]:
    """Make as many prompts as there are edits."""
    params = params or PARAMS
    return [f"{params['prompt']} {number}" for number in range(int(params["edits"]))]


for dag_id, deferrable in {"batch": True, "batch_on_worker": False}.items():
    with DAG(dag_id, params=PARAMS, render_template_as_native_obj=True):

        @task
        def listed(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
            """List the edits."""
            params = params or PARAMS
            return [{"prompt": f"{params['prompt']} {number}"} for number in range(int(params["edits"]))]

        OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=listed(),
            defaults={"images": "{{ params.image }}"},
            output_path="{{ params.output_path }}",
            deferrable=deferrable,
            **BATCH,
        )

with DAG("mapped", params=PARAMS, max_active_tasks=1000):
    OdiRouterImageEditOperator.partial(
        task_id="edit", images="{{ params.image }}", output_path="{{ params.output_path }}", **MAPPED
    ).expand(prompt=prompts())
