"""An edit that fails does not fail the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import Listener, spent
from tests.dags.batches import FIVE, THREE, batch, changing, landed, manifest, submits
from tests.dags.conftest import RunDag, anywhere

pytestmark = pytest.mark.usefixtures("poll_at_once")

BLOCKED: dict[str, Any] = {"error_type": "CONTENT_BLOCKED", "error_message": "No cups"}
BROKEN: dict[str, Any] = {"error_type": "INFERENCE_FAILURE", "error_message": "GPU on fire"}


@anywhere
def test_the_others_land_and_the_manifest_names_the_failed_ones_in_order(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(**BLOCKED, fail_first=2)
    run = run_dag(batch(FIVE, tmp_path, deferrable=deferrable))
    assert (run.state, run.errors) == ("success", [])
    summary = run.xcom("edit")
    assert (summary["edits"], summary["succeeded"], summary["failed"], summary["outputs"]) == (5, 3, 2, 3)
    lines = manifest(tmp_path)
    assert [line["edit"]["prompt"] for line in lines] == ["Red", "Green", "Blue", "White", "Black"]
    assert [line["number"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["request_id"] for line in lines] == [request.request_id for request in sandbox.requests]
    assert [line.get("error_type") for line in lines] == ["CONTENT_BLOCKED", "CONTENT_BLOCKED", None, None, None]
    assert "No cups" in lines[0]["error"]
    assert ["outputs" in line for line in lines] == ["error" not in line for line in lines] == [False] * 2 + [True] * 3
    assert spent(sandbox) == (5, 0)


def test_a_batch_may_fail_if_any_edit_does_after_all_are_done(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(**BLOCKED, fail_first=1)
    run = run_dag(batch(THREE, tmp_path, on_item_failure="fail"))
    assert run.state == "failed"
    assert run.is_final
    assert run.error.startswith("1 of 3 edits have no pictures: 1 CONTENT_BLOCKED. The first is edit 1: ")
    assert "No cups" in run.error
    assert str(tmp_path) in run.error
    assert len(landed(tmp_path)) == 2
    assert run.xcom("edit", "odirouter_failure")["what"].startswith("1 of 3 edits have no pictures")


def test_a_batch_without_a_success_is_not_retried_if_a_retry_cannot_help(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(**BLOCKED)
    run = run_dag(batch(THREE, tmp_path))
    assert run.is_final
    assert "3 of 3 edits have no pictures: 3 CONTENT_BLOCKED" in run.error
    assert [line["error_type"] for line in manifest(tmp_path)] == ["CONTENT_BLOCKED"] * 3
    assert spent(sandbox) == (3, 0)


@anywhere
def test_a_batch_without_a_success_is_retried_if_a_retry_can_help(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(**BROKEN, fail_first=3)
    run = run_dag(batch(THREE, tmp_path, deferrable=deferrable))
    assert run.state == "success"
    assert "3 of 3 edits have no pictures: 3 INFERENCE_FAILURE" in run.error
    assert "A retry submits only the edits that are missing or that a retry can help" in run.error
    assert spent(sandbox) == (6, 0)
    assert [line.get("error") for line in manifest(tmp_path)] == [None] * 3


def test_a_retry_submits_curable_failures_but_no_success_and_no_refusal(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(**BLOCKED)
    listeners.append(changing(sandbox, "submit", BROKEN, {"error_type": None}))
    run = run_dag(batch(THREE, tmp_path, on_item_failure="fail", retries=2))
    assert run.state == "failed"
    assert [type(error).__name__ for error in run.errors] == ["BatchFailedError", "AirflowFailException"]
    assert "1 of 3 edits have no pictures: 1 CONTENT_BLOCKED" in str(run.errors[1])
    assert submits(sandbox) == ["Red", "Green", "Blue", "Green"]
    assert [line.get("error_type") for line in manifest(tmp_path)] == ["CONTENT_BLOCKED", None, None]
