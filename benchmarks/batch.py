"""
What an edit costs Airflow as one of a batch, and as a mapped task.

A real Airflow (api-server, scheduler, dag-processor, triggerer, LocalExecutor with four workers) on PostgreSQL, against
the sandbox, whose requests take a second. All edits are of one small picture, so that it is Airflow that is measured,
and neither Pillow nor the disk.

CPU is that of all of Airflow's processes and of PostgreSQL's, their dead children included, from the trigger of the
run to its end. An idle Airflow uses some, too: that is measured before, and subtracted, so that the longer of the two
runs does not pay for its length. Both figures are shown. Rows are those that the run has added, in all tables of the
database.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]
from PIL import Image

from airflow_provider_odirouter.sandbox import Sandbox
from benchmarks.report import Goal, Report, Run, Table, medians, shown
from dev import postgres
from dev.local_airflow import LocalAirflow
from dev.postgres import Postgres
from dev.processes import session_members

ROOT = Path(__file__).parents[1]
EDITS = {"batch": 1000, "mapped": 200}
QUICK_EDITS = {"batch": 50, "mapped": 6}
GOAL = 20
IDLE_SECONDS = 30.0
LONGEST_RUN = 1800.0
TICKS = os.sysconf("SC_CLK_TCK")


def run(*, quick: bool, progress: Callable[[str], object]) -> Report:
    """Run the edits in both ways."""
    postgres.install()
    edits = QUICK_EDITS if quick else EDITS
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        sandbox = Sandbox(queue_seconds=0, run_seconds=1)
        server = running.enter_context(sandbox.serve())
        database = running.enter_context(Postgres())
        connection = {"conn_type": "odirouter", "password": sandbox.settings.api_key, "host": server.base_url}
        airflow = running.enter_context(
            LocalAirflow(
                ROOT / "benchmarks" / "dags",
                {
                    "PYTHONPATH": str(ROOT),
                    "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
                    "AIRFLOW_CONN_ODIROUTER_DEFAULT": json.dumps(connection),
                },
                database_url=database.url,
                grace=3,
            )
        )
        picture = folder / "cup.png"
        Image.new("RGB", (64, 64), "white").save(picture)
        measure = _Measure(airflow, database)
        # Everything is loaded and cached once.
        measure.run("mapped", picture, folder / "warm", 1)
        measure.run("batch", picture, folder / "warm", 1)
        progress("an idle Airflow …")
        idle = measure.idle(IDLE_SECONDS / (6 if quick else 1))
        runs = []
        for way, count in edits.items():
            progress(f"{count} edits, {way} …")
            paid = sandbox.paid
            found = measure.run(way, picture, folder / way, count)
            net = found["cpu_seconds"] - idle * found["wall_seconds"]
            runs.append(
                found
                | {
                    "paid": sandbox.paid - paid,
                    "idle_cpu_per_second": idle,
                    "cpu_ms_per_edit": found["cpu_seconds"] / count * 1000,
                    "net_cpu_ms_per_edit": net / count * 1000,
                }
            )
    return _report(runs)


class _Measure:
    def __init__(self, airflow: LocalAirflow, database: Postgres) -> None:
        self._airflow = airflow
        self._database = database
        self._sessions = [child.pid for child in airflow.components.values()]
        self._sessions.append(database.pid)

    def idle(self, seconds: float) -> float:
        """Return the CPU seconds a second of an Airflow that has nothing to do."""
        before, began = self._cpu(), time.monotonic()
        time.sleep(seconds)
        return (self._cpu() - before) / (time.monotonic() - began)

    def run(self, way: str, picture: Path, folder: Path, edits: int) -> Run:
        """Run one way to its end."""
        conf = {"image": str(picture), "output_path": str(folder), "edits": edits}
        rows, cpu, began = self._rows(), self._cpu(), time.monotonic()
        run_id = self._airflow.trigger_dag(way, conf)
        self._airflow.wait_for(
            lambda: self._airflow.api.run(way, run_id)["state"] in {"success", "failed"}, f"{way} to end", LONGEST_RUN
        )
        wall = time.monotonic() - began
        state = self._airflow.api.run(way, run_id)["state"]
        landed = len(list(folder.glob("*.png")))
        if state != "success":
            raise RuntimeError(f"{way} ended in {state}:\n{self._airflow.tail_errors()}")
        return {
            "way": way,
            "edits": edits,
            "wall_seconds": wall,
            "cpu_seconds": self._cpu() - cpu,
            "rows": self._rows() - rows,
            "landed": landed,
        }

    def _cpu(self) -> float:
        ticks = 0
        for session in self._sessions:
            for pid in session_members(session) if session else ():
                try:
                    # "pid (any name) state …": the name may hold spaces and brackets.
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                ticks += sum(map(int, fields[11:15]))
        return ticks / TICKS

    def _rows(self) -> int:
        with psycopg2.connect(self._database.url.replace("+psycopg2", "")) as connection:
            cursor = connection.cursor()
            cursor.execute("select table_name from information_schema.tables where table_schema = 'public'")
            tables = [name for (name,) in cursor.fetchall()]
            total = 0
            for table in tables:
                cursor.execute(f'select count(*) from "{table}"')  # noqa: S608 - the database's own names
                total += cursor.fetchone()[0]
        connection.close()
        return total


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
