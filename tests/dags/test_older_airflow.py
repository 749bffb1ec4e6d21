"""What is left where tries cannot remember: before Airflow 3.3 without an output path, or with ``durable=False``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter import polling
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import ConfigureAt, spent
from tests.dags.conftest import HAS_STORE, Fail, RunDag, anywhere, edit

pytestmark = pytest.mark.usefixtures("look_at_once")


@pytest.mark.skipif(HAS_STORE, reason="this Airflow has a task state store")
@pytest.mark.parametrize(("durable", "beside", "times"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_the_log_says_once_that_there_is_nowhere_to_remember(
    durable: bool, beside: bool, times: int, run_dag: RunDag, pictures: Path, tmp_path: Path, capfd: Any
) -> None:
    output_path = str(tmp_path) if beside else None
    assert run_dag(edit(pictures, durable=durable, output_path=output_path, deferrable=True)).state == "success"
    assert capfd.readouterr().out.count("remembers requests between tries from 3.3 on") == times


def test_a_try_that_fails_after_its_submit_takes_its_request_with_it(
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
def test_a_request_that_cannot_be_looked_at_is_cancelled_though_there_is_a_retry(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_LOOKS", 2)
    sandbox.configure(run_seconds=60, server_errors=None, fault_actions={"status"})
    run = run_dag(edit(pictures, durable=False, deferrable=deferrable))
    assert run.state == "failed"
    assert all("It was cancelled; a retry submits a new request." in str(error) for error in run.errors)
    assert spent(sandbox) == (2, 2)
