"""A worker's whole machine dies: another one goes on with what its tasks have paid for."""

from __future__ import annotations

import pytest

from dev.celery_airflow import CeleryAirflow
from tests.e2e.celery.machines import (
    OTHER,
    VICTIM,
    assert_batch_landed,
    begin_on_victim,
    check_batch_retry,
    check_retry,
    files_of,
    wait_for_retry,
)
from tests.e2e.dags.batches import FEWER
from tests.e2e.moments import has_submitted, submits, submits_many, waits, waits_for_many
from tests.e2e.trial import Trial
from tests.object_store import S3

pytestmark = [pytest.mark.on_celery, pytest.mark.chosen]

SUBMIT = frozenset({"submit"})
MOMENTS = {
    "edit_with_retry": submits,
    "lingering": has_submitted,
    "edit_on_worker_with_retry": waits,
    "batch_from_list": submits_many,
    "batch_on_worker": waits_for_many,
}


@pytest.fixture(scope="module", autouse=True)
def machine_dies(airflow: CeleryAirflow, request: pytest.FixtureRequest) -> None:
    """All begin on one machine, and it dies when each is where its test wants it to be."""
    airflow.let_only(VICTIM)
    trials: dict[str, Trial] = request.getfixturevalue("trials")
    begin_on_victim(airflow, trials, MOMENTS)
    airflow.kill(VICTIM)
    airflow.let(OTHER)
    for trial in trials.values():
        trial.sandbox.configure(hang=False, latency_seconds=0)


@pytest.mark.run("edit_with_retry", hang=True, fault_after_effect=True, fault_actions=SUBMIT)
def test_a_machine_that_dies_during_the_submit_submits_again_on_another(trial: Trial, airflow: CeleryAirflow) -> None:
    trial.wait_for(lambda: trial.sandbox.paid == 2, "the second submit")
    trial.let_requests_end()
    check_retry(trial, airflow, submits=2, abandoned=1)
    assert "may be paid" in trial.log(try_number=2)


@pytest.mark.run("lingering")
def test_a_machine_that_dies_after_the_submit_leaves_the_request_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    wait_for_retry(trial)
    trial.let_requests_end()
    check_retry(trial, airflow, submits=1)
    assert len(files_of(trial, bucket)) == 1


@pytest.mark.run("edit_on_worker_with_retry")
def test_a_machine_that_dies_while_it_waits_leaves_the_request_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    wait_for_retry(trial)
    trial.let_requests_end()
    check_retry(trial, airflow, submits=1)
    assert len(files_of(trial, bucket)) == 1


@pytest.mark.run("batch_from_list", latency_seconds=2)
def test_a_machine_that_dies_while_a_batch_submits_leaves_all_noted_requests_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    check_batch_retry(trial, airflow, bucket)


@pytest.mark.run("batch_on_worker")
def test_a_machine_that_dies_while_a_batch_waits_leaves_its_requests_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    wait_for_retry(trial)
    trial.let_requests_end()
    check_retry(trial, airflow, submits=FEWER)
    assert_batch_landed(trial, bucket)
