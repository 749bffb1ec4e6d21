"""The sensor that waits for a request which another task has submitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_odirouter.links import OdiRouterRequestLink
from airflow_provider_odirouter.operators.base import (
    MAX_SECONDS,
    Check,
    OdiRouterTask,
    Place,
    flag_problem,
    name_problem,
    or_none,
    path_problem,
    seconds_problem,
    store_problem,
)
from airflow_provider_odirouter.operators.queue import SAFETY_MARGIN

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_odirouter.models import RequestEvent


class OdiRouterRequestSensor(OdiRouterTask, BaseSensorOperator):
    """
    Wait for a request that another task has submitted, bring its outputs home, and return the manifest.

    The request belongs to the task that submitted it: a sensor that is killed, cleared or times out leaves it running
    unless told otherwise, so that a new try of the sensor can wait for it again.

    :param request_id: The request, such as ``{{ ti.xcom_pull(task_ids="submit", key="request_id") }}``.
    :param endpoint: The model that it was submitted to. Default: ``gpt_image_1_edit``.
    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``: with the key that submitted the request.
    :param output_path: Folder for the outputs: a path, or a URL of a store such as ``s3://bucket/edited``.
    :param storage_conn_id: The Airflow connection of the store, if the URL names none itself.
    :param deferrable: Wait in the triggerer (default). If false, ``mode`` and ``poke_interval`` are a sensor's usual.
    :param poll_interval: Seconds between looks while deferred. Default: 5.
    :param timeout: Seconds for the wait. Default: 900.
    :param cancel_on_kill: Cancel the request when the sensor is killed while deferred. Default: false.
    :param cancel_on_timeout: Cancel the request when ``timeout`` has passed while deferred. Default: false.
    """

    template_fields: Sequence[str] = ("endpoint", "request_id", "odirouter_conn_id", "output_path", "storage_conn_id")
    operator_extra_links = (OdiRouterRequestLink(),)
    ui_color = "#e8e0ff"
    checks: ClassVar[Mapping[str, Check]] = {
        "request_id": name_problem,
        "endpoint": name_problem,
        "odirouter_conn_id": name_problem,
        "output_path": or_none(path_problem),
        "storage_conn_id": store_problem,
        "deferrable": flag_problem,
        "poll_interval": seconds_problem,
        "timeout": lambda seconds: None if seconds == 0 else seconds_problem(seconds),
        "cancel_on_kill": flag_problem,
        "cancel_on_timeout": flag_problem,
    }

    def __init__(
        self,
        *,
        request_id: str,
        endpoint: str = "gpt_image_1_edit",
        odirouter_conn_id: str = "odirouter_default",
        output_path: Place | None = None,
        storage_conn_id: str | None = None,
        deferrable: bool = True,
        poll_interval: float = 5.0,
        timeout: float = 900.0,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(timeout, int | float) and not timeout <= MAX_SECONDS:
            # Airflow's own error would be of arithmetic.
            raise ValueError(f"timeout {seconds_problem(timeout)}")
        super().__init__(timeout=timeout, **kwargs)
        self.request_id = request_id
        self.endpoint = endpoint
        self.odirouter_conn_id = odirouter_conn_id
        self.output_path = output_path
        self.storage_conn_id = storage_conn_id
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self._manifest: dict[str, Any] | None = None
        self._not_found = 0
        if not getattr(self, "_BaseOperator__from_mapped", False):
            self.check_own(rendered=False)

    def execute(self, context: Context) -> Any:
        """Wait, and return the manifest."""
        from airflow_provider_odirouter.images import landing
        from airflow_provider_odirouter.operators import steps
        from airflow_provider_odirouter.records import RequestRecord

        with self._sensor_errors(context):
            self.check_own(rendered=True)
            if self.output_path is not None:
                landing.probe(self.output_path, self.storage_conn_id)
            deadline = steps.deadline(context, self.execution_timeout, datetime.now(UTC), self.timeout)
            record = RequestRecord(
                request_id=self.request_id,
                endpoint=self.endpoint,
                odirouter_conn_id=self.odirouter_conn_id,
                cancel_on_kill=self.cancel_on_kill and self.deferrable,
                deadline=deadline,
            )
            steps.publish(context, self.hook, record)
            if self.deferrable:
                self._defer(deadline)
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look once; a look that fails in passing is no failure of the request."""
        from airflow_provider_odirouter.errors import OdiRouterError, RequestNotFoundError
        from airflow_provider_odirouter.polling import MAX_NOT_FOUND, Wait, ended

        with self._sensor_errors(context):
            try:
                status = self.hook.get_status(self.endpoint, self.request_id)
            except OdiRouterError as error:
                missing = isinstance(error, RequestNotFoundError)
                self._not_found = self._not_found + 1 if missing else 0
                if not error.passing and not (missing and self._not_found < MAX_NOT_FOUND):
                    raise
                self.log.warning("%s The sensor goes on.", error)
                return False
            self._not_found = 0
            self.log.info("Request %s is %s.", self.request_id, status.word)
            if not status.state.terminal:
                return False
            wait = Wait(self.endpoint, self.request_id, self.poke_interval, self.timeout, self.cancel_on_timeout)
            event = ended(wait, status, at=datetime.now(UTC).timestamp())
            return PokeReturnValue(is_done=True, xcom_value=self._finish(context, event))

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on where the trigger's event says how the wait has ended."""
        from airflow_provider_odirouter.models import RequestEvent

        with self._sensor_errors(context):
            return self._finish(context, RequestEvent.model_validate(event))

    def execute_without_trigger(
        self, context: Context, error: str = "Unknown", traceback: list[str] | None = None
    ) -> dict[str, Any]:
        """
        Have a last look at a request whose trigger has crashed, or did not end in time, and go on from there.

        :param error: Airflow's reason.
        :param traceback: Of the trigger's crash.
        """
        from airflow_provider_odirouter.operators import steps
        from airflow_provider_odirouter.polling import Wait

        with self._sensor_errors(context):
            wait = Wait(
                endpoint=self.endpoint,
                request_id=self.request_id,
                poll_interval=0.0,
                deadline=datetime.now(UTC).timestamp(),
                cancel_on_timeout=self.cancel_on_timeout,
            )
            return self._finish(context, steps.last_look(self.hook, wait, error, traceback))

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Tell OpenLineage what has landed; only its provider calls this."""
        from airflow_provider_odirouter.operators import lineage

        return lineage.openlineage((), lineage.landed(self._manifest))

    def _defer(self, deadline: datetime) -> None:
        from airflow_provider_odirouter.triggers.request import OdiRouterRequestTrigger

        self.defer(
            trigger=OdiRouterRequestTrigger(
                odirouter_conn_id=self.odirouter_conn_id,
                endpoint=self.endpoint,
                request_id=self.request_id,
                deadline=deadline.timestamp(),
                poll_interval=self.poll_interval,
                cancel_on_kill=self.cancel_on_kill,
                cancel_on_timeout=self.cancel_on_timeout,
            ),
            method_name="execute_complete",
            timeout=deadline - datetime.now(UTC) + SAFETY_MARGIN,
        )

    def _finish(self, context: Context, event: RequestEvent) -> dict[str, Any]:
        from airflow_provider_odirouter.operators import lineage, steps

        retry = "clear the task that submitted it, to submit a new one"
        self._manifest = steps.finish(
            context,
            self.hook,
            event,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            retry=retry,
        )
        folder = self.output_path if self._manifest["outputs"] else None
        lineage.describe_assets(context, self.outlets, lineage.essentials(self._manifest), folder=folder)
        return self._manifest

    @contextmanager
    def _sensor_errors(self, context: Context) -> Iterator[None]:
        """Skip instead of failing, with ``never_fail``; Airflow itself does so only where it pokes."""
        from airflow_provider_odirouter.compat import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
        from airflow_provider_odirouter.errors import OdiRouterError
        from airflow_provider_odirouter.operators import steps

        try:
            with steps.showing_failure(context, self.take_ownership(context)), self._told_errors():
                yield
        except (OdiRouterError, AirflowFailException, AirflowSensorTimeout) as error:
            if self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        """
        Raise what Airflow knows of a sensor, so that ``soft_fail`` works while deferred too.

        A sensor does not submit: what has ended badly ends in the same way in its next try.
        """
        from airflow_provider_odirouter.compat import (
            AirflowFailException,
            AirflowSensorTimeout,
        )
        from airflow_provider_odirouter.errors import (
            AnswerError,
            LandingError,
            RequestError,
            RequestTimeoutError,
            RequestUnwatchedError,
            TransportError,
        )
        from airflow_provider_odirouter.operators import steps

        try:
            with steps.airflow_errors():
                yield
        except RequestTimeoutError as error:
            if not self.cancel_on_timeout:
                error.advice = "It may still be running: clear this sensor to wait for it again."
            raise AirflowSensorTimeout(str(error)) from error
        except (RequestUnwatchedError, LandingError, TransportError, AnswerError) as error:
            error.advice = "A retry of this sensor tries it again."
            raise
        except RequestError as error:
            error.advice = "Clear the task that submitted it, to submit a new one."
            raise AirflowFailException(str(error)) from error
