"""Submit in one task, wait in another."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor

with DAG(
    "odirouter_submit_then_wait",
    schedule=None,
    tags=["example", "odirouter"],
    doc_md="""
    ### Submit early, wait late

    The first task only submits. Other tasks of the Dag can run during the edit; the sensor waits for its end, without
    a worker, and lands the pictures.
    """,
    params={
        "image": Param("/data/photos/coffee.png", type="string"),
        "output_path": Param("/data/edited", type="string"),
    },
) as dag:
    submit = OdiRouterImageEditOperator(
        task_id="submit",
        prompt="Make it a watercolour",
        images="{{ params.image }}",
        n=2,
        wait_for_completion=False,
    )
    OdiRouterRequestSensor(
        task_id="wait",
        request_id=submit.output["request_id"],
        output_path="{{ params.output_path }}",
    )
