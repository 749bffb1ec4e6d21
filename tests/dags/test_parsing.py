"""What happens when a Dag is parsed: literal values are checked, nothing heavy is loaded, nothing is opened."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
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


MODULES = [
    "operators.image_edit",
    "operators.image_edit_batch",
    "operators.batch",
    "operators.queue",
    "operators.review",
    "sensors.request",
    "decorators.image_edit",
    "decorators.image_edit_batch",
]


def test_a_parsed_dag_loads_neither_http_nor_pictures_nor_the_trigger() -> None:
    code = (
        "import sys, airflow.sdk, airflow.sdk.bases.decorator\n"
        "from airflow.sdk import BaseOperator, BaseSensorOperator\n"
        "before = set(sys.modules)\n"
        + "".join(f"import airflow_provider_odirouter.{module}\n" for module in MODULES)
        + "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = ("httpx", "aiohttp", "PIL", "airflow_provider_odirouter.triggers", "airflow_provider_odirouter.models")
    assert {f"airflow_provider_odirouter.{module}" for module in MODULES} <= set(loaded)
    assert [name for name in loaded if name.startswith(heavy)] == []


@pytest.mark.parametrize("name", ["max_in_flight", "max_concurrent_submits"])
@pytest.mark.parametrize("count", [0, 2.5, True, None])
def test_an_impossible_count_is_refused(name: str, count: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1"):
        OdiRouterImageEditBatchOperator(task_id="edit", edits="edits.jsonl", output_path="out", **{name: count})


@pytest.mark.parametrize("path", [Path("/shelf/cup.png"), ObjectStoragePath("file:///shelf") / "cup.png"])
def test_paths_are_text_before_airflow_takes_them_for_upstream_outputs(path: Any) -> None:
    one = OdiRouterImageEditOperator(task_id="a", prompt="Blue", images=[path], mask=path, output_path=path)
    batch = OdiRouterImageEditBatchOperator(
        task_id="b", edits=[{"images": path, "mask": path}], defaults={"prompt": "Blue", "mask": path}, output_path=path
    )
    lines = path.with_suffix(".jsonl")
    listed = OdiRouterImageEditBatchOperator(task_id="c", edits=lines, output_path=path)
    wait = OdiRouterRequestSensor(task_id="d", request_id="mmsu_1", output_path=path)
    text = str(path)
    assert (one.images, one.mask, one.output_path) == ([text], text, text)
    assert (batch.edits, batch.defaults["mask"], batch.output_path) == ([{"images": text, "mask": text}], text, text)
    assert (listed.edits, wait.output_path) == (str(lines), text)


def own_and_input(make: Callable[[], object]) -> list[str]:
    with pytest.raises(InvalidParametersError) as raised:
        make()
    return [problem.field for problem in raised.value.problems]


def test_bad_times_bad_rules_and_bad_pictures_are_named_together() -> None:
    assert own_and_input(
        lambda: edit(timeout=0, poll_interval=True, durable="no", n=True, images=[1, "/cup.png", "None"], mask=2)
    ) == ["poll_interval", "timeout", "durable", "images[0]", "images[2]", "mask", "n"]


def test_bad_numbers_of_a_queue_task_are_named_with_its_parameters() -> None:
    parameters = {"prompt": "Blue", "seed": 2**64, "tags": {"a"}, "strength": float("inf")}

    def make() -> object:
        return OdiRouterQueueOperator(task_id="make", endpoint="", parameters=parameters, timeout=0, poll_interval=0)

    assert own_and_input(make) == [
        "endpoint",
        "poll_interval",
        "timeout",
        "parameters.seed",
        "parameters.tags",
        "parameters.strength",
    ]


def test_all_that_is_wrong_with_a_batch_is_named_together() -> None:
    def make() -> object:
        return OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=[{"images": [1], "n": True}, {"images": "/cup.png", "quality": "best"}],
            defaults={"quallity": "high", "prompt": "None"},
            output_path="",
            max_in_flight=0,
            max_concurrent_submits=-1,
            timeout=0,
        )

    assert own_and_input(make) == [
        "output_path",
        "max_concurrent_submits",
        "max_in_flight",
        "timeout",
        "defaults, prompt",
        "defaults, quallity",
        "edits[0], images[0]",
        "edits[0], n",
        "edits[1], quality",
    ]


def test_two_bad_counts_are_named_together() -> None:
    with pytest.raises(ValueError, match=r"max_concurrent_submits must be .*; max_in_flight must be .*; timeout must"):
        OdiRouterImageEditBatchOperator(
            task_id="edit", edits="a.jsonl", output_path="/out", max_concurrent_submits=0, max_in_flight=0, timeout=0
        )


@pytest.mark.parametrize("edits", ["/edits/{{ ds }}.jsonl", "{{ params.edits }}", "a.csv"])
def test_misspelt_defaults_are_an_error_of_the_dag_whatever_the_edits_are(edits: str) -> None:
    def make(defaults: Any) -> object:
        return OdiRouterImageEditBatchOperator(task_id="edit", edits=edits, output_path="/out", defaults=defaults)

    assert own_and_input(lambda: make({"quallity": "high"})) == ["defaults, quallity"]
    assert own_and_input(lambda: make("high")) == ["defaults"]
    assert own_and_input(lambda: make([("n", 1)])) == ["defaults"]
    make(None)
    make({})
    make("{{ params.defaults }}")


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ("a.json", "'a.json' must end with .jsonl .* or .csv; this makes the lines of a JSON list: jq -c"),
        ("list.txt", "'list.txt' must end with .jsonl"),
        ("/data/edits.xlsx", "must end with .jsonl .* or .csv; save the sheet as CSV UTF-8"),
        ("edits.jsonl.gz", "must end with .jsonl .* or .csv; decompress it first"),
        ("s3://shop/edits/{{ ds }}", None),
        ("", "is empty"),
        ("None", "is 'None', which is what a template"),
        ("[{'prompt': 'Blue'}]", "looks like a list that a template rendered to text"),
        (7, "must be a list of dictionaries, or the path of a .jsonl or .csv file, not int"),
        (None, "must be a list of dictionaries, or the path of a .jsonl or .csv file, not NoneType"),
        ({"prompt": "Blue"}, "must be a list of dictionaries, or the path of a .jsonl or .csv file, not dict"),
    ],
)
def test_edits_that_cannot_be_read_are_an_error_of_the_dag(edits: Any, message: str | None) -> None:
    def make() -> object:
        return OdiRouterImageEditBatchOperator(task_id="edit", edits=edits, output_path="/out")

    if message is None:
        make()
        return
    with pytest.raises(InvalidParametersError, match=f"edits: .*{message}"):
        make()


@pytest.mark.parametrize("parameters", [{"prompt": "None"}, {"prompt": "nan", "n": 2}])
def test_a_word_for_a_missing_prompt_is_an_error_of_any_endpoint(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidParametersError, match=r"parameters\.prompt: is '(None|nan)', which is what"):
        OdiRouterQueueOperator(task_id="make", endpoint="e", parameters=parameters)


def test_other_words_of_another_endpoint_are_its_own() -> None:
    parameters = {"prompt": "", "upscaler": "None", "seed": None, "tags": ["None", ""]}
    assert OdiRouterQueueOperator(task_id="make", endpoint="e", parameters=parameters).parameters == parameters


@pytest.mark.parametrize("rendered", [None, "", " ", "None", "nan"])
def test_the_connection_of_a_store_that_renders_to_nothing_is_none(rendered: Any) -> None:
    tasks: list[Any] = [
        edit(storage_conn_id="{{ x }}"),
        OdiRouterImageEditBatchOperator(task_id="b", edits="a.csv", output_path="/out", storage_conn_id="{{ x }}"),
        OdiRouterRequestSensor(task_id="c", request_id="mmsu_1", storage_conn_id="{{ x }}"),
    ]
    for one in tasks:
        assert one.storage_conn_id == "{{ x }}"
        one.storage_conn_id = rendered
        assert one.storage_conn_id is None
