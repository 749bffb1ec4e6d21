"""
The request of an earlier try: how a new one finds it, and goes on with it instead of paying again.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_odirouter import protocol
from airflow_provider_odirouter.compat import AirflowTaskTimeout
from airflow_provider_odirouter.durability import (
    Intent,
    Memory,
    Move,
    Noted,
    OnLostSubmit,
    Store,
    Submitted,
    Unreadable,
    decide,
    fingerprint,
    is_cleared,
)
from airflow_provider_odirouter.errors import (
    InvalidParametersError,
    LandingError,
    LostSubmitError,
    NotOwnerError,
    OdiRouterError,
    PrivateAddressError,
    RejectedError,
    RequestLostError,
    RequestNotFoundError,
    RequestUnwatchedError,
    StorageError,
    SubmitStoppedError,
)
from airflow_provider_odirouter.lifecycle.state import NotesBesideOutputs, NotesOfBoth
from airflow_provider_odirouter.models import RequestState
from airflow_provider_odirouter.operators.base import path_problem
from airflow_provider_odirouter.operators.steps import cancel, name_of
from airflow_provider_odirouter.polling import OVER_AFTER_CANCEL, Wait

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

log = logging.getLogger(__name__)

PAUSES_WHILE_NOT_FOUND = (2.0, 4.0)
"""Seconds between looks at a request that the service does not know, before it counts as lost."""


UNREADABLE_ADVICE = (
    "That request may be running and may be paid; the log of its try names it. So nothing is submitted, and Airflow "
    "does not retry: put the note right, or clear the task to submit again."
)


class Earlier(NamedTuple):
    """The request of an earlier try, which this one goes on with."""

    request: Submitted
    succeeded: bool
    """Whether it has already: there is nothing to wait for."""


def memory_of(
    context: Context,
    *,
    durable: bool,
    output_path: str | None = None,
    storage_conn_id: str | None = None,
    has_begun: bool = True,
) -> Memory:
    """
    Return what the task instance remembers: in Airflow's store (3.3 and later), or else beside its outputs.

    :param durable: If not, it remembers nothing.
    :param output_path: Of the task; before Airflow 3.3, nothing is remembered without it.
    :param has_begun: Whether this try may have noted something already.
    """
    store: Store | None = None
    if durable:
        airflows = cast("Store | None", context.get("task_state_store"))
        beside = _notes_beside(context, output_path, storage_conn_id, has_begun=has_begun)
        store = NotesOfBoth(airflows, beside) if airflows else beside
    return Memory(store, first_since_clear=lambda: _is_first_since_clear(context))


def _notes_beside(
    context: Context, output_path: str | None, storage_conn_id: str | None, *, has_begun: bool
) -> NotesBesideOutputs | None:
    if output_path is None or path_problem(output_path):
        return None
    ti = context["ti"]
    return NotesBesideOutputs(
        output_path,
        storage_conn_id,
        name_of(context),
        ti.id,
        is_first_try=ti.try_number == 1,
        has_begun=has_begun,
    )


def _is_first_since_clear(context: Context) -> bool:
    """Tell by Airflow's counts: a clear lets the next try be followed by as many as the task has retries."""
    ti = context["ti"]
    return bool(ti.try_number + (context["task"].retries or 0) == ti.max_tries + 1)


def intent_of(context: Context, odirouter_conn_id: str, endpoint: str, parameters: Mapping[str, Any]) -> Intent:
    """
    Return what a try is about to submit.

    :raises InvalidParametersError: If the endpoint is no safe path, or the parameters are no JSON.
    """
    body = protocol.submit("", endpoint, parameters, trace_id="").body or b""
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
    :raises LostSubmitError: If the earlier try died during its submit, and ``on_lost_submit`` is ``"fail"``; or if its
        note cannot be read, and the task was not cleared since.
    :raises OdiRouterError: If the request cannot be looked at, or, of a cleared task, not be cancelled; nothing is
        submitted then.
    """
    noted = memory.recall()
    request = noted if isinstance(noted, Submitted) else None
    same = request is not None and request.fingerprint == intent.fingerprint

    def move(*, may_cancel: bool) -> Move:
        wanted = request and same and not (request.done and is_cleared(request, intent))
        state = _state(hook, request, give_up=is_cleared(request, intent)) if request and wanted else None
        return decide(noted, intent, state, may_cancel=may_cancel, on_lost_submit=on_lost_submit)

    decision = move(may_cancel=cancel_live)
    if request and decision is Move.CANCEL:
        log.info("The task was cleared." if same else "Its input has changed since its last try.")
        outcome = cancel(hook.with_connection(request.odirouter_conn_id), request.endpoint, request.request_id)
        if outcome in OVER_AFTER_CANCEL:
            return None
        if same and isinstance(outcome, OdiRouterError):
            raise outcome
        # It has just ended, or cannot be cancelled: there may be something to take, or to wait for.
        decision = move(may_cancel=False)
    if request and not same and not cancel_live and decision is Move.SUBMIT:
        log.warning("Request %s of another input is left alone, and may be running.", request.request_id)
    match decision:
        case Move.REFUSE:
            raise _refusal(noted, intent)
        case Move.SUBMIT_AGAIN:
            log.warning(
                "%s That request may be running and may be paid; OdiRouter has no way to find out. It is submitted "
                "again.",
                _lost(noted, intent),
            )
        case Move.WAIT | Move.TAKE if request:
            log.info("Request %s was submitted by an earlier try; this one goes on with it.", request.request_id)
            request = request.model_copy(update={"max_tries": intent.max_tries, "done": False})
            return Earlier(request, succeeded=decision is Move.TAKE)
    return None


def _lost(noted: Noted, intent: Intent) -> str:
    if isinstance(noted, Unreadable):
        return f"What an earlier try has noted of its request cannot be read: {noted.place}: {noted.why}."
    return f"An earlier try died during its submit to {intent.endpoint}."


def _refusal(noted: Noted, intent: Intent) -> LostSubmitError:
    if isinstance(noted, Unreadable):
        return LostSubmitError(_lost(noted, intent), advice=UNREADABLE_ADVICE)
    return LostSubmitError(f"An earlier try died during its submit to {intent.endpoint}; its fate is unknown.")


@contextmanager
def cancelling_if_no_try_begins(
    hook: OdiRouterHook, memory: Memory, *, last_try: bool, cancels: bool
) -> Iterator[None]:
    """
    Cancel the request of an earlier try if this one cannot even begin, and no other follows: nobody will wait for it.

    :param last_try: Whether Airflow does not try again, whatever the error.
    :param cancels: Whether a request that nobody waits for is cancelled.
    """
    try:
        yield
    except (NotOwnerError, LostSubmitError):
        raise  # what a newer try, or a person, decides about
    except Exception as error:
        final = last_try or not getattr(error, "retry_helps", True)
        request = _recalled(memory) if final and cancels else None
        if isinstance(request, Submitted) and not request.done:
            outcome = cancel(hook.with_connection(request.odirouter_conn_id), request.endpoint, request.request_id)
            if outcome in OVER_AFTER_CANCEL:
                memory.forget()
        raise


def _recalled(memory: Memory) -> Noted:
    try:
        return memory.recall()
    except Exception as error:  # noqa: BLE001 - what the try has failed with counts more
        log.warning("%s If an earlier try has left a request, it may be running and may be paid.", error)
        return None


@contextmanager
def telling_costs(context: Context) -> Iterator[None]:
    """Say that nothing was paid only where no earlier try can have paid."""
    try:
        yield
    except InvalidParametersError as error:
        if context["ti"].try_number > 1:
            error.advice = error.advice_after_first_try
        raise


def submit(hook: OdiRouterHook, memory: Memory, intent: Intent, parameters: Mapping[str, Any]) -> Submitted:
    """Submit, once; the intent is noted before."""
    memory.note(intent)
    try:
        request_id = hook.submit(intent.endpoint, parameters).request_id
    except LostSubmitError:
        raise
    except AirflowTaskTimeout as error:
        raise LostSubmitError(f"Airflow's execution_timeout ended the submit to {intent.endpoint}.") from error
    except (OdiRouterError, SubmitStoppedError):
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
    submitted_at = None
    if isinstance(noted, Submitted):
        request_id, submitted_at = noted.request_id, noted.submitted_at.timestamp()
    else:
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


def landing_advice(memory: Memory) -> str:
    """Say what to do about outputs that cannot be brought home, but may be yet."""
    free = "A retry fetches the pictures again, and pays nothing; so does clearing the task."
    return free if memory.lasts else LandingError.advice


def give_up_outputs(error: OdiRouterError) -> None:
    """Count a request as over whose outputs no try could bring home: a user who clears the task must get new ones."""
    faulty = isinstance(error, LandingError | RequestNotFoundError | RejectedError)
    if faulty and not error.request_over and not isinstance(error, StorageError | PrivateAddressError):
        error.request_over = True
        error.advice = (
            "Clearing the task submits a new request, and pays for it; an OdiRouterRequestSensor with this request id "
            "tries again to fetch the pictures of this one."
        )


def _state(hook: OdiRouterHook, request: Submitted, *, give_up: bool) -> RequestState | None:
    """
    Return a request's state, ``None`` if the service does not know it.

    :param give_up: Whether a request that cannot be looked at is cancelled, as well as that goes, and counts as gone.
    """
    for pause in (*PAUSES_WHILE_NOT_FOUND, 0.0):
        try:
            return hook.get_status(request.endpoint, request.request_id).state
        except OdiRouterError as error:
            if error.passing:
                log.warning("%s Request %s counts as alive.", error, request.request_id)
                return RequestState.UNKNOWN
            if isinstance(error, RequestNotFoundError):
                time.sleep(pause)
            elif give_up:
                cancel(hook, request.endpoint, request.request_id)
                return None
            else:
                raise RequestUnwatchedError(
                    f"The request of an earlier try may be alive, but cannot be looked at: {error.what}",
                    vendor=error.vendor,
                    request_id=request.request_id,
                    advice="A retry tries to go on with it; clearing the task submits a new one.",
                ) from error
    return None
