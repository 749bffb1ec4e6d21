"""What Airflow and the gallery learn of a task's failure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_odirouter import metrics
from airflow_provider_odirouter.compat import AirflowFailException
from airflow_provider_odirouter.errors import InvalidParametersError, OdiRouterError
from airflow_provider_odirouter.xcoms import FAILURE_XCOM, FailureRecord

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.lifecycle.ownership import Ownership

log = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0
"""For Airflow to say whether this process may still push the failure."""


@contextmanager
def handle_failure(context: Context, ownership: Ownership) -> Iterator[None]:
    """
    Push a failure as an XCom for the gallery, and tell Airflow whether a retry can help.

    :raises AirflowFailException: Instead of an error that a retry cannot cure: Airflow then does not try again.
    """
    try:
        with as_airflow_errors(), push_failure(context, ownership), advise(context):
            yield
    finally:
        metrics.flush()  # the process may end now


@contextmanager
def as_airflow_errors() -> Iterator[None]:
    """
    Tell Airflow whether a retry can help. Airflow's log then shows our text once: a cause of ours says the same.

    :raises AirflowFailException: Instead of an error that a retry cannot cure: Airflow then does not try again.
    """
    try:
        yield
    except OdiRouterError as error:
        if not error.retry_helps:
            raise AirflowFailException(str(error)) from find_foreign_cause(error)
        error.__cause__ = find_foreign_cause(error)
        raise


@contextmanager
def push_failure(context: Context, ownership: Ownership) -> Iterator[None]:
    """Push our error as an XCom for the gallery; within what translates it for Airflow."""
    try:
        yield
    except OdiRouterError as error:
        if ownership.is_owner_within(ANSWER_SECONDS):
            try:
                context["ti"].xcom_push(key=FAILURE_XCOM, value=FailureRecord.of(error).to_xcom())
            except Exception as push_error:  # noqa: BLE001 - the error itself matters more than its record
                log.warning("The failure could not be pushed as XCom %s: %r", FAILURE_XCOM, push_error)
        raise


@contextmanager
def advise(context: Context) -> Iterator[None]:
    """
    Give the advice that is true of this try.

    A retry is named only where Airflow may try again. Nothing was paid only where no earlier try can have paid.
    """
    try:
        yield
    except OdiRouterError as error:
        if isinstance(error, InvalidParametersError) and context["ti"].try_number > 1:
            error.advise(error.advice_after_first_try)
        elif not (error.retry_helps and may_be_retried(context)):
            error.be_last()
        raise


def find_foreign_cause(error: BaseException) -> BaseException | None:
    """Return the nearest cause of an error that is not of this provider."""
    cause = error.__cause__
    while isinstance(cause, OdiRouterError):
        cause = cause.__cause__
    return cause


def will_be_retried(context: Context) -> bool:
    """Return whether Airflow certainly tries again if this try fails; a retry policy decides only then."""
    return may_be_retried(context) and not getattr(context["task"], "retry_policy", None)


def may_be_retried(context: Context) -> bool:
    """Return whether Airflow has a try left if this one fails."""
    ti, task = context["ti"], context["task"]
    return bool(task.retries and ti.try_number <= ti.max_tries)
