"""A child process with its log in a file, in a session of its own, whose end is certain."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dev.interrupts import held

TICK = 0.05
KILL_TIME = 5.0


class Child:
    """One process and everything it forks. Its name is for people, its log holds stdout and stderr.

    `user` is whom it runs as, if not as ourselves; `end_signal` asks it to end.
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
        end_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_file = log_file
        self._environment = dict(environment)
        self._cwd = cwd
        self._user = user
        self._end_signal = end_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._gone = False
        self._asked_to_end = False

    def start(self) -> None:
        """Start it, or start it anew; the log goes on."""
        if self.pid is not None:
            raise RuntimeError(f"{self.name} is already running")
        # A signal between the fork and the assignment would leave a child that nobody knows.
        with held(), self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self._user,
                # Keeps a Ctrl-C in the terminal from its children: they end in our order, not all at once.
                start_new_session=True,
            )
            # For a signal between the start and the `with` or `try` that would end it.
            atexit.register(self.kill)
            self._gone = False
            self._asked_to_end = False

    @property
    def pid(self) -> int | None:
        """Process id, which is also the id of its group and session; None when nothing of it is left."""
        if self._process is None or self._gone:
            return None
        # Remembered, because the system may give the id to somebody else later.
        self._gone = self._process.poll() is not None and not session_members(self._process.pid)
        return None if self._gone else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What the process ended with, None before that."""
        return None if self._process is None else self._process.poll()

    @property
    def died(self) -> bool:
        """Whether it ended although nobody asked it to."""
        return self.exit_code is not None and not self._asked_to_end

    def ask_to_end(self) -> None:
        """Send its end signal to the process itself, so that it ends in its own order what it forked."""
        self._asked_to_end = True
        if self.pid is not None and self._process is not None:
            self._process.send_signal(self._end_signal)
            # One that was frozen could not end.
            self.send_to_all(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to it and to everything that it forked."""
        self._asked_to_end = True
        self.send_to_all(signal.SIGKILL)

    def send_to_all(self, number: signal.Signals) -> None:
        """Send a signal to it and to everything that it forked, for instance SIGSTOP to freeze them."""
        if (session := self.pid) is None:
            return
        for pid in session_members(session):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def log(self) -> str:
        """All that it wrote so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def tail(self, lines: int = 30) -> str:
        """The last lines of its log, indented to stand in an error message."""
        last = self.log().splitlines()[-lines:] or ["(its log is empty)"]
        return "\n".join(f"    {line}" for line in last)


def end_all(children: Iterable[Child], grace: float) -> None:
    """End them together: each is asked to, and after `grace` seconds all that is left of them is killed."""
    left = [child for child in children if child.pid is not None]
    for child in left:
        child.ask_to_end()
    left = _wait(left, grace)
    deadline = time.monotonic() + KILL_TIME
    while left and time.monotonic() < deadline:
        # Repeated, because a process may fork between the listing and the kill.
        for child in left:
            child.kill()
        left = _wait(left, TICK)
    if left:
        names = ", ".join(f"{child.name} (session {child.pid})" for child in left)
        raise RuntimeError(f"Processes that SIGKILL did not end within {KILL_TIME} s: {names}")


def _wait(children: list[Child], seconds: float) -> list[Child]:
    """Answer those that are still there after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := [child for child in children if child.pid is not None]) and time.monotonic() < deadline:
        time.sleep(TICK)
    return left


def session_members(session: int) -> list[int]:
    """Living processes of a session.

    Airflow 3.3 gives each task a process group of its own, so a group's id does not reach everything that a
    component forked; the session's id does.
    """
    members = []
    for pid in _living():
        try:
            if os.getsid(pid) == session:
                members.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def _living() -> list[int]:
    """Ids of all processes but zombies."""
    processes = Path("/proc")
    if not (processes / "self" / "stat").exists():
        listing = subprocess.run(["ps", "-axo", "pid=,stat="], capture_output=True, text=True, check=True).stdout
        return [int(pid) for pid, state in map(str.split, listing.splitlines()) if not state.startswith("Z")]
    living = []
    for folder in processes.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # "pid (any name) state …": the name may hold spaces and brackets.
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            living.append(int(folder.name))
    return living
