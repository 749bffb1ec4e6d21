"""
A process that is no longer its task's owner submits nothing, cancels nothing and writes nothing.

It was frozen, and wakes when a new try has begun; or the worker that watches over it was killed alone.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dev.local_airflow import POLL
from tests.e2e.dags.batches import FEWER, assert_all_landed
from tests.e2e.moments import AT_A_TIME, Moment, submits, submits_many, waits, waits_for_many
from tests.e2e.trial import Trial
from tests.e2e.workers import is_alive, processes_of, send

PATIENCE = 240.0


@dataclass(frozen=True)
class Blow:
    """What happens to a trial's worker, and when."""

    is_time: Moment
    freezes: bool
    then: dict[str, Any]
    """Settings of the sandbox from then on."""


BLOWS: dict[str, Blow] = {}
Struck = dict[str, tuple[int, int]]


Test = Callable[..., None]


def blow(is_time: Moment, *, freezes: bool, **then: Any) -> Callable[[Test], Test]:
    """Say what happens to the worker of a test's trial."""

    def note(test: Test) -> Test:
        BLOWS[test.__name__] = Blow(is_time, freezes, then)
        return test

    return note


frozen = partial(blow, freezes=True)
"""The task's process and its worker are frozen."""
orphaned = partial(blow, freezes=False)
"""The worker alone is killed."""


def lands(trial: Trial) -> bool:
    return bool(pictures(trial))


def only_lands(trial: Trial) -> bool:
    return trial.sandbox.paid == FEWER and waits(trial) and lands(trial)


@pytest.fixture(scope="module", autouse=True)
def struck(trials: dict[str, Trial]) -> Struck:
    """Strike each worker at its moment, so that Airflow misses all of them at the same time."""
    found: Struck = {}
    deadline = time.monotonic() + PATIENCE
    while left := [name for name in trials if name not in found]:
        for name in left:
            if BLOWS[name].is_time(trials[name]):
                task, worker = processes_of(trials[name])
                if BLOWS[name].freezes:
                    send(signal.SIGSTOP, (worker, task))
                else:
                    send(signal.SIGKILL, (worker,))
                trials[name].sandbox.configure(**BLOWS[name].then)
                found[name] = task, worker
        assert time.monotonic() < deadline, left
        time.sleep(POLL)
    return found


@pytest.fixture
def processes(request: pytest.FixtureRequest, struck: Struck) -> tuple[int, int]:
    """The struck process of the task, and its worker."""
    return struck[request.node.name]


def pictures(trial: Trial) -> dict[Path, int]:
    """The pictures that have landed, and when."""
    return {path: path.stat().st_mtime_ns for path in trial.outputs.glob("*.png")}


def wait_for_retry(trial: Trial, *states: str) -> None:
    def is_there() -> bool:
        [instance] = trial.instances
        return instance["try_number"] == 2 and instance["state"] in states

    trial.wait_for(is_there, f"a retry that is {' or '.join(states)}")


def wake(trial: Trial, processes: tuple[int, int]) -> None:
    """Wake the task's process and its worker, and see the task's process end by itself."""
    send(signal.SIGCONT, processes)
    wait_for_end(trial, processes)


def wait_for_end(trial: Trial, processes: tuple[int, int]) -> None:
    trial.wait_for(lambda: not is_alive(processes[0]), "the end of the process that is no longer the owner")


def end_batch(trial: Trial) -> None:
    """Let a batch end, and see that no more was paid twice than was under way."""
    trial.let_requests_end()
    trial.wait_until_ended()
    lost = trial.sandbox.paid - FEWER
    assert lost <= AT_A_TIME
    trial.check(submits=FEWER + lost, cancels=0, ends="success", abandoned=lost)
    assert_all_landed(trial.outputs, FEWER)


# First, since its retry submits for a hundred seconds only.
@frozen(submits_many, latency_seconds=25)
@pytest.mark.every_version
@pytest.mark.run("batch_of_fewer", latency_seconds=2.5)
def test_a_batch_that_was_frozen_while_it_submits_wakes_while_the_retry_submits(
    trial: Trial, processes: tuple[int, int]
) -> None:
    paid = trial.sandbox.paid
    wait_for_retry(trial, "running")
    trial.wait_for(lambda: trial.sandbox.paid > paid, "the retry's first submit")
    wake(trial, processes)
    trial.sandbox.configure(latency_seconds=0)
    wait_for_retry(trial, "deferred")
    end_batch(trial)


@frozen(submits_many, latency_seconds=0)
@pytest.mark.run("batch_of_fewer", latency_seconds=1)
def test_a_batch_that_was_frozen_while_it_submits_wakes_when_the_retry_is_deferred(
    trial: Trial, processes: tuple[int, int]
) -> None:
    wait_for_retry(trial, "deferred")
    wake(trial, processes)
    end_batch(trial)  # a submit that was half sent when it was frozen may arrive now, and no other


@frozen(waits_for_many)
@pytest.mark.run("batch_on_worker")
def test_a_batch_that_was_frozen_while_it_waits_wakes_when_the_retry_has_ended(
    trial: Trial, processes: tuple[int, int]
) -> None:
    wait_for_retry(trial, "running")
    trial.let_requests_end()
    trial.check(submits=FEWER, cancels=0, ends="success")
    landed = pictures(trial)
    wake(trial, processes)
    assert pictures(trial) == landed
    assert_all_landed(trial.outputs, FEWER)


@frozen(lands, latency_seconds=0)
@pytest.mark.run("batch_on_worker", run_seconds=0, latency_seconds=1)
def test_a_batch_frozen_while_it_submits_and_lands_wakes_when_the_retry_has_ended(
    trial: Trial, processes: tuple[int, int]
) -> None:
    end_batch(trial)
    landed = pictures(trial)
    wake(trial, processes)
    assert pictures(trial) == landed
    assert_all_landed(trial.outputs, FEWER)


# Four landings at a time, of two seconds each: most of them are left when the last edit is submitted.
@frozen(only_lands, latency_seconds=0)
@pytest.mark.run("batch_on_worker", run_seconds=0, latency_seconds=1)
def test_a_batch_frozen_while_it_only_lands_wakes_when_the_retry_has_ended(
    trial: Trial, processes: tuple[int, int]
) -> None:
    trial.check(submits=FEWER, cancels=0, ends="success")
    assert f"This try continues {FEWER} of {FEWER} edits" in trial.log(try_number=2)
    landed = pictures(trial)
    wake(trial, processes)
    assert pictures(trial) == landed
    assert_all_landed(trial.outputs, FEWER)


# Slow enough that it would not have submitted all when the retry begins.
@orphaned(submits_many)
@pytest.mark.every_version
@pytest.mark.run("batch_of_fewer", latency_seconds=12)
def test_a_batch_whose_worker_alone_is_killed_submits_no_more_beside_its_retry(
    trial: Trial, processes: tuple[int, int]
) -> None:
    wait_for_end(trial, processes)
    trial.sandbox.configure(latency_seconds=0)
    wait_for_retry(trial, "deferred")
    end_batch(trial)


@frozen(submits, latency_seconds=0)
@pytest.mark.run("edit_with_retry", latency_seconds=3)
def test_an_edit_that_was_frozen_while_it_submits_wakes_when_the_retry_is_deferred(
    trial: Trial, processes: tuple[int, int]
) -> None:
    wait_for_retry(trial, "deferred")
    wake(trial, processes)
    trial.let_requests_end()
    trial.check(submits=2, cancels=0, ends="success", abandoned=1)
    [abandoned, _] = trial.witness.requests
    # What only that try has known is said where it can be found.
    assert f" {abandoned.request_id} --conn-id" in trial.log(try_number=1)


@frozen(waits)
@pytest.mark.every_version
@pytest.mark.run("short_first_try")
def test_an_edit_frozen_beyond_its_deadline_does_not_cancel_its_retrys_request(
    trial: Trial, processes: tuple[int, int]
) -> None:
    began = trial.witness.requests[0].submitted_at
    wait_for_retry(trial, "running")
    trial.wait_for(lambda: "this try does not pay again" in trial.log(try_number=2), "the retry to take over")
    trial.wait_for(lambda: time.time() > began + 65, "the deadline of the first try")
    wake(trial, processes)
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


@orphaned(waits)
@pytest.mark.every_version
@pytest.mark.run("short_first_try")
def test_an_edit_whose_worker_alone_is_killed_leaves_its_request_to_the_retry(
    trial: Trial, processes: tuple[int, int]
) -> None:
    wait_for_end(trial, processes)
    wait_for_retry(trial, "running")
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


@frozen(lands, latency_seconds=0)
@pytest.mark.run("eight_pictures", run_seconds=0, latency_seconds=2)
def test_an_edit_that_was_frozen_while_it_lands_wakes_when_the_retry_has_ended(
    trial: Trial, processes: tuple[int, int]
) -> None:
    trial.check(submits=1, cancels=0, ends="success")
    landed = pictures(trial)
    assert len(landed) == 8
    wake(trial, processes)
    assert pictures(trial) == landed
