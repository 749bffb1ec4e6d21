"""A worker that dies costs nothing twice, whenever it dies. Airflow 3.3 remembers; the older ones do not."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.trial import Trial

SUBMIT = frozenset({"submit"})


@pytest.mark.run("edit_with_retry", hang=True, fault_after_effect=True, fault_actions=SUBMIT)
def test_a_worker_that_dies_during_the_submit_submits_again_and_warns(trial: Trial) -> None:
    die_during_the_submit(trial)

    trial.wait_for(lambda: trial.sandbox.paid == 2, "the second submit")
    trial.let_requests_end()
    trial.check(submits=2, cancels=0, ends="success", abandoned=1)
    assert "may be paid" in trial.log(try_number=2)


@pytest.mark.run("refuses_lost_submits", hang=True, fault_after_effect=True, fault_actions=SUBMIT)
def test_a_worker_that_dies_during_the_submit_does_not_submit_again_if_told_so(trial: Trial) -> None:
    die_during_the_submit(trial)

    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="failed", abandoned=1)
    assert "its fate is unknown" in trial.log(try_number=2)


@pytest.mark.run("lingering")
@pytest.mark.parametrize("whole_worker", [False, True], ids=["task process", "whole worker"])
def test_a_worker_that_dies_right_after_the_submit_leaves_its_request_to_the_retry(
    trial: Trial, whole_worker: bool
) -> None:
    trial.wait_for(lambda: trial.request_id, "the request's id")
    kill(trial, whole_worker=whole_worker)

    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")
    assert "this one goes on with it" in trial.log(try_number=2)


@pytest.mark.run("three_pictures")
def test_a_worker_that_dies_while_the_pictures_land_leaves_them_to_the_retry(trial: Trial) -> None:
    trial.wait_until_watched()
    trial.sandbox.configure(latency_seconds=3)
    trial.let_requests_end()
    trial.wait_for(lambda: pictures(trial), "the first picture")
    kill(trial)
    left_behind = pictures(trial)
    trial.sandbox.configure(latency_seconds=0)

    trial.check(submits=1, cancels=0, ends="success")
    assert 0 < len(left_behind) < 3
    assert len(pictures(trial)) == 3
    assert sorted(trial.outputs.iterdir()) == pictures(trial)
    for path in pictures(trial):
        with Image.open(path) as picture:
            picture.load()


def die_during_the_submit(trial: Trial) -> None:
    """Before the hook has waited for an answer for a minute: so these come first."""
    trial.wait_for(lambda: trial.sandbox.paid == 1, "the submit")
    kill(trial)
    trial.sandbox.configure(hang=False)


def pictures(trial: Trial) -> list[Path]:
    return sorted(trial.outputs.glob("*.png"))


def kill(trial: Trial, *, whole_worker: bool = False) -> None:
    """Kill a task's process; with the worker that watches over it, nobody is left to tell Airflow."""
    [instance] = trial.instances
    task = int(instance["pid"])
    victims = [task, parent_of(task)] if whole_worker else [task]
    for pid in reversed(victims):
        os.kill(pid, signal.SIGKILL)


def parent_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)
