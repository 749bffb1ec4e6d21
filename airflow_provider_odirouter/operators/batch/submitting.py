"""Submitting the edits of a batch: each once, noted before and after, a few at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from airflow_provider_odirouter.errors import (
    InvalidParametersError,
    LostSubmitError,
    NotOwnerError,
    OdiRouterError,
    RejectedError,
    StorageError,
    SubmitStoppedError,
)
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.images.threads import side_by_side
from airflow_provider_odirouter.models import BatchItem, ImageEdit, Phase
from airflow_provider_odirouter.operators.batch.carrying import failed
from airflow_provider_odirouter.operators.batch.ledger import Ledger
from airflow_provider_odirouter.operators.batch.plan import parameters_of
from airflow_provider_odirouter.operators.batch.report import Report
from airflow_provider_odirouter.triggers.canceling import by_hand

log = logging.getLogger(__name__)

OF_ONE_EDIT = (InvalidParametersError, RejectedError, LostSubmitError)
"""Errors of a submit that say nothing about the next one. All others would meet every edit."""
MOST_LOST = 3
"""Submits in a row whose fate is unknown: then the service is in trouble, and each more could be paid for nothing."""
UNDER_WAY_SECONDS = 10.0
"""For submits that are under way when the task is killed: without their answers, nobody would know those requests."""


class Submitting:
    """
    Submits edits.

    :param try_number: Airflow's.
    :param stop: Set when no more shall be submitted.
    :param submitted: Called with each new request.
    """

    def __init__(
        self,
        hook: OdiRouterHook,
        ledger: Ledger,
        *,
        try_number: int,
        stop: threading.Event,
        submitted: Callable[[str], object],
    ) -> None:
        self._hook = hook
        self._ledger = ledger
        self._try_number = try_number
        self._stop = stop
        self._submitted = submitted
        self._lost = 0
        self._under_way = 0
        self._one_less = threading.Condition()
        self.error: OdiRouterError | None = None
        """What has stopped it: edits that are left were not submitted."""

    def submit(self, items: Sequence[BatchItem], *, workers: int) -> None:
        """
        Submit edits.

        :param workers: How many at a time; as many edits are in memory with their pictures.
        :raises StorageError: If it cannot be noted what is submitted.
        """
        report = Report("%d of %d edits are submitted.", len(items))
        try:
            side_by_side([partial(self._one, item, report) for item in items], workers=workers)
        except BaseException:
            self._stop.set()
            self._wait_for_those_under_way()
            raise
        finally:
            self._ledger.flush()
        report.tell()

    def stop_for(self, error: OdiRouterError) -> None:
        """Submit nothing more."""
        if self.error is None:
            self.error = error
        self._stop.set()

    def _one(self, item: BatchItem, report: Report) -> None:
        with self._one_less:
            self._under_way += 1
        try:
            if not self._stop.is_set():
                self._submit(item, report)
        finally:
            with self._one_less:
                self._under_way -= 1
                self._one_less.notify()

    def _wait_for_those_under_way(self) -> None:
        with self._one_less:
            if not self._one_less.wait_for(lambda: not self._under_way, UNDER_WAY_SECONDS):
                log.warning(
                    "%d submits are under way, and their fate is unknown. Those requests may be running and may be "
                    "paid; OdiRouter has no way to find out.",
                    self._under_way,
                )

    def _submit(self, item: BatchItem, report: Report) -> None:
        try:
            parameters = parameters_of(item)
            self._ledger.keep(item.model_copy(update={"phase": Phase.SUBMITTING}))
            request_id = self._hook.submit(ImageEdit.ENDPOINT, parameters).request_id
        except SubmitStoppedError:
            self._ledger.put(item)
        except LostSubmitError as error:
            self._ledger.keep(failed(item, error))
            self._lost += 1
            if self._lost >= MOST_LOST:
                self.stop_for(error)
        except OF_ONE_EDIT as error:
            self._ledger.put(failed(item, error))
        except StorageError as error:
            if not self._ledger.lasts:
                raise
            self._ledger.put(failed(item, error))
        except OdiRouterError as error:
            self._ledger.put(item)
            self.stop_for(error)
        else:
            self._lost = 0
            self._note(item, request_id)
            report.count()

    def _note(self, item: BatchItem, request_id: str) -> None:
        submitted = item.model_copy(
            update={
                "phase": Phase.SUBMITTED,
                "request_id": request_id,
                "submitted_at": datetime.now(UTC),
                "try_number": self._try_number,
            }
        )
        self._ledger.put(submitted)
        self._submitted(request_id)
        try:
            self._ledger.flush()
        except NotOwnerError:
            log.error(  # noqa: TRY400 - the error itself is raised
                "Request %s was submitted by a try that no longer acts for its task. No other try knows it, and it may "
                "be paid; to cancel it by hand: %s",
                request_id,
                by_hand(self._hook.odirouter_conn_id, ImageEdit.ENDPOINT, request_id),
            )
            raise
