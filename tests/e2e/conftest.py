"""A real Airflow on PostgreSQL with two triggerers, and a trial for each test that is marked `run`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest

from dev.local_airflow import LocalAirflow
from dev.postgres import Postgres
from tests.e2e.figures import Figure, table
from tests.e2e.trial import Trial

FIGURES = pytest.StashKey[list[Figure]]()
Trials = dict[str, Trial]


@pytest.fixture(scope="session")
def airflow() -> Iterator[LocalAirflow]:
    """Airflow for all tests; KEEP=1 leaves its home, with all logs."""
    with Postgres() as postgres:
        airflow = LocalAirflow(
            Path(__file__).parent / "dags",
            {
                "PYTHONPATH": str(Path(__file__).parents[2]),
                # Else Airflow reads only files with the word "airflow" in them.
                "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
                # Workers that are frozen, and those of their retries, hold a slot each.
                "AIRFLOW__CORE__PARALLELISM": "24",
                # By default, Airflow takes a worker for dead after five minutes.
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            },
            database_url=postgres.url,
            triggerers=2,
            # As where a proxy serves more than one Airflow.
            path="/team-a",
            keep_home=bool(os.environ.get("KEEP")),
            # Nobody uses the database after it.
            grace=3,
        )
        with airflow:
            yield airflow


@pytest.fixture(scope="module")
def trials(
    request: pytest.FixtureRequest, airflow: LocalAirflow, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trials]:
    """The trials of a file's tests, by their names: all begin with the first test, and so wait together."""
    started: Trials = {}
    with ExitStack() as running:
        for item in request.session.items:
            if item.path == request.path and (run := item.get_closest_marker("run")):
                folder = tmp_path_factory.mktemp("outputs")
                trial = Trial(_row(item.name), airflow, run.args[0], folder, **run.kwargs)
                started[item.name] = running.enter_context(trial)
        yield started
        for trial in started.values():
            trial.check_that_nothing_followed()


@pytest.fixture
def trial(request: pytest.FixtureRequest, trials: Trials) -> Iterator[Trial]:
    """The run that this test is about."""
    trial = trials[request.node.name]
    yield trial
    if trial.figure:
        request.config.stash.setdefault(FIGURES, []).append(trial.figure)


def _row(test: str) -> str:
    return re.sub(r"[_\[]+", " ", test.removeprefix("test_")).replace("]", "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of figures."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section(f"Airflow {version('apache-airflow')}, PostgreSQL, two triggerers")
        for line in table(figures):
            terminalreporter.line(line)
