"""A person looks at the pictures before they are published."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, Asset, Param, task

from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.operators.review import OdiRouterReviewOperator

with DAG(
    "odirouter_review",
    schedule=None,
    tags=["example", "odirouter"],
    doc_md="""
    ### Edit, look, publish

    After the edits, the run waits for a person: open *Required Actions*, look at the pictures, switch off what is not
    good, and say in the note what to change. What is approved is published, and a Dag that is scheduled by the asset
    finds the paths in its event. What is not is edited again, with the note as prompt.
    """,
    params={
        "images": Param(["/data/photos/coffee.png"], type="array"),
        "prompt": Param("Put it on a plain white background", type="string"),
        "output_path": Param("/data/edited", type="string"),
        "conn_id": Param("odirouter_default", type="string"),
    },
    render_template_as_native_obj=True,
) as dag:

    @task
    def photographs(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """List the edits."""
        return [{"images": image, "prompt": (params or {})["prompt"]} for image in (params or {})["images"]]

    @task(outlets=[Asset("published_pictures")])
    def publish(approved: list[dict[str, Any]], *, outlet_events: Any = None) -> list[str]:
        """Stand for the shop; ``approved`` has a manifest for each edit of which a picture was approved."""
        paths = [output["path"] for manifest in approved for output in manifest["outputs"]]
        if not paths:
            raise AirflowSkipException("Nothing is approved.")
        outlet_events[Asset("published_pictures")].extra = {"paths": paths}
        return paths

    common: dict[str, Any] = {"output_path": "{{ params.output_path }}", "odirouter_conn_id": "{{ params.conn_id }}"}
    edit = OdiRouterImageEditBatchOperator(task_id="edit", edits=photographs(), **common)
    # "succeed": what is rejected is edited again, even if nothing is approved.
    review = OdiRouterReviewOperator(task_id="review", edits=edit.output, on_none_approved="succeed")
    publish(review.output["approved"])
    OdiRouterImageEditBatchOperator(
        task_id="edit_again",
        edits=review.output["rejected"],
        defaults={"prompt": "{{ ti.xcom_pull('review').note or params.prompt }}"},
        **common,
    )
