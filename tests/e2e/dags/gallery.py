"""What the gallery's tests look at."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from tests.e2e.edit_dag import edit_dag

COFFEE: dict[str, Any] = {
    "images": ["s3://photos/coffee.png"],
    "mask": "s3://photos/coffee-mask.png",
    "output_path": "s3://photos/edited",
    "storage_conn_id": "shop",
    "n": 2,
    "quality": "high",
}

hot_chocolate = edit_dag("hot_chocolate", prompt="Turn the coffee into hot chocolate with cream", **COFFEE)
refused = edit_dag("refused", prompt="<img src=x onerror=alert(1)><script>alert(2)</script>")
by_link = edit_dag("by_link", output_path=None)
four_edits = edit_dag("four_edits", mapped=4)


def cups(dag_id: str, number: int, image: str, **arguments: Any) -> DAG:
    """A Dag of one batch."""
    with DAG(dag_id, params={"conn_id": "", "output_path": ""}) as dag:
        OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=[{"prompt": f"Cup {cup}", "name": f"{dag_id}-{cup}"} for cup in range(1, number + 1)],
            defaults={"images": [image]},
            odirouter_conn_id="{{ params.conn_id }}",
            output_path="s3://photos/cups",
            storage_conn_id="shop",
            **arguments,
        )
    return dag


seventy_cups = cups("seventy_cups", 70, "s3://photos/small.png")
cups_in_turn = cups("cups_in_turn", 12, "s3://photos/coffee.png", max_in_flight=6, deferrable=False)

with DAG("not_ours") as not_ours:

    @task
    def edit() -> None:
        """Edit nothing."""

    edit()
