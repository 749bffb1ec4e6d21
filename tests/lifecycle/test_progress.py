"""One line for the log: the counts, the rate and the time that is left."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_odirouter.lifecycle.wait import REPORT_SECONDS, Progress


class Clock:
    """A clock that a test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def line(total: int, succeeded: int, failed: int, after: float) -> str:
    clock = Clock()
    progress = Progress("Requests", "finished", total, clock=clock)
    for number in range(succeeded + failed):
        progress.count(succeeded=number < succeeded)
    clock.now += after
    return progress.line()


@pytest.mark.parametrize(
    ("total", "succeeded", "failed", "after", "text"),
    [
        (1000, 0, 0, 30, "Requests: 0/1,000 finished (0 failed), 1,000 pending."),
        (10, 9, 1, 30, "Requests: 10/10 finished (1 failed), 0 pending."),
        (
            100,
            40,
            10,
            100,
            "Requests: 50/100 finished (10 failed), 50 pending; 30.0 per minute, about 2 min left.",
        ),
        (
            3000,
            1800,
            0,
            600,
            "Requests: 1,800/3,000 finished (0 failed), 1,200 pending; 3.0 per second, about 7 min left.",
        ),
    ],
)
def test_a_line(total: int, succeeded: int, failed: int, after: float, text: str) -> None:
    assert line(total, succeeded, failed, after) == text


@pytest.mark.parametrize(
    ("pending", "left"),
    [(1, "1 s"), (89, "89 s"), (90, "2 min"), (5_399, "90 min"), (5_400, "1.5 h"), (36_000, "10.0 h")],
)
def test_the_time_that_is_left_has_a_unit_that_fits(pending: int, left: str) -> None:
    assert line(60 + pending, 60, 0, 60).endswith(f"; 1.0 per second, about {left} left.")


def test_a_rate_below_one_per_second_is_given_per_minute() -> None:
    assert "; 59.0 per minute, " in line(100, 59, 0, 60)
    assert "; 1.0 per second, " in line(100, 60, 0, 60)


@pytest.mark.parametrize("after", [0.0, -5.0, 0.001])
def test_a_clock_that_stands_or_is_set_makes_no_endless_rate(after: float) -> None:
    assert line(100, 20, 0, after).endswith("; 20.0 per second, about 4 s left.")


def test_a_line_is_due_every_30_seconds_and_not_with_every_count() -> None:
    clock = Clock()
    progress = Progress("Edits", "submitted", 1_000, clock=clock)
    due = []
    for second in range(1, 101):
        clock.now = 1_000.0 + second
        due.append(progress.count())
    assert REPORT_SECONDS == 30
    assert [second for second, is_due in enumerate(due, start=1) if is_due] == [30, 60, 90]


def test_threads_count_together() -> None:
    clock = Clock()
    progress = Progress("Edits", "landed", 8_000, clock=clock)

    def count() -> None:
        for number in range(1_000):
            progress.count(succeeded=number != 0)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.line() == "Edits: 8,000/8,000 landed (8 failed), 0 pending."
