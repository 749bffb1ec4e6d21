"""A person reviews edited pictures, through Airflow's real API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.review import OdiRouterReviewOperator
from tests.dags.conftest import Run, RunDag
from tests.plugins.conftest import Browser, Visitor, images_in, path_of, push
from tests.plugins.reviews import Answer, Person, keeping

pytestmark = pytest.mark.every_version


def reviewed(tmp_path: Path, pictures: Path, person: Person, n: int = 3, **arguments: Any) -> DAG:
    with DAG("edit") as dag:
        edit = OdiRouterImageEditOperator(
            task_id="edit",
            prompt="Blue",
            images=str(pictures / "coffee.png"),
            n=n,
            deferrable=False,
            poll_interval=0.1,
            output_path=str(tmp_path),
        )
        review = OdiRouterReviewOperator(task_id="review", edits=edit.output, notifiers=person, **arguments)

        @task
        def after() -> None:
            """Stand for what uses the pictures."""

        review >> after()
    return dag


def test_it(run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path) -> None:
    person = Person(visitor("edit"), keeping(1, 3, note="More cream"))
    run = run_dag(reviewed(tmp_path, pictures, person))
    print(person.answers[0].text)
    print(person.requests[0]["body"])
    print(run.xcom("review"))
    assert run.state == "success", run.errors
    assert 0
