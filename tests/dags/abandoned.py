"""Tasks that lose their trigger while they are deferred."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_odirouter.compat import TRIGGER_FAIL_REPR, TaskDeferred, TriggerFailureReason
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor

TIMEOUT = TriggerFailureReason.TRIGGER_TIMEOUT.value
CRASH = TriggerFailureReason.TRIGGER_FAILURE.value


def nothing(_: Any) -> None:
    """Do nothing."""


def cancelling(sandbox: Sandbox) -> Callable[[Any], None]:
    """Cancel all requests, as a trigger does before Airflow 3.3, when Airflow ends it together with its deferral."""

    def cancel(_: Any) -> None:
        for request_id in sandbox.alive:
            OdiRouterHook().cancel("gpt_image_1_edit", request_id)

    return cancel


class Abandoned:
    """A task whose trigger ends without an event in its first try, for a reason of Airflow's."""

    reason: str
    meanwhile: Callable[[Any], None]

    def execute(self, context: Any) -> Any:
        task: Any = super()
        try:
            return task.execute(context)
        except TaskDeferred:
            if context["ti"].try_number > 1:
                raise
        self.meanwhile(context)
        # As a worker does then.
        arguments = {"error": self.reason, "traceback": ["Traceback of the trigger"]}
        return task.resume_execution(TRIGGER_FAIL_REPR, arguments, context)


class AbandonedEdit(Abandoned, OdiRouterImageEditOperator):
    """An edit that loses its trigger."""

    def __init__(self, *, reason: str, meanwhile: Callable[[Any], None] = nothing, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.reason, self.meanwhile = reason, meanwhile


class AbandonedBatch(Abandoned, OdiRouterImageEditBatchOperator):
    """A batch that loses its trigger."""

    def __init__(self, *, reason: str, meanwhile: Callable[[Any], None] = nothing, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.reason, self.meanwhile = reason, meanwhile


class AbandonedSensor(Abandoned, OdiRouterRequestSensor):
    """A sensor that loses its trigger."""

    def __init__(self, *, reason: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.reason, self.meanwhile = reason, nothing
