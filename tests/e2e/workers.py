"""The processes of a task that runs on a worker, and what can happen to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

import psutil

from tests.e2e.trial import Trial


def processes_of(trial: Trial) -> tuple[int, int]:
    """The process of the task, and that of its supervisor."""
    [instance] = trial.instances
    pid = int(instance["pid"])
    return pid, int(psutil.Process(pid).ppid())


def kill(trial: Trial, *, whole_worker: bool = False) -> None:
    """Kill a task's process; with its supervisor dead, too, no process reports that to Airflow."""
    task, supervisor = processes_of(trial)
    send(signal.SIGKILL, (supervisor, task) if whole_worker else (task,))


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes, SIGSTOP to freeze them and SIGCONT to wake them."""
    for pid in pids:
        os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Whether a process has not ended."""
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
