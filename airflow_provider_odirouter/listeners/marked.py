"""
What Airflow's API server calls when a person marks a task instance or a run.

It says so to all plugins, whatever task it is: so this loads nothing, asks nothing, and returns at once. Workers, which
do not load it, would call the same functions at the end of each task.
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
Seconds from a mark to the look at its requests. A trigger needs two to hear of it and to begin its cancels, a worker
up to five: they come first, and there is nothing left to do.
"""


def _cancel(marks: Sequence[Mark]) -> None:
    from airflow_provider_odirouter.listeners.instances import find

    if found := find(marks):
        from airflow_provider_odirouter.listeners.orphans import cancel_orphans

        cancel_orphans(found, look_again=lambda: find(marks))


_delay = Delay(_cancel, seconds=DELAY)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any) -> None:
    """See to the requests of a task instance that a person has marked as failed."""
    _note_task(previous_state, task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """See to the requests of a task instance that a person has marked as successful."""
    _note_task(previous_state, task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """See to the requests of a task instance that a person has marked as skipped (Airflow 3.2 and later)."""
    _note_task(previous_state, task_instance)


@hookimpl
def on_dag_run_failed(dag_run: Any) -> None:
    """See to all requests of a run that a person has marked as failed: Airflow names not all of its tasks."""
    _note(lambda: Mark(dag_run.dag_id, dag_run.run_id))


@hookimpl
def on_dag_run_success(dag_run: Any) -> None:
    """See to all requests of a run that a person has marked as successful."""
    _note(lambda: Mark(dag_run.dag_id, dag_run.run_id))


def _note_task(previous_state: Any, task_instance: Any) -> None:
    # Of a task that has ended by itself, Airflow knows the state before.
    if previous_state is None:
        _note(lambda: Mark(task_instance.dag_id, task_instance.run_id, task_instance.id))


def _note(mark: Callable[[], Mark]) -> None:
    try:
        _delay.add(mark())
    except Exception:
        # Airflow would call no other plugin's listener.
        log.exception("A mark could not be noted; if its task waits for a request, nothing cancels that.")
