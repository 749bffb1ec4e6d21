"""
A real Airflow on PostgreSQL with two triggerers, and a trial for each test that is marked `run`.

EXECUTOR=celery: with Celery and two workers, which share no folder, but a bucket.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dev.local_airflow import LocalAirflow
from dev.postgres import Postgres
from tests.conftest import PICTURES
from tests.e2e.dags.batches import FEWER, lines
from tests.e2e.figures import Figure, table
from tests.e2e.trial import Trial
from tests.object_store import S3, variable_of

DAGS = Path(__file__).parent / "dags"
EXECUTOR = os.environ.get("EXECUTOR", "")
CELERY = EXECUTOR == "celery"
VISIBILITY_TIMEOUT = 15
"""Seconds: Redis delivers the message again of each task that holds a worker for longer."""
collect_ignore = [] if CELERY else ["celery"]

FIGURES = pytest.StashKey[list[Figure]]()
Trials = dict[str, Trial]


@pytest.fixture(scope="session")
def bucket(s3_endpoint: str) -> Iterator[S3]:
    """What Celery's machines share: the inputs and outputs of all trials."""
    bucket = S3(s3_endpoint)
    bucket.put("small.png", (PICTURES / "small.png").read_bytes())
    bucket.put("edits.jsonl", "\n".join(json.dumps(line) for line in lines(FEWER)).encode())
    yield bucket
    bucket.close()


@pytest.fixture(scope="session")
def airflow(request: pytest.FixtureRequest) -> Iterator[LocalAirflow]:
    """Airflow for all tests; KEEP=1 leaves its home, with all logs."""
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        # Else Airflow reads only files with the word "airflow" in them.
        "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
        # Workers that are frozen, and those of their retries, hold a slot each.
        "AIRFLOW__CORE__PARALLELISM": "24",
        # By default, Airflow takes a worker for dead after five minutes.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    }
    with ExitStack() as running:
        options: dict[str, Any] = {
            "database_url": running.enter_context(Postgres()).url,
            "triggerers": 2,
            # As where a proxy serves more than one Airflow.
            "path": "/team-a",
            "keep_home": bool(os.environ.get("KEEP")),
            # The database is not used after it.
            "grace": 3,
        }
        if CELERY:
            # Imported late: older Airflows are tested without Celery.
            from dev.celery_airflow import CeleryAirflow
            from dev.redis import Redis

            connection = variable_of(request.getfixturevalue("bucket").conn_id)
            environment[connection] = os.environ[connection]
            options["broker_url"] = running.enter_context(Redis()).url
            options["visibility_timeout"] = VISIBILITY_TIMEOUT
            yield running.enter_context(CeleryAirflow(DAGS, environment, **options))
        else:
            yield running.enter_context(LocalAirflow(DAGS, environment, **options))


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
                conf = _in(request.getfixturevalue("bucket"), folder.name) if CELERY else {}
                trial = Trial(_row(item.name), airflow, run.args[0], folder, conf=conf, **run.kwargs)
                started[item.name] = running.enter_context(trial)
        yield started
        for trial in started.values():
            trial.check_that_nothing_followed()


def _in(bucket: S3, folder: str) -> dict[str, str]:
    """The conf of a run whose inputs and outputs are in a bucket."""
    return {
        "image": bucket.url("small.png", conn_id=bucket.conn_id),
        "list": bucket.url("edits.jsonl", conn_id=bucket.conn_id),
        "output_path": bucket.url(folder, conn_id=bucket.conn_id),
    }


@pytest.fixture
def trial(request: pytest.FixtureRequest, trials: Trials) -> Iterator[Trial]:
    """The run that this test is about."""
    trial = trials[request.node.name]
    yield trial
    if trial.figure:
        request.config.stash.setdefault(FIGURES, []).append(trial.figure)


def pytest_configure() -> None:
    if EXECUTOR not in {"", "celery"}:
        raise pytest.UsageError(f"EXECUTOR={EXECUTOR}: it is celery, or is not set.")


def _row(test: str) -> str:
    return re.sub(r"[_\[]+", " ", test.removeprefix("test_")).replace("]", "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of figures."""
    if figures := config.stash.get(FIGURES, []):
        executor = "Celery with Redis, two workers, " if CELERY else ""
        terminalreporter.section(f"Airflow {version('apache-airflow')}, {executor}PostgreSQL, two triggerers")
        for line in table(figures):
            terminalreporter.line(line)
