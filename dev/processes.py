"""Child processes that log to a file and that can be ended together with everything they started."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from dev.interrupts import delay_signals

POLL_SECONDS = 0.05
KILL_TIMEOUT = 5.0


class Child:
    """A process in a session of its own, and everything that it starts.

    :param name: Used in messages.
    :param log_file: Receives stdout and stderr.
    :param user: The system user that it runs as. Default: the current one.
    :param stop_signal: The signal that makes it end in an orderly way.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_file: Path,
        cwd: Path,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_file = log_file
        self._environment = dict(environment)
        self._cwd = cwd
        self._user = user
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._session_ended = False
        self.stop_requested = False

    def start(self) -> None:
        """Start the process, or start it again; the log file is appended to."""
        if self.pid is not None:
            raise RuntimeError(f"{self.name} is already running")
        # A signal between the fork and the assignment would leave a process that cannot be ended.
        with delay_signals(), self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self._user,
                # Ctrl-C in the terminal does not reach another session: the caller decides in which order to stop.
                start_new_session=True,
            )
            # For a signal that arrives after the start and before the caller's `with` or `try`.
            atexit.register(self.kill)
            self._session_ended = False
            self.stop_requested = False

    @property
    def pid(self) -> int | None:
        """The process id, also that of the session; None if no process of the session is alive."""
        if self._process is None or self._session_ended:
            return None
        # Stored, because the system may give the id to another process later.
        self._session_ended = self._process.poll() is not None and not session_members(self._process.pid)
        return None if self._session_ended else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process, None before it has ended."""
        return None if self._process is None else self._process.poll()

    @property
    def died(self) -> bool:
        """Whether the process ended before `stop` or `kill` was called."""
        return self.exit_code is not None and not self.stop_requested

    def stop(self, number: signal.Signals | None = None) -> None:
        """Send the stop signal, or another one, to the process alone, so that it can stop its own children in order."""
        self.stop_requested = True
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number or self._stop_signal)
            # A frozen process would not handle the signal.
            self.send_to_all(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to the whole session."""
        self.stop_requested = True
        self.send_to_all(signal.SIGKILL)

    def send_to_all(self, number: signal.Signals) -> None:
        """Send a signal to the whole session, for instance SIGSTOP to freeze it."""
        if (session := self.pid) is None:
            return
        for process in session_members(session):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def log(self) -> str:
        """Everything that the process has logged so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def tail(self, lines: int = 30) -> str:
        """The last lines of the log, indented for an error message."""
        last = self.log().splitlines()[-lines:] or ["(its log is empty)"]
        return "\n".join(f"    {line}" for line in last)


def stop_all(children: Iterable[Child], grace: float) -> None:
    """Stop all children at once, and kill those that are still alive after `grace` seconds.

    :raises RuntimeError: If a process survives SIGKILL.
    """
    alive = [child for child in children if child.pid is not None]
    for child in alive:
        child.stop()
    alive = _wait(alive, grace)
    deadline = time.monotonic() + KILL_TIMEOUT
    while alive and time.monotonic() < deadline:
        # Repeated, because a process may fork between the listing and the kill.
        for child in alive:
            child.kill()
        alive = _wait(alive, POLL_SECONDS)
    if alive:
        names = ", ".join(f"{child.name} (session {child.pid})" for child in alive)
        raise RuntimeError(f"SIGKILL did not end these processes within {KILL_TIMEOUT} s: {names}")


def _wait(children: list[Child], seconds: float) -> list[Child]:
    """Wait until all have ended, for at most so many seconds; return those that are still alive."""
    deadline = time.monotonic() + seconds
    while (alive := [child for child in children if child.pid is not None]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return alive


def session_members(session: int) -> list[psutil.Process]:
    """The processes of a session, without zombies.

    Airflow 3.3 puts each task into a process group of its own, and a process whose parent has died is no longer among
    its descendants; all of them stay in the session. psutil does not know sessions.
    """
    members = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(pid) == session and (process := psutil.Process(pid)).status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and of its children that have ended, user and system.

    :raises psutil.NoSuchProcess: If the process has ended.
    """
    times = process.cpu_times()
    seconds: float = times.user + times.system + times.children_user + times.children_system
    return seconds
