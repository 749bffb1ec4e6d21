"""A hundred requests of one task: each is paid once, and none is left running, whatever happens to the task."""

from __future__ import annotations

from collections import Counter

import pytest

from dev.local_airflow import LocalAirflow
from tests.e2e.dags.batches import EDITS, assert_all_landed
from tests.e2e.moments import AT_A_TIME
from tests.e2e.trial import Trial
from tests.e2e.workers import kill

SLOW, SLOWER = 1.0, 2.5
"""Seconds an answer takes, so that a batch is struck in the middle of its submits: one after the other is."""


@pytest.mark.run("batch", latency_seconds=SLOW)
def test_a_batch_that_is_killed_while_it_submits_leaves_nothing_running(trial: Trial) -> None:
    trial.wait_for(lambda: trial.sandbox.paid >= EDITS // 4, "a part of the submits")
    trial.mark_task("failed")

    trial.wait_for(lambda: not trial.sandbox.alive and trial.sandbox.paid == len(trial.witness.canceled), "all cancels")
    assert trial.sandbox.paid < EDITS
    trial.check(submits=trial.sandbox.paid, cancels=trial.sandbox.paid, ends="failed")


@pytest.mark.every_version
@pytest.mark.run("batch_with_retry", latency_seconds=SLOWER)
def test_a_worker_that_dies_while_it_submits_leaves_all_noted_requests_to_the_retry(trial: Trial) -> None:
    die_in_the_middle(trial)
    trial.sandbox.configure(latency_seconds=0)
    # Not earlier: what is submitted later would not end.
    trial.wait_for(lambda: waits_again(trial), "the retry to have submitted all")
    trial.let_requests_end()

    trial.wait_until_ended()
    lost = trial.sandbox.paid - EDITS
    assert lost <= AT_A_TIME
    trial.check(submits=EDITS + lost, cancels=0, ends="success", abandoned=lost)
    assert_all_landed(trial.outputs)


@pytest.mark.every_version
@pytest.mark.on_celery
@pytest.mark.run("batch")
def test_a_deferred_batch_that_is_marked_cancels_all_its_requests(trial: Trial) -> None:
    trial.wait_until_watched(requests=EDITS)
    trial.mark_task("failed")

    trial.wait_for_cancels(EDITS)
    trial.check(submits=EDITS, cancels=EDITS, ends="failed")


@pytest.mark.run("batch")
def test_a_triggerer_that_dies_costs_a_batch_nothing(trial: Trial, airflow: LocalAirflow) -> None:
    trial.wait_until_watched(requests=EDITS)
    triggerer = trial.triggerer
    assert triggerer
    airflow.kill(triggerer)
    trial.wait_for(lambda: trial.triggerer not in {None, triggerer}, "another triggerer")
    airflow.restart(triggerer)
    trial.let_requests_end()

    trial.check(submits=EDITS, cancels=0, ends="success")
    assert_all_landed(trial.outputs)


@pytest.mark.run("batch_of_few_at_once", run_seconds=3)
def test_a_batch_never_has_more_requests_alive_than_it_may(trial: Trial) -> None:
    trial.check(submits=EDITS, cancels=0, ends="success")
    assert most_alive(trial) <= 40
    assert_all_landed(trial.outputs)


def die_in_the_middle(trial: Trial) -> None:
    trial.wait_for(lambda: trial.sandbox.paid >= EDITS // 4, "a part of the submits")
    kill(trial)


def waits_again(trial: Trial) -> bool:
    [instance] = trial.instances
    return bool(instance["state"] == "deferred" and instance["try_number"] == 2)


def most_alive(trial: Trial) -> int:
    """How many requests were alive at once."""
    changes: Counter[float] = Counter()
    for request in trial.sandbox.requests:
        changes[request.submitted_at] += 1
        changes[request.ends_at] -= 1
    alive = most = 0
    for _, change in sorted(changes.items()):
        alive += change
        most = max(most, alive)
    return most
