"""The function of a decorated task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_odirouter.compat import DecoratedOperator, context_merge, determine_kwargs

if TYPE_CHECKING:
    from airflow.sdk import Context


def call_function(task: DecoratedOperator, context: Context) -> Any:
    """Call the function of a task with its arguments, and with what it asks for of Airflow's context."""
    context_merge(context, task.op_kwargs)
    kwargs = determine_kwargs(task.python_callable, task.op_args, context)
    return task.python_callable(*task.op_args, **kwargs)
