"""A person reviews pictures in a real browser, and the Dag goes on with the answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from airflow_provider_odirouter.sandbox import Sandbox
from dev.local_airflow import FIRST_ANSWER, LocalAirflow
from tests.conftest import PICTURES
from tests.e2e.visitor import Visitor, width_of

pytestmark = pytest.mark.every_version

DAG_ID = "odirouter_review"
IMAGES = ("coffee.png", "chelsea.png", "astronaut.png")
PROMPT = "Put ![x](https://evil.example/) <script>alert(1)</script> `on` a | table"
NOTE = "With more light, please"


@pytest.fixture
def visitor(airflow: LocalAirflow) -> Iterator[Visitor]:
    """A person who has logged in."""
    with Visitor(airflow) as visitor:
        visitor.log_in()
        yield visitor


@pytest.fixture
def run_id(airflow: LocalAirflow, tmp_path: Path) -> Iterator[str]:
    """A run of the example that waits for a person."""
    sandbox = Sandbox(queue_seconds=0, run_seconds=0)
    with sandbox.serve() as server:
        key = sandbox.settings.api_key
        airflow.api.add_connection("review", "odirouter", host=server.base_url, password=key)
        images = [str(PICTURES / name) for name in IMAGES]
        conf: dict[str, Any] = {"images": images, "prompt": PROMPT, "output_path": str(tmp_path), "conn_id": "review"}
        run_id = airflow.trigger_dag(DAG_ID, conf)
        yield run_id
        airflow.api.delete_connection("review")


def test_a_person_keeps_two_of_three_pictures_and_the_third_is_edited_again(
    airflow: LocalAirflow, visitor: Visitor, run_id: str, tmp_path: Path
) -> None:
    def state_of(task_id: str) -> str | None:
        [state] = [ti["state"] for ti in airflow.task_instances(DAG_ID, run_id) if ti["task_id"] == task_id]
        return state if state is None else str(state)

    airflow.wait_for(lambda: state_of("review") in {"awaiting_input", "deferred"}, "the review", 180)
    time.sleep(FIRST_ANSWER)
    page = visitor.page
    page.goto(f"{airflow.url}/required_actions")
    page.get_by_role("link", name="Which of these pictures may be used?").first.click()

    pictures = page.get_by_alt_text("put 1")  # Input 1, Output 1
    expect(pictures).to_have_count(6)
    assert [width_of(pictures.nth(index)) for index in range(6)] == [512, 512, 451, 451, 512, 512]
    # As it is written: Airflow 3.1 colours it, in many elements.
    expect(page.locator("#root")).to_contain_text(PROMPT)
    switches = [page.get_by_role("checkbox", name=f"Keep {number}") for number in (1, 2, 3)]
    for switch in switches:
        expect(switch).to_be_checked()
    switches[1].locator("xpath=ancestor-or-self::label").click()
    expect(switches[1]).not_to_be_checked()
    page.locator("textarea").last.fill(NOTE)
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    page.set_viewport_size({"width": 1440, "height": 1950})
    page.screenshot(path=folder / "review.jpg", quality=85)
    page.get_by_role("button", name="Submit").click()

    airflow.wait_for(lambda: airflow.api.run(DAG_ID, run_id)["state"] in {"success", "failed"}, "the run's end", 180)
    result = airflow.xcom(DAG_ID, run_id, "review", "return_value")
    assert [len(result[name]) for name in ("approved", "rejected")] == [2, 1]
    [rejected] = result["rejected"]
    assert rejected["number"] == 2
    assert (result["note"], result["responded_by"]["name"]) == (NOTE, airflow.username)
    published = airflow.xcom(DAG_ID, run_id, "publish", "return_value")
    assert published == [output["path"] for entry in result["approved"] for output in entry["outputs"]]
    [again] = Path(airflow.xcom(DAG_ID, run_id, "edit_again", "return_value")["manifest"]).read_text().splitlines()
    assert rejected["outputs"][0]["path"] in again
    assert NOTE in again
    assert visitor.dialogs == []
    assert visitor.hosts == {"127.0.0.1"}
