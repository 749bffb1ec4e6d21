"""Tries without notes: before Airflow 3.3 without an output path, or with ``durable=False``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.lifecycle import polling
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import ConfigureAt, spent
from tests.dags.conftest import HAS_STORE, Fail, RunDag, anywhere, edit

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


@pytest.mark.skipif(HAS_STORE, reason="this Airflow has a task state store")
@pytest.mark.parametrize(("durable", "beside", "times"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_the_log_says_once_that_a_retry_will_not_know_the_request(
    durable: bool, beside: bool, times: int, run_dag: RunDag, pictures: Path, tmp_path: Path, capfd: Any
) -> None:
    output_path = str(tmp_path) if beside else None
    assert run_dag(edit(pictures, durable=durable, output_path=output_path, deferrable=True)).state == "success"
    assert capfd.readouterr().out.count("only Airflow 3.3 and later keep notes for it") == times


def test_a_try_that_fails_after_its_submit_cancels_its_request(
    run_dag: RunDag, sandbox: Sandbox, configure_at: ConfigureAt, pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    fail_after_submit(1)
    run = run_dag(edit(pictures, durable=False))
    assert (run.state, run.error) == ("success", "no XCom today")
    assert spent(sandbox) == (2, 1)
    assert not sandbox.alive


@anywhere
def test_a_request_that_cannot_be_polled_is_cancelled_although_a_retry_follows(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 2)
    sandbox.configure(run_seconds=60, server_errors=None, fault_actions={"status"})
    run = run_dag(edit(pictures, durable=False, deferrable=deferrable))
    assert run.state == "failed"
    assert "It was cancelled; a retry submits a new request." in str(run.errors[0])
    assert "It was cancelled; to submit a new request, clear the task." in str(run.errors[1])
    assert spent(sandbox) == (2, 2)
