"""
Waiting: what many waiters cost one triggerer.

The real trigger classes wait on one TLS server, 50 ms away, that never says "done"; each contender with each
N runs in its own process, one after another. How to read a row:

- *polls/s, of wanted*: each waiter sleeps its interval between two polls, so N waiters want N / (interval + 50 ms)
  polls a second. A contender that reaches less sees the end of a request late, and later with every further waiter.
- *CPU ms/poll*: all CPU time of the process (all threads) in the window, divided by the polls that were answered in it.
  This includes the idle loop and its heartbeat, which counts for much with the few polls of N = 100, the same for all.
- *lag*: how late a heartbeat of 50 ms comes. Every other trigger of that triggerer is as late, whatever it waits for.
- *KiB/waiter*: growth of the process's memory from before the first waiter to the end of the window, divided by N.
  Modules are loaded before; connections are included.

Each figure is the median of the row's windows. A window is a whole number of intervals; the first begins when all
waiters have polled once, or after a limit, which the table then says. So that a burst at the start does not count
against the other contenders, their waiters are started one by one over one interval; ours are started all at once, as
they spread their polls themselves. The second table shows a start of all at once, as when a triggerer is restarted:

- *late*: how long after its intended time the last waiter has polled for the first time. Ours intend to poll after 7 s
  and spread over one interval, the others at once.
- *loop blocked*: the longest lag of the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import processes, service
from benchmarks.contenders import CONTENDERS, OURS, PEERS, RAW
from benchmarks.report import Goal, Report, Run, Table, medians, shown

LATENCY = 0.05
UNCAPPED = 1000
"""``max_polls_per_second`` of our trigger: more than any row wants, so that the limit does not change the figures."""
PATIENCE = 15.0
MAX_SECONDS = 150.0
"""Seconds for one process."""
ENOUGH = 0.5
"""Share of the wanted polls that a contender must reach to be measured with more waiters."""
NOT_RUN = "it reached less than half of the wanted polls with fewer waiters"


@dataclass(frozen=True)
class Row:
    """
    A contender with a number of waiters.

    :param intervals: How many intervals a window has.
    :param windows: How many windows, one after another in the same process; with none, only the start is measured,
        with all waiters at once.
    :param patience: Seconds after the intended start for which the first window waits for waiters that have not polled.
    :param capped: Whether ``max_polls_per_second`` has its default.
    """

    contender: str
    waiters: int
    interval: float
    intervals: int = 1
    windows: int = 1
    patience: float = PATIENCE
    capped: bool = False

    @property
    def title(self) -> str:
        """Its name in the table."""
        return CONTENDERS[self.contender].title + (", default cap" if self.capped else "")

    def order(self) -> Run:
        """The order for the process."""
        contender, at_once = CONTENDERS[self.contender], not self.windows
        spread = self.interval if contender.spreads or not at_once else 0.0
        return {
            "contender": self.contender,
            "waiters": self.waiters,
            "interval": self.interval,
            "latency": LATENCY,
            "windows": self.windows,
            "patience": self.patience,
            "seconds": self.intervals * (self.interval + LATENCY),
            "start_seconds": 0.0 if contender.spreads or at_once else self.interval,
            "last_first_poll": contender.first_poll_delay + spread,
        }


def plan(*, quick: bool) -> list[Row]:
    """List what is measured, in order."""
    if quick:
        return [
            *(Row(name, 20, 2) for name in (OURS, "http", RAW)),
            Row("openai", 10, 2, windows=0),
        ]
    return [
        *(Row(name, 100, 5, windows=3) for name in CONTENDERS),
        Row(OURS, 1000, 5, intervals=2, windows=3),
        Row("http", 1000, 5, intervals=2, windows=3),
        # It builds a client for each waiter in six threads before it polls for the first of them.
        Row("common-ai", 1000, 5, intervals=2, patience=45),
        Row("openai", 1000, 5, intervals=2),
        Row(RAW, 1000, 5, intervals=2, windows=3),
        Row(OURS, 1000, 5, intervals=2, capped=True),
        *(Row(name, 5000, 15) for name in CONTENDERS),
        *(Row(name, 1000, 5, windows=0) for name in CONTENDERS),
    ]


def run(*, quick: bool, progress: Callable[[str], None]) -> Report:
    """Measure all rows."""
    runs: list[Run] = []
    found: list[Run] = []
    for row in plan(quick=quick):
        label = {"row": row.title, "contender": row.contender, "waiters": row.waiters, "interval_s": row.interval}
        label |= {"capped": row.capped, "at_once": not row.windows}
        if row.windows and _is_hopeless(row, found):
            found.append(label | {"not_run": NOT_RUN})
            continue
        progress(f"{row.title}, {row.waiters:,} waiters{'' if row.windows else ', all at once'}")
        repetitions = [label | window for window in _measure(row)]
        runs.extend(repetitions)
        found.append(medians(repetitions) | label)
    steady = [line for line in found if not line["at_once"]]
    starts = [line for line in found if line["at_once"]]
    return Report([_steady_table(steady), _start_table(starts)], found, runs, _goals(steady))


def _measure(row: Row) -> list[Run]:
    cap = {} if row.capped else {"AIRFLOW__ODIROUTER__MAX_POLLS_PER_SECOND": str(UNCAPPED)}
    with service.running(latency=LATENCY, **cap) as server:
        result: list[Run] = processes.measured(
            "waiting_process",
            row.order() | {"tally": str(server.tally), "server": server.pid},
            environment=server.environment,
            seconds=MAX_SECONDS,
        )
    return result


def _is_hopeless(row: Row, found: Sequence[Run]) -> bool:
    fewer = [
        line
        for line in found
        if line["contender"] == row.contender and line["waiters"] < row.waiters and not line["capped"]
    ]
    return any("not_run" in line or line["polls_per_s"] < ENOUGH * line["wanted_per_s"] for line in fewer)


def _steady_table(lines: Sequence[Run]) -> Table:
    columns = (
        "waiting", "N", "every s", "polls/s", "of wanted", "CPU ms/poll", "lag p50 ms", "p99", "max", "KiB/waiter",
        "windows",
    )  # fmt: skip
    rows = []
    for line in lines:
        begin = [line["row"], f"{line['waiters']:,}", f"{line['interval_s']:g}"]
        if "not_run" in line:
            rows.append([*begin, "not run", *["–"] * 7])
            continue
        rows.append(
            [
                *begin,
                shown(line["polls_per_s"], 1),
                f"{_reached(line):.1%}",
                shown(line["cpu_ms_per_poll"]),
                *(shown(line[f"lag_{name}_ms"], 1) for name in ("p50", "p99", "max")),
                shown(line["memory_kib_per_waiter"], 0),
                str(line["repetitions"]),
            ]
        )
    notes = [
        f"still starting: {line['row']}, {line['waiters']:,}: {line['started']:,.0f} had polled when the window began"
        for line in lines
        if "not_run" not in line and line["start_late_s"] is None
    ]
    notes += [f"not run: {line['row']}, {line['waiters']:,}: {NOT_RUN}" for line in lines if "not_run" in line]
    return Table("Waiting, in a steady state", columns, rows, notes)


def _start_table(lines: Sequence[Run]) -> Table:
    columns = ("all started at once", "N", "have polled", "late s", "CPU ms/waiter", "loop blocked s")
    rows = [
        [
            line["row"],
            f"{line['waiters']:,}",
            f"{line['started']:,.0f}",
            f"> {PATIENCE:g}" if line["start_late_s"] is None else shown(line["start_late_s"]),
            shown(line["start_cpu_ms_per_waiter"], 1),
            shown(line["start_lag_max_ms"] / 1000),
        ]
        for line in lines
    ]
    return Table("Start, as when a triggerer is restarted", columns, rows)


def _reached(line: Run) -> float:
    share: float = line["polls_per_s"] / line["wanted_per_s"]
    return share


def _goals(lines: Sequence[Run]) -> list[Goal]:
    def line(contender: str, waiters: int) -> dict[str, Any]:
        return next(
            (
                line
                for line in lines
                if (line["contender"], line["waiters"]) == (contender, waiters)
                if not line["capped"] and "not_run" not in line
            ),
            {},
        )

    ours, raw = line(OURS, 1000), line(RAW, 1000)
    # A contender that is still starting has a higher cost per poll.
    peers = [peer for name in PEERS if (peer := line(name, 1000)).get("start_late_s") is not None]
    best = min(peers, key=lambda peer: peer["cpu_ms_per_poll"], default=None)
    many = line(OURS, 5000)
    return [
        _goal("CPU per poll at N = 1,000 at most 1/3 of the best peer's", ours, best, "cpu_ms_per_poll", 1 / 3),
        _goal("CPU per poll at N = 1,000 at most 4 times the raw limit's", ours, raw, "cpu_ms_per_poll", 4),
        _goal("p99 of the lag at N = 1,000 at most twice the raw limit's", ours, raw, "lag_p99_ms", 2),
        Goal(
            "all wanted polls (98 %) reached at N = 5,000 every 15 s",
            _reached(many) >= 0.98 if many else None,
            f"{_reached(many):.1%}" if many else "–",
        ),
    ]


def _goal(text: str, ours: Run, other: Run | None, figure: str, max_ratio: float) -> Goal:
    if not ours or not other:
        return Goal(text, None, "–")
    ratio = ours[figure] / other[figure]
    return Goal(
        text,
        ratio <= max_ratio,
        f"{ours[figure]:.2f} ms against {other[figure]:.2f} ms of {other['row']}: {ratio:.2f} times",
    )
