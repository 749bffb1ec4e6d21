"""
A worker that dies costs nothing twice, whenever it dies.

Airflow 3.3 remembers; before, the notes beside the outputs do.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.trial import Trial
from tests.e2e.workers import is_alive, kill, processes_of, send

SUBMIT = frozenset({"submit"})


@pytest.fixture(scope="module", autouse=True)
def killed_during_the_submit(trials: dict[str, Trial]) -> None:
    """Let the workers whose submit hangs die before the hook has waited for an answer for a minute."""
    for trial in trials.values():
        if trial.sandbox.settings.hang:
            die_during_the_submit(trial)


@pytest.mark.run("edit_with_retry", hang=True, fault_after_effect=True, fault_actions=SUBMIT)
def test_a_worker_that_dies_during_the_submit_submits_again_and_warns(trial: Trial) -> None:
    trial.wait_for(lambda: trial.sandbox.paid == 2, "the second submit")
    trial.let_requests_end()
    trial.check(submits=2, cancels=0, ends="success", abandoned=1)
    assert "may be paid" in trial.log(try_number=2)


@pytest.mark.run("refuses_lost_submits", hang=True, fault_after_effect=True, fault_actions=SUBMIT)
def test_a_worker_that_dies_during_the_submit_does_not_submit_again_if_set_so(trial: Trial) -> None:
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="failed", abandoned=1)
    assert "it is unknown whether the submit arrived" in trial.log(try_number=2)


@pytest.mark.every_version
@pytest.mark.run("lingering")
@pytest.mark.parametrize("whole_worker", [False, True], ids=["task process", "whole worker"])
def test_a_worker_that_dies_right_after_the_submit_leaves_its_request_to_the_retry(
    trial: Trial, whole_worker: bool
) -> None:
    trial.wait_for(lambda: trial.request_id, "the request's id")
    kill(trial, whole_worker=whole_worker)

    trial.wait_for(lambda: trial.instances[0]["try_number"] == 2, "the retry")
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")
    assert "this try does not pay again" in trial.log(try_number=2)


@pytest.mark.run("eight_pictures")
def test_a_worker_that_dies_while_the_pictures_land_leaves_them_to_the_retry(trial: Trial) -> None:
    trial.wait_until_watched()
    trial.sandbox.configure(latency_seconds=3)
    trial.let_requests_end()
    trial.wait_for(lambda: pictures(trial), "the first picture")
    kill(trial)
    left_behind = pictures(trial)
    trial.sandbox.configure(latency_seconds=0)

    trial.check(submits=1, cancels=0, ends="success")
    assert 0 < len(left_behind) < 8  # a few are landed at a time
    assert len(pictures(trial)) == 8
    assert sorted(path for path in trial.outputs.iterdir() if path.name != ".odirouter") == pictures(trial)
    for path in pictures(trial):
        with Image.open(path) as picture:
            picture.load()


@pytest.mark.run("edit_on_worker_with_retry")
def test_a_worker_that_is_asked_to_stop_leaves_its_request_to_the_retry(trial: Trial) -> None:
    trial.wait_until_watched()
    _, supervisor = processes_of(trial)
    os.kill(supervisor, signal.SIGTERM)

    trial.wait_for(lambda: trial.instances[0]["try_number"] == 2, "the retry")
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


@pytest.mark.run("edit_on_worker_with_retry")
def test_a_worker_that_wakes_after_the_retry_has_taken_over_cancels_nothing(trial: Trial) -> None:
    trial.wait_until_watched()
    frozen = processes_of(trial)
    send(signal.SIGSTOP, frozen)
    trial.wait_for(lambda: trial.instances[0]["try_number"] == 2, "the retry")
    trial.wait_for(lambda: "this try does not pay again" in trial.log(try_number=2), "the retry to take over")
    send(signal.SIGCONT, frozen)
    trial.wait_for(lambda: not is_alive(frozen[0]), "the end of the frozen try")
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


def die_during_the_submit(trial: Trial) -> None:
    trial.wait_for(lambda: trial.sandbox.paid == 1, "the submit")
    kill(trial)
    trial.sandbox.configure(hang=False)


def pictures(trial: Trial) -> list[Path]:
    return sorted(trial.outputs.glob("*.png"))
