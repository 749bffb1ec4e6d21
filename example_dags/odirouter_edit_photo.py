"""One edit of one photograph."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator

with DAG(
    "odirouter_edit_photo",
    schedule=None,
    tags=["example", "odirouter"],
    doc_md="""
    ### Edit a photograph

    Trigger it with the path of a picture that the workers can read. The edited picture is written to `output_path`;
    the task's return value, the *manifest*, has its path.
    """,
    params={
        "image": Param("/data/photos/coffee.png", type="string"),
        "mask": Param(None, type=["string", "null"]),
        "prompt": Param("Turn the coffee into hot chocolate", type="string"),
        "output_path": Param("/data/edited", type="string"),
    },
) as dag:
    OdiRouterImageEditOperator(
        task_id="edit",
        prompt="{{ params.prompt }}",
        images=["{{ params.image }}"],
        mask="{{ params.mask or '' }}",
        output_path="{{ params.output_path }}",
    )
