"""A whole catalogue in one task."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator

with DAG(
    "odirouter_edit_batch",
    schedule=None,
    tags=["example", "odirouter"],
    doc_md="""
    ### Edit all photographs of a folder

    One task submits an edit for each photograph, waits for all of them in one trigger, and lands their outputs. A retry
    submits only the missing edits. Instead of a task's list, `edits` can be the path of a `.jsonl` or `.csv` file.
    """,
    params={
        "folder": Param("/data/photos", type="string"),
        "output_path": Param("/data/edited", type="string"),
    },
) as dag:

    @task
    def photographs(params: dict[str, str] | None = None) -> list[dict[str, str]]:
        """List the edits; parameters that are the same for all are the operator's ``defaults``."""
        from airflow.sdk import ObjectStoragePath

        found = sorted(ObjectStoragePath((params or {})["folder"]).glob("*.png"))
        return [{"images": str(path.path), "name": path.stem} for path in found if "mask" not in path.stem]

    OdiRouterImageEditBatchOperator(
        task_id="edit",
        edits=photographs(),
        defaults={"prompt": "Put it on a plain white background", "output_format": "webp"},
        output_path="{{ params.output_path }}",
        if_exists="overwrite",  # a new run replaces the pictures of the run before it, which have the same names
        retries=2,
        retry_delay=timedelta(minutes=1),
    )
