"""``@task.odirouter_image_edit_batch``."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter.errors import InvalidParametersError
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import Listener, actions, spent
from tests.dags.batches import THREE, changing, landed, manifest, prompts, submits
from tests.dags.conftest import RunDag, anywhere, kill_task
from tests.dags.test_batch_retries import fail_after_submits  # noqa: F401 - a fixture

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

SIGNED = [f"https://cdn.example.com/{number}.png?sig=s3cret" for number in range(4)]


def dag_of(function: Callable[..., Any], output: Path, dag_id: str = "decorated_batch", **arguments: Any) -> DAG:
    defaults: dict[str, Any] = {
        "output_path": str(output),
        "poll_interval": 0.1,
        "deferrable": False,
        "max_concurrent_submits": 1,
        "retries": 1,
        "retry_delay": timedelta(0),
    }
    with DAG(dag_id) as dag:
        task.odirouter_image_edit_batch(task_id="edit", **(defaults | arguments))(function)()
    return dag


@anywhere
def test_the_function_gives_the_edits_and_the_task_returns_the_summary(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    with DAG("decorated_batch") as dag:

        @task
        def colours() -> list[str]:
            return ["Red", "Green"]

        @task.odirouter_image_edit_batch(
            defaults={"n": 2, "images": str(pictures / "coffee.png")},
            output_path=str(tmp_path),
            deferrable=deferrable,
            poll_interval=0.1,
        )
        def edit(words: list[str], dag: Any = None) -> list[dict[str, Any]]:
            return [{"prompt": f"{word} for {dag.dag_id}", "name": word} for word in words]

        edit(colours())  # type: ignore[arg-type]
    run = run_dag(dag)

    assert run.state == "success", run.errors
    assert run.xcom("edit", "edits") is None, "the summary is one XCom, not one for each of its keys"
    summary = run.xcom("edit")
    assert (summary["edits"], summary["succeeded"], summary["outputs"]) == (2, 2, 4)
    assert sorted(submits(sandbox)) == ["Green for decorated_batch", "Red for decorated_batch"]
    assert landed(tmp_path) == ["Green-0.png", "Green-1.png", "Red-0.png", "Red-1.png"]


def test_the_task_can_be_mapped(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    with DAG("decorated_batches") as dag:

        @task.odirouter_image_edit_batch(output_path=str(tmp_path), deferrable=False, poll_interval=0.1)
        def edit(word: str) -> list[dict[str, Any]]:
            return prompts(word, f"Dark {word}")

        edit.expand(word=["Red", "Green"])
    run = run_dag(dag)
    assert run.state == "success", run.errors
    assert sorted(submits(sandbox)) == ["Dark Green", "Dark Red", "Green", "Red"]
    assert [run.xcom("edit", map_index=index)["succeeded"] for index in (0, 1)] == [2, 2]


@pytest.mark.parametrize("kind", ["text", "path", "generator"])
def test_the_function_may_return_a_path_or_a_generator(
    kind: str, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    file = tmp_path / "edits.jsonl"
    file.write_text("\n".join(map(json.dumps, THREE)))
    returned: dict[str, Any] = {"text": str(file), "path": file, "generator": (one for one in THREE)}
    run = run_dag(dag_of(lambda: returned[kind], tmp_path / "out"))
    assert run.state == "success", run.errors
    assert submits(sandbox) == ["Red", "Green", "Blue"]


@pytest.mark.parametrize("returned", [None, 7, {"prompt": "Blue"}, "a text"])
def test_a_function_that_returns_something_else_costs_nothing(
    returned: Any, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    def edits() -> Any:
        return returned

    run = run_dag(dag_of(edits, tmp_path))
    assert run.is_final
    assert "What the function edits returns " in run.error
    assert actions(sandbox) == []


def test_an_empty_list_skips_the_task(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    assert run_dag(dag_of(list, tmp_path)).state_of("edit") == ["skipped"]
    assert actions(sandbox) == []


def test_all_broken_edits_are_named(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    run = run_dag(dag_of(lambda: [THREE[0] | {"n": 0}, {"prompt": "{{ x }}", "images": "/no.png"}], tmp_path))
    assert run.is_final
    assert "edits[0], n: " in run.error
    assert "edits[1], images[0]: '/no.png' does not exist" in run.error
    assert actions(sandbox) == []


@anywhere
def test_a_retry_calls_the_function_again_and_pays_nothing_twice(
    deferrable: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    tmp_path: Path,
    fail_after_submits: Any,  # noqa: F811
) -> None:
    calls: list[int] = []

    def edits() -> Any:
        calls.append(1)
        return prompts(*reversed(("Red", "Green", "Blue"))) if len(calls) > 1 else THREE

    sandbox.configure(run_seconds=1)
    fail_after_submits(1)
    run = run_dag(dag_of(edits, tmp_path, deferrable=deferrable))
    assert (run.state, [str(error) for error in run.errors]) == ("success", ["no memory today"])
    assert len(calls) == 2
    assert spent(sandbox) == (3, 0)
    assert [line["edit"]["prompt"] for line in manifest(tmp_path)] == ["Blue", "Green", "Red"]


def out_of_balance(sandbox: Sandbox, listeners: list[Listener]) -> None:
    """Let the batch defer after two of its edits: the others are submitted when it resumes."""
    sandbox.configure(balance=2, run_seconds=1)
    listeners.append(changing(sandbox, "submit", {}, {}, {"balance": 100}))


@pytest.mark.parametrize("again", ["signed anew", "fails"])
def test_the_function_is_called_again_if_a_url_is_needed_after_the_wait(
    again: str, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    calls: list[int] = []

    def edits() -> Any:
        calls.append(1)
        if len(calls) > 1 and again == "fails":
            raise KeyError("no list today")
        return [{"prompt": url[:26], "images": f"{url}-{len(calls)}"} for url in SIGNED]

    out_of_balance(sandbox, listeners)
    run = run_dag(dag_of(edits, tmp_path, deferrable=True, retries=0))
    sent = [request.parameters["images"][0] for request in sandbox.requests]
    if again == "fails":
        assert "2 of 4 edits were not submitted: The function edits cannot be called again" in run.error
        assert "no list today" in run.error
        assert len(landed(tmp_path)) == 2
    else:
        assert run.state == "success", run.errors
        assert sent[2:] == [f"{url}-2" for url in SIGNED[2:]]
    assert sent[:2] == [f"{url}-1" for url in SIGNED[:2]]
    assert len(calls) == 2


def test_the_function_is_not_called_again_for_edits_without_a_secret(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    calls: list[int] = []

    def edits() -> Any:
        calls.append(1)
        return THREE

    out_of_balance(sandbox, listeners)
    assert run_dag(dag_of(edits, tmp_path, deferrable=True)).state == "success"
    assert submits(sandbox) == ["Red", "Green", "Blue"]
    assert len(calls) == 1


def test_a_task_killed_while_the_function_runs_costs_nothing(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    def edits() -> Any:
        kill_task()
        return THREE

    assert run_dag(dag_of(edits, tmp_path, retries=0)).error == "The task was killed."
    assert actions(sandbox) == []


def test_literals_given_to_the_decorator_are_checked_when_the_dag_is_parsed() -> None:
    with pytest.raises(InvalidParametersError, match="defaults, quality: should be 'low'"):
        dag_of(list, Path("/out"), defaults={"quality": "best"})
    with pytest.raises(ValueError, match="if_exists must be 'fail' or 'overwrite' or 'new_name'"):
        dag_of(list, Path("/out"), if_exists="no")
