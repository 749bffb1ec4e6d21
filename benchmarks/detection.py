"""
Detection: how soon the end of a request is seen, and how many looks that takes.

A simulation, without a network and without waiting: the real code that decides when to look
(``airflow_provider_odirouter.polling.watch``) is driven with a simulated clock, so tens of thousands of requests take a
few seconds, and the figures do not depend on the machine. A request takes 40 s in the middle, lognormal with sigma 0.5,
within 8 and 180 s: half of them between 29 and 56 s. A look takes 50 ms. The trigger holds its first look back for 7 s,
as it does in Airflow. The cap on looks a second plays no part.

*Delay* is the time from the end of the request to the event. *Looks* are all looks for one request, the last included.
The row *doubling* is a plain exponential backoff for comparison: 2 s, then twice as long each time, at most 60 s, with
the same jitter; a policy beats another only if it is better in both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from math import exp, log
from statistics import fmean, median, quantiles

from airflow_provider_odirouter.models import RequestState, RequestStatus
from airflow_provider_odirouter.polling import FIRST_LOOK_IN_TRIGGER, JITTER, Look, Pause, Wait, watch
from benchmarks.report import Report, Run, Table, shown

INTERVALS = (2.0, 5.0, 10.0, 15.0)
REQUESTS = 20_000
LOOK = 0.05
"""Seconds that a look takes; what it tells is as of its middle."""
WORKING = RequestStatus(state=RequestState.IN_PROGRESS, word="IN_PROGRESS")
DONE = RequestStatus(state=RequestState.SUCCEEDED, word="COMPLETED")

Outcome = tuple[float, int]
"""The delay in seconds, and the looks."""


def run(*, quick: bool, progress: Callable[[str], None]) -> Report:
    """Simulate each policy on the same requests."""
    durations = list(_durations(random.Random(1), 1_000 if quick else REQUESTS))
    policies: dict[str, Callable[[float, random.Random], Outcome]] = {
        f"every {interval:g} s": partial(_ours, interval) for interval in INTERVALS
    }
    policies["doubling"] = _doubling
    found: list[Run] = []
    for name, policy in policies.items():
        progress(f"{name}, {len(durations):,} requests")
        chance = random.Random(2)
        outcomes = [policy(duration, chance) for duration in durations]
        delays, looks = [delay for delay, _ in outcomes], [looks for _, looks in outcomes]
        found.append(
            {
                "row": name,
                "delay_mean_s": fmean(delays),
                "delay_p50_s": median(delays),
                "delay_p95_s": quantiles(delays, n=20)[-1],
                "delay_max_s": max(delays),
                "looks_mean": fmean(looks),
                "looks_max": max(looks),
                "requests": len(durations),
            }
        )
    columns = ("a look", "delay mean s", "p50", "p95", "max", "looks mean", "max")
    rows = [
        [
            line["row"],
            *(shown(line[f"delay_{name}_s"]) for name in ("mean", "p50", "p95", "max")),
            shown(line["looks_mean"], 1),
            shown(line["looks_max"], 0),
        ]
        for line in found
    ]
    note = f"Simulated, {len(durations):,} requests of {median(durations):.0f} s in the middle."
    return Report([Table("Detection", columns, rows, [note])], found, found)


def _durations(chance: random.Random, count: int) -> Iterator[float]:
    for _ in range(count):
        yield min(180.0, max(8.0, exp(chance.gauss(log(40.0), 0.5))))


def _ours(interval: float, duration: float, chance: random.Random) -> Outcome:
    clock, looks = 0.0, 0
    wait = Wait("gpt_image_1_edit", "one", poll_interval=interval, deadline=3600.0, cancel_on_timeout=True)
    steps = watch(wait, now=lambda: clock, luck=chance.random, first_look=FIRST_LOOK_IN_TRIGGER)
    seen = None
    while True:
        try:
            step = steps.send(seen)
        except StopIteration:
            return clock - duration, looks
        match step:
            case Pause(seconds):
                clock, seen = clock + seconds, None
            case Look():
                seen = DONE if duration <= clock + LOOK / 2 else WORKING
                clock, looks = clock + LOOK, looks + 1
            case _:
                raise RuntimeError(f"a request that ends in time came to {step}")


def _doubling(duration: float, chance: random.Random) -> Outcome:
    clock, pause, looks = FIRST_LOOK_IN_TRIGGER, 2.0, 0
    while True:
        is_done = duration <= clock + LOOK / 2
        clock, looks = clock + LOOK, looks + 1
        if is_done:
            return clock - duration, looks
        clock += pause * (1 + JITTER * (2 * chance.random() - 1))
        pause = min(2 * pause, 60.0)
