"""
A worker that dies costs nothing twice, whenever it dies.

Airflow 3.3 remembers; before, the notes beside the outputs do.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.trial import Trial

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
def test_a_worker_that_dies_during_the_submit_does_not_submit_again_if_told_so(trial: Trial) -> None:
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="failed", abandoned=1)
    assert "its fate is unknown" in trial.log(try_number=2)


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
    assert "this one goes on with it" in trial.log(try_number=2)


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
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    trial.wait_for(lambda: trial.instances[0]["try_number"] == 2, "the retry")
    trial.wait_for(lambda: "this one goes on with it" in trial.log(try_number=2), "the retry to take over")
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    trial.wait_for(lambda: not is_alive(frozen[0]), "the end of the frozen try")
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


def die_during_the_submit(trial: Trial) -> None:
    trial.wait_for(lambda: trial.sandbox.paid == 1, "the submit")
    kill(trial)
    trial.sandbox.configure(hang=False)


def pictures(trial: Trial) -> list[Path]:
    return sorted(trial.outputs.glob("*.png"))


def kill(trial: Trial, *, whole_worker: bool = False) -> None:
    """Kill a task's process; with the worker that watches over it, nobody is left to tell Airflow."""
    task, supervisor = processes_of(trial)
    for pid in (supervisor, task) if whole_worker else (task,):
        os.kill(pid, signal.SIGKILL)


def processes_of(trial: Trial) -> tuple[int, int]:
    """The process of the task, and that of the worker which watches over it."""
    [instance] = trial.instances
    pid = int(instance["pid"])
    return pid, int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False).stdout.strip()
    return bool(state) and not state.startswith(b"Z")
