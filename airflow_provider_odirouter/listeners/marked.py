"""
What Airflow's API server calls when a person marks a task instance or a run.

The API server calls this for every task, ours or not. So each function here imports nothing, does no I/O, and returns
at once. Workers do not load this module: they would call the same functions at the end of each task.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from airflow_provider_odirouter.listeners.delay import Delay, Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

DELAY = 10.0
"""
Seconds from a mark to the check of its requests.

A trigger hears of a mark and begins its cancels within two seconds, a worker within five: after ten, there is usually
nothing left to cancel.
"""


def _cancel(marks: Sequence[Mark]) -> None:
    from airflow_provider_odirouter.listeners.instances import find_marked

    if found := find_marked(marks):
        from airflow_provider_odirouter.listeners.abandoned import cancel_abandoned

        cancel_abandoned(found, find_again=lambda: find_marked(marks))


_delay = Delay(_cancel, seconds=DELAY)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any) -> None:
    """Cancel the requests of a task instance that a person has marked as failed."""
    _note_task(previous_state, task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """Cancel the requests of a task instance that a person has marked as successful."""
    _note_task(previous_state, task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """Cancel the requests of a task instance that a person has marked as skipped (Airflow 3.2 and later)."""
    _note_task(previous_state, task_instance)


@hookimpl
def on_dag_run_failed(dag_run: Any) -> None:
    """Cancel all requests of a run that a person has marked as failed: Airflow does not name all of its tasks."""
    _note(lambda: Mark(dag_run.dag_id, dag_run.run_id))


@hookimpl
def on_dag_run_success(dag_run: Any) -> None:
    """Cancel all requests of a run that a person has marked as successful."""
    _note(lambda: Mark(dag_run.dag_id, dag_run.run_id))


def _note_task(previous_state: Any, task_instance: Any) -> None:
    # Airflow passes the previous state only for a task that has ended by itself.
    if previous_state is None:
        _note(lambda: Mark(task_instance.dag_id, task_instance.run_id, task_instance.id))


def _note(mark: Callable[[], Mark]) -> None:
    try:
        _delay.add(mark())
    except Exception:
        # An error would keep Airflow from calling the listeners of other plugins.
        log.exception("A marked task is not checked. If it has left a request running, that request is not cancelled.")
