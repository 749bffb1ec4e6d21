"""
What an edit costs Airflow as one of a batch, and as a mapped task.

A real Airflow (api-server, scheduler, dag-processor, triggerer, LocalExecutor with four workers) on PostgreSQL, against
the sandbox, whose requests take a second. All edits are of one small picture, so that the figures are Airflow's and not
Pillow's or the disk's.

CPU is the time of all processes of Airflow and PostgreSQL, ended children included, from the trigger of the run to its
end. An idle Airflow uses CPU, too: this is measured first and subtracted, so that the longer run is not charged for its
length. Both figures are shown. Rows are those that the run has added to all tables of the database.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from airflow_provider_odirouter.sandbox import Sandbox
from benchmarks import whole_airflow
from benchmarks.report import Goal, Report, Run, Table, medians, shown
from dev import postgres

EDITS = {"batch": 1000, "mapped": 200}
QUICK_EDITS = {"batch": 50, "mapped": 6}
GOAL = 20
IDLE_SECONDS = 30.0


def run(*, quick: bool, progress: Callable[[str], object]) -> Report:
    """Run the edits in both ways."""
    postgres.install()
    edits = QUICK_EDITS if quick else EDITS
    sandbox = Sandbox(queue_seconds=0, run_seconds=1)
    with tempfile.TemporaryDirectory() as temporary, sandbox.serve() as server:
        folder = Path(temporary)
        picture = folder / "cup.png"
        Image.new("RGB", (64, 64), "white").save(picture)
        connection = {"conn_type": "odirouter", "password": sandbox.settings.api_key, "host": server.base_url}
        with whole_airflow.running(connection) as airflow:
            # Load and cache everything once.
            airflow.run("mapped", picture, folder / "warm", 1)
            airflow.run("batch", picture, folder / "warm", 1)
            progress("an idle Airflow …")
            idle = airflow.idle(IDLE_SECONDS / (6 if quick else 1))
            runs = []
            for way, count in edits.items():
                progress(f"{count} edits, {way} …")
                paid = sandbox.paid
                figures = airflow.run(way, picture, folder / way, count)
                net = figures["cpu_seconds"] - idle * figures["wall_seconds"]
                runs.append(
                    figures
                    | {
                        "paid": sandbox.paid - paid,
                        "idle_cpu_per_second": idle,
                        "cpu_ms_per_edit": figures["cpu_seconds"] / count * 1000,
                        "net_cpu_ms_per_edit": net / count * 1000,
                    }
                )
    return _report(runs)


def _report(runs: list[Run]) -> Report:
    rows = [
        (
            run["way"],
            f"{run['edits']:,}",
            f"{run['paid']:,}",
            f"{run['landed']:,}",
            shown(run["wall_seconds"], 0),
            shown(run["wall_seconds"] / run["edits"] * 1000, 0),
            shown(run["cpu_ms_per_edit"], 0),
            shown(run["net_cpu_ms_per_edit"], 0),
            shown(run["rows"] / run["edits"], 2),
        )
        for run in runs
    ]
    columns = ("way", "edits", "paid", "landed", "wall s", "ms/edit", "CPU ms/edit", "less idle", "rows/edit")
    batch, mapped = (next(run for run in runs if run["way"] == way) for way in ("batch", "mapped"))
    ratio = mapped["net_cpu_ms_per_edit"] / max(batch["net_cpu_ms_per_edit"], 0.001)
    note = f"An idle Airflow uses {runs[0]['idle_cpu_per_second'] * 100:.0f} % of a core."
    return Report(
        tables=[Table("One batch task, and mapped tasks", columns, rows, [note])],
        medians=[medians([run]) for run in runs],
        runs=runs,
        goals=[
            Goal(
                f"an edit of a batch costs at most 1/{GOAL} of a mapped task's CPU, both less idle",
                ratio >= GOAL,
                f"1/{ratio:.0f}",
            )
        ],
    )
