"""
Throughput: how long a batch takes beside a perfect schedule, the waves of old, and mapped tasks in a pool.

The durations have a long tail: lognormal with a median of 40 s, between 8 and 180 s, from a fixed seed. Each row says
by which scale they are shorter here; ``poll_interval`` (5 s) is shorter by the same, and ``[odirouter]
max_polls_per_second`` (100) higher. More requests in flight have a larger scale, or the machine would send many times
the polls of a true batch. What does not scale counts for more than it does in truth: the work of each submit and
landing, and in Airflow the seven seconds before a trigger's first poll.

**On a worker** (``deferrable=False``), the operator runs in a process of its own and the sandbox in another:

- *perfect*: the same durations, as the sandbox has counted them, in the order of the submits: each edit begins the
  moment that a slot is free (computed).
- *waves*: the same edits in groups of as many as are in flight, each of which begins when the last one has ended
  (computed); so did batches before they were pipelines.
- *ratio*: the wall time less one poll interval, divided by the perfect schedule's length.
- *slot free*: from the end of a request to the submit that takes its slot, in poll intervals. Half of one is the mean
  delay of any polling; the rest is ours.
- *CPU* is that of the process, all polls of its requests included. *Sandbox* is its share of a core: it needs one of
  its own.

**Memory**: the same number of requests in flight, for few and for many edits, each with a picture of 256 KiB. The peak
is that of the whole process; *grown* is its growth since a batch of one edit. (The sandbox, too, keeps all pictures.)

**In a whole Airflow** (as in the benchmark ``batch``): one batch that waits on its worker, one that defers, and mapped
tasks in a pool of as many slots in which deferred tasks count, too. The wall time is that of the whole run, from its
trigger to its end; between the first two rows lies what one deferral costs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import httpx
import psutil
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks import durations, processes, whole_airflow
from benchmarks.report import Goal, Report, Run, Table, medians, shown
from dev import postgres
from dev.processes import cpu_seconds

POLL_INTERVAL = 5.0
MAX_POLLS_PER_SECOND = 100
MAX_SECONDS = 600.0
"""Seconds for one process."""
MAX_RATIO = 1.10
MAX_GROWTH_KIB = 10.0
"""Of memory for each further edit: its state, and not its picture."""
PADDING = 256 * 1024
POOL = "edits"
WAYS = {
    "batch_on_worker": "one batch on its worker",
    "batch": "one batch that defers",
    "mapped": "mapped tasks in a pool",
}
BEFORE = (
    "Measured with waves, before batches were pipelines (commit ec5c1f2):",
    "- 200 edits of 2 to 20 s, 40 in flight: 104 s; a perfect schedule takes 55 s.",
    "- the row with 60 in flight: 131 s; a perfect schedule takes 57 s.",
)


@dataclass(frozen=True)
class Row:
    """
    A batch.

    :param in_flight: How many requests may be alive at once.
    :param scale: By which the durations and the pauses are multiplied.
    """

    edits: int
    in_flight: int
    scale: float

    @property
    def poll_interval(self) -> float:
        """Seconds."""
        return POLL_INTERVAL * self.scale

    @property
    def seconds(self) -> list[float]:
        """The durations."""
        return [self.scale * seconds for seconds in durations.drawn(Random(1), self.edits)]

    @property
    def variables(self) -> dict[str, str]:
        """The option of Airflow that is scaled, too."""
        return {"AIRFLOW__ODIROUTER__MAX_POLLS_PER_SECOND": str(MAX_POLLS_PER_SECOND / self.scale)}

    def label(self) -> Run:
        """Return what tells this row from others."""
        return {"edits": self.edits, "in_flight": self.in_flight, "scale": self.scale}


SCHEDULES = (Row(600, 20, 1 / 20), Row(600, 60, 1 / 10), Row(600, 200, 1 / 4))
MEMORY = (Row(150, 50, 1 / 20), Row(1500, 50, 1 / 20))
IN_AIRFLOW = Row(60, 20, 1 / 2)
QUICK_SCHEDULES = (Row(60, 20, 1 / 20),)
QUICK_MEMORY = (Row(30, 10, 1 / 80), Row(60, 10, 1 / 80))
QUICK_IN_AIRFLOW = Row(6, 3, 1 / 20)


def run(*, quick: bool, progress: Callable[[str], object]) -> Report:
    """Run the batches on a worker, then those in a whole Airflow."""
    postgres.install()
    schedules, memory, in_airflow = (
        (QUICK_SCHEDULES, QUICK_MEMORY, QUICK_IN_AIRFLOW) if quick else (SCHEDULES, MEMORY, IN_AIRFLOW)
    )
    on_worker, grown = [], []
    for row in schedules:
        progress(f"{row.edits} edits on a worker, {row.in_flight} in flight …")
        on_worker.append(_measure(row, padding=0))
    for row in memory:
        progress(f"memory, {row.edits} edits …")
        grown.append(_measure(row, padding=PADDING))
    ways = _measure_ways(in_airflow, progress)
    runs = [*on_worker, *grown, *ways]
    return Report(
        tables=[_schedule_table(on_worker), _memory_table(grown), _airflow_table(ways)],
        medians=[medians([run]) for run in runs],
        runs=runs,
        # A few edits measure how the heap begins to fill, not what each needs.
        goals=[*_schedule_goals(on_worker), *([] if quick else [_memory_goal(grown)])],
    )


def _measure(row: Row, *, padding: int) -> Run:
    """Run a batch on a worker."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = processes.environment(home, **row.variables)
        with processes.serving("sandbox_process", {"seconds": row.seconds}, environment=environment) as sandbox:
            order = {
                "edits": row.edits,
                "in_flight": row.in_flight,
                "poll_interval": row.poll_interval,
                "image": str(_picture(home, padding)),
                "output_path": str(home / "out"),
            }
            connection = {"AIRFLOW_CONN_ODIROUTER_DEFAULT": json.dumps(sandbox.address["connection"])}
            process = psutil.Process(sandbox.pid)
            before = cpu_seconds(process)
            result: Run = processes.measured(
                "throughput_process", order, environment=environment | connection, seconds=MAX_SECONDS
            )
            served = (cpu_seconds(process) - before) / result["wall_seconds"]
            return row.label() | result | {"sandbox_cpu_share": served} | _schedule(row, sandbox.address, result)


def _measure_ways(row: Row, progress: Callable[[str], object]) -> list[Run]:
    """Run the same edits in each way in a whole Airflow."""
    batch = {"max_in_flight": row.in_flight, "poll_interval": row.poll_interval}
    mapped = {"pool": POOL, "poll_interval": row.poll_interval}
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        picture = _picture(home)
        plain = processes.environment(home)
        with (
            processes.serving("sandbox_process", {"seconds": row.seconds}, environment=plain) as sandbox,
            whole_airflow.running(
                sandbox.address["connection"],
                BENCHMARK_BATCH=json.dumps(batch),
                BENCHMARK_MAPPED=json.dumps(mapped),
                **row.variables,
            ) as airflow,
        ):
            airflow.api.add_pool(POOL, row.in_flight)
            for way in WAYS:  # load and cache everything once
                airflow.run(way, picture, home / "warm", 1, prompt="Warm up")
            _used_durations(sandbox.address)
            for way, title in WAYS.items():
                progress(f"{row.edits} edits in Airflow, {title} …")
                result = airflow.run(way, picture, home / way, row.edits)
                runs.append(row.label() | result | _schedule(row, sandbox.address, result))
    return runs


def _picture(folder: Path, padding: int = 0) -> Path:
    """Make a small picture in a file that may be large, so that it costs memory and no time."""
    info = PngInfo()
    if padding:
        info.add(b"raNd", os.urandom(padding))
    picture = folder / "cup.png"
    Image.new("RGB", (64, 64), "white").save(picture, pnginfo=info)
    return picture


def _schedule(row: Row, address: Mapping[str, Any], result: Run) -> Run:
    """Compare the wall time with schedules of the durations that the sandbox has counted."""
    requests = _used_durations(address)
    if len(requests) != row.edits or result["landed"] != row.edits:
        raise RuntimeError(f"{len(requests)} edits of {row.edits} were paid, and {result['landed']} have landed")
    if (most := _most_alive(requests)) > row.in_flight:
        raise RuntimeError(f"{most} edits were alive at once, and not {row.in_flight} at most")
    used = [end - begin for begin, end in requests]
    perfect = durations.perfect(used, row.in_flight)
    ends = sorted(end for _, end in requests)
    free = [begin - end for (begin, _), end in zip(requests[row.in_flight :], ends, strict=False)]
    return {
        "perfect_seconds": perfect,
        "waves_seconds": durations.waves(used, row.in_flight),
        "ratio": (result["wall_seconds"] - row.poll_interval) / perfect,
        "free_polls": fmean(free) / row.poll_interval,
        "edits_per_second": row.edits / result["wall_seconds"],
    }


def _used_durations(address: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return when each edit began and ended in the sandbox, in the order of the submits, and let it forget them."""
    with httpx.Client(base_url=address["control"], trust_env=False) as client:
        requests = client.get("/requests").raise_for_status().json()
        client.post("/reset").raise_for_status()
    edits = [request for request in requests if request["parameters"]["prompt"].startswith("Edit ")]
    return sorted((edit["submitted_at"], edit["ends_at"]) for edit in edits)


def _most_alive(requests: Sequence[tuple[float, float]]) -> int:
    begins_and_ends = sorted([(begin, 1) for begin, _ in requests] + [(end, -1) for _, end in requests])
    return max(accumulate(change for _, change in begins_and_ends))


def _scale(line: Run) -> str:
    return f"1/{1 / line['scale']:.0f}"


def _schedule_table(lines: Sequence[Run]) -> Table:
    columns = (
        "in flight", "edits", "scale", "wall s", "perfect s", "ratio", "waves s", "ratio", "slot free, polls",
        "CPU ms/edit", "of a core", "sandbox",
    )  # fmt: skip
    rows = [
        [
            f"{line['in_flight']:,}",
            f"{line['edits']:,}",
            _scale(line),
            shown(line["wall_seconds"], 1),
            shown(line["perfect_seconds"], 1),
            shown(line["ratio"], 3),
            shown(line["waves_seconds"], 1),
            shown(line["waves_seconds"] / line["perfect_seconds"], 2),
            shown(line["free_polls"], 2),
            shown(line["cpu_ms_per_edit"], 1),
            f"{line['cpu_share']:.0%}",
            f"{line['sandbox_cpu_share']:.0%}",
        ]
        for line in lines
    ]
    return Table("A batch on its worker, beside a perfect schedule and waves", columns, rows, BEFORE)


def _memory_table(lines: Sequence[Run]) -> Table:
    columns = ("edits", "in flight", "peak MiB", "grown MiB", "CPU ms/edit", "wall s")
    rows = [
        [
            f"{line['edits']:,}",
            f"{line['in_flight']:,}",
            shown(line["peak_mib"], 0),
            shown(line["grown_mib"], 1),
            shown(line["cpu_ms_per_edit"], 1),
            shown(line["wall_seconds"], 1),
        ]
        for line in lines
    ]
    note = f"{_kib_per_edit(lines):.1f} KiB for each further edit; its picture has {PADDING // 1024} KiB."
    return Table("Memory", columns, rows, [note])


def _airflow_table(lines: Sequence[Run]) -> Table:
    columns = ("in a whole Airflow", "in flight", "edits", "scale", "wall s", "perfect s", "wall/perfect", "edits/s")
    rows = [
        [
            WAYS[line["way"]],
            f"{line['in_flight']:,}",
            f"{line['edits']:,}",
            _scale(line),
            shown(line["wall_seconds"], 1),
            shown(line["perfect_seconds"], 1),
            shown(line["wall_seconds"] / line["perfect_seconds"]),
            shown(line["edits_per_second"]),
        ]
        for line in lines
    ]
    wall = {line["way"]: line["wall_seconds"] for line in lines}
    note = f"One deferral costs {wall['batch'] - wall['batch_on_worker']:.1f} s."
    return Table("One batch, and mapped tasks in a pool", columns, rows, [note])


def _schedule_goals(lines: Sequence[Run]) -> list[Goal]:
    return [
        Goal(
            f"{line['in_flight']} in flight: (wall - one poll interval) / perfect <= {MAX_RATIO:.2f}",
            line["ratio"] <= MAX_RATIO,
            f"{line['ratio']:.3f}",
        )
        for line in lines
    ]


def _memory_goal(lines: Sequence[Run]) -> Goal:
    return Goal(
        f"memory holds the state of all edits and no more: at most {MAX_GROWTH_KIB:.0f} KiB for each further edit",
        _kib_per_edit(lines) <= MAX_GROWTH_KIB,
        f"{_kib_per_edit(lines):.1f} KiB",
    )


def _kib_per_edit(lines: Sequence[Run]) -> float:
    few, many = lines
    kib: float = 1024 * (many["grown_mib"] - few["grown_mib"]) / (many["edits"] - few["edits"])
    return kib
