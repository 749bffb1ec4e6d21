"""The sensor that waits for a request that another task has submitted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_odirouter import IMAGE_EDIT_ENDPOINT
from airflow_provider_odirouter.compat import is_mapped_on_worker
from airflow_provider_odirouter.operators.base import OdiRouterTask
from airflow_provider_odirouter.parameter_checks import (
    MAX_SECONDS,
    MISSING_WORDS,
    Check,
    flag_problem,
    name_problem,
    or_none,
    path_problem,
    seconds_problem,
    store_problem,
)
from airflow_provider_odirouter.storage.path_fields import PathLike
from airflow_provider_odirouter.xcoms import OdiRouterRequestLink

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_odirouter.models import RequestEvent, RequestStatus


DEFAULT_POLL_INTERVAL = 5.0
DEFAULT_POKE_INTERVAL = 60.0
"""Airflow's own."""
MAX_UNKNOWN_SECONDS = 60.0
"""After the first poke, for which the service may not know a request that was just submitted."""
CLEAR_THE_OTHER_TASK = "clear the task that submitted it, to submit a new one"


def request_id_problem(request_id: object) -> str | None:
    """Return what is wrong with a request id, as the rest of a sentence; ``None``: nothing."""
    if request_id is None or (isinstance(request_id, str) and request_id.strip() in MISSING_WORDS):
        return (
            f"is {request_id!r}: there is no request to wait for; the task that submits must have pushed its XCom "
            "request_id, and the template must name that task"
        )
    if _is_collection(request_id):
        kind = type(request_id).__name__
        return (
            f"must be the id of one request, not a {kind}; for several requests, map the sensor: .expand(request_id=…)"
        )
    if not isinstance(request_id, str):
        return f"must be the id of a request, which is a text, not {request_id!r:.60}"
    return name_problem(request_id)


class OdiRouterRequestSensor(OdiRouterTask, BaseSensorOperator):
    """
    Wait for a request that another task has submitted, land its outputs, and return the manifest.

    The request belongs to the task that submitted it. A sensor that is killed, is cleared or times out does not cancel
    it by default, so that a new try of the sensor can wait for it again.

    :param request_id: The request's id, such as ``{{ ti.xcom_pull(task_ids="submit", key="request_id") }}``.
    :param endpoint: The model that it was submitted to. Default: ``gpt_image_1_edit``.
    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``, with the key that submitted the request.
    :param output_path: Folder for the outputs: a path, or a URL of a store such as ``s3://bucket/edited``. Without it,
        the manifest has the vendor's links, which expire.
    :param storage_conn_id: The Airflow connection of the store, if the URL does not name one itself.
    :param deferrable: Wait in the triggerer (default, whatever ``[operators] default_deferrable`` says). If false,
        ``mode`` and ``poke_interval`` apply, as usual.
    :param poll_interval: Seconds between polls. Default: 5 while deferred, else 60.
    :param poke_interval: Airflow's name for ``poll_interval``, also as ``timedelta``.
    :param timeout: Seconds that the sensor waits. Default: 900.
    :param cancel_on_kill: Cancel the request when the sensor is killed while deferred. Default: false.
    :param cancel_on_timeout: Cancel the request when ``timeout`` has passed while deferred. Default: false.
    """

    template_fields: Sequence[str] = ("endpoint", "request_id", "odirouter_conn_id", "output_path", "storage_conn_id")
    operator_extra_links = (OdiRouterRequestLink(),)
    ui_color = "#e8e0ff"
    checks: ClassVar[Mapping[str, Check]] = {
        "request_id": request_id_problem,
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
        endpoint: str = IMAGE_EDIT_ENDPOINT,
        odirouter_conn_id: str = "odirouter_default",
        output_path: PathLike | None = None,
        storage_conn_id: str | None = None,
        deferrable: bool = True,
        poll_interval: float | None = None,
        poke_interval: timedelta | float | None = None,
        timeout: float = 900.0,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(timeout, int | float) and not timeout <= MAX_SECONDS:
            # Airflow's own error would be about arithmetic.
            raise ValueError(f"timeout {seconds_problem(timeout)}")
        interval = _one_interval(poll_interval, poke_interval)
        super().__init__(
            timeout=timeout, poke_interval=DEFAULT_POKE_INTERVAL if interval is None else interval, **kwargs
        )
        self.request_id = request_id
        self.endpoint = endpoint
        self.odirouter_conn_id = odirouter_conn_id
        self.output_path = self._given_output_path = output_path
        self.storage_conn_id = storage_conn_id
        self.deferrable = deferrable
        self.poll_interval = DEFAULT_POLL_INTERVAL if interval is None else interval
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self._manifest: dict[str, Any] | None = None
        self._not_found = 0
        if not is_mapped_on_worker(self):
            if _is_collection(request_id):  # whatever its templates become
                raise ValueError(f"request_id {request_id_problem(request_id)}")
            self.check_parameters(rendered=False)

    def execute(self, context: Context) -> Any:
        """Wait, and return the manifest."""
        from airflow_provider_odirouter.images import landing
        from airflow_provider_odirouter.lifecycle.polling import deadline_of
        from airflow_provider_odirouter.lifecycle.wait import end_of_execution
        from airflow_provider_odirouter.xcoms import RequestRecord, push_request

        with self._sensor_errors(context, soft_fail=False):
            self.check_parameters(rendered=True)
            if self.output_path is not None:
                landing.probe(self.output_path, self.storage_conn_id)
            waiting_since = self._first_poke(context) or datetime.now(UTC)
            ends_at = end_of_execution(context, self.execution_timeout)
            deadline = deadline_of(waiting_since, self.timeout, ends_at)
            record = RequestRecord(
                request_id=self.request_id,
                endpoint=self.endpoint,
                odirouter_conn_id=self.odirouter_conn_id,
                cancel_on_kill=self.cancel_on_kill and self.deferrable,
                waiting_since=waiting_since,
                deadline=deadline,
            )
            self.hook.before_call()
            push_request(context["ti"], record, self.hook.request_url)
            if self.deferrable:
                self.defer_for(self.make_wait(self.request_id, deadline))
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll; a transient error does not end the wait."""
        from airflow_provider_odirouter.lifecycle.polling import event_of_status

        with self._sensor_errors(context):
            status = self._poll(context)
            if status is None:
                return False
            self.log.info("Request %s is %s.", self.request_id, status.raw_status)
            if not status.state.is_terminal:
                return False
            now = datetime.now(UTC)
            event = event_of_status(status, self.make_wait(self.request_id, now), at=now.timestamp())
            return PokeReturnValue(is_done=True, xcom_value=self._finish(context, event))

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resume with the trigger's event."""
        from airflow_provider_odirouter.models import RequestEvent

        with self._sensor_errors(context):
            return self._finish(context, RequestEvent.model_validate(event))

    def execute_without_trigger(
        self, context: Context, error: str = "Unknown", traceback: list[str] | None = None
    ) -> dict[str, Any]:
        """
        Poll the request once more, since its trigger has crashed or did not end in time, and resume from there.

        :param error: Airflow's reason.
        :param traceback: Of the trigger's crash.
        """
        from airflow_provider_odirouter.lifecycle.wait import final_polls

        with self._sensor_errors(context):
            wait = self.make_wait(self.request_id, datetime.now(UTC))
            [event] = final_polls(self.hook, [wait], error, traceback)
            return self._finish(context, event)

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Return the landed outputs. Only OpenLineage's provider calls this."""
        from airflow_provider_odirouter.operators import lineage

        return lineage.openlineage((), lineage.landed_paths(self._manifest))

    def _poll(self, context: Context) -> RequestStatus | None:
        """
        Poll once; ``None``: the poll failed, and the sensor keeps waiting.

        A request that the service does not know is polled three times before it counts as lost. In ``reschedule`` mode
        each poke is a new process, which knows no earlier poll: so the time since the first poke counts, and the other
        polls follow at once.

        :raises RequestLostError: If the service does not know the request.
        """
        from airflow_provider_odirouter.errors import OdiRouterError, RequestLostError, RequestNotFoundError
        from airflow_provider_odirouter.lifecycle.polling import MAX_NOT_FOUND
        from airflow_provider_odirouter.lifecycle.resume import PAUSES_WHILE_NOT_FOUND

        while True:
            try:
                status = self.hook.get_status(self.endpoint, self.request_id)
            except OdiRouterError as error:
                is_missing = isinstance(error, RequestNotFoundError) and not error.is_transient
                self._not_found = self._not_found + 1 if is_missing else 0
                if self._not_found >= MAX_NOT_FOUND:
                    raise RequestLostError(error.what, vendor=error.vendor, request_id=self.request_id) from None
                if not is_missing and not error.is_transient:
                    raise
                if not (is_missing and self._first_poke_is_long_ago(context)):
                    self.log.warning("%s The sensor keeps waiting.", error.facts())
                    return None
                pause = PAUSES_WHILE_NOT_FOUND[self._not_found - 1]
                self.log.warning("%s It is polled again in %g s.", error.facts(), pause)
                time.sleep(pause)
            else:
                self._not_found = 0
                return status

    def _first_poke_is_long_ago(self, context: Context) -> bool:
        """Return whether a rescheduled sensor has waited for as long as a request may be unknown."""
        from airflow_provider_odirouter.lifecycle.polling import MAX_NOT_FOUND

        first_poke = self._first_poke(context)
        patience = timedelta(seconds=min((MAX_NOT_FOUND - 1) * self.poke_interval, MAX_UNKNOWN_SECONDS))
        return first_poke is not None and datetime.now(UTC) - first_poke >= patience

    def _first_poke(self, context: Context) -> datetime | None:
        """Return when a sensor that is rescheduled began to wait; ``None``: it is not, or begins now."""
        first: datetime | None = context["ti"].get_first_reschedule_date(context) if self.reschedule else None
        return first

    def _finish(self, context: Context, event: RequestEvent) -> dict[str, Any]:
        from airflow_provider_odirouter.lifecycle.finish import finish
        from airflow_provider_odirouter.operators import lineage

        self.hook.metrics.ended(event)
        self._manifest = finish(
            context,
            self.hook,
            event,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            retry=CLEAR_THE_OTHER_TASK,
            after_clear=CLEAR_THE_OTHER_TASK,
        )
        folder = self.output_path if self._manifest["outputs"] else None
        lineage.describe_assets(context, self.outlets, lineage.event_extra(self._manifest), folder=folder)
        return self._manifest

    @contextmanager
    def _sensor_errors(self, context: Context, *, soft_fail: bool = True) -> Iterator[None]:
        """
        Skip instead of failing, with ``never_fail`` or ``soft_fail``.

        Airflow itself does so only around a poke, and then shows no reason.

        :param soft_fail: Whether ``soft_fail`` counts: not for parameters that cannot be used.
        """
        from airflow_provider_odirouter import metrics
        from airflow_provider_odirouter.compat import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
        from airflow_provider_odirouter.errors import OdiRouterError
        from airflow_provider_odirouter.lifecycle.failures import push_failure

        try:
            with self._as_sensor_errors(), push_failure(context, self.take_ownership(context)), self._advise(context):
                yield
        except (OdiRouterError, AirflowFailException, AirflowSensorTimeout) as error:
            is_soft = soft_fail and self.soft_fail and not isinstance(error, OdiRouterError)
            if not (self.never_fail or is_soft):
                raise
            self.log.warning("%s The task is skipped, as %s says.", error, "soft_fail" if is_soft else "never_fail")
            raise AirflowSkipException("The reason is in the line above.") from None
        finally:
            metrics.flush()  # the process may end now

    @contextmanager
    def _as_sensor_errors(self) -> Iterator[None]:
        """
        Raise Airflow's errors of a sensor, so that ``soft_fail`` works after a deferral, too.

        A failed request fails the task without a retry: a sensor does not submit, so that its retry would fail again.
        """
        from airflow_provider_odirouter.compat import AirflowFailException, AirflowSensorTimeout
        from airflow_provider_odirouter.errors import RequestError, RequestTimeoutError, RequestUnreachableError
        from airflow_provider_odirouter.lifecycle.failures import as_airflow_errors

        try:
            with as_airflow_errors():
                yield
        except RequestTimeoutError as error:
            raise AirflowSensorTimeout(str(error)) from None
        except RequestUnreachableError:
            raise
        except RequestError as error:
            raise AirflowFailException(str(error)) from None

    @contextmanager
    def _advise(self, context: Context) -> Iterator[None]:
        """Give a sensor's advice: its retry does not submit."""
        from airflow_provider_odirouter.errors import (
            AnswerError,
            LandingError,
            RequestError,
            RequestLostError,
            RequestTimeoutError,
            RequestUnreachableError,
            TransportError,
        )
        from airflow_provider_odirouter.lifecycle.failures import advise

        with advise(context):
            try:
                yield
            except RequestTimeoutError as error:
                if not self.cancel_on_timeout:
                    error.advise("The request may still be running: clear this sensor to wait for it again.")
                raise
            except (RequestUnreachableError, LandingError, TransportError, AnswerError) as error:
                if error.retry_helps:
                    error.advise("A retry of this sensor tries again.", "To wait for it again, clear this sensor.")
                raise
            except RequestLostError as error:
                error.advise(
                    "Check that request id, endpoint and connection belong together. To submit a new request, clear "
                    "the task that submitted this one."
                )
                raise
            except RequestError as error:
                error.advise("To submit a new request, clear the task that submitted this one.")
                raise


def _is_collection(value: object) -> bool:
    return isinstance(value, Sequence | AbstractSet | Mapping) and not isinstance(value, str)


def _one_interval(poll_interval: float | None, poke_interval: timedelta | float | None) -> float | None:
    """
    Return the interval in seconds, whichever name it was given by; ``None``: it was not given.

    :raises ValueError: If both are given and differ, or one cannot be used.
    """
    seconds = poke_interval.total_seconds() if isinstance(poke_interval, timedelta) else poke_interval
    given = {"poll_interval": poll_interval, "poke_interval": seconds}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if problem := seconds_problem(value):
            raise ValueError(f"{name} {problem}")
    if len(set(given.values())) > 1:
        raise ValueError(
            f"poll_interval ({poll_interval!r}) and poke_interval ({poke_interval!r}) are two names of one parameter, "
            "and differ; give only one"
        )
    return next(iter(given.values()), None)
