"""A worker's whole machine dies: another one goes on with what its tasks have paid for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from dev.celery_airflow import CeleryAirflow
from tests.e2e.celery.machines import assert_batch_landed, files_of, try_of, worker_of
from tests.e2e.dags.batches import FEWER
from tests.e2e.trial import Trial
from tests.object_store import S3

pytestmark = pytest.mark.on_celery

VICTIM, OTHER = "worker-1", "worker-2"
AT_A_TIME = 8
"""Submits of a batch, by default: as many may be under way when it dies."""


def submits(trial: Trial) -> bool:
    return trial.sandbox.paid == 1


def has_submitted(trial: Trial) -> bool:
    return bool(trial.request_id)


def waits(trial: Trial) -> bool:
    requests = trial.witness.requests
    return bool(requests) and all(request.polls for request in requests)


def submits_many(trial: Trial) -> bool:
    return trial.sandbox.paid >= FEWER // 4


def waits_for_many(trial: Trial) -> bool:
    return trial.sandbox.paid == FEWER and waits(trial)


MOMENTS: dict[str, Callable[[Trial], bool]] = {
    "edit_with_retry": submits,
    "lingering": has_submitted,
    "edit_on_worker_with_retry": waits,
    "batch_from_list": submits_many,
    "batch_on_worker": waits_for_many,
}


@pytest.fixture(scope="module", autouse=True)
def machine_dies(airflow: CeleryAirflow, bucket: S3, request: pytest.FixtureRequest) -> None:
    """All begin on one machine, and it dies when each is where its test wants it to be."""
    airflow.let_only(VICTIM)
    trials: list[Trial] = list(request.getfixturevalue("trials").values())
    for trial in trials:
        trial.wait_for(partial(MOMENTS[trial.dag_id], trial), "its moment")
    assert {worker_of(airflow, trial) for trial in trials} == {VICTIM}
    airflow.kill(VICTIM)
    airflow.let_all([OTHER])
    for trial in trials:
        trial.sandbox.configure(hang=False, latency_seconds=0)


@pytest.mark.run("edit_with_retry", hang=True, fault_after_effect=True, fault_actions=frozenset({"submit"}))
def test_a_machine_that_dies_during_the_submit_submits_again_on_another(trial: Trial, airflow: CeleryAirflow) -> None:
    trial.wait_for(lambda: trial.sandbox.paid == 2, "the second submit")
    trial.let_requests_end()
    check(trial, airflow, submits=2, abandoned=1)
    assert "may be paid" in trial.log(try_number=2)


@pytest.mark.run("lingering")
def test_a_machine_that_dies_after_the_submit_leaves_the_request_to_another(
    trial: Trial, airflow: CeleryAirflow
) -> None:
    go_on_elsewhere(trial)
    check(trial, airflow, submits=1)


@pytest.mark.run("edit_on_worker_with_retry")
def test_a_machine_that_dies_while_it_waits_leaves_the_request_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    go_on_elsewhere(trial)
    check(trial, airflow, submits=1)
    assert len(files_of(trial, bucket)) == 1


@pytest.mark.run("batch_from_list", latency_seconds=2)
def test_a_machine_that_dies_while_a_batch_submits_leaves_all_noted_requests_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    trial.wait_for(lambda: try_of(trial) == 2 and trial.states == ["deferred"], "the retry to have submitted all")
    trial.let_requests_end()
    trial.wait_until_ended()
    lost = trial.sandbox.paid - FEWER
    assert lost <= AT_A_TIME
    check(trial, airflow, submits=FEWER + lost, abandoned=lost)
    assert_batch_landed(trial, bucket, FEWER)


@pytest.mark.run("batch_on_worker")
def test_a_machine_that_dies_while_a_batch_waits_leaves_its_requests_to_another(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    go_on_elsewhere(trial)
    check(trial, airflow, submits=FEWER)
    assert_batch_landed(trial, bucket, FEWER)


def go_on_elsewhere(trial: Trial) -> None:
    """Let the requests end as soon as the retry waits for them."""
    trial.wait_for(lambda: "this try does not pay again" in trial.log(try_number=2), "the retry to take over")
    trial.let_requests_end()


def check(trial: Trial, airflow: CeleryAirflow, *, submits: int, abandoned: int = 0) -> None:
    trial.check(submits=submits, cancels=0, ends="success", abandoned=abandoned)
    assert try_of(trial) == 2
    assert worker_of(airflow, trial) == OTHER
