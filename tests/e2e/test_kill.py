"""A task that is killed cancels its request, wherever it waits."""

from __future__ import annotations

import pytest

from tests.e2e.trial import WITHIN, Trial

pytestmark = [pytest.mark.every_version, pytest.mark.on_celery]


@pytest.fixture(scope="module", autouse=True)
def all_watched(trials: dict[str, Trial]) -> None:
    """Let them all be under way before the first is killed: starting keeps this machine busy."""
    for trial in trials.values():
        trial.wait_until_watched()


@pytest.mark.run("edit")
@pytest.mark.parametrize("state", [pytest.param("failed", marks=pytest.mark.chosen), "success"])
def test_a_deferred_task_that_is_marked_cancels_its_request(trial: Trial, state: str) -> None:
    trial.mark_task(state)

    assert trial.wait_for_cancels() < WITHIN
    trial.check(submits=1, cancels=1, ends=state)


@pytest.mark.run("edit")
def test_a_failed_run_cancels_the_request_of_its_deferred_task(trial: Trial) -> None:
    trial.mark_run("failed")

    assert trial.wait_for_cancels() < WITHIN
    trial.check(submits=1, cancels=1, ends="failed")


@pytest.mark.run("edit")
def test_a_run_that_fails_and_is_deleted_cancels_the_request_of_its_deferred_task(trial: Trial) -> None:
    trial.mark_run("failed")
    trial.delete_run()

    assert trial.wait_for_cancels() < WITHIN
    trial.check(submits=1, cancels=1, ends="deleted")


@pytest.mark.run("five_edits")
def test_a_mapped_task_that_is_marked_cancels_its_own_request_only(trial: Trial) -> None:
    trial.mark_task("failed", map_index=3)

    assert trial.wait_for_cancels() < WITHIN
    [canceled] = trial.witness.canceled
    assert canceled.prompt == "Edit 3"
    trial.let_requests_end()
    trial.check(submits=5, cancels=1, ends="4 success, 1 failed")


@pytest.mark.chosen
@pytest.mark.run("edit")
def test_a_deferred_task_that_is_cleared_cancels_its_request_and_submits_again(trial: Trial) -> None:
    trial.clear_task()

    trial.wait_for_cancels()
    trial.wait_for(lambda: trial.sandbox.paid == 2, "a second submit")
    first, second = trial.witness.requests
    assert (bool(first.cancels), bool(second.cancels)) == (True, False)
    trial.let_requests_end()
    trial.check(submits=2, cancels=1, ends="success")


@pytest.mark.chosen
@pytest.mark.run("edit_on_worker")
def test_a_task_that_is_killed_while_it_waits_on_a_worker_cancels_its_request(trial: Trial) -> None:
    trial.mark_task("failed")

    trial.wait_for_cancels()
    trial.check(submits=1, cancels=1, ends="failed")
