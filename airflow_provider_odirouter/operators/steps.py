"""
The steps that operators and sensor share: publish, wait on the worker, finish.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_odirouter import protocol
from airflow_provider_odirouter.compat import (
    TRIGGERER_CALLS_ON_KILL,
    AirflowFailException,
    TriggerFailureReason,
    conf,
)
from airflow_provider_odirouter.errors import (
    AnswerError,
    FileExpiredError,
    LandingError,
    OdiRouterError,
    TransportError,
)
from airflow_provider_odirouter.images import landing
from airflow_provider_odirouter.images.paths import LOCAL_PROTOCOLS, scheme_of
from airflow_provider_odirouter.links import OdiRouterRequestLink
from airflow_provider_odirouter.models import (
    CancelOutcome,
    Ending,
    LandedOutput,
    Manifest,
    RequestEvent,
    RequestResult,
)
from airflow_provider_odirouter.polling import (
    SUBMITS_ANEW,
    Cancel,
    Look,
    Pause,
    Seen,
    Wait,
    error_of,
    watch,
)
from airflow_provider_odirouter.records import FAILURE_XCOM, REQUEST_XCOM, FailureRecord, RequestRecord
from airflow_provider_odirouter.triggers.canceling import tell

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
    from airflow_provider_odirouter.lifecycle.ownership import Ownership

log = logging.getLogger(__name__)

PAUSES_FOR_RESULT = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between fetches of a result that is not there yet although its request has succeeded."""
ONE_MACHINE_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor"})
ANSWER_SECONDS = 2.0
"""For Airflow to say whether a failure is still the task's own."""


@contextmanager
def airflow_errors() -> Iterator[None]:
    """
    Tell Airflow whether a retry can help.

    :raises AirflowFailException: Instead of an error that a retry cannot cure: Airflow then does not try again.
    """
    try:
        yield
    except OdiRouterError as error:
        if error.retry_helps:
            raise
        raise AirflowFailException(str(error)) from error


@contextmanager
def showing_failure(context: Context, ownership: Ownership) -> Iterator[None]:
    """Push our error as XCom, whatever Airflow is told of it: the gallery shows it."""
    try:
        yield
    except Exception as error:
        failure = error if isinstance(error, OdiRouterError) else error.__cause__
        if isinstance(failure, OdiRouterError) and ownership.is_owner_within(ANSWER_SECONDS):
            try:
                context["ti"].xcom_push(key=FAILURE_XCOM, value=FailureRecord.of(failure).to_xcom())
            except Exception as push_error:  # noqa: BLE001 - the error itself counts more than its picture
                log.warning("The failure could not be pushed as XCom %s: %r", FAILURE_XCOM, push_error)
        raise


def tell_what_a_local_path_needs(output_path: str) -> None:
    """Say in the log that workers have to share a disk, where Airflow may run a retry or a resumed task elsewhere."""
    executor = conf.get("core", "executor", fallback="")
    if scheme_of(output_path) in LOCAL_PROTOCOLS and executor not in ONE_MACHINE_EXECUTORS:
        log.info(
            "The output path %s is local, and Airflow's executor is %s: all workers need the same disk there, since a "
            "retry or a resumed task may run on another one.",
            output_path,
            executor,
        )


def publish(context: Context, hook: OdiRouterHook, record: RequestRecord) -> None:
    """Push what others may want while the task waits: XCom ``request_id``, the extra link, what the gallery shows."""
    hook.before_call()
    ti = context["ti"]
    # First what somebody needs who has to cancel in this process's place: it may die at any moment.
    ti.xcom_push(key=REQUEST_XCOM, value=record.to_xcom())
    ti.xcom_push(key="request_id", value=record.request_id)
    link = protocol.status(hook.settings.base_url, record.endpoint, record.request_id).url
    ti.xcom_push(key=OdiRouterRequestLink().xcom_key, value=link)


def wait_here(hook: OdiRouterHook, wait: Wait) -> RequestEvent:
    """Wait on the worker, in the same steps as the trigger does."""
    # The wall clock read once, then a steady one: a clock that is set meanwhile must not end the wait.
    offset = time.time() - time.monotonic()
    steps = watch(wait, now=lambda: offset + time.monotonic(), luck=random.random)
    seen: Seen = None
    while True:
        try:
            step = steps.send(seen)
        except StopIteration as stop:
            event: RequestEvent = stop.value
            return event
        try:
            match step:
                case Pause(seconds, note):
                    if note:
                        log.info(note)
                    time.sleep(seconds)
                    seen = None
                case Look():
                    seen = hook.get_status(wait.endpoint, wait.request_id)
                case Cancel():
                    seen = hook.cancel(wait.endpoint, wait.request_id)
        except OdiRouterError as error:
            seen = error


def last_look(hook: OdiRouterHook, wait: Wait, error: str, traceback: Sequence[str] | None) -> RequestEvent:
    """Look once more at one request, see :func:`last_looks`."""
    [event] = last_looks([wait], error, traceback, lambda waits: [wait_here(hook, one) for one in waits])
    return event


def last_looks(
    waits: Sequence[Wait],
    error: str,
    traceback: Sequence[str] | None,
    look: Callable[[Sequence[Wait]], Sequence[RequestEvent]],
) -> list[RequestEvent]:
    """
    Look once more at requests whose trigger has crashed, or did not end in time.

    :param waits: Their deadline has passed.
    :param error: Airflow's reason.
    :param traceback: Of the trigger's crash.
    :param look: Waits on the worker.
    """
    shown = f"request {waits[0].request_id}" if len(waits) == 1 else f"{len(waits):,} requests"
    log.error("%s: the worker looks at %s itself.\n%s", error, shown, "\n".join(traceback or ()))
    if error == TriggerFailureReason.TRIGGER_TIMEOUT:
        return [_too_late(wait, event) for wait, event in zip(waits, look(waits), strict=True)]
    crashed = {"ending": Ending.UNWATCHED, "reason": "its trigger has crashed (see the log)."}
    events = look([replace(wait, cancel_on_timeout=False) for wait in waits])
    return [event.model_copy(update=crashed) if event.ending is Ending.TIMED_OUT else event for event in events]


def _too_late(wait: Wait, event: RequestEvent) -> RequestEvent:
    """Before Airflow 3.3, the trigger that Airflow ends with the deferral may have cancelled the request already."""
    if TRIGGERER_CALLS_ON_KILL or not wait.cancel_on_timeout or event.ending is not Ending.CANCELED:
        return event
    late = {"ending": Ending.TIMED_OUT, "cancel": CancelOutcome.REQUESTED, "failure": None}
    return event.model_copy(update=late)


def cancel(hook: OdiRouterHook, endpoint: str, request_id: str) -> CancelOutcome | OdiRouterError:
    """Cancel a request that nobody will wait for, and say in the log what that came to."""
    outcome: CancelOutcome | OdiRouterError
    try:
        # A client of its own: a signal handler may have interrupted the other one in the middle of a call.
        outcome = hook.twin().cancel(endpoint, request_id)
    except OdiRouterError as error:
        outcome = error
    tell({request_id: outcome}, conn_id=hook.odirouter_conn_id, endpoint=endpoint, log=log.log)
    return outcome


def is_tried_again(context: Context) -> bool:
    """Return whether Airflow certainly tries again if this try fails; a retry policy decides only then."""
    ti, task = context["ti"], context["task"]
    return bool(task.retries and ti.try_number <= ti.max_tries) and not getattr(task, "retry_policy", None)


def deadline(context: Context, execution_timeout: timedelta | None, since: datetime, seconds: float) -> datetime:
    """
    Return when a wait ends: so many seconds after ``since``, or when ``execution_timeout`` is over, if that is sooner.

    Airflow does not enforce ``execution_timeout`` while a task is deferred.
    """
    end = since + timedelta(seconds=seconds)
    started_at = context["ti"].start_date
    if not execution_timeout or not started_at or execution_timeout > end - started_at:
        return end
    return started_at + execution_timeout


def finish(
    context: Context,
    hook: OdiRouterHook,
    event: RequestEvent,
    *,
    output_path: str | None,
    storage_conn_id: str | None,
    retry: str = SUBMITS_ANEW,
    landing_advice: str = LandingError.advice,
) -> dict[str, Any]:
    """
    Turn the end of a wait into the manifest that the task returns: the one finisher, wherever the wait was.

    :param output_path: Where the outputs land; ``None``: they stay behind the vendor's links.
    :param storage_conn_id: The connection of the store that they land in.
    :param retry: What a retry does about a request that was given up.
    :param landing_advice: What to do if the outputs cannot be brought home, but may be yet.
    :raises OdiRouterError: If the request did not succeed, or its outputs cannot be brought home.
    """
    if error := error_of(event, retry=retry):
        raise error
    try:
        result = fetch(hook, event.endpoint, event.request_id)
        if result.without_link:
            log.warning("%d of the outputs of %s have no link and are lost.", result.without_link, event.request_id)
        if output_path is None:
            log.warning("No output_path: the pictures stay behind OdiRouter's links, which expire soon.")
            outputs = tuple(_linked(result))
        else:
            hook.before_call()
            landing.make_output_folder(output_path, storage_conn_id)
            outputs = land(
                hook,
                event.endpoint,
                event.request_id,
                result,
                name=name_of(context),
                output_path=output_path,
                storage_conn_id=storage_conn_id,
            )
            log.info("Landed %s", ", ".join(str(output.path) for output in outputs))
    except (TransportError, AnswerError, LandingError) as error:
        error.request_id = event.request_id
        if error.retry_helps:
            error.advice = landing_advice
        raise
    return Manifest(
        request_id=event.request_id,
        endpoint=event.endpoint,
        outputs=outputs,
        submitted_at=event.submitted_at,
        completed_at=event.at,
        inference_seconds=event.inference_seconds,
        metadata=result.metadata,
    ).to_xcom()


def fetch(hook: OdiRouterHook, endpoint: str, request_id: str) -> RequestResult:
    """Fetch the result of a request that has succeeded."""
    for pause in (*PAUSES_FOR_RESULT, 0.0):
        result = hook.get_result(endpoint, request_id)
        if isinstance(result, RequestResult):
            return result
        time.sleep(pause)
    raise LandingError("The request has succeeded, but its result is not there yet.", request_id=request_id)


def _linked(result: RequestResult) -> Iterator[LandedOutput]:
    for output in result.outputs:
        yield LandedOutput(
            url=output.url,
            content_type=output.content_type,
            width=output.width,
            height=output.height,
            size_bytes=output.file_size,
        )


def land(
    hook: OdiRouterHook,
    endpoint: str,
    request_id: str,
    result: RequestResult,
    *,
    name: str,
    output_path: str,
    storage_conn_id: str | None,
    workers: int | None = None,
) -> tuple[LandedOutput, ...]:
    """
    Bring the outputs of a result home.

    :param name: What the files begin with.
    :param workers: How many at a time.
    """

    def land(result: RequestResult) -> tuple[LandedOutput, ...]:
        return landing.land(
            result.outputs,
            output_path=output_path,
            storage_conn_id=storage_conn_id,
            name=name,
            download=lambda url, into: hook.download(endpoint, request_id, url, into),
            before_write=hook.before_call,
            workers=workers,
        )

    try:
        return land(result)
    except FileExpiredError:
        # Each result has fresh links; once, since a link that expires at once will do so again.
        return land(fetch(hook, endpoint, request_id))


def name_of(context: Context) -> str:
    """Return the name that a task instance's files begin with."""
    ti = context["ti"]
    mapped = [str(ti.map_index)] if ti.map_index is not None and ti.map_index >= 0 else []
    return landing.stable_name(ti.dag_id, ti.task_id, ti.run_id, *mapped)
