"""
The events of OpenLineage's own listener, in Dags that run in a separate process.

The listener is there from a process's beginning, or never. ``python -m tests.dags.test_openlineage`` is that process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.lineage import dataset_name
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from tests.build_once import build_once
from tests.dags.conftest import serialize


def dags(pictures: Path, folder: Path) -> Iterator[DAG]:
    """Dags of every kind; those that do not say where they wait leave the worker."""
    picture, mask = str(pictures / "coffee.png"), str(pictures / "coffee-mask.png")

    def edit(task_id: str = "edit", **arguments: Any) -> OdiRouterImageEditOperator:
        defaults: dict[str, Any] = {"prompt": "Blue", "images": picture, "poll_interval": 0.1}
        return OdiRouterImageEditOperator(task_id=task_id, **(defaults | arguments))

    with DAG("deferred") as dag:
        edit(images=[f"file://{picture}", picture], mask=mask, output_path=str(folder / "{{ dag.dag_id }}"), n=2)
    yield dag
    with DAG("on_the_worker") as dag:
        edit(images="{{ '" + picture + "' }}", mask="{{ '' }}", output_path=str(folder / "worker"), deferrable=False)
    yield dag
    with DAG("decorated") as dag:

        @task.odirouter_image_edit(output_path=f"file://{folder}/decorated", poll_interval=0.1)
        def decorated() -> dict[str, Any]:
            return {"prompt": "Blue", "images": [picture], "mask": mask}

        decorated()
    yield dag
    with DAG("chained") as dag:
        first: Any = edit("first", output_path=str(folder / "first"))
        OdiRouterImageEditOperator.partial(
            task_id="then", images=first.output, output_path=str(folder / "then"), poll_interval=0.1
        ).expand(prompt=["Red", "Green"])
    yield dag
    with DAG("split") as dag:
        submit: Any = edit("submit", wait_for_completion=False)
        OdiRouterRequestSensor(
            task_id="wait",
            request_id=submit.output["request_id"],
            output_path=str(folder / "split"),
            poll_interval=0.1,
        )
    yield dag
    with DAG("links") as dag:
        edit(images=["https://user:s3cret@cdn.example.com/cup.png?signature=s3cret#s3cret"])
    yield dag
    with DAG("refused") as dag:
        edit(output_path=str(folder / "refused"), deferrable=False)
    yield dag


def run_all(pictures: Path, folder: Path, *dag_ids: str) -> None:
    """Run them one after the other, or those that are named; prints their states."""
    sandbox = Sandbox(queue_seconds=0, run_seconds=0)
    with sandbox.serve() as server, pytest.MonkeyPatch.context() as patch:
        build_once(patch)
        patch.setattr("airflow_provider_odirouter.triggers.request.FIRST_POLL_DELAY", 0.0)
        connection = {"conn_type": "odirouter", "password": "sandbox-key", "host": server.base_url}
        patch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", json.dumps(connection))
        for dag in dags(pictures, folder):
            if dag_ids and dag.dag_id not in dag_ids:
                continue
            sandbox.configure(error_type="CONTENT_BLOCKED" if dag.dag_id == "refused" else None)
            serialize(dag)
            state = dag.test().state
            sys.stdout.write(f"\n{dag.dag_id} is {state}\n")


@pytest.fixture
def run_dags(airflow_db: None, pictures: Path, tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    """Run the Dags in a separate process; return its output, and the file with OpenLineage's events."""

    def run(*dag_ids: str, hidden_modules: tuple[str, ...] = ()) -> tuple[str, Path]:
        events = tmp_path / "events.jsonl"
        transport = {"type": "file", "append": True, "log_file_path": str(events)}
        code = (
            "import gc, runpy, sys\n"
            "gc.disable()\n"  # for a few seconds
            f"sys.modules.update(dict.fromkeys({hidden_modules!r}))\n"
            f"runpy.run_module({__name__!r}, run_name='__main__')"
        )
        process = subprocess.run(
            [sys.executable, "-c", code, str(pictures), str(tmp_path), *dag_ids],
            env=os.environ | {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)},
            cwd=Path(__file__).parents[2],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.returncode == 0, process.stdout
        return process.stdout, events

    return run


def test_the_listener_gets_inputs_and_outputs_wherever_the_task_waited(
    run_dags: Callable[..., tuple[str, Path]], pictures: Path, tmp_path: Path
) -> None:
    log, file = run_dags()
    text = file.read_text()
    ended = [event for event in map(json.loads, text.splitlines()) if event["eventType"] in {"COMPLETE", "FAIL"}]
    reported = [
        (event["job"]["name"], event["eventType"], *([*map(_place, event[side])] for side in ("inputs", "outputs")))
        for event in ended
        if "." in event["job"]["name"]  # the events of tasks, not of runs
    ]
    picture, mask = (f"file {pictures / name}" for name in ("coffee.png", "coffee-mask.png"))
    landed = {
        folder: sorted(f"file {path}" for path in (tmp_path / folder).glob("*.png"))
        for folder in ("deferred", "worker", "decorated", "first", "then", "split")
    }
    assert {folder: len(files) for folder, files in landed.items()} == dict.fromkeys(landed, 1) | {
        "deferred": 2,
        "then": 2,
    }
    assert sorted(reported) == sorted(
        [
            ("deferred.edit", "COMPLETE", [picture, mask], landed["deferred"]),
            ("on_the_worker.edit", "COMPLETE", [picture], landed["worker"]),
            ("decorated.decorated", "COMPLETE", [picture, mask], landed["decorated"]),
            ("chained.first", "COMPLETE", [picture], landed["first"]),
            ("chained.then", "COMPLETE", landed["first"], landed["then"][:1]),
            ("chained.then", "COMPLETE", landed["first"], landed["then"][1:]),
            ("split.submit", "COMPLETE", [picture], []),
            ("split.wait", "COMPLETE", [], landed["split"]),
            ("links.edit", "COMPLETE", ["https://cdn.example.com /cup.png"], []),
            ("refused.edit", "FAIL", [picture], []),
        ]
    ), log
    assert "s3cret" not in text


def test_tasks_run_without_openlineage(run_dags: Callable[..., tuple[str, Path]]) -> None:
    hidden = ("openlineage", "airflow.providers.openlineage.conf", "airflow.providers.openlineage.extractors")
    log, file = run_dags("decorated", "split", "refused", hidden_modules=hidden)
    assert not file.exists()
    states = dict(re.findall(r"^(\w+) is (\w+)$", log, re.MULTILINE))
    assert states == {"decorated": "success", "split": "success", "refused": "failed"}, log


def test_a_parsed_dag_does_not_load_lineage() -> None:
    code = (
        "import sys, airflow.sdk\n"
        "import airflow_provider_odirouter.decorators.image_edit, airflow_provider_odirouter.sensors.request\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "airflow_provider_odirouter.operators.queue" in loaded
    lazy = ("openlineage", "airflow.providers.openlineage.extractors", "airflow_provider_odirouter.operators.lineage")
    assert [name for name in loaded if name.startswith(lazy)] == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("s3://bucket/edited/cup.png", ("s3://bucket", "edited/cup.png")),
        ("s3://aws_default@bucket/a@b?c#d.png", ("s3://bucket", "a@b?c#d.png")),
        ("S3A://bucket/cup.png", ("s3://bucket", "cup.png")),
        ("gs://bucket/cup.png", ("gs://bucket", "cup.png")),
        ("gcs://google@bucket/cup.png", ("gs://bucket", "cup.png")),
        ("abfs://azure@container/cup.png", ("abfs://container", "cup.png")),
        ("abfss://container/cup.png", ("abfss://container", "cup.png")),
        ("/data/a cup.png", ("file", "/data/a cup.png")),
        ("file:///data/cup#1.png", ("file", "/data/cup#1.png")),
        ("file://fs_default@/data/cup.png", ("file", "/data/cup.png")),
        ("cup.png", ("file", str(Path("cup.png").absolute()))),
        ("~/cup.png", ("file", str(Path("~/cup.png").expanduser()))),
        ("https://cdn.example.com/cups/cup.png", ("https://cdn.example.com", "/cups/cup.png")),
        ("http://user:p@ss@127.0.0.1:9000/cup.png?X-Amz-Signature=1#a", ("http://127.0.0.1:9000", "/cup.png")),
        ("HTTPS://cdn.example.com?cup=1", ("https://cdn.example.com", "/")),
    ],
)
def test_a_dataset_is_named_by_openlineages_rules_and_holds_no_secret(path: str, name: tuple[str, str]) -> None:
    assert dataset_name(path) == name


def _place(dataset: dict[str, Any]) -> str:
    return f"{dataset['namespace']} {dataset['name']}"


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
