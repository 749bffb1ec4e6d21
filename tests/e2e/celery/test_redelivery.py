"""
Redis delivers a message again while the task of the first delivery still runs: nothing is paid twice.

It does so when a task has held a worker for longer than `[celery_broker_transport_options] visibility_timeout`.
"""

from __future__ import annotations

import pytest

from dev.celery_airflow import CeleryAirflow
from tests.e2e.celery.machines import assert_batch_landed, files_of, is_refused, try_of
from tests.e2e.dags.batches import FEWER
from tests.e2e.trial import Trial
from tests.object_store import S3

pytestmark = [pytest.mark.on_celery, pytest.mark.chosen]


@pytest.mark.run("edit_on_worker")
def test_an_edit_whose_message_is_delivered_again_while_it_waits_is_paid_once(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    trial.wait_for(lambda: is_refused(airflow, trial), "a second delivery")
    trial.let_requests_end()
    check(trial, submits=1)
    assert len(files_of(trial, bucket)) == 1


# It submits for half a minute.
@pytest.mark.run("batch_of_fewer", latency_seconds=6)
def test_a_batch_whose_message_is_delivered_again_while_it_submits_is_paid_once(
    trial: Trial, airflow: CeleryAirflow, bucket: S3
) -> None:
    trial.wait_for(lambda: is_refused(airflow, trial), "a second delivery")
    assert trial.sandbox.paid < FEWER
    trial.sandbox.configure(latency_seconds=0)
    trial.wait_until_watched(requests=FEWER)
    trial.let_requests_end()
    check(trial, submits=FEWER)
    assert_batch_landed(trial, bucket)


def check(trial: Trial, *, submits: int) -> None:
    trial.check(submits=submits, cancels=0, ends="success")
    assert try_of(trial) == 1
