"""The operator for any endpoint of the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_odirouter.json_values import json_object
from airflow_provider_odirouter.links import OdiRouterRequestLink
from airflow_provider_odirouter.operators.base import (
    Check,
    OdiRouterSubmittingTask,
    Place,
    flag_problem,
    name_problem,
    one_of,
    or_none,
    path_problem,
    seconds_problem,
    store_problem,
)
from airflow_provider_odirouter.operators.literals import is_open

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_odirouter.durability import Memory, OnLostSubmit, Submitted
    from airflow_provider_odirouter.models import RequestEvent
    from airflow_provider_odirouter.polling import Wait
    from airflow_provider_odirouter.records import RequestRecord

SAFETY_MARGIN = timedelta(minutes=5)
"""
How long after the trigger's own deadline Airflow ends a deferral that did not end itself: time for a last look and a
cancel at a service that hangs. Airflow then calls no ``on_kill``.
"""


class OdiRouterQueueOperator(OdiRouterSubmittingTask, BaseOperator):
    """
    Submit a request to an endpoint of OdiRouter's queue, wait for it, and bring its outputs home.

    It pushes XCom ``request_id`` and an extra link before it waits, and returns the manifest: ``{"request_id",
    "endpoint", "outputs": [{"path" or "url", "content_type", "width", "height", "size_bytes", "sha256"}],
    "submitted_at", "completed_at", "inference_seconds", "metadata"}``. Outputs never go through XCom.

    The event of an asset in ``outlets`` tells of the manifest in its ``extra`` (``request_id``, ``endpoint``,
    ``outputs``, ``inference_seconds``), beside what you put there; an ``AssetAlias`` stands for the outputs' folder.

    What a retry cannot cure (rejected parameters, a bad key, no balance, refused content) fails the task for good;
    so does a submit that brings no answer, since a second one could be paid too.

    :param endpoint: The model, such as ``gpt_image_2_edit``.
    :param parameters: The endpoint's parameters, sent as they are.
    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``.
    :param output_path: Folder for the outputs: a path, or a URL of any store that ``ObjectStoragePath`` knows, such as
        ``s3://bucket/edited``. It is tried before anything is paid. Without it, the manifest carries the vendor's
        links, which expire.
    :param storage_conn_id: The Airflow connection of the store, for URLs that name none themselves
        (``s3://aws_default@bucket/edited``).
    :param deferrable: Wait in the triggerer (default), not on the worker.
    :param wait_for_completion: If false, submit only, and return a manifest without outputs;
        :class:`~airflow_provider_odirouter.sensors.request.OdiRouterRequestSensor` waits elsewhere.
    :param poll_interval: Seconds between looks at the request. Default: 5.
    :param timeout: Seconds from the submission to the end of the wait. Default: 900. ``execution_timeout`` counts too,
        if it is shorter. A retry that goes on with the request of the try before it has its own.
    :param cancel_on_kill: Cancel the request when the task is killed, cleared or marked. Default: true.
    :param cancel_on_timeout: Cancel the request when ``timeout`` has passed, or when it cannot be looked at any more
        and no retry will. Default: true.
    :param durable: Remember the request between tries, crashes included: a retry waits for a live request, and takes
        the result of one that has succeeded. Clearing the task takes a result as well, but cancels a live request and
        submits afresh. Airflow 3.3 has a store for that; before, the notes lie beside the outputs
        (``{output_path}/.odirouter/``), so that it needs an ``output_path`` that is the same in each try.
        Default: true.
    :param on_lost_submit: What a retry does if the worker died during the submit, so that nobody knows whether a
        request was made and paid: ``"submit"`` again, with a warning (default), or ``"fail"``, until the task is
        cleared.
    """

    template_fields: Sequence[str] = ("endpoint", "parameters", "odirouter_conn_id", "output_path", "storage_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    operator_extra_links = (OdiRouterRequestLink(),)
    ui_color = "#e8e0ff"
    checks: ClassVar[Mapping[str, Check]] = {
        "endpoint": name_problem,
        "odirouter_conn_id": name_problem,
        "output_path": or_none(path_problem),
        "storage_conn_id": store_problem,
        "deferrable": flag_problem,
        "wait_for_completion": flag_problem,
        "poll_interval": seconds_problem,
        "timeout": seconds_problem,
        "cancel_on_kill": flag_problem,
        "cancel_on_timeout": flag_problem,
        "durable": flag_problem,
        "on_lost_submit": one_of("submit", "fail"),
    }

    def __init__(
        self,
        *,
        endpoint: str,
        parameters: Mapping[str, Any],
        odirouter_conn_id: str = "odirouter_default",
        output_path: Place | None = None,
        storage_conn_id: str | None = None,
        deferrable: bool = True,
        wait_for_completion: bool = True,
        poll_interval: float = 5.0,
        timeout: float = 900.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        durable: bool = True,
        on_lost_submit: OnLostSubmit = "submit",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.parameters = parameters
        self.odirouter_conn_id = odirouter_conn_id
        self.output_path = output_path
        self.storage_conn_id = storage_conn_id
        self.deferrable = deferrable
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.durable = durable
        self.on_lost_submit = on_lost_submit
        self._manifest: dict[str, Any] | None = None
        # A mapped task is made anew on the worker, where execute() checks: what it finds there is final.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            self.check_own(rendered=False)
            if not _is_open_itself(parameters):
                json_object(str(endpoint), parameters, is_open=_is_open_itself)

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit, or go on with the request of an earlier try; wait, and return the manifest."""
        from airflow_provider_odirouter.images import landing
        from airflow_provider_odirouter.operators import recovery, steps
        from airflow_provider_odirouter.operators.custody import OneRequest

        with (
            steps.showing_failure(context, self.take_ownership(context)),
            steps.airflow_errors(),
            recovery.telling_costs(context),
        ):
            memory = self._memory(context, has_begun=False)
            custody = self.take_custody(context, self.endpoint, memory)
            if self.durable and not memory.lasts:
                self.log.info(
                    "Airflow remembers requests between tries from 3.3 on; here, and without an output_path, a new try "
                    "submits anew."
                )
            with recovery.cancelling_if_no_try_begins(
                self.hook, memory, last_try=not steps.is_tried_again(context), cancels=self.cancel_on_timeout
            ):
                # After the submit, only the network may fail: what could raise then has been made before.
                self.check_own(rendered=True)
                self.hook.prepare()
                parameters = json_object(self.endpoint, self.request_parameters(), name="")
                record = self._record()
                if self.output_path is not None:
                    landing.probe(self.output_path, self.storage_conn_id)
                    steps.tell_what_a_local_path_needs(self.output_path)
                intent = recovery.intent_of(context, self.odirouter_conn_id, self.endpoint, parameters)
                earlier = recovery.earlier_request(
                    self.hook, memory, intent, cancel_live=self.cancel_on_kill, on_lost_submit=self.on_lost_submit
                )
            if earlier is None:
                custody.stop_if_killed()
            request = earlier.request if earlier else recovery.submit(self.hook, memory, intent, parameters)
            charge = OneRequest(self.hook, self.endpoint, request.request_id, memory)
            with custody.of(charge, note=lambda: memory.note(request)):
                wait = self._wait(context, request) if self.wait_for_completion else None
                deadline = datetime.fromtimestamp(wait.deadline, UTC) if wait else None
                known = {"request_id": request.request_id, "submitted_at": request.submitted_at, "deadline": deadline}
                steps.publish(context, self.hook, record.model_copy(update=known))
                if wait is None:
                    memory.done()
                    return self._submitted(context, request)
                if self.deferrable and not (earlier and earlier.succeeded):
                    custody.stop_if_ended()
                    self._defer(wait)
                event = steps.wait_here(self.hook, wait)
            return self._finish(context, event)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on where the trigger's event says how the wait has ended."""
        from airflow_provider_odirouter.models import RequestEvent
        from airflow_provider_odirouter.operators import steps

        with steps.showing_failure(context, self.take_ownership(context)), steps.airflow_errors():
            return self._finish(context, RequestEvent.model_validate(event))

    def execute_without_trigger(
        self, context: Context, error: str = "Unknown", traceback: list[str] | None = None
    ) -> dict[str, Any]:
        """
        Have a last look at a request whose trigger has crashed, or did not end in time, and go on from there.

        :param error: Airflow's reason.
        :param traceback: Of the trigger's crash.
        """
        from airflow_provider_odirouter.operators import recovery, steps
        from airflow_provider_odirouter.operators.custody import OneRequest

        with steps.showing_failure(context, self.take_ownership(context)), steps.airflow_errors():
            memory = self._memory(context)
            wait = recovery.wait_without_trigger(
                context, memory, self.endpoint, cancel_on_timeout=self.cancel_on_timeout
            )
            self.hook.prepare()  # a signal handler may interrupt a question to Airflow, and ask none
            request = OneRequest(self.hook, self.endpoint, wait.request_id, memory)
            with self.take_custody(context, self.endpoint, memory).of(request):
                event = steps.last_look(self.hook, wait, error, traceback)
            return self._finish(context, event)

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Tell OpenLineage what was read and what has landed; only its provider calls this."""
        from airflow_provider_odirouter.operators import lineage

        return lineage.openlineage(self.input_pictures(), lineage.landed(self._manifest))

    def request_parameters(self) -> Mapping[str, Any]:
        """
        Return what is sent, checked.

        :raises InvalidParametersError: If a rule of the endpoint is broken.
        """
        self.parameters = json_object(self.endpoint, self.parameters)
        return self.parameters

    def input_pictures(self) -> Sequence[str]:
        """Return where the input pictures are from, as far as the operator knows of any."""
        return ()

    def shown_parameters(self) -> Mapping[str, Any]:
        """Return what the gallery shows: ``parameters``, and ``images`` and ``mask`` if there are any."""
        from airflow_provider_odirouter.records import shortened

        return {"parameters": shortened(self.parameters)}

    def _memory(self, context: Context, *, has_begun: bool = True) -> Memory:
        from airflow_provider_odirouter.operators import recovery

        return recovery.memory_of(
            context,
            durable=self.durable,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            has_begun=has_begun,
        )

    def _wait(self, context: Context, request: Submitted) -> Wait:
        """A try that goes on with an earlier one's request has its own ``timeout``, as any try."""
        from airflow_provider_odirouter.operators import steps
        from airflow_provider_odirouter.polling import Wait

        deadline = steps.deadline(context, self.execution_timeout, datetime.now(UTC), self.timeout)
        return Wait(
            endpoint=self.endpoint,
            request_id=request.request_id,
            poll_interval=self.poll_interval,
            deadline=deadline.timestamp(),
            cancel_on_timeout=self.cancel_on_timeout,
            submitted_at=request.submitted_at.timestamp(),
        )

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
        from airflow_provider_odirouter.errors import OdiRouterError
        from airflow_provider_odirouter.models import Ending
        from airflow_provider_odirouter.operators import lineage, recovery, steps
        from airflow_provider_odirouter.polling import SUBMITS_ANEW, may_be_alive

        memory = self._memory(context)
        tried_again = steps.is_tried_again(context)
        goes_on = memory.lasts and tried_again
        if event.ending is Ending.UNWATCHED and self.cancel_on_timeout and not goes_on:
            event = event.given_up(steps.cancel(self.hook, self.endpoint, event.request_id))
        try:
            manifest = steps.finish(
                context,
                self.hook,
                event,
                output_path=self.output_path,
                storage_conn_id=self.storage_conn_id,
                retry="a retry goes on with it" if goes_on and may_be_alive(event) else SUBMITS_ANEW,
                landing_advice=recovery.landing_advice(memory),
            )
        except OdiRouterError as error:
            if not tried_again:
                recovery.give_up_outputs(error)
            if error.request_over:
                memory.forget()
            raise
        self._manifest = manifest
        folder = self.output_path if manifest["outputs"] else None
        lineage.describe_assets(context, self.outlets, lineage.essentials(manifest), folder=folder)
        memory.done()
        return manifest

    def _record(self) -> RequestRecord:
        """
        Return what the gallery shows of the request, but for what is not known before its submit.

        :raises InvalidParametersError: If that cannot be pushed.
        """
        from airflow_provider_odirouter.records import RequestRecord

        record = RequestRecord(
            request_id="",
            endpoint=self.endpoint,
            odirouter_conn_id=self.odirouter_conn_id,
            # Without a wait, the request is that of whoever waits elsewhere.
            cancel_on_kill=self.cancel_on_kill and self.wait_for_completion,
            **self.shown_parameters(),
        )
        json_object(self.endpoint, record.to_xcom(), name="shown_parameters")
        return record

    def _submitted(self, context: Context, request: Submitted) -> dict[str, Any]:
        from airflow_provider_odirouter.models import Manifest
        from airflow_provider_odirouter.operators import lineage

        manifest = Manifest(
            request_id=request.request_id, endpoint=self.endpoint, submitted_at=request.submitted_at
        ).to_xcom()
        lineage.describe_assets(context, self.outlets, lineage.essentials(manifest), folder=None)
        return manifest


def _is_open_itself(value: object) -> bool:
    """Return whether a value is known only when the task runs; what a list holds is asked for one by one."""
    return not isinstance(value, list | tuple) and is_open(value)
