"""What happens when a Dag is parsed: literal values are checked, nothing heavy is loaded, nothing is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_odirouter.errors import InvalidParametersError
from airflow_provider_odirouter.operators.image_edit import EDIT_FIELDS, OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor


def edit(**arguments: Any) -> OdiRouterImageEditOperator:
    return OdiRouterImageEditOperator(task_id="edit", **({"prompt": "Blue", "images": ["/cup.png"]} | arguments))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"images": []}, "images"),
        ({"images": ["/cup.png"] * 17}, "images"),
        ({"n": 0}, "n"),
        ({"size": "512x512"}, "size"),
        ({"background": "transparent", "output_format": "jpeg"}, "background"),
        ({"output_compression": 50}, "output_compression"),
    ],
)
def test_a_literal_that_breaks_a_rule_is_an_error_of_the_dag(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParametersError, match=rf"- {field}: "):
        edit(**arguments)


def test_all_broken_rules_are_named_at_once() -> None:
    with pytest.raises(InvalidParametersError) as raised:
        edit(prompt="", n=11, quality="best", moderation="none")
    assert [problem.field for problem in raised.value.problems] == ["prompt", "n", "quality", "moderation"]


@pytest.mark.parametrize("field", EDIT_FIELDS)
def test_a_template_is_not_checked_before_it_is_rendered(field: str) -> None:
    edit(**{field: "{{ params.anything }}"})


def test_a_template_does_not_hide_the_literals_beside_it() -> None:
    with pytest.raises(InvalidParametersError, match="n: should be"):
        edit(prompt="{{ params.prompt }}", n=0)


def test_an_upstream_output_is_not_checked_before_it_is_there() -> None:
    with DAG("upstream"):

        @task
        def pictures() -> list[str]:
            return []

        edit(images=pictures())
        mixed: Any = ["/cup.png", pictures()]
        OdiRouterImageEditOperator(task_id="nested", prompt="Blue", images=mixed)


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"poll_interval": -1}, {"timeout": "10"}])
def test_impossible_times_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be a number, more than 0 seconds"):
        OdiRouterQueueOperator(task_id="make", endpoint="e", parameters={}, **arguments)


@pytest.mark.parametrize(
    "module", ["operators.image_edit", "operators.queue", "sensors.request", "decorators.image_edit"]
)
def test_a_parsed_dag_loads_neither_http_nor_pictures_nor_the_trigger(module: str) -> None:
    code = (
        "import sys, airflow.sdk, airflow.sdk.bases.decorator\n"
        "from airflow.sdk import BaseOperator, BaseSensorOperator\n"
        "before = set(sys.modules)\n"
        f"import airflow_provider_odirouter.{module}\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = ("httpx", "aiohttp", "PIL", "airflow_provider_odirouter.triggers", "airflow_provider_odirouter.models")
    assert f"airflow_provider_odirouter.{module}" in loaded
    assert [name for name in loaded if name.startswith(heavy)] == []


@pytest.mark.parametrize("name", ["max_in_flight", "max_concurrent_submits"])
@pytest.mark.parametrize("count", [0, 2.5, True, None])
def test_an_impossible_count_is_refused(name: str, count: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1"):
        OdiRouterImageEditBatchOperator(task_id="edit", edits="edits.jsonl", output_path="out", **{name: count})


@pytest.mark.parametrize("path", [Path("/shelf/cup.png"), ObjectStoragePath("file:///shelf") / "cup.png"])
def test_paths_are_text_before_airflow_takes_them_for_outputs_that_are_to_be_resolved(path: Any) -> None:
    one = OdiRouterImageEditOperator(task_id="a", prompt="Blue", images=[path], mask=path, output_path=path)
    batch = OdiRouterImageEditBatchOperator(
        task_id="b", edits=[{"images": path, "mask": path}], defaults={"prompt": "Blue", "mask": path}, output_path=path
    )
    listed = OdiRouterImageEditBatchOperator(task_id="c", edits=path, output_path=path)
    wait = OdiRouterRequestSensor(task_id="d", request_id="mmsu_1", output_path=path)
    text = str(path)
    assert (one.images, one.mask, one.output_path) == ([text], text, text)
    assert (batch.edits, batch.defaults["mask"], batch.output_path) == ([{"images": text, "mask": text}], text, text)
    assert (listed.edits, wait.output_path) == (text, text)
