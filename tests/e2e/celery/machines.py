"""On which of Celery's machines a trial runs, how often it was sent there, and what it left in the bucket."""

from __future__ import annotations

import re

from dev.celery_airflow import CeleryAirflow
from tests.e2e.dags.batches import assert_each_has_one
from tests.e2e.trial import Trial
from tests.object_store import S3


def worker_of(airflow: CeleryAirflow, trial: Trial) -> str:
    """The worker that the task runs on, or ran on last."""
    [instance] = trial.instances
    return airflow.worker_at(instance["hostname"])


def try_of(trial: Trial) -> int:
    [instance] = trial.instances
    return int(instance["try_number"])


def is_refused(airflow: CeleryAirflow, trial: Trial) -> bool:
    """Whether a message has arrived again, and Airflow has refused to start its task a second time."""
    logs = "".join(airflow.logs(worker) for worker in airflow.workers)
    arrived = re.findall(rf"\[(\S+)\] Executing workload in Celery: .*{re.escape(trial.run_id)}", logs)
    return any(
        arrived.count(message) > 1 and f"[{message}] Task already running elsewhere" in logs for message in arrived
    )


def files_of(trial: Trial, bucket: S3) -> dict[str, bytes]:
    """The trial's outputs, by their paths, without what the provider notes beside them."""
    folder = trial.conf["output_path"]
    prefix = bucket.url(conn_id=bucket.conn_id)
    files = {f"{prefix}/{key}": data for key, data in bucket.objects().items()}
    return {path: data for path, data in files.items() if path.startswith(f"{folder}/") and "/.odirouter/" not in path}


def assert_batch_landed(trial: Trial, bucket: S3, edits: int) -> None:
    """Check a batch's manifest and pictures: each edit has its own."""
    files = files_of(trial, bucket)
    [manifest] = [path for path in files if path.endswith(".jsonl")]
    assert_each_has_one(edits, files[manifest].decode(), {path for path in files if path.endswith(".png")})
