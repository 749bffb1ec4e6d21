"""How the Dags of the end-to-end tests are made."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator

PROJECT = Path(__file__).parents[2]
"""Where this module lies; the Dags themselves are copied to other machines."""
PICTURE = PROJECT / "tests" / "pictures" / "rocket.jpg"


def edit_dag(
    dag_id: str,
    operator: type[OdiRouterImageEditOperator] = OdiRouterImageEditOperator,
    *,
    mapped: int = 0,
    dagrun_timeout: timedelta | None = None,
    **settings: Any,
) -> DAG:
    """Make a Dag with the task `edit`, or with so many mapped ones, whose prompts are "Edit 0", "Edit 1" …"""
    settings = {
        "task_id": "edit",
        "images": ["{{ params.image }}"],
        "odirouter_conn_id": "{{ params.conn_id }}",
        "output_path": "{{ params.output_path }}",
        "poll_interval": 2.0,
        "retry_delay": timedelta(seconds=1),
        **settings,
    }
    with DAG(
        dag_id,
        params={"conn_id": "", "output_path": "", "image": str(PICTURE)},
        dagrun_timeout=dagrun_timeout,
        max_active_tasks=100,
    ) as dag:
        if mapped:
            prompts = [f"Edit {index}" for index in range(mapped)]
            operator.partial(**settings).expand(prompt=prompts)
        else:
            operator(**{"prompt": "Edit 0", **settings})
    return dag
