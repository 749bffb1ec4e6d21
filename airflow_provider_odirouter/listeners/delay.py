"""A delay for marks: a worker or a trigger that hears of the same mark cancels first."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

MAX_MARKS = 10_000
"""Marks that may wait at once."""
GROUP_SECONDS = 1.0
"""Marks that are due within this time are handled together: those of a run's tasks come one by one."""


@dataclass(frozen=True)
class Mark:
    """A task instance that a person has marked, or a whole run."""

    dag_id: str
    run_id: str
    task_instance: Hashable = None
    """
    Airflow's id of the task instance, which changes with each try; ``None``: the whole run.

    Airflow 3.1 has it as text, later versions as a UUID.
    """


class Delay:
    """
    Collects marks, and handles each some seconds later in a background thread.

    There is one such thread per process, and only while marks wait. It is a daemon, so it does not delay the end of the
    process; marks that still wait then are lost.

    :param handle: Called with the marks that are due.
    :param seconds: How long each mark waits.
    """

    def __init__(self, handle: Callable[[Sequence[Mark]], object], *, seconds: float) -> None:
        self._handle = handle
        self._seconds = seconds
        self._marks: deque[tuple[float, Mark]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, mark: Mark) -> None:
        """Add a mark, and return at once."""
        with self._lock:
            if len(self._marks) >= MAX_MARKS:
                log.warning(
                    "More than %s marked tasks wait to be checked. Requests of %s, run %s, may be left running.",
                    f"{MAX_MARKS:,}",
                    mark.dag_id,
                    mark.run_id,
                )
                return
            self._marks.append((time.monotonic() + self._seconds, mark))
            # A thread that is not alive belongs to the process that this one was forked from.
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="odirouter-marked", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while (due := self._next_due()) is not None:
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self._handle(self._take_due())
            except Exception:
                log.exception("Could not check whether marked tasks have left requests running.")

    def _next_due(self) -> float | None:
        """Return when the first mark is due; without any mark, let the thread end."""
        with self._lock:
            if not self._marks:
                self._thread = None
                return None
            return self._marks[0][0]

    def _take_due(self) -> list[Mark]:
        with self._lock:
            taken: list[Mark] = []
            until = time.monotonic() + GROUP_SECONDS
            while self._marks and self._marks[0][0] <= until:
                taken.append(self._marks.popleft()[1])
            return taken
