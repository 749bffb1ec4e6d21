from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter.errors import InvalidParametersError
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import actions
from tests.dags.conftest import RunDag, kill_task

pytestmark = pytest.mark.every_version


def test_the_function_gives_the_parameters_and_the_task_returns_the_manifest(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    with DAG("decorated") as dag:

        @task.odirouter_image_edit(deferrable=False, size="1024x1024", n=2, output_path=str(tmp_path))
        def edit(colour: str, dag: Any = None) -> dict[str, Any]:
            return {"prompt": f"{colour} for {dag.dag_id}", "images": [str(pictures / "coffee.png")], "n": 1}

        edit("Blue")
    run = run_dag(dag)

    assert run.state == "success", run.errors
    assert run.xcom("edit", "metadata") is None, "the manifest is one XCom, not one for each of its keys"
    assert [output["width"] for output in run.xcom("edit")["outputs"]] == [1024]
    [submit] = sandbox.submits
    assert (submit.body["prompt"], submit.body["n"], submit.body["size"]) == ("Blue for decorated", 1, "1024x1024")


@pytest.mark.parametrize("returned", ["a text", {"prompts": "x"}, None])
def test_a_function_that_returns_something_else_costs_nothing(returned: Any, run_dag: RunDag, sandbox: Sandbox) -> None:
    with DAG("wrong") as dag:

        @task.odirouter_image_edit(retries=1)
        def edit() -> Any:
            return returned

        edit()
    run = run_dag(dag)
    assert run.is_final
    assert "must return a dictionary of an edit's parameters" in run.error
    assert ", and these are none: 'prompts'. Correct" in run.error or f", not {type(returned).__name__}." in run.error
    assert actions(sandbox) == []


@pytest.mark.parametrize("unset", [float("nan"), "None", " ", "<NA>"], ids=repr)
def test_what_a_function_returns_for_no_value_is_not_sent(
    unset: Any, run_dag: RunDag, sandbox: Sandbox, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with DAG("pandas") as dag:

        @task.odirouter_image_edit(deferrable=False, poll_interval=0.1)
        def edit(prompt: Any) -> dict[str, Any]:
            row = dict.fromkeys(("mask", "n", "size", "user", "background", "output_compression"), unset)
            return {**row, "prompt": prompt, "images": str(pictures / "coffee.png")}

        edit("Blue")
    run = run_dag(dag)
    assert run.state == "success", run.errors
    [submit] = sandbox.submits
    assert set(submit.body) == {"prompt", "images"}
    assert "Not sent, since their templates rendered to nothing: mask, n, size, " in caplog.text


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"prompt": float("nan")}, "prompt: is nan, which is what a template, str() or pandas writes"),
        ({"prompt": float("inf")}, "prompt: must be a text, not inf"),
        ({"n": True}, "n: must be a whole number, not True"),
        ({"n": float("inf")}, "n: must be a whole number, not inf"),
        ({"images": [1]}, "images[0]: must be a path or a URL, not 1"),
        ({"images": "None"}, "images: is 'None', which is what a template, str() or pandas writes"),
    ],
)
def test_a_value_of_a_function_that_cannot_be_used_is_named(
    returned: dict[str, Any], message: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    with DAG("bad_values") as dag:

        @task.odirouter_image_edit(deferrable=False, retries=1)
        def edit() -> dict[str, Any]:
            return {"prompt": "Blue", "images": [str(pictures / "coffee.png")]} | returned

        edit()
    run = run_dag(dag)
    assert run.is_final
    assert message in run.error
    assert actions(sandbox) == []


def test_required_parameters_that_the_function_does_not_return_are_named(run_dag: RunDag, sandbox: Sandbox) -> None:
    with DAG("nothing") as dag:

        @task.odirouter_image_edit
        def edit() -> dict[str, Any]:
            return {}

        edit()
    run = run_dag(dag)
    assert "prompt: is required" in run.error
    assert "images: is required" in run.error
    assert actions(sandbox) == []


def test_a_task_killed_while_the_function_runs_costs_nothing(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    with DAG("killed") as dag:

        @task.odirouter_image_edit(deferrable=False)
        def edit() -> dict[str, Any]:
            kill_task()
            return {"prompt": "Blue", "images": [str(pictures / "coffee.png")]}

        edit()
    run = run_dag(dag)
    assert run.error == "The task was killed."
    assert actions(sandbox) == []


def test_literals_given_to_the_decorator_are_checked_when_the_dag_is_parsed() -> None:
    with DAG("parsed"):

        @task.odirouter_image_edit(quality="best")
        def edit() -> dict[str, Any]:
            return {}

        with pytest.raises(InvalidParametersError, match="quality: should be 'low', 'medium', 'high' or 'auto'"):
            edit()
