"""A real Airflow in a `with` block: each component is a process, and all listen on loopback only.

with LocalAirflow(Path("example_dags")) as airflow:
    run_id = airflow.trigger_dag("my_dag", conf={"size": 3})
    airflow.wait_for(lambda: airflow.api.run("my_dag", run_id)["state"] == "success", "the run to succeed")
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from dev.airflow_api import AirflowApi, JsonObject
from dev.airflow_settings import USERNAME, Settings, prepare_home, prepare_password
from dev.interrupts import delay_signals, raise_on_signals
from dev.log_server import LogServer
from dev.ports import LOOPBACK, check_port, free_port
from dev.processes import Child, stop_all

T = TypeVar("T")

POLL = 0.25
# Seconds from a task's deferral to the first answer that Airflow bears: until then, the worker's late report may meet a
# task that is queued again, and the scheduler fails it.
FIRST_ANSWER = 7.0
# Components stop within 2.5 s, but about every second triggerer waits 10 s for a runner that has already ended. With a
# database of its own, it can be killed.
GRACE = 3.0
# Another Airflow on the same database would consider killed components alive for half a minute.
LONG_GRACE = 15.0
# The default of Airflow's Helm chart for a triggerer.
STOP_GRACE = 60.0
JOBS = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}
ERROR_LINE = re.compile(r"\[(error|critical) *\]|\b(ERROR|CRITICAL)\b|^Traceback|^[\w.]*(Error|Exception)\b")


class LocalAirflowError(RuntimeError):
    """Airflow did not start, a component died, or a wait timed out."""


class WaitTimeoutError(LocalAirflowError, TimeoutError):
    """A condition did not become true in time."""


class LocalAirflow:
    """Airflow with the Dags of a folder; all its processes end with the block.

    :param environment: Variables for all components (connections, options); they override the settings made here.
    :param home: AIRFLOW_HOME, which is created if it does not exist, and kept. Default: a temporary folder, which is
        deleted unless `keep_home` is true.
    :param database_url: An empty or up-to-date database. Default: SQLite in the home.
    :param port: Of the UI and the API. Default: a free one.
    :param path: The path of the UI's URL, as for one of several Airflows on a host: "/team-a".
    :param python: An interpreter with Airflow installed.
    :param startup_timeout: Seconds until all components must be healthy.
    :param grace: Seconds that the components have to stop before they are killed. Default: 3, and 15 with a
        `database_url`.
    :raises LocalAirflowError: If Airflow does not start.
    :raises PortBusyError: If the port is taken.
    """

    def __init__(
        self,
        dags_folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        home: Path | None = None,
        keep_home: bool = False,
        database_url: str | None = None,
        triggerers: int = 1,
        port: int = 0,
        path: str = "",
        python: str | Path = sys.executable,
        startup_timeout: float = 120.0,
        grace: float | None = None,
    ) -> None:
        self.username = USERNAME
        self.password = ""
        self.components: dict[str, Child] = {}
        self._dags_folder = dags_folder.resolve()
        self._caller_environment = dict(environment or {})
        self._requested_home = home
        self._keep_home = keep_home or home is not None
        self._database_url = database_url
        self._triggerers = triggerers
        self._requested_port = port
        self._path = path
        # Links are not resolved: Python finds a virtual environment's packages through the path of the link.
        self._python = os.path.abspath(python) if os.sep in str(python) else str(python)  # noqa: PTH100
        self._startup_timeout = startup_timeout
        self._grace = grace if grace is not None else GRACE if database_url is None else LONG_GRACE
        self._running = ExitStack()
        self._health: dict[str, str | None] = {}
        self._warm = False

    def __enter__(self) -> Self:
        try:
            with delay_signals():
                self._prepare()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and delete temporary files; may be called more than once."""
        with delay_signals():
            self._running.close()

    def trigger_dag(self, dag_id: str, conf: JsonObject | None = None, timeout: float = 60.0) -> str:
        """Wait until the Dag is parsed, unpause it, start a run, and return its id.

        :raises WaitTimeoutError: With the import errors, if the Dag is not parsed within `timeout` seconds.
        """
        try:
            self.wait_for(lambda: dag_id in self.api.dag_ids(), f"the Dag {dag_id!r} to be parsed", timeout)
        except WaitTimeoutError as error:
            if problems := self.api.import_errors():
                raise WaitTimeoutError(f"{error}\nFiles that failed to import:\n" + "\n".join(problems)) from error
            raise
        self.api.unpause(dag_id)
        return self.api.trigger(dag_id, conf or {})

    def task_instances(self, dag_id: str, run_id: str) -> list[JsonObject]:
        """See `AirflowApi.task_instances`."""
        return self.api.task_instances(dag_id, run_id)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str, map_index: int = -1) -> Any:
        """See `AirflowApi.xcom`."""
        return self.api.xcom(dag_id, run_id, task_id, key, map_index)

    def wait_for(self, condition: Callable[[], T], what: str, timeout: float = 60.0) -> T:
        """Call `condition` until it returns a true value, and return that.

        :param what: Completes the sentence "Waited 60 s for …".
        :param timeout: Seconds.
        :raises WaitTimeoutError: With the errors that the components have logged.
        :raises LocalAirflowError: As soon as a component has died.
        """
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            for child in self.components.values():
                if child.died:
                    raise LocalAirflowError(
                        f"{child.name} ended with exit code {child.exit_code} while waiting for {what}. "
                        f"The end of its log:\n{child.tail()}"
                    )
            if time.monotonic() > deadline:
                errors = self.tail_errors() or "    (no component logged an error)"
                raise WaitTimeoutError(f"Waited {timeout:.0f} s for {what}, without success. Errors logged:\n{errors}")
            time.sleep(POLL)
        return result

    def kill(self, component: str) -> None:
        """Send SIGKILL to a component and to all processes that it started, as a system out of memory does."""
        self._stop_one(component, grace=0)

    def stop(self, component: str) -> None:
        """Send SIGTERM to a component, and kill it after a minute, as a deployment does."""
        self._stop_one(component, grace=STOP_GRACE)

    def restart(self, component: str, timeout: float = 60.0) -> None:
        """Start a component that has ended, and wait until it is healthy."""
        since = datetime.now(UTC)
        self.components[component].start()
        self.wait_for(lambda: self._is_healthy(component, since), f"the {component} to be healthy again", timeout)

    def logs(self, component: str) -> str:
        """All that a component has logged: "api-server", "scheduler", "dag-processor", "triggerer-1", "triggerer-2"."""
        return self.components[component].log()

    def tail_errors(self, lines: int = 20) -> str:
        """The last error lines of each component's log, "" if there are none."""
        found = []
        for name, child in self.components.items():
            errors = [line for line in child.log().splitlines() if ERROR_LINE.search(line)]
            found += [f"    {name}: {line}" for line in errors[-lines:]]
        return "\n".join(found)

    def _prepare(self) -> None:
        """Prepare everything that needs no process."""
        if self._requested_port:
            check_port(self._requested_port)
        self._running.enter_context(raise_on_signals())
        # A signal that arrives between `__enter__` and the block would skip `__exit__`.
        atexit.register(self.close)
        self._running.callback(atexit.unregister, self.close)
        self.home = self._requested_home or Path(tempfile.mkdtemp(prefix="local-airflow-"))
        if not self._keep_home:
            self._running.callback(shutil.rmtree, self.home, ignore_errors=True)
        self.home = self.home.resolve()
        prepare_home(self.home)
        self.password = prepare_password(self.home)
        log_server = LogServer()
        self._running.callback(log_server.close)
        self._port = self._requested_port or free_port()
        self.url = f"http://{LOOPBACK}:{self._port}{self._path}"
        self.api = AirflowApi(self.url, self.username, self.password)
        self._running.callback(self.api.close)
        self._running.callback(self._stop)
        self._settings = Settings(
            home=self.home,
            dags_folder=self._dags_folder,
            url=self.url,
            database_url=self._database_url or f"sqlite:///{self.home / 'airflow.db'}",
            log_server_port=log_server.port,
        )

    def _start(self) -> None:
        deadline = time.monotonic() + self._startup_timeout
        self._started_at = datetime.now(UTC)
        # Started before the migration: it first imports for seconds, and needs no table before the first call.
        self._child("api-server", ["api-server", "--host", LOOPBACK, "--port", str(self._port)])
        self._migrate(deadline)
        for name, arguments in self._commands().items():
            self._child(name, arguments)
        try:
            self.wait_for(self._is_ready, "all components to be healthy", deadline - time.monotonic())
        except WaitTimeoutError as error:
            tails = "\n".join(f"{name}:\n{child.tail(15)}" for name, child in self.components.items())
            raise LocalAirflowError(f"Airflow was not ready in time; health: {self._health}\n{tails}") from error

    def _commands(self) -> dict[str, list[str]]:
        """What starts each component that needs the database."""
        commands = {"dag-processor": ["dag-processor"], "scheduler": ["scheduler", "--skip-serve-logs"]}
        for number in range(1, self._triggerers + 1):
            commands[f"triggerer-{number}"] = ["triggerer", "--skip-serve-logs"]
        return commands

    def _settings_of(self, component: str) -> Settings:  # noqa: ARG002 - of one machine, all have the same
        return self._settings

    def _environment_of(self, component: str) -> dict[str, str]:
        # Airflow stores the user's name with each job, so this tells one triggerer from another.
        return {**self._settings_of(component).environment(self._caller_environment), "LOGNAME": component}

    def _migrate(self, deadline: float) -> None:
        migration = self._child("db-migrate", ["db", "migrate"])
        while migration.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if migration.exit_code != 0:
            outcome = "did not end" if migration.exit_code is None else f"ended with code {migration.exit_code}"
            raise LocalAirflowError(f"airflow db migrate {outcome}. The end of its log:\n{migration.tail()}")
        del self.components[migration.name]

    def _child(self, name: str, arguments: list[str]) -> Child:
        command = [self._python, "-m", "airflow", *arguments]
        log_file = self.home / "components" / f"{name}.log"
        environment = self._environment_of(name)
        home = Path(environment["AIRFLOW_HOME"])
        child = Child(name, command, environment=environment, log_file=log_file, cwd=home)
        self.components[name] = child
        child.start()
        return child

    def _stop_one(self, component: str, grace: float) -> None:
        child = self.components[component]
        if not grace:
            child.kill()
        stop_all([child], grace)

    def _stop(self) -> None:
        stop_all(self.components.values(), self._grace)

    def _is_healthy(self, component: str, since: datetime) -> bool:
        """Whether a component that was started again at that time is healthy."""
        kind = JOBS.get(component.rstrip("-0123456789"))
        try:
            return bool(self.api.count_jobs(kind, since) if kind else self.api.health())
        except httpx.TransportError:
            return False

    def _is_ready(self) -> bool:
        try:
            if not self._warm:
                self.api.warm_up()
                self._warm = True
            self._health = self.api.health()
        except httpx.TransportError:
            return False
        if any(status != "healthy" for status in self._health.values()):
            return False
        numbers = {"triggerer": self._triggerers}
        if any(self.api.count_jobs(job, self._started_at) < numbers.get(name, 1) for name, job in JOBS.items()):
            return False
        has_files = any(self._dags_folder.rglob("*.py"))
        return not has_files or bool(self.api.dag_ids() or self.api.import_errors())
