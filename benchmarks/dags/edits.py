"""The same edits, as one batch and as mapped tasks."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator

PARAMS: dict[str, Any] = {"image": "", "output_path": "", "edits": 1}


@task
def prompts(params: dict[str, Any] | None = None) -> list[str]:
    """Make as many prompts as there are edits."""
    return [f"Edit {number}" for number in range(int((params or PARAMS)["edits"]))]


with DAG("batch", params=PARAMS, render_template_as_native_obj=True):

    @task
    def listed(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """List the edits."""
        return [{"prompt": f"Edit {number}"} for number in range(int((params or PARAMS)["edits"]))]

    OdiRouterImageEditBatchOperator(
        task_id="edit",
        edits=listed(),
        defaults={"images": "{{ params.image }}"},
        output_path="{{ params.output_path }}",
    )

with DAG("mapped", params=PARAMS, max_active_tasks=1000):
    OdiRouterImageEditOperator.partial(
        task_id="edit", images="{{ params.image }}", output_path="{{ params.output_path }}"
    ).expand(prompt=prompts())
