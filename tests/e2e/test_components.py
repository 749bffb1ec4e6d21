"""Whatever becomes of Airflow's own processes, a task that waits goes on waiting for its one request."""

from __future__ import annotations

import signal

import pytest

from dev.local_airflow import LocalAirflow
from tests.e2e.trial import Trial

SPARED = "still waits. Not cancelled"
"""What a trigger logs that is cancelled although its task was not killed."""


@pytest.fixture(scope="module", autouse=True)
def all_watched(trials: dict[str, Trial]) -> None:
    """All wait while one component after the other is struck, so that each trial is every blow's bystander too."""
    for trial in trials.values():
        trial.wait_until_watched()


@pytest.mark.every_version
@pytest.mark.run("edit")
@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("SIGKILL", marks=pytest.mark.on_celery)])
def test_a_triggerer_that_is_ended_and_started_again_costs_nothing(
    trial: Trial, airflow: LocalAirflow, how: str
) -> None:
    triggerer = trial.triggerer
    assert triggerer
    airflow.stop(triggerer) if how == "SIGTERM" else airflow.kill(triggerer)
    trial.wait_for(lambda: trial.triggerer not in {None, triggerer}, "another triggerer")
    airflow.restart(triggerer)

    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


@pytest.mark.run("edit")
def test_a_frozen_triggerer_that_wakes_after_another_took_over_cancels_nothing(
    trial: Trial, airflow: LocalAirflow
) -> None:
    triggerer = trial.triggerer
    assert triggerer
    checks = trial.log().count(SPARED)
    airflow.components[triggerer].send_to_all(signal.SIGSTOP)
    trial.wait_for(lambda: trial.triggerer not in {None, triggerer}, "another triggerer")
    airflow.components[triggerer].send_to_all(signal.SIGCONT)
    trial.wait_for(lambda: trial.log().count(SPARED) > checks, "the woken triggerer to see that it was replaced")
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


@pytest.mark.run("edit")
@pytest.mark.parametrize("component", ["scheduler", "api-server"])
def test_a_component_that_is_killed_and_started_again_costs_nothing(
    trial: Trial, airflow: LocalAirflow, component: str
) -> None:
    airflow.kill(component)
    airflow.restart(component)

    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")
