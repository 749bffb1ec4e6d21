"""How the request of an edit has ended, and what that makes of the edit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from airflow_provider_odirouter.batch.names import IfExists, may_replace
from airflow_provider_odirouter.batch.resume import as_failed, as_planned
from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.finish import (
    advise_on_landing,
    fetch_result,
    forget_unlandable_request,
    land_outputs,
)
from airflow_provider_odirouter.lifecycle.polling import (
    KEEPS_WAITING,
    SUBMITS_AFTER_CLEAR,
    SUBMITS_AGAIN,
    error_from_event,
    may_be_alive,
)
from airflow_provider_odirouter.models import BatchItem, Ending, Failure, Phase, RequestEvent

log = logging.getLogger(__name__)

TAKEN_BY_CLEAR = "clearing the task cancels it, or takes its result if it has one by then"


@dataclass(frozen=True)
class BatchOptions:
    """The parameters of a batch's task, and of its try, that decide how the batch runs."""

    endpoint: str
    make_parameters: Callable[[BatchItem], dict[str, Any]]
    """Returns what is submitted for an edit, its pictures read."""
    output_path: str
    storage_conn_id: str | None
    max_concurrent_submits: int
    max_in_flight: int
    deferrable: bool
    poll_interval: float
    timeout: float
    ends_at: datetime | None
    """The end of the task's ``execution_timeout``, if it has one."""
    cancel_on_kill: bool
    cancel_on_timeout: bool
    try_number: int
    will_be_retried: bool
    """Whether Airflow certainly tries again if this try fails."""
    max_submits: int | None = None
    """In all tries; ``None``: no limit."""
    if_exists: IfExists = "fail"


async def complete_event(hook: OdiRouterHook, event: RequestEvent, options: BatchOptions) -> RequestEvent:
    """
    Find out what the event of a wait leaves open.

    A request that failed in the triggerer is polled again for the vendor's words. One that cannot be polled any more is
    cancelled, if no other try will poll it.
    """
    if _lacks_words(event):
        return await _with_vendor_words(hook, event)
    if _is_left_alone(event, options):
        try:
            outcome = await hook.acancel(event.endpoint, event.request_id)
        except OdiRouterError as error:
            hook.metrics.cancelled(event.endpoint, "unreachable", error)
            return event.with_cancel_outcome(error)
        hook.metrics.cancelled(event.endpoint, "unreachable", outcome)
        return event.with_cancel_outcome(outcome)
    return event


def _lacks_words(event: RequestEvent) -> bool:
    return event.ending is Ending.FAILED and event.failure is None


def _is_left_alone(event: RequestEvent, options: BatchOptions) -> bool:
    is_unreachable = event.ending is Ending.UNREACHABLE and event.cancel is None
    return is_unreachable and options.cancel_on_timeout and not options.will_be_retried


async def _with_vendor_words(hook: OdiRouterHook, event: RequestEvent) -> RequestEvent:
    try:
        status = await hook.aget_status(event.endpoint, event.request_id)
    except OdiRouterError as error:
        log.warning("The reason why request %s failed cannot be read: %s", event.request_id, error)
        return event
    return event.model_copy(update={"failure": status.failure or Failure()})


def as_ended(item: BatchItem, event: RequestEvent, options: BatchOptions) -> BatchItem:
    """Return an edit after the end of the wait for its request. It may run on, and then keeps its slot."""
    alive = may_be_alive(event)
    if_alive = KEEPS_WAITING if options.will_be_retried else TAKEN_BY_CLEAR
    error = error_from_event(
        event,
        retry=if_alive if alive else SUBMITS_AGAIN,
        after_clear=TAKEN_BY_CLEAR if alive else SUBMITS_AFTER_CLEAR,
    )
    if error is None:
        times = {"completed_at": event.at, "inference_seconds": event.inference_seconds}
        return item.model_copy(update={"phase": Phase.SUCCEEDED, **times})
    is_unexplained = _lacks_words(event)
    if is_unexplained:
        error.advise(
            "The reason could not be read; a retry asks for it again, and does not pay again for a refusal.",
            "The reason could not be read; clear the task, which asks for it again, and does not pay again for a "
            "refusal.",
        )
    has_ended_itself = not (alive or is_unexplained) and event.cancel is None
    if error.retry_helps and has_ended_itself and item.try_number != options.try_number:
        # An earlier try's request: this try is the retry that submits again.
        log.info("%s This try submits the edit again.", error.what)
        return as_planned(item)
    if not options.will_be_retried:
        error.be_last()
    failed = as_failed(item, error, error_type=event.failure.error_type if event.failure else None)
    # A new try must not pay again for what may be paid.
    return failed.model_copy(update={"phase": Phase.SUBMITTED}) if alive or is_unexplained else failed


def land_edit(hook: OdiRouterHook, item: BatchItem, options: BatchOptions) -> BatchItem:
    """Land the outputs of an edit whose request has succeeded, and return the edit, with the error if that failed."""
    try:
        return _land_edit(hook, item, str(item.request_id), options)
    except OdiRouterError as error:
        return _as_not_landed(item, error, is_last_try=not options.will_be_retried)


def _land_edit(hook: OdiRouterHook, item: BatchItem, request_id: str, options: BatchOptions) -> BatchItem:
    result = fetch_result(hook, options.endpoint, request_id)
    outputs = land_outputs(
        hook,
        options.endpoint,
        request_id,
        result,
        name=item.name,
        output_path=options.output_path,
        storage_conn_id=options.storage_conn_id,
        may_replace=partial(may_replace, item, options.if_exists),
        workers=1,
    )
    landed = {"phase": Phase.LANDED, "outputs": outputs, "metadata": result.metadata}
    return item.model_copy(update={**landed, "error": None, "error_type": None})


def _as_not_landed(item: BatchItem, error: OdiRouterError, *, is_last_try: bool) -> BatchItem:
    error.request_id = item.request_id
    if error.retry_helps:
        advise_on_landing(error, is_free=True)
    if is_last_try:
        error.be_last()
        forget_unlandable_request(error)
    failed = as_failed(item, error)
    return failed if error.request_over else failed.model_copy(update={"phase": Phase.SUCCEEDED})
