"""The operator for any endpoint of the queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_odirouter.links import OdiRouterRequestLink

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
    from airflow_provider_odirouter.models import RequestEvent
    from airflow_provider_odirouter.polling import Wait

SAFETY_MARGIN = timedelta(minutes=5)
"""
How long after the trigger's own deadline Airflow ends a deferral that did not end itself: time for a last look and a
cancel at a service that hangs. Airflow then calls no ``on_kill``.
"""


class OdiRouterQueueOperator(BaseOperator):
    """
    Submit a request to an endpoint of OdiRouter's queue, wait for it, and bring its outputs home.

    It pushes XCom ``request_id`` and an extra link before it waits, and returns the manifest: ``{"request_id",
    "endpoint", "outputs": [{"path" or "url", "content_type", "width", "height", "size_bytes", "sha256"}],
    "submitted_at", "completed_at", "inference_seconds", "metadata"}``. Outputs never go through XCom.

    What a retry cannot cure (rejected parameters, a bad key, no balance, refused content) fails the task for good;
    so does a submit whose fate is unknown, since a second one could be paid too.

    :param endpoint: The model, such as ``gpt_image_2_edit``.
    :param parameters: The endpoint's parameters, sent as they are.
    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``.
    :param output_path: Folder for the outputs: a path or a ``file://`` URL. It is tried before anything is paid.
        Without it, the manifest carries the vendor's links, which expire.
    :param deferrable: Wait in the triggerer (default), not on the worker.
    :param wait_for_completion: If false, submit only, and return a manifest without outputs;
        :class:`~airflow_provider_odirouter.sensors.request.OdiRouterRequestSensor` waits elsewhere.
    :param poll_interval: Seconds between looks at the request. Default: 5.
    :param timeout: Seconds from the submission to the end of the wait. Default: 900. ``execution_timeout`` counts too,
        if it is shorter.
    :param cancel_on_kill: Cancel the request when the task is killed, cleared or marked. Default: true.
    :param cancel_on_timeout: Cancel the request when ``timeout`` has passed, or when it cannot be looked at any more.
        Default: true.
    """

    template_fields: Sequence[str] = ("endpoint", "parameters", "odirouter_conn_id", "output_path")
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    operator_extra_links = (OdiRouterRequestLink(),)
    ui_color = "#e8e0ff"

    def __init__(
        self,
        *,
        endpoint: str,
        parameters: Mapping[str, Any],
        odirouter_conn_id: str = "odirouter_default",
        output_path: str | None = None,
        deferrable: bool = True,
        wait_for_completion: bool = True,
        poll_interval: float = 5.0,
        timeout: float = 900.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, seconds in (("poll_interval", poll_interval), ("timeout", timeout)):
            if not isinstance(seconds, int | float) or seconds <= 0:
                raise ValueError(f"{name} must be a number, more than 0 seconds, not {seconds!r}")
        self.endpoint = endpoint
        self.parameters = parameters
        self.odirouter_conn_id = odirouter_conn_id
        self.output_path = output_path
        self.deferrable = deferrable
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self._hook: OdiRouterHook | None = None
        self._alive: str | None = None
        self._killed = False

    @property
    def hook(self) -> OdiRouterHook:
        """The hook, made when it is first needed."""
        from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

        if self._hook is None:
            self._hook = OdiRouterHook(self.odirouter_conn_id)
        return self._hook

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit, wait, and return the manifest."""
        from airflow_provider_odirouter.images import landing
        from airflow_provider_odirouter.operators import steps
        from airflow_provider_odirouter.polling import Wait

        with steps.airflow_errors():
            parameters = self.request_parameters()
            if self.output_path is not None:
                landing.probe(self.output_path)
            self._stop_if_killed()
            request_id = self.hook.submit(self.endpoint, parameters).request_id
            with self._alive_until_handed_over(request_id):
                self.log.info("Submitted request %s to %s.", request_id, self.endpoint)
                self._stop_if_killed()
                submitted_at = datetime.now(UTC)
                steps.publish(context, self.hook, self.endpoint, request_id)
                if not self.wait_for_completion:
                    return self._submitted(request_id, submitted_at)
                deadline = steps.deadline(context, self.execution_timeout, submitted_at, self.timeout)
                wait = Wait(
                    endpoint=self.endpoint,
                    request_id=request_id,
                    poll_interval=self.poll_interval,
                    deadline=deadline.timestamp(),
                    cancel_on_timeout=self.cancel_on_timeout,
                    submitted_at=submitted_at.timestamp(),
                )
                if self.deferrable:
                    self._stop_if_killed()
                    self._defer(wait)
                event = steps.wait_here(self.hook, wait)
            return self._finish(context, event)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on where the trigger's event says how the wait has ended."""
        from airflow_provider_odirouter.models import RequestEvent
        from airflow_provider_odirouter.operators import steps

        with steps.airflow_errors():
            return self._finish(context, RequestEvent.model_validate(event))

    def on_kill(self) -> None:
        """Cancel the request if the task is killed while it runs on a worker. A trigger does it while deferred."""
        self._killed = True
        if self.cancel_on_kill:
            self._cancel_alive()

    def request_parameters(self) -> Mapping[str, Any]:
        """
        Return what is sent, checked.

        :raises InvalidParametersError: If a rule of the endpoint is broken.
        """
        return self.parameters

    @contextmanager
    def _alive_until_handed_over(self, request_id: str) -> Iterator[None]:
        """Know a request as alive until it is a trigger's, has ended, or is another task's; cancel it if that fails."""
        from airflow_provider_odirouter.compat import TaskDeferred

        self._alive = request_id
        try:
            yield
        except TaskDeferred:
            self._alive = None
            raise
        except BaseException:
            if self.cancel_on_kill or not self._killed:
                self._cancel_alive()
            raise
        self._alive = None

    def _stop_if_killed(self) -> None:
        # Airflow calls on_kill from a signal handler, and what was interrupted by it goes on.
        if self._killed:
            raise RuntimeError("The task was killed.")

    def _cancel_alive(self) -> None:
        from airflow_provider_odirouter.operators import steps

        if self._alive:
            request_id, self._alive = self._alive, None
            steps.cancel(self.hook, self.endpoint, request_id)

    def _defer(self, wait: Wait) -> None:
        from airflow_provider_odirouter.triggers.request import OdiRouterRequestTrigger

        # Everything that execute_complete() needs travels in the trigger and its event: dag.test() drops the kwargs of
        # a deferral (Airflow 3.3).
        self.defer(
            trigger=OdiRouterRequestTrigger(
                odirouter_conn_id=self.odirouter_conn_id, cancel_on_kill=self.cancel_on_kill, **asdict(wait)
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=wait.deadline - datetime.now(UTC).timestamp()) + SAFETY_MARGIN,
        )

    def _finish(self, context: Context, event: RequestEvent) -> dict[str, Any]:
        from airflow_provider_odirouter.models import Ending
        from airflow_provider_odirouter.operators import steps

        if event.ending is Ending.UNWATCHED and self.cancel_on_timeout:
            # Nobody will wait for it any more: a retry submits anew.
            event = event.given_up(steps.cancel(self.hook, self.endpoint, event.request_id))
        return steps.finish(context, self.hook, event, output_path=self.output_path)

    def _submitted(self, request_id: str, submitted_at: datetime) -> dict[str, Any]:
        from airflow_provider_odirouter.models import Manifest

        return Manifest(request_id=request_id, endpoint=self.endpoint, submitted_at=submitted_at).to_xcom()
