"""
What the provider counts, through Airflow's own metrics (StatsD, Datadog, OpenTelemetry): docs/operations/metrics.md.

No metric has a request id, and none can break a task or hold it up: a thread of its own sends them, since Airflow's
first call looks up a host, reads a file and may wait for both. In the task's thread, that could come between a submit
and its note; and what a kill raises there would be taken for a failure of the metric.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_odirouter.compat import conf, get_stats
from airflow_provider_odirouter.errors import OdiRouterError, RateLimitedError

if TYPE_CHECKING:
    from airflow_provider_odirouter.models import RequestEvent
    from airflow_provider_odirouter.models.spending import Spending

log = logging.getLogger(__name__)

PREFIX = "odirouter."
MAX_QUEUED = 10_000
"""Metrics that wait for the thread; more are dropped: a backend that hangs must not fill the memory."""
FLUSH_SECONDS = 2.0


class Metrics:
    """
    Counts for one task, with its tags.

    :param tags: As Airflow tags its own metrics of a task: ``dag_id``, ``task_id``, and a team if there is one.
    """

    def __init__(self, tags: Mapping[str, str] | None = None) -> None:
        self.tags = dict(tags or {})

    @classmethod
    def of(cls, ti: Any) -> Self:
        """Return the metrics of a task instance; without one, they have no tags of a task."""
        if ti is None:
            return cls()
        tags = getattr(ti, "stats_tags", None)
        return cls(tags if isinstance(tags, dict) else {"dag_id": ti.dag_id, "task_id": ti.task_id})

    def submitted(self, endpoint: str, spending: Spending, *, is_lost: bool = False) -> None:
        """
        Count a submit that has created a request, or may have.

        :param spending: Of this submit.
        :param is_lost: Whether it is unknown whether there is a request.
        """
        self._count("lost_submits" if is_lost else "submits", endpoint)
        if spending.cost:
            self._count("cost", endpoint, spending.cost)

    def ended(self, event: RequestEvent, *, submitted_at: float | None = None) -> None:
        """
        Count the end of a wait, and how long it was.

        :param submitted_at: Epoch seconds, if the event does not tell.
        """
        self._count("ends", event.endpoint, ending=event.ending.value)
        since = event.submitted_at.timestamp() if event.submitted_at else submitted_at
        if since is not None:
            self._time("wait_duration", event.endpoint, max(0.0, event.at.timestamp() - since))
        if event.inference_seconds is not None:
            self._time("inference_duration", event.endpoint, event.inference_seconds)

    def polled(self, endpoint: str) -> None:
        """Count a poll that was sent."""
        self._count("polls", endpoint)

    def call_failed(self, endpoint: str, action: str, error: OdiRouterError) -> None:
        """Count a ``429``, or another failure of a call that may pass; other errors are not counted."""
        if isinstance(error, RateLimitedError):
            self._count("rate_limited", endpoint, action=action)
        elif error.is_transient:
            self._count("transient_failures", endpoint, action=action, error=type(error).__name__)

    def cancelled(self, endpoint: str, cause: str, outcome: object) -> None:
        """
        Count a cancel.

        :param cause: Why: ``killed``, ``timeout``, ``cleared`` and so on.
        :param outcome: The service's answer, or an error.
        """
        answer = "failed" if isinstance(outcome, Exception) else str(outcome).lower()
        self._count("cancels", endpoint, cause=cause, outcome=answer)

    def landed(self, endpoint: str, sizes: list[int]) -> None:
        """Count outputs that have landed, and their bytes."""
        if sizes:
            self._count("outputs", endpoint, len(sizes))
            self._count("output_bytes", endpoint, sum(sizes))

    def reviewed(self, outcome: str, outputs: int = 1, *, endpoint: str | None = None) -> None:
        """
        Count outputs about which a person, or a timeout, has decided.

        :param outcome: ``approved``, ``rejected`` or ``timeout``.
        """
        if outputs:
            self._count("reviews", endpoint, outputs, outcome=outcome)

    def _count(self, name: str, endpoint: str | None, count: float = 1, **tags: str) -> None:
        _emit("incr", name, count, self._with(endpoint, tags))

    def _time(self, name: str, endpoint: str, seconds: float) -> None:
        _emit("timing", name, seconds * 1000.0, self._with(endpoint, {}))  # StatsD's unit, and Airflow's

    def _with(self, endpoint: str | None, tags: Mapping[str, str]) -> dict[str, str]:
        known = {"endpoint": endpoint} if endpoint else {}
        return {name: _usable(value) for name, value in {**self.tags, **known, **tags}.items()}


def flush() -> None:
    """Wait a moment until the thread has sent what it has: a process that ends would drop it."""
    if _sender.is_busy:
        done = threading.Event()
        _sender.put(done.set)
        done.wait(FLUSH_SECONDS)


class _Sender:
    """A thread that sends metrics, begun when it is first needed; a forked process begins its own."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may interrupt a put of its own thread.
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()
        self._has_put = 0
        self._has_sent = 0

    @property
    def is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and self._has_put != self._has_sent

    def put(self, send: Callable[[], object]) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._queue, self._has_put, self._has_sent = queue.SimpleQueue(), 0, 0
                self._thread = threading.Thread(target=self._run, name="odirouter-metrics", daemon=True)
                self._thread.start()
        if self._queue.qsize() >= MAX_QUEUED:
            log.debug("A metric is dropped: Airflow's metrics are not sent as fast as they come.")
            return
        self._has_put += 1
        self._queue.put(send)

    def _run(self) -> None:
        while True:
            self._queue.get()()
            self._has_sent += 1


_sender = _Sender()


def _emit(kind: str, name: str, value: float, tags: dict[str, str]) -> None:
    try:
        _sender.put(lambda: _send(kind, name, value, tags))
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise  # a kill
        log.debug("Metric %s is not sent: %r", name, error)


def _send(kind: str, name: str, value: float, tags: dict[str, str]) -> None:
    try:
        stats = get_stats()
        if stats is None:
            return
        getattr(stats, kind)(f"{PREFIX}{name}", value, tags=tags)
        if "dag_id" in tags and _has_names_with_ids():
            getattr(stats, kind)(f"{PREFIX}{name}.{_part(tags['dag_id'])}.{_part(tags['task_id'])}", value)
    except Exception as error:  # noqa: BLE001 - a task matters more than its metrics
        log.debug("Metric %s is not sent: %r", name, error)


@cache
def _has_names_with_ids() -> bool:
    """Return whether the ids of Dag and task are in a second name, too: plain StatsD has no tags."""
    return bool(conf.getboolean("metrics", "legacy_names_on", fallback=True))


@lru_cache(1000)
def _usable(value: str) -> str:
    """Return a tag's value as every backend takes it."""
    return re.sub(r"[^a-zA-Z0-9_./-]", "_", value)


def _part(value: str) -> str:
    """Return a part of a name, as Airflow writes it: a dot would begin another part."""
    return value.replace(".", "__").replace("/", "_")
