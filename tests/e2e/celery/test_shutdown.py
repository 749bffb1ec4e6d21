"""A worker that is asked to stop, as each deployment does: it lets its tasks end, or leaves them to another one."""

from __future__ import annotations

import signal

import pytest

from dev.celery_airflow import CeleryAirflow
from tests.e2e.celery.machines import (
    OTHER,
    VICTIM,
    assert_batch_landed,
    begin_on_victim,
    check_retry,
    files_of,
    try_of,
    wait_for_retry,
    worker_of,
)
from tests.e2e.dags.batches import FEWER
from tests.e2e.moments import submits, waits
from tests.e2e.trial import Trial
from tests.object_store import S3

pytestmark = [pytest.mark.on_celery, pytest.mark.chosen]

MOMENTS = {"edit": submits, "batch_of_fewer": submits, "edit_on_worker_with_retry": waits}


@pytest.fixture(scope="module", autouse=True)
def warm_shutdown(airflow: CeleryAirflow, request: pytest.FixtureRequest) -> None:
    """All begin on one worker, which is asked to stop while some submit and others wait."""
    airflow.let_only(VICTIM)
    trials: dict[str, Trial] = request.getfixturevalue("trials")
    begin_on_victim(airflow, trials, MOMENTS)
    airflow.components[VICTIM].stop()
    airflow.let(OTHER)
    airflow.wait_for(lambda: "Warm shutdown" in airflow.logs(VICTIM), "the worker to begin to stop")
    for trial in trials.values():
        trial.sandbox.configure(latency_seconds=0)


@pytest.mark.run("edit", latency_seconds=10)
def test_a_warm_shutdown_lets_an_edit_defer_that_submits(trial: Trial, airflow: CeleryAirflow, bucket: S3) -> None:
    trial.wait_until_watched()
    trial.let_requests_end()
    check(trial, submits=1)
    assert worker_of(airflow, trial) == OTHER
    assert len(files_of(trial, bucket)) == 1


@pytest.mark.run("batch_of_fewer", latency_seconds=3)
def test_a_warm_shutdown_lets_a_batch_submit_all_and_defer(trial: Trial, airflow: CeleryAirflow, bucket: S3) -> None:
    trial.wait_until_watched(requests=FEWER)
    trial.let_requests_end()
    check(trial, submits=FEWER)
    assert worker_of(airflow, trial) == OTHER
    assert_batch_landed(trial, bucket)


@pytest.mark.run("edit_on_worker_with_retry")
def test_a_warm_shutdown_lets_an_edit_end_that_waits_on_the_worker(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    assert airflow.components[VICTIM].exit_code is None
    trial.let_requests_end()
    check(trial, submits=1)
    assert worker_of(airflow, trial) == VICTIM
    assert len(files_of(trial, bucket)) == 1


# The last one: whatever still runs on the worker is lost.
@pytest.mark.run("edit_on_worker_with_retry")
def test_a_cold_shutdown_leaves_an_edit_that_waits_on_the_worker_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    assert airflow.components[VICTIM].exit_code is None
    airflow.components[VICTIM].stop(signal.SIGQUIT)
    wait_for_retry(trial)
    trial.let_requests_end()
    check_retry(trial, airflow, submits=1)
    assert len(files_of(trial, bucket)) == 1


def check(trial: Trial, *, submits: int) -> None:
    trial.check(submits=submits, cancels=0, ends="success")
    assert try_of(trial) == 1
