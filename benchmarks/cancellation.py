"""
Cancellation: whether tasks that are killed during a request harm those that start later.

500 waiters start within one second on a server that answers after 300 ms, and each is cancelled within half a second
of its first poll, as a triggerer cancels: mostly while it connects or waits for its answer. A second later 100 new
waiters start, whose requests have ended already: one poll each, and 20 s for all.

*Succeeded* counts the waiters that received the answer. *Slowest* is the longest wait of one of these, without the 7 s
after which ours poll first. Waiters that share a pool of connections (ours, and a plain ``httpx.AsyncClient`` with its
default limits and time-outs) can lose connections to killed tasks; the http provider opens a new connection for each
poll and cannot lose any, which costs it CPU in the waiting benchmark.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import processes, service
from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.report import Goal, Report, Run, Table, medians, shown

LATENCY = 0.3
ORDER: Run = {
    "kills": 500,
    "start_seconds": 1.0,
    "kill_seconds": 0.5,
    "waiters": 100,
    "patience": 20.0,
    "interval": 0.05,
}
TITLES = {
    OURS: CONTENDERS[OURS].title,
    "http": CONTENDERS["http"].title,
    "httpx": "a plain shared httpx.AsyncClient",
}
REPETITIONS = 2
MAX_SECONDS = 90.0
"""Seconds for one process."""


def run(*, quick: bool, progress: Callable[[str], None]) -> Report:
    """Kill and wait, for each contender."""
    runs: list[Run] = []
    found: list[Run] = []
    order = ORDER | ({"kills": 50} if quick else {})
    for contender, title in [(OURS, TITLES[OURS])] if quick else TITLES.items():
        repetitions = []
        for number in range(1 if quick else REPETITIONS):
            progress(f"{title}, {number + 1}")
            repetitions.append({"row": title, "contender": contender} | _measure(order | {"contender": contender}))
        runs.extend(repetitions)
        worst = {
            "fewest": min(run["succeeded"] for run in repetitions),
            "errors": sorted({error for run in repetitions for error in run["errors"]}),
        }
        found.append(medians(repetitions) | worst)
    rows = [
        [
            line["row"],
            shown(line["killed"], 0),
            shown(line["succeeded"], 0),
            shown(line["fewest"], 0),
            shown(line["slowest_s"], 1),
            ", ".join(line["errors"]) or "none",
            str(line["repetitions"]),
        ]
        for line in found
    ]
    columns = (
        "after kills during a request",
        "killed",
        f"succeeded of {ORDER['waiters']}",
        "fewest",
        "slowest s",
        "errors",
        "runs",
    )
    ours = found[0]
    goal = Goal(
        f"after {order['kills']} kills during a request, all of {ORDER['waiters']} new waiters succeed",
        ours["fewest"] == ORDER["waiters"],
        f"{ours['fewest']:.0f} at the least",
    )
    return Report([Table("Cancellation", columns, rows)], found, runs, [goal])


def _measure(order: Run) -> Run:
    with service.running(latency=LATENCY, AIRFLOW__ODIROUTER__MAX_POLLS_PER_SECOND="1000") as server:
        result: Run = processes.measured(
            "cancellation_process",
            order,
            environment=server.environment,
            seconds=MAX_SECONDS,
        )
    return result
