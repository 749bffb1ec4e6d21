"""On which of Celery's machines a trial runs, what was sent there, and what it left in the bucket."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial

from dev.celery_airflow import CeleryAirflow
from tests.e2e.dags.batches import FEWER, assert_each_has_one
from tests.e2e.moments import AT_A_TIME, Moment
from tests.e2e.trial import Trial
from tests.object_store import S3

VICTIM, OTHER = "worker-1", "worker-2"
"""The worker that all begin on, and the one that is left."""


def begin_on_victim(airflow: CeleryAirflow, trials: Mapping[str, Trial], moments: Mapping[str, Moment]) -> None:
    """Wait until all run on one worker, each at the moment of its Dag."""
    for trial in trials.values():
        trial.wait_for(partial(moments[trial.dag_id], trial), "its moment")
    assert {worker_of(airflow, trial) for trial in trials.values()} == {VICTIM}


def worker_of(airflow: CeleryAirflow, trial: Trial) -> str:
    """The worker that the task runs on, or ran on last."""
    [instance] = trial.instances
    return airflow.worker_at(instance["hostname"])


def try_of(trial: Trial) -> int:
    [instance] = trial.instances
    return int(instance["try_number"])


def wait_for_retry(trial: Trial) -> None:
    """Wait until a second try polls all requests."""

    def polls() -> bool:
        [instance] = trial.instances
        if instance["try_number"] != 2 or not instance["start_date"]:
            return False
        began = datetime.fromisoformat(instance["start_date"]).timestamp()
        return all(max(request.polls, default=0) > began for request in trial.witness.requests)

    trial.wait_for(polls, "the retry to wait for the requests")


def check_retry(trial: Trial, airflow: CeleryAirflow, *, submits: int, abandoned: int = 0) -> None:
    """Check that the second try, on the other worker, has ended well."""
    trial.check(submits=submits, cancels=0, ends="success", abandoned=abandoned)
    assert try_of(trial) == 2
    assert worker_of(airflow, trial) == OTHER


def check_batch_retry(trial: Trial, airflow: CeleryAirflow, bucket: S3) -> None:
    """Let a batch end whose first try has died while it submitted."""
    trial.wait_for(lambda: try_of(trial) == 2 and trial.states == ["deferred"], "the retry to have submitted all")
    trial.let_requests_end()
    trial.wait_until_ended()
    lost = trial.sandbox.paid - FEWER
    assert lost <= AT_A_TIME
    check_retry(trial, airflow, submits=FEWER + lost, abandoned=lost)
    assert_batch_landed(trial, bucket)


def is_refused(airflow: CeleryAirflow, trial: Trial) -> bool:
    """Whether a message has arrived again, and Airflow has refused to start its task a second time."""
    logs = "".join(airflow.logs(worker) for worker in airflow.workers)
    arrived = re.findall(rf"\[(\S+)\] Executing workload in Celery: .*{re.escape(trial.run_id)}", logs)
    twice = {message for message in arrived if arrived.count(message) > 1}
    return any(f"[{message}] Task already running elsewhere" in logs for message in twice)


def files_of(trial: Trial, bucket: S3) -> dict[str, bytes]:
    """The trial's outputs, by their paths, without what the provider notes beside them."""
    folder = trial.conf["output_path"]
    prefix = bucket.url(conn_id=bucket.conn_id)
    files = {f"{prefix}/{key}": data for key, data in bucket.objects().items()}
    return {path: data for path, data in files.items() if path.startswith(f"{folder}/") and "/.odirouter/" not in path}


def assert_batch_landed(trial: Trial, bucket: S3) -> None:
    """Check a batch's manifest and pictures: each edit has its own."""
    files = files_of(trial, bucket)
    [manifest] = [path for path in files if path.endswith(".jsonl")]
    assert_each_has_one(FEWER, files[manifest].decode(), {path for path in files if path.endswith(".png")})
