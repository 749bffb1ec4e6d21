"""One line for the log: how far, how fast, how long yet."""

from __future__ import annotations

import pytest

from airflow_provider_odirouter.progress import Progress


def line(total: int, well: int, badly: int, after: float) -> str:
    progress = Progress(total, now=1_000.0)
    for number in range(well + badly):
        progress.end(well=number < well)
    assert progress.ended == well + badly
    return progress.line(now=1_000.0 + after)


@pytest.mark.parametrize(
    ("total", "well", "badly", "after", "told"),
    [
        (1000, 0, 0, 30, "0 of 1,000 requests have ended (0 not well), 1,000 wait."),
        (10, 9, 1, 30, "10 of 10 requests have ended (1 not well), 0 wait."),
        (100, 40, 10, 100, "50 of 100 requests have ended (10 not well), 50 wait; 30.0 a minute, about 2 min left."),
        (
            3000,
            1800,
            0,
            600,
            "1,800 of 3,000 requests have ended (0 not well), 1,200 wait; 3.0 a second, about 7 min left.",
        ),
    ],
)
def test_a_line(total: int, well: int, badly: int, after: float, told: str) -> None:
    assert line(total, well, badly, after) == told


@pytest.mark.parametrize(
    ("waiting", "told"),
    [(1, "1 s"), (89, "89 s"), (90, "2 min"), (5_399, "90 min"), (5_400, "1.5 h"), (36_000, "10.0 h")],
)
def test_the_time_that_is_left_is_told_in_a_unit_that_fits(waiting: int, told: str) -> None:
    assert line(60 + waiting, 60, 0, 60).endswith(f"; 1.0 a second, about {told} left.")


def test_a_rate_below_one_a_second_is_told_by_the_minute() -> None:
    assert "; 59.0 a minute, " in line(100, 59, 0, 60)
    assert "; 1.0 a second, " in line(100, 60, 0, 60)


@pytest.mark.parametrize("after", [0.0, -5.0, 0.001])
def test_a_clock_that_stands_or_is_set_makes_no_endless_rate(after: float) -> None:
    assert line(100, 20, 0, after).endswith("; 20.0 a second, about 4 s left.")
