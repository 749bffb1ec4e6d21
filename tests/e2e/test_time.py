"""A wait that is over cancels the request: no one pays for a result that comes too late."""

from __future__ import annotations

import pytest

from tests.e2e.trial import Trial


@pytest.mark.run("deadline_with_retry")
def test_a_retry_after_a_missed_deadline_submits_again(trial: Trial) -> None:
    trial.wait_for(lambda: trial.sandbox.paid == 2, "the second submit")
    trial.let_requests_end()

    trial.check(submits=2, cancels=1, ends="success")
    first, second = trial.witness.requests
    assert (bool(first.cancels), bool(second.cancels)) == (True, False)


@pytest.mark.run("deadline")
def test_a_missed_deadline_cancels_and_the_error_says_what_to_do(trial: Trial) -> None:
    trial.check(submits=1, cancels=1, ends="failed")
    assert "did not end before its deadline" in trial.log()
    assert "to submit a new request, clear the task" in trial.log()


@pytest.mark.run("short_run")
def test_a_run_that_misses_its_dagrun_timeout_cancels_the_request(trial: Trial) -> None:
    trial.wait_for_cancels()
    trial.check(submits=1, cancels=1, ends="skipped")
