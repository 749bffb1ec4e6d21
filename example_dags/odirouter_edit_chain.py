"""Two edits, one after the other: the manifest of the first is the input of the second."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, Param

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator

with DAG(
    "odirouter_edit_chain",
    schedule=None,
    tags=["example", "odirouter"],
    doc_md="""
    ### Cut out, then put on a new background

    The folder can be in any object store: trigger it with an `output_path` such as `s3://aws_default@shop/edited`,
    where `aws_default` is the Airflow connection. A Dag that is scheduled by the asset finds the outputs in its event.
    """,
    params={
        "image": Param("/data/photos/coffee.png", type="string"),
        "output_path": Param("/data/edited", type="string"),
    },
) as dag:
    cut_out = OdiRouterImageEditOperator(
        task_id="cut_out",
        prompt="Remove the background",
        images="{{ params.image }}",
        background="transparent",
        output_path="{{ params.output_path }}",
    )
    OdiRouterImageEditOperator(
        task_id="on_beach",
        prompt="Put it on a sunny beach",
        images=cut_out.output,
        output_path="{{ params.output_path }}",
        outlets=[Asset("product_photo_on_beach")],
    )
