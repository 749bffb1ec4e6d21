"""The processes of a task that runs on a worker, and what can happen to them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable

from tests.e2e.trial import Trial


def processes_of(trial: Trial) -> tuple[int, int]:
    """The process of the task, and that of the worker which watches over it."""
    [instance] = trial.instances
    pid = int(instance["pid"])
    return pid, int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)


def kill(trial: Trial, *, whole_worker: bool = False) -> None:
    """Kill a task's process; with the worker that watches over it, nobody is left to tell Airflow."""
    task, supervisor = processes_of(trial)
    send(signal.SIGKILL, (supervisor, task) if whole_worker else (task,))


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes, SIGSTOP to freeze them and SIGCONT to wake them."""
    for pid in pids:
        os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Whether a process has not ended."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False).stdout.strip()
    return bool(state) and not state.startswith(b"Z")
