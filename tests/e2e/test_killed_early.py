"""A task that is killed while it submits, long before its process learns of that, leaves no request behind."""

from __future__ import annotations

import pytest

from tests.e2e.trial import Trial


@pytest.mark.every_version
@pytest.mark.run("edit", latency_seconds=3)
def test_a_task_marked_while_it_submits_cancels_its_request_and_does_not_defer(trial: Trial) -> None:
    trial.wait_for(lambda: trial.sandbox.paid == 1, "the submit")
    trial.mark_task("failed")

    trial.wait_for_cancels()
    trial.check(submits=1, cancels=1, ends="failed")


@pytest.mark.run("edit_on_worker_with_retry")
def test_clearing_a_task_that_waits_on_a_worker_cancels_and_submits_again(trial: Trial) -> None:
    trial.wait_until_watched()
    trial.clear_task()

    trial.wait_for_cancels()
    trial.wait_for(lambda: trial.sandbox.paid == 2, "a second submit")
    trial.let_requests_end()
    trial.check(submits=2, cancels=1, ends="success")
