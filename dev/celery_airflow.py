"""A real Airflow with Celery in a `with` block, as on several machines.

with Postgres() as postgres, Redis() as redis:
    with CeleryAirflow(Path("example_dags"), broker_url=redis.url, database_url=postgres.url) as airflow:
        airflow.trigger_dag("my_dag")

Each worker and each triggerer has an address, a home, a temporary folder and a copy of the Dags of its own. They share
Redis, the network and the database, in which workers know the tables of Celery's results alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from celery import Celery

from dev.airflow_settings import Settings, prepare_home
from dev.local_airflow import LocalAirflow
from dev.log_server import LogServer

QUEUE = "default"
ANSWER_TIMEOUT = 1.0


@dataclass(frozen=True)
class Machine:
    """Where one component runs."""

    address: str
    folder: Path

    def prepare(self, dags_folder: Path) -> None:
        """Create its folders."""
        prepare_home(self.folder / "airflow", hostname=self.address)
        for name in ("home", "tmp"):
            (self.folder / name).mkdir()
        shutil.copytree(dags_folder, self.folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))

    def settings(self, settings: Settings) -> Settings:
        """The settings of an Airflow on this machine."""
        return replace(settings, home=self.folder / "airflow", dags_folder=self.folder / "dags")

    def variables(self) -> dict[str, str]:
        """The variables of any process on this machine."""
        return {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}


class CeleryAirflow(LocalAirflow):
    """Airflow with Celery; the components "worker-1", "worker-2" … are Celery's workers.

    :param broker_url: An empty Redis.
    :param workers: How many there are.
    :param slots: How many tasks a worker runs at once.
    :param visibility_timeout: Seconds after which Redis delivers a message again that no worker has acknowledged: a
        worker does so when the task has left it. Airflow's default is a day.
    :param options: Those of `LocalAirflow`.
    """

    def __init__(
        self,
        dags_folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        broker_url: str,
        database_url: str,
        workers: int = 2,
        slots: int = 8,
        visibility_timeout: int = 86400,
        **options: Any,
    ) -> None:
        celery = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": QUEUE,
            "AIRFLOW__CELERY__BROKER_URL": broker_url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database_url}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(slots),
            # Else the scheduler starts processes whenever it sends more than one task.
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(visibility_timeout),
            # By default, a worker looks every 100 s for messages to be delivered again.
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__UNACKED_RESTORE_INTERVAL": "5",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__UNACKED_RESTORE_THROTTLE": "1",
        }
        super().__init__(dags_folder, celery | dict(environment or {}), database_url=database_url, **options)
        self.workers = tuple(f"worker-{number}" for number in range(1, workers + 1))
        self._machines: dict[str, Machine] = {}
        self._celery = Celery(broker=broker_url)

    def worker_at(self, address: str) -> str:
        """The worker on the machine of this address, which Airflow notes as a task's `hostname`."""
        [worker] = (name for name in self.workers if self._machines[name].address == address)
        return worker

    def let_only(self, worker: str) -> None:
        """Let one worker alone take tasks; the others go on with those that they have. All must be alive."""
        others = [other for other in self.workers if other != worker]
        self._celery.control.cancel_consumer(QUEUE, destination=[_node(other) for other in others])
        expected = {name: name == worker for name in self.workers}
        self.wait_for(lambda: self._who_takes_tasks() == expected, f"{worker} alone to take tasks")

    def let(self, *workers: str) -> None:
        """Let these workers take tasks."""
        self._celery.control.add_consumer(QUEUE, destination=[_node(worker) for worker in workers])
        self.wait_for(lambda: self._take_tasks(*workers), f"{' and '.join(workers)} to take tasks")

    def bring_back(self) -> None:
        """Start again each worker that was killed or asked to stop, and let all take tasks."""
        for worker in self.workers:
            if self.components[worker].stop_requested:
                self.kill(worker)
                self.restart(worker)
        self.let(*self.workers)

    def _prepare(self) -> None:
        super()._prepare()
        names = [name for name in self._commands() if name.startswith(("worker-", "triggerer-"))]
        for number, name in enumerate(names, start=2):
            machine = Machine(f"127.0.0.{number}", self.home / "machines" / name)
            machine.prepare(self._dags_folder)
            self._machines[name] = machine
            settings = self._settings_of(name)
            log_server = LogServer(settings.log_folder, host=machine.address, port=settings.log_server_port)
            self._running.callback(log_server.close)
        self._running.callback(self._celery.close)

    def _commands(self) -> dict[str, list[str]]:
        options = ["--skip-serve-logs", "--without-mingle", "--without-gossip"]
        workers = {name: ["celery", "worker", "--celery-hostname", name, *options] for name in self.workers}
        return super()._commands() | workers

    def _settings_of(self, component: str) -> Settings:
        settings = super()._settings_of(component)
        machine = self._machines.get(component)
        return machine.settings(settings) if machine else settings

    def _environment_of(self, component: str) -> dict[str, str]:
        environment = super()._environment_of(component)
        if machine := self._machines.get(component):
            environment |= machine.variables()
        for name in ("NO_PROXY", "no_proxy"):
            # The API server reads a task's log from the machine that ran it.
            environment[name] = ",".join([environment[name], *(one.address for one in self._machines.values())])
        if component in self.workers:
            del environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        return environment

    def _is_healthy(self, component: str, since: datetime) -> bool:
        return self._take_tasks(component) if component in self.workers else super()._is_healthy(component, since)

    def _is_ready(self) -> bool:
        return super()._is_ready() and self._take_tasks(*self.workers)

    def _take_tasks(self, *workers: str) -> bool:
        answers = self._who_takes_tasks()
        return all(answers.get(worker) for worker in workers)

    def _who_takes_tasks(self) -> dict[str, bool]:
        """Say of each worker that answers whether it takes tasks from the queue."""
        answers = self._celery.control.inspect(timeout=ANSWER_TIMEOUT).active_queues() or {}
        return {node.partition("@")[2]: bool(queues) for node, queues in answers.items()}


def _node(worker: str) -> str:
    """Celery's name of a worker."""
    return f"celery@{worker}"
