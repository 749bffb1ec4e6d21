"""A trigger that crashes or does not end leaves no request alone: the worker polls once more."""

from __future__ import annotations

import pytest

from tests.e2e.trial import Trial


@pytest.mark.every_version
@pytest.mark.run("trigger_crashes")
def test_a_crashed_trigger_of_the_last_try_cancels_the_request(trial: Trial) -> None:
    trial.check(submits=1, cancels=1, ends="failed")
    assert "its trigger has crashed" in trial.log()


@pytest.mark.run("trigger_crashes_with_retry")
def test_a_crashed_trigger_hands_the_request_to_the_retry(trial: Trial) -> None:
    trial.wait_for(lambda: [ti["try_number"] for ti in trial.instances] == [2], "the retry")
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")
    assert "a retry waits for it again" in trial.log()


@pytest.mark.every_version
@pytest.mark.run("trigger_is_late")
def test_a_deferral_that_airflow_ends_cancels_the_request(trial: Trial) -> None:
    trial.check(submits=1, cancels=1, ends="failed")
    assert "did not end before its deadline" in trial.log()
