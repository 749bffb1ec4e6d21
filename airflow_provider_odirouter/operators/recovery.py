"""
The request of an earlier try: how a new one finds it, and goes on with it instead of paying again.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_odirouter import protocol
from airflow_provider_odirouter.durability import (
    Intent,
    Memory,
    Move,
    OnLostSubmit,
    Store,
    Submitted,
    decide,
    fingerprint,
)
from airflow_provider_odirouter.errors import (
    LostSubmitError,
    OdiRouterError,
    RequestLostError,
    RequestNotFoundError,
)
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import RequestState
from airflow_provider_odirouter.operators.steps import cancel
from airflow_provider_odirouter.polling import OVER_AFTER_CANCEL, Wait

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

PAUSES_WHILE_NOT_FOUND = (2.0, 4.0)
"""Seconds between looks at a request that the service does not know, before it counts as lost."""


class Earlier(NamedTuple):
    """The request of an earlier try, which this one goes on with."""

    request: Submitted
    succeeded: bool
    """Whether it has already: there is nothing to wait for."""


def memory_of(context: Context, *, durable: bool) -> Memory:
    """Return what the task instance remembers: nothing before Airflow 3.3, or if it shall not be durable."""
    return Memory(cast("Store | None", context.get("task_state_store")) if durable else None)


def intent_of(context: Context, odirouter_conn_id: str, endpoint: str, parameters: Mapping[str, Any]) -> Intent:
    """
    Return what a try is about to submit.

    :raises InvalidParametersError: If the parameters are no JSON.
    """
    body = protocol.submit_body(endpoint, parameters)
    return Intent(
        fingerprint=fingerprint(odirouter_conn_id, endpoint, body),
        odirouter_conn_id=odirouter_conn_id,
        endpoint=endpoint,
        max_tries=context["ti"].max_tries,
    )


def earlier_request(
    hook: OdiRouterHook, memory: Memory, intent: Intent, *, cancel_live: bool, on_lost_submit: OnLostSubmit
) -> Earlier | None:
    """
    Find the request that this try shall go on with.

    :param cancel_live: Whether a live request that the user cleared, or of another input, is cancelled.
    :return: ``None``: there is none, and this try submits.
    :raises LostSubmitError: If the earlier try died during its submit, and ``on_lost_submit`` is ``"fail"``.
    :raises OdiRouterError: If it cannot be found out, or if a live request cannot be cancelled; nothing is submitted.
    """
    noted = memory.recall()
    request = noted if isinstance(noted, Submitted) else None
    same = noted is not None and noted.fingerprint == intent.fingerprint
    while True:
        state = _state(hook, request) if request and same else None
        move = decide(noted, intent, state, may_cancel=cancel_live, on_lost_submit=on_lost_submit)
        if request is None or move is not Move.CANCEL:
            break
        log.info("The task was cleared." if same else "Its input has changed since its last try.")
        outcome = cancel(OdiRouterHook(request.odirouter_conn_id), request.endpoint, request.request_id)
        if same and isinstance(outcome, OdiRouterError):
            raise outcome
        if outcome in OVER_AFTER_CANCEL:
            return None
        # It has just ended, or cannot be cancelled: there may be something to take, or to wait for.
        cancel_live = False
    if move is Move.REFUSE:
        raise LostSubmitError(f"An earlier try died during its submit to {intent.endpoint}; its fate is unknown.")
    if move is Move.SUBMIT_AGAIN:
        log.warning(
            "An earlier try died during its submit to %s. That request may be running and may be paid; OdiRouter has "
            "no way to find out. It is submitted again.",
            intent.endpoint,
        )
    if request is None or move not in {Move.WAIT, Move.TAKE}:
        return None
    log.info("Request %s was submitted by an earlier try; this one goes on with it.", request.request_id)
    return Earlier(request.model_copy(update={"max_tries": intent.max_tries}), succeeded=move is Move.TAKE)


def submit(hook: OdiRouterHook, memory: Memory, intent: Intent, parameters: Mapping[str, Any]) -> Submitted:
    """Submit, once; the intent is noted before."""
    memory.note(intent)
    try:
        request_id = hook.submit(intent.endpoint, parameters).request_id
    except LostSubmitError:
        raise
    except OdiRouterError:
        memory.forget()  # it certainly never became a request
        raise
    log.info("Submitted request %s to %s.", request_id, intent.endpoint)
    return intent.submitted(request_id, datetime.now(UTC))


def wait_without_trigger(context: Context, memory: Memory, endpoint: str, *, cancel_on_timeout: bool) -> Wait:
    """
    Return the wait of a deferred task whose trigger is gone: it is over now.

    :raises RequestLostError: If nothing tells which request it was.
    """
    ti, noted = context["ti"], memory.recall()
    submitted_at = noted.submitted_at.timestamp() if isinstance(noted, Submitted) else None
    request_id = ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index, key="request_id")
    if not isinstance(request_id, str):
        raise RequestLostError("The trigger is gone, and so is the XCom request_id.")
    return Wait(
        endpoint=endpoint,
        request_id=request_id,
        poll_interval=0.0,
        deadline=datetime.now(UTC).timestamp(),
        cancel_on_timeout=cancel_on_timeout,
        submitted_at=submitted_at,
    )


def _state(hook: OdiRouterHook, request: Submitted) -> RequestState | None:
    """Return a request's state, ``None`` if the service does not know it."""
    for pause in (*PAUSES_WHILE_NOT_FOUND, 0.0):
        try:
            return hook.get_status(request.endpoint, request.request_id).state
        except RequestNotFoundError:
            time.sleep(pause)
        except OdiRouterError as error:
            if not error.passing:
                raise
            log.warning("%s Request %s counts as alive.", error, request.request_id)
            return RequestState.UNKNOWN
    return None
