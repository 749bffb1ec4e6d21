"""Jobs side by side: a few at a time, in order, and nothing that is killed waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from airflow_provider_odirouter.images.threads import WORKERS, TooSlowError, aside, side_by_side, tried_aside
from tests.images.conftest import Kill, KilledError

Job = Callable[[], Any]


def fail(error: BaseException) -> None:
    raise error


def test_results_come_in_the_jobs_order_whichever_ends_first() -> None:
    second_ended = threading.Event()

    def first() -> str:
        second_ended.wait()
        return "first"

    def second() -> str:
        second_ended.set()
        return "second"

    assert side_by_side([first, second]) == ["first", "second"]


def test_as_many_as_there_are_workers_run_at_once_and_no_more() -> None:
    together = threading.Barrier(WORKERS)
    lock, running, most = threading.Lock(), 0, 0

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1

    side_by_side([job] * (3 * WORKERS))

    assert most == WORKERS


def test_no_job_has_no_result() -> None:
    assert side_by_side([]) == []


def test_the_first_error_wins_and_what_has_not_begun_never_does() -> None:
    begun: list[int] = []
    ended: list[int] = []
    stop = threading.Event()

    def runs_on(number: int) -> None:
        begun.append(number)
        stop.wait()
        ended.append(number)
        raise ValueError("stopped")

    jobs: list[Job] = [partial(runs_on, number) for number in range(WORKERS - 1)]
    jobs += [partial(fail, KeyError("the first")), *[partial(runs_on, 99)] * 50]
    with pytest.raises(KeyError, match="the first"):
        side_by_side(jobs, stop=stop)

    # The worker of the job that failed may take one more before it hears of it.
    assert begun.count(99) <= 1
    assert sorted(ended) == sorted(begun)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_whatever_a_job_raises_is_raised(error: BaseException) -> None:
    with pytest.raises(type(error)):
        aside(partial(fail, error))


def test_a_kill_does_not_wait_for_what_runs(kill: Kill, release: threading.Event) -> None:
    stop = threading.Event()
    begun: list[int] = []

    def job(number: int) -> None:
        begun.append(number)
        if number == 0:
            kill()
        release.wait()

    with pytest.raises(KilledError):
        side_by_side([partial(job, number) for number in range(50)], stop=stop)

    assert stop.is_set()
    assert 1 <= len(begun) <= WORKERS
    assert not release.is_set()


def test_what_a_job_raises_is_an_answer_and_a_kill_is_none(kill: Kill, release: threading.Event) -> None:
    error = OSError("no such bucket")
    assert tried_aside(partial(fail, error)) is error

    def job() -> None:
        kill()
        release.wait()

    with pytest.raises(KilledError):
        tried_aside(job)


def test_a_kill_while_the_others_end_after_an_error_does_not_wait_either(kill: Kill, release: threading.Event) -> None:
    stop = threading.Event()

    def runs_on() -> None:
        stop.wait()
        kill()
        release.wait()

    jobs: list[Job] = [runs_on, partial(fail, ValueError("the first"))]
    with pytest.raises(KilledError):
        side_by_side(jobs, stop=stop)


def test_a_job_that_does_not_end_is_not_waited_for_longer_than_allowed(release: threading.Event) -> None:
    with pytest.raises(TooSlowError, match=r"there is no answer within 0\.01 s"):
        aside(release.wait, seconds=0.01)


def test_an_error_counts_though_others_are_too_slow(release: threading.Event) -> None:
    stop = threading.Event()
    jobs: list[Job] = [stop.wait, partial(fail, KeyError())]
    with pytest.raises(KeyError):
        side_by_side(jobs, stop=stop, seconds=600)


def test_a_job_sees_what_its_caller_sees() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="nothing")
    seen.set("the task")

    assert side_by_side([seen.get, seen.get]) == ["the task", "the task"]
