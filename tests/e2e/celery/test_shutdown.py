"""A worker that is asked to stop, as each deployment does: it lets its tasks end, or leaves them to another one."""

from __future__ import annotations

import signal
from functools import partial

import pytest

from dev.celery_airflow import CeleryAirflow
from tests.e2e.celery.machines import assert_batch_landed, files_of, try_of, worker_of
from tests.e2e.dags.batches import FEWER
from tests.e2e.trial import Trial
from tests.object_store import S3

pytestmark = pytest.mark.on_celery

STOPPED, OTHER = "worker-1", "worker-2"


@pytest.fixture(scope="module", autouse=True)
def warm_shutdown(airflow: CeleryAirflow, request: pytest.FixtureRequest) -> None:
    """All begin on one worker, which is asked to stop when one waits, and the others submit."""
    airflow.let_only(STOPPED)
    trials: list[Trial] = list(request.getfixturevalue("trials").values())
    for trial in trials:
        trial.wait_for(partial(has_begun, trial), "a submit")
    assert {worker_of(airflow, trial) for trial in trials} == {STOPPED}
    airflow.components[STOPPED].stop()
    airflow.let_all([OTHER])
    airflow.wait_for(lambda: "Warm shutdown" in airflow.logs(STOPPED), "the worker to begin to stop")


def has_begun(trial: Trial) -> bool:
    return trial.sandbox.paid > 0


@pytest.mark.run("edit", latency_seconds=5)
def test_an_edit_under_way_at_a_warm_shutdown_defers_and_ends_normally(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    trial.wait_until_watched()
    trial.let_requests_end()
    check(trial, submits=1)
    assert worker_of(airflow, trial) == OTHER
    assert len(files_of(trial, bucket)) == 1


@pytest.mark.run("batch_of_fewer", latency_seconds=2)
def test_a_batch_under_way_at_a_warm_shutdown_submits_all_defers_and_ends_normally(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    trial.wait_until_watched(requests=FEWER)
    trial.let_requests_end()
    check(trial, submits=FEWER)
    assert worker_of(airflow, trial) == OTHER
    assert_batch_landed(trial, bucket, FEWER)


@pytest.mark.run("edit_on_worker_with_retry")
def test_a_warm_shutdown_lets_an_edit_end_that_waits_on_the_worker(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    trial.wait_until_watched()
    assert airflow.components[STOPPED].exit_code is None
    trial.let_requests_end()
    check(trial, submits=1)
    assert worker_of(airflow, trial) == STOPPED
    assert len(files_of(trial, bucket)) == 1


@pytest.mark.run("edit_on_worker_with_retry")
def test_a_cold_shutdown_leaves_an_edit_that_waits_on_the_worker_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    trial.wait_until_watched()
    # Last in this module: whatever still runs there is lost.
    airflow.components[STOPPED].stop(signal.SIGQUIT)
    trial.wait_for(lambda: try_of(trial) == 2, "the retry")
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")
    assert worker_of(airflow, trial) == OTHER
    assert airflow.components[STOPPED].exit_code is not None
    assert len(files_of(trial, bucket)) == 1


def check(trial: Trial, *, submits: int) -> None:
    trial.check(submits=submits, cancels=0, ends="success")
    assert try_of(trial) == 1
