"""Submit an edit of a batch: once, its state saved before and after."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from airflow_provider_odirouter.batch.endings import BatchOptions
from airflow_provider_odirouter.batch.resume import as_failed
from airflow_provider_odirouter.batch.state import BatchStore
from airflow_provider_odirouter.errors import (
    InvalidParametersError,
    LostSubmitError,
    NotOwnerError,
    OdiRouterError,
    RateLimitedError,
    RejectedError,
    StorageError,
    SubmitStoppedError,
)
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.cancel import cancel_command
from airflow_provider_odirouter.lifecycle.guard import RequestGuard
from airflow_provider_odirouter.models import BatchItem, Phase

log = logging.getLogger(__name__)

ERRORS_OF_ONE_EDIT = (InvalidParametersError, RejectedError, LostSubmitError)
"""Errors of a submit that say nothing about the next one. Any other error would meet every edit: no more are sent."""
MAX_LOST = 3
"""Submits in a row without an answer: the service is in trouble, and each further submit could be paid for nothing."""
UNDER_WAY_SECONDS = 10.0
"""For submits that are under way when the task is killed: the request id is in their answer only."""


class BatchSubmitter:
    """
    Submits edits, each from a thread of its own.

    :param guard: Holds each new request, and decides whether more may be submitted.
    """

    def __init__(self, hook: OdiRouterHook, store: BatchStore, guard: RequestGuard, options: BatchOptions) -> None:
        self._hook = hook
        self._store = store
        self._guard = guard
        self._options = options
        self._lost_in_a_row = 0
        self._under_way = 0
        self._submit_ended = threading.Condition()
        self.error: OdiRouterError | None = None
        """Why the remaining edits are not submitted."""

    def stop(self, error: OdiRouterError) -> None:
        """
        Submit nothing more.

        :param error: Why.
        """
        if self.error is None:
            self.error = error
            log.warning("No more edits are submitted: %s", error)
        self._guard.stop_submitting()

    def submit(self, item: BatchItem) -> None:
        """
        Submit an edit, and save how that ended.

        :raises StorageError: If the batch's state cannot be saved.
        :raises RateLimitedError: If the service answers ``429``; the edit is still to be submitted.
        """
        with self._submit_ended:
            self._under_way += 1
        try:
            if self._guard.may_submit:
                self._submit(item)
        finally:
            with self._submit_ended:
                self._under_way -= 1
                self._submit_ended.notify()

    def wait_for_answers(self) -> None:
        """Wait for the submits that are under way, for :data:`UNDER_WAY_SECONDS` at most."""
        with self._submit_ended:
            if not self._submit_ended.wait_for(lambda: not self._under_way, UNDER_WAY_SECONDS):
                log.warning(
                    "Submits without an answer: %d. Their requests may be running and may be paid; OdiRouter has no "
                    "way to find out.",
                    self._under_way,
                )

    def _submit(self, item: BatchItem) -> None:
        endpoint = self._options.endpoint
        try:
            parameters = self._options.make_parameters(item)
            price = self._hook.settings.prices.spending(endpoint, item.edit)
            paid = item.model_copy(update=item.spending.plus(price)._asdict())
            self._store.save_now(paid.model_copy(update={"phase": Phase.SUBMITTING}))
            request_id = self._hook.submit(endpoint, parameters, waits_out_rate_limit=False).request_id
        except SubmitStoppedError:
            self._store.stage(item)
        except RateLimitedError:
            self._store.stage(item)
            raise
        except LostSubmitError as error:
            self._hook.metrics.submitted(endpoint, price, is_lost=True)
            self._store.save_now(as_failed(paid, error))
            self._lost_in_a_row += 1
            if self._lost_in_a_row >= MAX_LOST:
                self.stop(error)
        except ERRORS_OF_ONE_EDIT as error:
            self._store.stage(as_failed(item, error))
        except StorageError as error:
            if not self._store.survives_retry:
                raise
            self._store.stage(as_failed(item, error))
        except OdiRouterError as error:
            self._store.stage(item)
            self.stop(error)
        else:
            self._hook.metrics.submitted(endpoint, price)
            self._lost_in_a_row = 0
            self._save_submitted(paid, request_id)

    def _save_submitted(self, item: BatchItem, request_id: str) -> None:
        submitted = item.model_copy(
            update={
                "phase": Phase.SUBMITTED,
                "request_id": request_id,
                "submitted_at": datetime.now(UTC),
                "try_number": self._options.try_number,
            }
        )
        # First the store, then the guard: if all requests are cancelled meanwhile, one of the two has this one.
        self._store.stage(submitted)
        self._guard.add(request_id)
        try:
            self._store.save()
        except NotOwnerError:
            log.error(  # noqa: TRY400 - the error itself is raised
                "Request %s was submitted by a process that no longer acts for its task. No other try knows it, and it "
                "may be paid; to cancel it by hand: %s",
                request_id,
                cancel_command(self._hook.odirouter_conn_id, self._options.endpoint, request_id),
            )
            raise
