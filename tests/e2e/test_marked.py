"""A task that is marked while no process of ours is there to hear of it: a listener in the API server cancels."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from dev.local_airflow import LocalAirflow
from tests.e2e.dags.marked import EDITS
from tests.e2e.trial import Trial

pytestmark = pytest.mark.every_version

TRIGGERERS = ("triggerer-1", "triggerer-2")


@pytest.fixture(scope="module")
def foreign_run(airflow: LocalAirflow) -> str:
    """The run of a task that is none of ours."""
    return airflow.trigger_dag("ends_from_its_trigger")


@pytest.fixture(scope="module", autouse=True)
def all_marked(trials: dict[str, Trial], airflow: LocalAirflow, foreign_run: str) -> Iterator[None]:
    """Let all lose whoever would hear of a kill, the worker or all triggerers, and mark them together."""
    retried = [trial for trial in trials.values() if "retry" in trial.dag_id]
    for trial in retried:
        lose_worker(trial)
    for trial in trials.values():
        if trial in retried:
            wait_for_retry(trial)
        else:
            trial.wait_until_watched(requests=requests_of(trial))
    wait_for_success(airflow, foreign_run)
    for triggerer in TRIGGERERS:
        airflow.kill(triggerer)
    for name, trial in trials.items():
        mark = trial.mark_run if "whose_run_is_marked" in name else trial.mark_task
        mark("success" if "success" in name else "failed")
    yield
    for triggerer in TRIGGERERS:
        airflow.restart(triggerer)


def lose_worker(trial: Trial) -> None:
    """Kill the task's process: of an edit after its submit, of a batch in the middle of its submits."""
    if requests_of(trial) == 1:
        trial.wait_for(lambda: trial.request_id, "the request's id")
    else:
        trial.wait_for(lambda: trial.sandbox.paid >= EDITS // 4, "a part of the submits")
    [instance] = trial.instances
    os.kill(int(instance["pid"]), signal.SIGKILL)


def wait_for_retry(trial: Trial) -> None:
    trial.wait_for(lambda: trial.states == ["up_for_retry"], "the wait for the retry")


def wait_for_success(airflow: LocalAirflow, run_id: str) -> None:
    airflow.wait_for(lambda: airflow.api.run("ends_from_its_trigger", run_id)["state"] == "success", "its success")


def requests_of(trial: Trial) -> int:
    return EDITS if "batch" in trial.dag_id else 1


@pytest.mark.run("edit_that_waits_for_its_retry")
@pytest.mark.parametrize("state", ["failed", "success"])
def test_an_edit_that_is_marked_while_it_waits_for_its_retry_is_cancelled(trial: Trial, state: str) -> None:
    trial.wait_for_cancels()
    trial.check(submits=1, cancels=1, ends=state)


@pytest.mark.run("edit_that_waits_for_its_retry")
def test_an_edit_whose_run_is_marked_while_it_waits_for_its_retry_is_cancelled(trial: Trial) -> None:
    trial.wait_for_cancels()
    trial.check(submits=1, cancels=1, ends="skipped")


@pytest.mark.run("batch_that_waits_for_its_retry", latency_seconds=1.0)
def test_a_batch_that_is_marked_while_it_waits_for_its_retry_is_cancelled(trial: Trial) -> None:
    noted = trial.sandbox.paid - lost_submits(trial)
    trial.wait_for_cancels(noted)
    trial.let_requests_end()
    trial.check(submits=trial.sandbox.paid, cancels=noted, ends="failed", abandoned=trial.sandbox.paid - noted)


@pytest.mark.run("edit")
def test_an_edit_that_is_marked_after_its_triggerer_died_is_cancelled(trial: Trial) -> None:
    trial.wait_for_cancels()
    trial.check(submits=1, cancels=1, ends="failed")


@pytest.mark.run("edit")
def test_an_edit_whose_run_is_marked_after_its_triggerer_died_is_cancelled(trial: Trial) -> None:
    trial.wait_for_cancels()
    trial.check(submits=1, cancels=1, ends="failed")


@pytest.mark.run("deferred_batch")
def test_a_batch_that_is_marked_after_its_triggerer_died_is_cancelled(trial: Trial) -> None:
    trial.wait_for_cancels(EDITS)
    trial.check(submits=EDITS, cancels=EDITS, ends="failed")


def lost_submits(trial: Trial) -> int:
    """How many submits the worker died in: only the sandbox knows of their requests."""
    states = trial.outputs.glob(".odirouter/*/state*.jsonl")
    noted = "".join(path.read_text() for path in states)
    return sum(request.request_id not in noted for request in trial.sandbox.requests)


def test_a_task_that_ends_from_its_trigger_is_not_refused_for_our_listener(
    airflow: LocalAirflow, foreign_run: str
) -> None:
    """Airflow refuses it wherever Dags are parsed and there is any listener."""
    assert airflow.api.run("ends_from_its_trigger", foreign_run)["state"] == "success"
    assert not airflow.api.import_errors()
