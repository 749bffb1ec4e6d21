"""
Detection: how soon the end of a request is seen, and how many polls that takes.

A simulation, without a network and without waiting: the real code that decides when to poll
(``airflow_provider_odirouter.lifecycle.polling``) is driven with a simulated clock, so tens of thousands of requests
take a few seconds, and the figures do not depend on the machine. The durations are lognormal with a median of 40 s and
a sigma of 0.5, between 8 and 180 s: half of them take 29 to 56 s. A poll takes 50 ms. The trigger polls first after
7 s, as it does in Airflow. The limit of polls per second has no effect here.

*Delay* is the time from the end of the request to the event. *Polls* are all polls of one request, the last included.
The row *doubling* is a plain exponential backoff for comparison: 2 s, then twice as long each time, at most 60 s, with
the same jitter; a policy beats another only if it is better in both.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from statistics import fmean, median, quantiles

from airflow_provider_odirouter.lifecycle.polling import FIRST_POLL_DELAY, JITTER, Pause, Poll, Wait, poll_until_done
from airflow_provider_odirouter.models import RequestState, RequestStatus
from benchmarks.durations import drawn
from benchmarks.report import Report, Run, Table, shown

INTERVALS = (2.0, 5.0, 10.0, 15.0)
REQUESTS = 20_000
POLL_SECONDS = 0.05
"""How long a poll takes; its answer is the status at half of that time."""
WORKING = RequestStatus(state=RequestState.IN_PROGRESS, raw_status="IN_PROGRESS")
DONE = RequestStatus(state=RequestState.SUCCEEDED, raw_status="COMPLETED")

Outcome = tuple[float, int]
"""The delay in seconds, and the number of polls."""


def run(*, quick: bool, progress: Callable[[str], None]) -> Report:
    """Simulate each policy on the same requests."""
    durations = list(drawn(random.Random(1), 1_000 if quick else REQUESTS))
    policies: dict[str, Callable[[float, random.Random], Outcome]] = {
        f"every {interval:g} s": partial(_ours, interval) for interval in INTERVALS
    }
    policies["doubling"] = _doubling
    found: list[Run] = []
    for name, policy in policies.items():
        progress(f"{name}, {len(durations):,} requests")
        rng = random.Random(2)
        outcomes = [policy(duration, rng) for duration in durations]
        delays, polls = [delay for delay, _ in outcomes], [polls for _, polls in outcomes]
        found.append(
            {
                "row": name,
                "delay_mean_s": fmean(delays),
                "delay_p50_s": median(delays),
                "delay_p95_s": quantiles(delays, n=20)[-1],
                "delay_max_s": max(delays),
                "polls_mean": fmean(polls),
                "polls_max": max(polls),
                "requests": len(durations),
            }
        )
    columns = ("a poll", "delay mean s", "p50", "p95", "max", "polls mean", "max")
    rows = [
        [
            line["row"],
            *(shown(line[f"delay_{name}_s"]) for name in ("mean", "p50", "p95", "max")),
            shown(line["polls_mean"], 1),
            shown(line["polls_max"], 0),
        ]
        for line in found
    ]
    note = f"Simulated, {len(durations):,} requests, median duration {median(durations):.0f} s."
    return Report([Table("Detection", columns, rows, [note])], found, found)


def _ours(interval: float, duration: float, rng: random.Random) -> Outcome:
    clock, polls = 0.0, 0
    wait = Wait("gpt_image_1_edit", "one", poll_interval=interval, deadline=3600.0, cancel_on_timeout=True)
    steps = poll_until_done(wait, now=lambda: clock, random=rng.random, first_poll_delay=FIRST_POLL_DELAY)
    status = None
    while True:
        try:
            step = steps.send(status)
        except StopIteration:
            return clock - duration, polls
        match step:
            case Pause(seconds):
                clock, status = clock + seconds, None
            case Poll():
                status = DONE if duration <= clock + POLL_SECONDS / 2 else WORKING
                clock, polls = clock + POLL_SECONDS, polls + 1
            case _:
                raise RuntimeError(f"the request ends in time, but the next step is {step}")


def _doubling(duration: float, rng: random.Random) -> Outcome:
    clock, pause, polls = FIRST_POLL_DELAY, 2.0, 0
    while True:
        is_done = duration <= clock + POLL_SECONDS / 2
        clock, polls = clock + POLL_SECONDS, polls + 1
        if is_done:
            return clock - duration, polls
        clock += pause * (1 + JITTER * (2 * rng.random() - 1))
        pause = min(2 * pause, 60.0)
