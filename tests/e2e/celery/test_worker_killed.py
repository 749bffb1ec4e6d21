"""
The process of Celery's worker alone is killed, as a system out of memory does.

Celery's children end with it. The processes of the tasks run on, although they own their tasks no more.
"""

from __future__ import annotations

import signal

import pytest

from dev.celery_airflow import CeleryAirflow
from tests.e2e.celery.machines import (
    OTHER,
    VICTIM,
    begin_on_victim,
    check_batch_retry,
    check_retry,
    files_of,
    wait_for_retry,
)
from tests.e2e.moments import submits_many, waits
from tests.e2e.trial import Trial
from tests.e2e.workers import is_alive
from tests.object_store import S3

pytestmark = [pytest.mark.on_celery, pytest.mark.chosen]

MOMENTS = {"edit_on_worker_with_retry": waits, "batch_of_fewer": submits_many}


@pytest.fixture(scope="module", autouse=True)
def processes(airflow: CeleryAirflow, request: pytest.FixtureRequest) -> dict[str, int]:
    """Kill the worker that all run on; return the processes of the tasks."""
    airflow.let_only(VICTIM)
    trials: dict[str, Trial] = request.getfixturevalue("trials")
    begin_on_victim(airflow, trials, MOMENTS)
    found = {name: int(trial.instances[0]["pid"]) for name, trial in trials.items()}
    airflow.components[VICTIM].stop(signal.SIGKILL)
    airflow.let(OTHER)
    for trial in trials.values():
        # So slow that no first try would have submitted all when its retry begins.
        trial.sandbox.configure(latency_seconds=12)
    return found


@pytest.fixture
def process(request: pytest.FixtureRequest, processes: dict[str, int]) -> int:
    """The process of the first try."""
    return processes[request.node.name]


@pytest.mark.run("batch_of_fewer", latency_seconds=2)
def test_a_worker_that_is_killed_while_a_batch_submits_leaves_all_noted_requests_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3, process: int
) -> None:
    wait_for_end(trial, process)
    trial.sandbox.configure(latency_seconds=0)
    check_batch_retry(trial, airflow, bucket)


@pytest.mark.run("edit_on_worker_with_retry")
def test_a_worker_that_is_killed_while_it_waits_leaves_the_request_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3, process: int
) -> None:
    wait_for_end(trial, process)
    trial.sandbox.configure(latency_seconds=0)
    wait_for_retry(trial)
    trial.let_requests_end()
    check_retry(trial, airflow, submits=1)
    assert len(files_of(trial, bucket)) == 1


def wait_for_end(trial: Trial, process: int) -> None:
    trial.wait_for(lambda: not is_alive(process), "the end of the process that is no longer the owner")
