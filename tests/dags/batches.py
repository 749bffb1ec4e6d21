"""Dags of one batch, and the files that they write."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_provider_odirouter.compat import AirflowFailException
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Listener


class Again(OdiRouterImageEditBatchOperator):
    """Lets Airflow try again after every error, so that a user's clear can come before that."""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowFailException as error:
            raise FinalError(str(error)) from error

    def execute_complete(self, context: Any, event: Any) -> Any:
        try:
            return super().execute_complete(context, event)
        except AirflowFailException as error:
            raise FinalError(str(error)) from error


class FinalError(Exception):
    """An error after which Airflow would not try again."""


PICTURE = "https://example.com/cup.png"


def prompts(*words: str) -> list[dict[str, Any]]:
    """Edits of one picture, which differ in their prompts."""
    return [{"images": PICTURE, "prompt": word} for word in words]


THREE = prompts("Red", "Green", "Blue")
FIVE = prompts("Red", "Green", "Blue", "White", "Black")


def batch(
    edits: Any,
    output: Path | str,
    operator: type[OdiRouterImageEditBatchOperator] = OdiRouterImageEditBatchOperator,
    dag_id: str = "batch",
    **arguments: Any,
) -> DAG:
    """A Dag of one batch on the worker, one submit at a time, with one retry at once."""
    defaults: dict[str, Any] = {
        "output_path": str(output),
        "poll_interval": 0.1,
        "deferrable": False,
        "max_concurrent_submits": 1,
        "retries": 1,
        "retry_delay": timedelta(0),
    }
    with DAG(dag_id) as dag:
        operator(task_id="edit", edits=edits, **(defaults | arguments))
    return dag


def manifest(output: Path) -> list[dict[str, Any]]:
    """The lines of the only manifest in a folder."""
    [path] = output.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def phases(output: Path) -> list[str]:
    """The phase of each edit of the only batch in a folder, as its state files say."""
    paths = sorted(output.glob(".odirouter/*/state-*.jsonl"))
    items = [json.loads(line) for path in paths for line in path.read_text().splitlines()[1:]]
    return [item.get("phase", "planned") for item in items]


def landed(output: Path) -> list[str]:
    """The names of the pictures in a folder."""
    return sorted(path.name for path in output.iterdir() if path.suffix in {".png", ".webp", ".part"})


def submits(sandbox: Sandbox) -> list[str]:
    """The prompts of all requests, in the order of their submits."""
    return [request.parameters["prompt"] for request in sandbox.requests]


def changing(sandbox: Sandbox, action: str, *changes: dict[str, Any]) -> Listener:
    """Changes settings after the first call of a kind, after the second one, and so on."""
    left = list(changes)

    def change(entry: JournalEntry) -> None:
        if entry.action == action and left:
            sandbox.configure(**left.pop(0))

    return change
