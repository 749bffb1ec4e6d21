"""Processes of a benchmark: each measurement runs in its own, and none is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

REMOVED_PREFIXES = ("http_proxy", "https_proxy", "all_proxy", "ssl_cert_dir", "airflow_")
"""Environment variables with these prefixes would change the figures."""


class ChildFailedError(RuntimeError):
    """A measurement ended without a result."""


def environment(home: Path, **variables: str) -> dict[str, str]:
    """
    Return the environment of a measurement: an Airflow with its own home, which logs warnings and above only.

    :param variables: Connections and options.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.lower().startswith(REMOVED_PREFIXES)}
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "PYTHONDONTWRITEBYTECODE": "",  # Our modules are compiled once, as the installer has done with the others'.
        **variables,
    }


def measured(module: str, order: Mapping[str, Any], *, environment: Mapping[str, str], seconds: float) -> Any:
    """
    Run a module of this package in a new process.

    :param order: Its argument, as JSON.
    :param seconds: How long it may take.
    :return: The JSON in its last line of output.
    :raises ChildFailedError: If it takes longer, or fails.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(order)]
    with tempfile.TemporaryFile("w+") as errors:
        with _ended(command, environment, stderr=errors) as child:
            try:
                output, _ = child.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                raise ChildFailedError(f"{' '.join(command)} has no result after {seconds:g} s") from error
        if child.returncode:
            errors.seek(0)
            raise ChildFailedError(f"{' '.join(command)} failed:\n{errors.read()[-4000:]}")
    return json.loads(output.splitlines()[-1])


@contextmanager
def serving(module: str, order: Mapping[str, Any], *, environment: Mapping[str, str]) -> Iterator[Server]:
    """Run a server of this package for a while; its first line of output is its address, as JSON."""
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(order)]
    with _ended(command, environment, stderr=subprocess.DEVNULL) as child:
        assert child.stdout
        line = child.stdout.readline()
        if not line:
            raise ChildFailedError(f"{' '.join(command)} did not start")
        yield Server(child.pid, json.loads(line))


class Server:
    """A running server."""

    def __init__(self, pid: int, address: Any) -> None:
        self.pid = pid
        self.address = address


@contextmanager
def _ended(command: list[str], environment: Mapping[str, str], *, stderr: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        env=dict(environment),
        # A server reads it until its end, and so ends with this process, even if this one is killed.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
