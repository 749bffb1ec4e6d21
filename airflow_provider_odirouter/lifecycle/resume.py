"""
How a try begins: it resumes the request of an earlier try, or submits a new one.

:func:`decide` is the one decision about that. It is pure: it asks its caller for the state of a request, or for a
cancel, where it needs that, as :func:`~airflow_provider_odirouter.lifecycle.polling.poll_until_done` does.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from airflow_provider_odirouter import protocol
from airflow_provider_odirouter.compat import AirflowTaskTimeout
from airflow_provider_odirouter.errors import (
    LostSubmitError,
    NotOwnerError,
    OdiRouterError,
    RequestLostError,
    RequestNotFoundError,
    RequestUnreachableError,
    SubmitLimitError,
    SubmitStoppedError,
)
from airflow_provider_odirouter.lifecycle.cancel import Outcome, cancel_request
from airflow_provider_odirouter.lifecycle.finish import name_of_files
from airflow_provider_odirouter.lifecycle.polling import OVER_AFTER_CANCEL
from airflow_provider_odirouter.lifecycle.state import (
    Ended,
    Intent,
    Noted,
    OnLostSubmit,
    RequestStore,
    Submitted,
    TaskStateStore,
    Unreadable,
    make_fingerprint,
)
from airflow_provider_odirouter.lifecycle.state_files import NotesBesideOutputs, NotesOfBoth
from airflow_provider_odirouter.models import CancelOutcome, RequestState
from airflow_provider_odirouter.parameter_checks import path_problem

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

log = logging.getLogger(__name__)

PAUSES_WHILE_NOT_FOUND = (2.0, 4.0)
"""Seconds between polls of a request that the service does not know, before it counts as lost."""

UNREADABLE_ADVICE = (
    "That request may be running and may be paid; the log of its try names it. So nothing is submitted, and Airflow "
    "does not retry: correct the note, or clear the task to submit again."
)
LOST_SUBMIT_WARNING = (
    "%s That request may be running and may be paid; OdiRouter has no way to find out. This try submits again."
)


class Decision(Enum):
    """What a try does about the request of an earlier try."""

    SUBMIT = auto()
    """Submit: there is no request, or it is over."""
    SUBMIT_BESIDE = auto()
    """Submit, although the earlier request, of another input, may run."""
    SUBMIT_AGAIN = auto()
    """Submit, although the earlier submit may be paid."""
    REFUSE = auto()
    """Do not submit, since the earlier submit may be paid."""
    WAIT = auto()
    """Wait for the earlier request."""
    TAKE = auto()
    """Take the result of the earlier request."""


@dataclass(frozen=True)
class AskState:
    """Ask for the state of the noted request; send ``None`` if the service does not know it."""

    cancel_if_unreachable: bool


@dataclass(frozen=True)
class CancelNoted:
    """Cancel the noted request."""

    reason: str


Step: TypeAlias = AskState | CancelNoted
Seen: TypeAlias = RequestState | Outcome | None
"""How a step ended."""


class ResumedRequest(NamedTuple):
    """The request of an earlier try that this one resumes."""

    request: Submitted
    succeeded: bool
    """Whether it has succeeded already: there is nothing to wait for."""


def decide(
    noted: Noted, intent: Intent, *, may_cancel: bool, on_lost_submit: OnLostSubmit, may_submit: bool = True
) -> Generator[Step, Seen, Decision]:
    """
    Decide what a try does about the request of an earlier try.

    :param noted: What the task remembers.
    :param intent: What this try would submit.
    :param may_cancel: Whether a live request that the user cleared, or of another input, is cancelled.
    :param on_lost_submit: What to do if the earlier try died during its submit.
    :param may_submit: Whether ``max_submits`` allows one more: a live request is not cancelled for one that it forbids.
    :raises OdiRouterError: If a request of a cleared task cannot be cancelled: it would be paid beside the new one.
    """
    if noted is None or isinstance(noted, Ended):
        return Decision.SUBMIT
    was_cleared = is_cleared(noted, intent)
    if isinstance(noted, Unreadable):
        return Decision.SUBMIT_AGAIN if was_cleared else Decision.REFUSE
    if not isinstance(noted, Submitted):
        return Decision.REFUSE if on_lost_submit == "fail" and not was_cleared else Decision.SUBMIT_AGAIN
    if noted.done and was_cleared:
        return Decision.SUBMIT
    if noted.fingerprint != intent.fingerprint:
        if not may_cancel:
            return Decision.SUBMIT_BESIDE
        yield CancelNoted("Its input has changed since its last try.")
        return Decision.SUBMIT
    decision = _decide_by_state((yield AskState(cancel_if_unreachable=was_cleared)))
    if decision is Decision.WAIT and was_cleared and may_cancel and may_submit:
        outcome = yield CancelNoted("The task was cleared.")
        if outcome in OVER_AFTER_CANCEL:
            return Decision.SUBMIT
        if isinstance(outcome, Exception):
            raise outcome
        # It has just ended, or the endpoint cannot cancel: there may be a result to take, or to wait for.
        decision = _decide_by_state((yield AskState(cancel_if_unreachable=was_cleared)))
    return decision


def _decide_by_state(state: Seen) -> Decision:
    match state:
        case RequestState.SUCCEEDED:
            return Decision.TAKE
        case None | RequestState.FAILED | RequestState.CANCELED:
            return Decision.SUBMIT
        case RequestState():
            return Decision.WAIT
        case CancelOutcome() | Exception():
            raise TypeError(f"the state of a request is {state!r}")


def is_cleared(noted: Intent | Unreadable, intent: Intent) -> bool:
    """Return whether a user has cleared the task since it was noted."""
    if noted.max_tries is not None:
        return noted.max_tries != intent.max_tries
    return isinstance(noted, Unreadable) and noted.first_since_clear


def find_resumable(
    hook: OdiRouterHook,
    store: RequestStore,
    intent: Intent,
    *,
    cancel_live: bool,
    on_lost_submit: OnLostSubmit,
    max_submits: int | None = None,
) -> ResumedRequest | None:
    """
    Find the request that this try resumes.

    :param cancel_live: Whether a live request that the user cleared, or of another input, is cancelled.
    :param max_submits: In all tries; ``None``: as many as there are tries.
    :return: ``None``: there is none, and this try submits.
    :raises LostSubmitError: If the earlier try died during its submit, and ``on_lost_submit`` is ``"fail"``; or if its
        note cannot be read, and the task was not cleared since.
    :raises OdiRouterError: If the state of the request cannot be read or, of a cleared task, it cannot be cancelled;
        then nothing is submitted.
    """
    noted = store.recall()
    may_submit = max_submits is None or store.spent().submits < max_submits
    steps = decide(noted, intent, may_cancel=cancel_live, on_lost_submit=on_lost_submit, may_submit=may_submit)
    seen: Seen = None
    while True:
        try:
            step = steps.send(seen)
        except StopIteration as stop:
            if stop.value is Decision.WAIT and not may_submit:
                log.info("max_submits is reached: this try waits for the live request, also if the task was cleared.")
            return _carry_out(hook, stop.value, noted, intent)
        if not isinstance(noted, Submitted):
            raise TypeError(f"{step!r} needs a request, but the task remembers {noted!r}")
        match step:
            case AskState(cancel_if_unreachable):
                seen = _ask_state(hook, noted, cancel_if_unreachable=cancel_if_unreachable)
            case CancelNoted(reason):
                log.info(reason)
                seen = _cancel_noted(hook, noted, "cleared" if is_cleared(noted, intent) else "input_changed")
                if isinstance(seen, Exception) and not isinstance(seen, OdiRouterError):
                    raise seen  # Airflow's own, say: it does not give out the connection now


def _carry_out(hook: OdiRouterHook, decision: Decision, noted: Noted, intent: Intent) -> ResumedRequest | None:
    match decision, noted:
        case Decision.REFUSE, Unreadable():
            raise LostSubmitError(_describe_lost(noted, intent), advice=UNREADABLE_ADVICE)
        case Decision.REFUSE, _:
            raise LostSubmitError(_describe_lost(noted, intent))
        case Decision.SUBMIT_AGAIN, _:
            log.warning(LOST_SUBMIT_WARNING, _describe_lost(noted, intent))
        case Decision.SUBMIT_BESIDE, Submitted(request_id=request_id):
            if not _has_ended(hook, noted):
                log.warning("Request %s, submitted with another input, is not cancelled and may still run.", request_id)
        case Decision.WAIT | Decision.TAKE, Submitted(request_id=request_id):
            log.info("Request %s was submitted by an earlier try; this try does not pay again.", request_id)
            request = noted.model_copy(update={"max_tries": intent.max_tries, "done": False})
            return ResumedRequest(request, succeeded=decision is Decision.TAKE)
    return None


def _describe_lost(noted: Noted, intent: Intent) -> str:
    if isinstance(noted, Unreadable):
        return f"What an earlier try has noted of its request cannot be read: {noted.path}: {noted.why}."
    return f"An earlier try died during its submit to {intent.endpoint}; it is unknown whether the submit arrived."


def _ask_state(hook: OdiRouterHook, request: Submitted, *, cancel_if_unreachable: bool) -> RequestState | None:
    """Return a request's state; ``None`` if the service does not know it, or if it is unreachable and was cancelled."""
    for pause in (*PAUSES_WHILE_NOT_FOUND, 0.0):
        try:
            return hook.get_status(request.endpoint, request.request_id).state
        except OdiRouterError as error:
            if error.is_transient:
                log.warning("%s The request of an earlier try counts as alive.", error.facts())
                return RequestState.UNKNOWN
            if isinstance(error, RequestNotFoundError):
                time.sleep(pause)
            elif cancel_if_unreachable:
                cancel_request(hook, request.endpoint, request.request_id, cause="cleared")
                return None
            else:
                raise RequestUnreachableError(
                    f"The request of an earlier try may still run, but its status cannot be read: {error.what}",
                    vendor=error.vendor,
                    request_id=request.request_id,
                    advice="A retry tries again to resume it; clearing the task submits a new one.",
                    last_advice="To submit a new request, clear the task; that cancels this one, if it can be reached.",
                ) from error
    return None


def _has_ended(hook: OdiRouterHook, request: Submitted) -> bool:
    """Tell, for the log alone; a request that does not answer may run."""
    client = hook.with_connection(request.odirouter_conn_id)
    try:
        return client.get_status(request.endpoint, request.request_id).state.is_terminal
    except RequestNotFoundError as error:
        return not error.is_transient
    except OdiRouterError:
        return False


def _cancel_noted(hook: OdiRouterHook, request: Submitted, cause: str) -> Outcome:
    client = hook.with_connection(request.odirouter_conn_id)
    return cancel_request(client, request.endpoint, request.request_id, cause=cause)


@contextmanager
def cancel_previous_on_early_failure(
    hook: OdiRouterHook, store: RequestStore, *, is_last_try: bool, may_cancel: bool
) -> Iterator[None]:
    """
    Cancel the request of an earlier try if this try fails before it submits, and no other follows.

    :param is_last_try: Whether Airflow does not try again, whatever the error.
    :param may_cancel: Whether a request that no try will wait for is cancelled.
    """
    try:
        yield
    except (NotOwnerError, LostSubmitError):
        raise  # a newer try, or a person, decides about the request
    except Exception as error:
        is_final = is_last_try or not getattr(error, "retry_helps", True)
        request = _recall(store) if is_final and may_cancel else None
        if (
            isinstance(request, Submitted)
            and not request.done
            and _cancel_noted(hook, request, "task_failed") in OVER_AFTER_CANCEL
        ):
            store.forget()
        raise


def _recall(store: RequestStore) -> Noted:
    try:
        return store.recall()
    except Exception as error:  # noqa: BLE001 - the error of the try matters more
        log.warning("%s If an earlier try submitted a request, it may be running and may be paid.", error)
        return None


def submit(
    hook: OdiRouterHook,
    store: RequestStore,
    intent: Intent,
    parameters: Mapping[str, Any],
    *,
    max_submits: int | None = None,
) -> Submitted:
    """
    Submit once; the intent is noted before.

    :param max_submits: In all tries; ``None``: as many as there are tries.
    :raises LostSubmitError: If the submit may have arrived, but no answer says so.
    :raises SubmitLimitError: If there were ``max_submits`` already.
    """
    spent = store.spent()
    if max_submits is not None and spent.submits >= max_submits:
        raise SubmitLimitError(max_submits, str(spent))
    price = hook.settings.prices.spending(intent.endpoint, parameters)
    if price.cost is not None:
        log.info("By the prices of the connection, the request costs about %.2f.", price.cost)
    spending = spent.plus(price)
    intent = intent.model_copy(update=spending._asdict())
    store.note(intent)
    try:
        request_id = hook.submit(intent.endpoint, parameters).request_id
    except LostSubmitError:
        hook.metrics.submitted(intent.endpoint, price, is_lost=True)
        raise
    except AirflowTaskTimeout as error:
        hook.metrics.submitted(intent.endpoint, price, is_lost=True)
        raise LostSubmitError(f"Airflow's execution_timeout ended the submit to {intent.endpoint}.") from error
    except (OdiRouterError, SubmitStoppedError):
        store.forget(spent)  # the submit certainly never became a request
        raise
    hook.metrics.submitted(intent.endpoint, price)
    log.info("Submitted request %s to %s.", request_id, intent.endpoint)
    if store.survives_retry:
        log.info("This task has spent, in all its tries: %s.", spending)
    return intent.submitted(request_id, datetime.now(UTC))


def make_intent(context: Context, odirouter_conn_id: str, endpoint: str, parameters: Mapping[str, Any]) -> Intent:
    """
    Return what a try is about to submit.

    :raises InvalidParametersError: If the endpoint is no safe path, or the parameters are no JSON.
    """
    body = protocol.submit("", endpoint, parameters, trace_id="").body or b""
    return Intent(
        fingerprint=make_fingerprint(odirouter_conn_id, endpoint, body),
        odirouter_conn_id=odirouter_conn_id,
        endpoint=endpoint,
        max_tries=context["ti"].max_tries,
    )


def find_deferred_request(context: Context, store: RequestStore) -> tuple[str, float | None]:
    """
    Return the request that a task was deferred for, and when it was submitted, in epoch seconds, if that is known.

    :raises RequestLostError: If neither the task's note nor its XCom tells.
    """
    ti, noted = context["ti"], store.recall()
    if isinstance(noted, Submitted):
        return noted.request_id, noted.submitted_at.timestamp()
    request_id = ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index, key="request_id")
    if not isinstance(request_id, str):
        raise RequestLostError("The trigger did not end, and the XCom request_id is missing.")
    return request_id, None


def open_request_store(
    context: Context,
    *,
    durable: bool,
    output_path: str | None = None,
    storage_conn_id: str | None = None,
    has_begun: bool = True,
) -> RequestStore:
    """
    Return what the task instance remembers: in Airflow's store (3.3 and later), or else beside its outputs.

    :param durable: If not, it remembers nothing.
    :param output_path: Of the task; before Airflow 3.3, nothing is remembered without it.
    :param has_begun: Whether this try may have noted something already.
    """
    store: TaskStateStore | None = None
    if durable:
        airflows = cast("TaskStateStore | None", context.get("task_state_store"))
        beside = _notes_beside(context, output_path, storage_conn_id, has_begun=has_begun)
        store = NotesOfBoth(airflows, beside) if airflows else beside
    return RequestStore(store, first_since_clear=lambda: _is_first_since_clear(context))


def _notes_beside(
    context: Context, output_path: str | None, storage_conn_id: str | None, *, has_begun: bool
) -> NotesBesideOutputs | None:
    if output_path is None or path_problem(output_path):
        return None
    ti = context["ti"]
    return NotesBesideOutputs(
        output_path,
        storage_conn_id,
        name_of_files(context),
        ti.id,
        is_first_try=ti.try_number == 1,
        has_begun=has_begun,
    )


def _is_first_since_clear(context: Context) -> bool:
    """Tell by Airflow's counts: a clear lets the next try be followed by as many as the task has retries."""
    ti = context["ti"]
    return bool(ti.try_number + (context["task"].retries or 0) == ti.max_tries + 1)
