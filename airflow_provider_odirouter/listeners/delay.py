"""Marks that wait until those have had their chance who hear of a kill by themselves."""

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
TOGETHER = 1.0
"""Seconds within which marks are handed on together: a run's come one by one."""


@dataclass(frozen=True)
class Mark:
    """A task instance that a person has marked, or a run."""

    dag_id: str
    run_id: str
    task_instance: Hashable = None
    """Airflow's id of it, which changes with each try, as its version has it; ``None``: all of the run."""


class Delay:
    """
    Hands marks on some seconds later, in a thread that lives as long as there are any.

    The thread is the process's only one for this, and a daemon: it holds up neither the caller nor the process's end,
    with which marks that wait are lost.

    :param work: What gets them, some at a time.
    :param seconds: How long each waits.
    """

    def __init__(self, work: Callable[[Sequence[Mark]], object], *, seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._marks: deque[tuple[float, Mark]] = deque()
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, mark: Mark) -> None:
        """Take a mark, and return at once."""
        with self._changing:
            if len(self._marks) >= MAX_MARKS:
                log.warning("Too many marks at once: requests of %s may be left running.", mark)
                return
            self._marks.append((time.monotonic() + self._seconds, mark))
            # One that does not live is that of the process from which this one was forked.
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="odirouter-marked", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while (due := self._next()) is not None:
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self._work(self._take())
            except Exception:
                log.exception("It could not be found out whether marked tasks have left requests running.")

    def _next(self) -> float | None:
        """Return when the first one is due; without any, the thread ends."""
        with self._changing:
            if not self._marks:
                self._thread = None
                return None
            return self._marks[0][0]

    def _take(self) -> list[Mark]:
        with self._changing:
            taken: list[Mark] = []
            until = time.monotonic() + TOGETHER
            while self._marks and self._marks[0][0] <= until:
                taken.append(self._marks.popleft()[1])
            return taken
