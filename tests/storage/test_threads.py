"""Jobs in threads: a few at a time, results in order, and a kill does not wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from airflow_provider_odirouter.storage.threads import (
    MAX_WORKERS,
    Jobs,
    TooSlowError,
    run_in_thread,
    run_parallel,
    try_in_thread,
)
from tests.conftest import Kill, KilledError

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

    assert run_parallel([first, second]) == ["first", "second"]


class Counted:
    """A job that waits for others, and counts how many run at a time."""

    def __init__(self, together: int) -> None:
        self.peak = 0
        self._together = threading.Barrier(together)
        self._lock = threading.Lock()
        self._running = 0

    def __call__(self) -> None:
        with self._lock:
            self._running += 1
            self.peak = max(self.peak, self._running)
        self._together.wait()
        with self._lock:
            self._running -= 1


def test_as_many_as_there_are_workers_run_at_once_and_no_more() -> None:
    job = Counted(MAX_WORKERS)

    run_parallel([job] * (3 * MAX_WORKERS))

    assert job.peak == MAX_WORKERS


def test_no_jobs_have_no_results() -> None:
    assert run_parallel([]) == []


@pytest.mark.parametrize("is_error", [True, False], ids=["an error of the stop", "a result"])
def test_the_first_error_is_raised_and_pending_jobs_are_dropped(is_error: bool) -> None:
    begun: list[int] = []
    ended: list[int] = []
    stop = threading.Event()

    def runs_on(number: int) -> None:
        begun.append(number)
        stop.wait()
        ended.append(number)
        if is_error:
            raise ValueError("stopped")

    jobs: list[Job] = [partial(runs_on, number) for number in range(MAX_WORKERS - 1)]
    jobs += [partial(fail, KeyError("the first")), *[partial(runs_on, 99)] * 50]
    with pytest.raises(KeyError, match="the first"):
        run_parallel(jobs, stop=stop)

    assert begun.count(99) == 0
    assert sorted(ended) == sorted(begun)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_whatever_a_job_raises_is_raised(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run_in_thread(partial(fail, error))


def test_a_kill_does_not_wait_for_running_jobs(kill: Kill, release: threading.Event) -> None:
    stop = threading.Event()
    begun: list[int] = []

    def job(number: int) -> None:
        begun.append(number)
        if number == 0:
            kill()
        release.wait()

    with pytest.raises(KilledError):
        run_parallel([partial(job, number) for number in range(50)], stop=stop)

    assert stop.is_set()
    assert 1 <= len(begun) <= MAX_WORKERS
    assert not release.is_set()


def test_a_jobs_exception_is_returned_but_a_kill_is_raised(kill: Kill, release: threading.Event) -> None:
    error = OSError("no such bucket")
    assert try_in_thread(partial(fail, error)) is error

    def job() -> None:
        kill()
        release.wait()

    with pytest.raises(KilledError):
        try_in_thread(job)


def test_a_kill_after_an_error_does_not_wait_for_the_other_jobs_either(kill: Kill, release: threading.Event) -> None:
    stop = threading.Event()

    def runs_on() -> None:
        stop.wait()
        kill()
        release.wait()

    jobs: list[Job] = [runs_on, partial(fail, ValueError("the first"))]
    with pytest.raises(KilledError):
        run_parallel(jobs, stop=stop)


def test_the_wait_for_a_job_that_does_not_end_is_limited(release: threading.Event) -> None:
    with pytest.raises(TooSlowError, match=r"no answer within 0\.01 s"):
        run_in_thread(release.wait, seconds=0.01)


def test_an_error_is_raised_although_other_jobs_are_too_slow(release: threading.Event) -> None:
    stop = threading.Event()
    jobs: list[Job] = [stop.wait, partial(fail, KeyError())]
    with pytest.raises(KeyError):
        run_parallel(jobs, stop=stop, seconds=600)


def test_a_job_has_its_callers_context_variables() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="nothing")
    seen.set("the task")

    assert run_parallel([seen.get, seen.get]) == ["the task", "the task"]


def test_one_job_of_a_job_runs_in_its_own_thread() -> None:
    inner = partial(run_in_thread, threading.current_thread)
    thread, inner_thread = run_in_thread(lambda: (threading.current_thread(), inner()))
    assert inner_thread is thread is not threading.main_thread()


def test_a_job_of_a_job_with_a_limit_of_time_is_waited_for_no_longer(release: threading.Event) -> None:
    with pytest.raises(TooSlowError):
        run_in_thread(lambda: run_in_thread(release.wait, seconds=0.01))


def do_all(jobs: Jobs, *todo: Callable[[], Any]) -> list[Any]:
    """Return the results of jobs, in the order of their ends."""
    results: list[Any] = []

    def note_result(job: Callable[[], Any]) -> Callable[[], object]:
        return partial(results.append, job())

    for job in todo:
        jobs.start(partial(note_result, job))
    while len(results) < len(todo):
        jobs.handle_next()
    return results


def test_a_thread_is_kept_for_the_next_job_and_ends_in_the_end() -> None:
    jobs = Jobs(workers=2)
    threads = {thread for _ in range(10) for thread in do_all(jobs, threading.current_thread)}
    assert len(threads) <= 2
    jobs.close()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_further_jobs_wait_for_a_thread() -> None:
    jobs, job = Jobs(workers=2), Counted(2)
    do_all(jobs, *[job] * 6)
    jobs.close()
    assert job.peak == 2


def test_what_a_job_raises_is_raised_where_its_end_is_handled() -> None:
    jobs = Jobs()
    with pytest.raises(ValueError, match="broken"):
        do_all(jobs, partial(fail, ValueError("broken")))
    jobs.close()


def test_a_job_that_ends_later_has_its_callers_context_variables() -> None:
    jobs = Jobs(workers=1)
    variable: ContextVar[str] = ContextVar("variable")
    for value in ("one", "two"):
        variable.set(value)
        assert do_all(jobs, variable.get) == [value]
    jobs.close()


def test_a_thread_whose_start_is_interrupted_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        started.append(thread)
        raise KilledError

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    jobs = Jobs()
    with pytest.raises(KilledError):
        jobs.start(lambda: lambda: None)
    jobs.close()
    started[0].join(timeout=30)
    assert not started[0].is_alive()
