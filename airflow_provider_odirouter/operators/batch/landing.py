"""Bringing home the pictures of a batch, those of a few requests at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial

from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.images.threads import side_by_side
from airflow_provider_odirouter.models import BatchItem, ImageEdit, Phase
from airflow_provider_odirouter.operators import recovery, steps
from airflow_provider_odirouter.operators.batch.carrying import failed
from airflow_provider_odirouter.operators.batch.ledger import Ledger
from airflow_provider_odirouter.operators.batch.report import Report

log = logging.getLogger(__name__)

LANDING_ADVICE = "A retry fetches the pictures again, and pays nothing; so does clearing the task."


class Landing:
    """
    Lands outputs.

    :param last_try: Whether no other try follows, so that what cannot be brought home counts as failed.
    """

    def __init__(
        self,
        hook: OdiRouterHook,
        ledger: Ledger,
        *,
        output_path: str,
        storage_conn_id: str | None,
        last_try: bool,
    ) -> None:
        self._hook = hook
        self._ledger = ledger
        self._output_path = output_path
        self._storage_conn_id = storage_conn_id
        self._last_try = last_try
        self._stop = threading.Event()

    def land(self, items: Sequence[BatchItem]) -> None:
        """
        Land the outputs of edits whose requests have succeeded.

        One that cannot be brought home does not keep the others from it.

        :raises StorageError: If what has landed cannot be noted.
        """
        report = Report("The pictures of %d of %d edits have landed.", len(items))
        side_by_side([partial(self._one, item, report) for item in items], stop=self._stop)
        report.tell()
        self._ledger.flush()

    def _one(self, item: BatchItem, report: Report) -> None:
        if self._stop.is_set():
            return
        try:
            landed = self._land(item, str(item.request_id))
        except OdiRouterError as error:
            self._ledger.put(self._not_home(item, error))
            log.warning("The pictures of edit %d are not home: %s", item.number, error)
            return
        self._ledger.put(landed)
        if report.count():
            self._ledger.flush()

    def _land(self, item: BatchItem, request_id: str) -> BatchItem:
        result = steps.fetch(self._hook, ImageEdit.ENDPOINT, request_id)
        outputs = steps.land(
            self._hook,
            ImageEdit.ENDPOINT,
            request_id,
            result,
            name=item.name,
            output_path=self._output_path,
            storage_conn_id=self._storage_conn_id,
            workers=1,
        )
        now = {"phase": Phase.LANDED, "outputs": outputs, "metadata": result.metadata}
        return item.model_copy(update={**now, "error": None, "error_type": None})

    def _not_home(self, item: BatchItem, error: OdiRouterError) -> BatchItem:
        error.request_id = item.request_id
        if error.retry_helps:
            error.advice = LANDING_ADVICE
        if self._last_try:
            recovery.give_up_outputs(error)
        bad = failed(item, error)
        return bad if error.request_over else bad.model_copy(update={"phase": Phase.SUCCEEDED})
