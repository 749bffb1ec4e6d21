"""A whole Airflow on PostgreSQL that runs the Dags of ``benchmarks/dags``, and what a run costs it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2  # type: ignore[import-untyped]

from benchmarks.report import Run
from dev.local_airflow import LocalAirflow
from dev.postgres import Postgres
from dev.processes import cpu_seconds, session_members

ROOT = Path(__file__).parents[1]
MAX_RUN_SECONDS = 1800.0


@contextmanager
def running(connection: Mapping[str, Any], **variables: str) -> Iterator[WholeAirflow]:
    """
    Run it for a while.

    :param connection: The Airflow connection to the sandbox.
    :param variables: More variables for all its processes.
    """
    environment = {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
        "AIRFLOW_CONN_ODIROUTER_DEFAULT": json.dumps(connection),
    }
    with (
        Postgres() as database,
        LocalAirflow(
            ROOT / "benchmarks" / "dags", environment | variables, database_url=database.url, grace=3
        ) as airflow,
    ):
        yield WholeAirflow(airflow, database)


class WholeAirflow:
    """A running Airflow with its database."""

    def __init__(self, airflow: LocalAirflow, database: Postgres) -> None:
        self.api = airflow.api
        self._airflow = airflow
        self._database = database
        self._sessions = [child.pid for child in airflow.components.values()]
        self._sessions.append(database.pid)

    def idle(self, seconds: float) -> float:
        """Return the CPU seconds per second of an idle Airflow."""
        before, began = self._cpu(), time.monotonic()
        time.sleep(seconds)
        return (self._cpu() - before) / (time.monotonic() - began)

    def run(self, way: str, picture: Path, folder: Path, edits: int, *, prompt: str = "Edit") -> Run:
        """
        Run one way to its end.

        :param prompt: The beginning of each edit's prompt; its number follows.
        """
        conf = {"image": str(picture), "output_path": str(folder), "edits": edits, "prompt": prompt}
        rows, cpu, began = self._rows(), self._cpu(), time.monotonic()
        run_id = self._airflow.trigger_dag(way, conf)
        self._airflow.wait_for(
            lambda: self.api.run(way, run_id)["state"] in {"success", "failed"},
            f"{way} to end",
            MAX_RUN_SECONDS,
        )
        wall = time.monotonic() - began
        state = self.api.run(way, run_id)["state"]
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
        seconds = 0.0
        for session in self._sessions:
            for process in session_members(session) if session else ():
                with suppress(psutil.NoSuchProcess):
                    seconds += cpu_seconds(process)
        return seconds

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
