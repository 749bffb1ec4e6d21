"""A person answers a review of pictures that lie in a bucket."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from airflow_provider_odirouter.sandbox import Sandbox
from dev.celery_airflow import CeleryAirflow
from dev.local_airflow import FIRST_ANSWER
from tests.conftest import PICTURES
from tests.object_store import S3

pytestmark = [pytest.mark.on_celery, pytest.mark.chosen]

DAG_ID = "odirouter_review"
IMAGES = ("coffee.png", "small.png")
NOTE = "With more light, please"


@pytest.fixture
def sandbox(airflow: CeleryAirflow) -> Iterator[Sandbox]:
    """A sandbox whose requests end at once, and the connection "review" to it."""
    sandbox = Sandbox(queue_seconds=0, run_seconds=0)
    with sandbox.serve() as server:
        airflow.api.add_connection("review", "odirouter", host=server.base_url, password=sandbox.settings.api_key)
        yield sandbox
        airflow.api.delete_connection("review")


def test_a_review_publishes_one_picture_and_the_other_is_edited_again(
    airflow: CeleryAirflow, bucket: S3, sandbox: Sandbox
) -> None:
    images = [f"{bucket.url(conn_id=bucket.conn_id)}/{name}" for name in IMAGES]
    for name in IMAGES:
        bucket.put(name, (PICTURES / name).read_bytes())
    output_path = bucket.url("reviewed", conn_id=bucket.conn_id)
    run_id = airflow.trigger_dag(DAG_ID, {"images": images, "output_path": output_path, "conn_id": "review"})

    def state_of(task_id: str) -> str | None:
        [state] = [ti["state"] for ti in airflow.task_instances(DAG_ID, run_id) if ti["task_id"] == task_id]
        return None if state is None else str(state)

    airflow.wait_for(lambda: state_of("review") == "awaiting_input", "the review", 180)
    time.sleep(FIRST_ANSWER)
    airflow.api.answer(DAG_ID, run_id, "review", "Submit", {"keep_1": True, "keep_2": False, "note": NOTE})

    airflow.wait_for(lambda: airflow.api.run(DAG_ID, run_id)["state"] in {"success", "failed"}, "the run's end", 180)
    [approved] = airflow.xcom(DAG_ID, run_id, "review", "return_value")["approved"]
    [picture] = airflow.xcom(DAG_ID, run_id, "publish", "return_value")
    assert [output["path"] for output in approved["outputs"]] == [picture]
    assert picture.startswith(f"{output_path}/")
    assert bucket.objects()[picture.removeprefix(f"{bucket.url(conn_id=bucket.conn_id)}/")]
    prompts = [request.parameters["prompt"] for request in sandbox.requests]
    assert prompts == ["Put it on a plain white background"] * 2 + [NOTE]
