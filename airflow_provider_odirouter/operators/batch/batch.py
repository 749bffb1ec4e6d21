"""A batch in the hands of a worker: from wave to wave of requests, until all have ended and all pictures are home."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_odirouter.durability import Store
from airflow_provider_odirouter.errors import BatchStateMissingError, OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import IMAGE_EDIT_ENDPOINT as ENDPOINT
from airflow_provider_odirouter.models import BatchEvent, BatchItem, Phase, RequestEvent
from airflow_provider_odirouter.operators.batch.calls import cancel_here
from airflow_provider_odirouter.operators.batch.carrying import Carried, submitted_anew
from airflow_provider_odirouter.operators.batch.landing import Landing
from airflow_provider_odirouter.operators.batch.ledger import Ledger
from airflow_provider_odirouter.operators.batch.settling import Settling
from airflow_provider_odirouter.operators.batch.submitting import Submitting
from airflow_provider_odirouter.operators.steps import cancel
from airflow_provider_odirouter.polling import OVER_AFTER_CANCEL

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manner:
    """How a batch is worked on."""

    output_path: str
    storage_conn_id: str | None
    max_concurrent_submits: int
    max_in_flight: int
    cancel_on_kill: bool
    cancel_on_timeout: bool
    try_number: int
    tried_again: bool
    """Whether Airflow certainly tries again if this try fails."""


class Batch:
    """All requests of a batch: what a worker does about them, and what it has in custody."""

    def __init__(self, hook: OdiRouterHook, ledger: Ledger, manner: Manner) -> None:
        self._hook = hook
        self._ledger = ledger
        self._manner = manner
        self._stop = threading.Event()
        self._cancelled = threading.Event()
        self._over: set[str] = set()
        self._submitting = Submitting(
            hook, ledger, try_number=manner.try_number, stop=self._stop, submitted=self._cancel_late
        )

    @property
    def error(self) -> OdiRouterError | None:
        """What keeps the rest from being submitted."""
        return self._submitting.error

    def begin(self, carried: Carried, store: Store | None) -> None:
        """
        Take over what an earlier try has left.

        :param store: Airflow's, if there is one.
        :raises OdiRouterError: If a request of a cleared task cannot be cancelled: it would be paid beside a new one.
        """
        for remark in carried.remarks():
            log.warning(remark)
        if carried.unwanted and self._manner.cancel_on_kill:
            why = "An earlier try's is not wanted any more."
            for request_id, outcome in cancel_here(self._hook, ENDPOINT, list(carried.unwanted), why=why).items():
                if isinstance(outcome, OdiRouterError) and carried.unwanted[request_id]:
                    raise outcome
                if outcome not in OVER_AFTER_CANCEL:
                    carried.go_on_with(request_id)
        self._ledger.begin(carried.items, store)

    def begin_wave(self) -> bool:
        """Submit as many as may be alive at once, and return whether any are waited for."""
        while planned := self._next():
            self._submitting.submit(planned, workers=self._manner.max_concurrent_submits)
            if self.awaited():
                break
        return bool(self.awaited())

    def _next(self) -> list[BatchItem]:
        if self._stop.is_set():
            return []
        room = self._manner.max_in_flight - len(self._ledger.of(Phase.SUBMITTED))
        return self._ledger.of(Phase.PLANNED)[: max(0, room)]

    def submit_no_more(self, error: OdiRouterError) -> None:
        """
        Leave the rest to another try.

        :param error: Why.
        """
        self._submitting.stop_for(error)

    def awaited(self) -> list[str]:
        """Return the requests that are waited for: those that may be running, and were not given up."""
        return [str(item.request_id) for item in self._ledger.of(Phase.SUBMITTED) if item.error is None]

    def events_of(self, ended: BatchEvent) -> list[RequestEvent]:
        """
        Return how each request has ended.

        :raises BatchStateMissingError: If these are not the requests that were waited for.
        """
        request_ids = self.awaited()
        if not ended.is_about(request_ids):
            raise BatchStateMissingError(
                "The trigger's event is about other requests than those that the batch's state names.",
                advice="A retry asks for the state of each request that the batch's state names, and goes on with it.",
            )
        return list(ended.events(ENDPOINT, request_ids))

    def settle(self, events: Sequence[RequestEvent]) -> None:
        """Note how requests have ended."""
        Settling(
            self._hook,
            self._ledger,
            try_number=self._manner.try_number,
            tried_again=self._manner.tried_again,
            cancels=self._manner.cancel_on_timeout,
        ).settle(events)

    def land(self) -> None:
        """Bring home the outputs of all requests that have succeeded."""
        if succeeded := self._ledger.of(Phase.SUCCEEDED):
            landing = Landing(
                self._hook,
                self._ledger,
                output_path=self._manner.output_path,
                storage_conn_id=self._manner.storage_conn_id,
                last_try=not self._manner.tried_again,
            )
            landing.land(succeeded)

    # --- In custody

    def request_ids(self) -> Sequence[str]:
        """Return the requests that may be running; without those that were given up for good, which are left alone."""
        submitted = self._ledger.of(Phase.SUBMITTED)
        return [str(item.request_id) for item in submitted if item.error is None or self._manner.tried_again]

    def begin_nothing_more(self) -> None:
        """Submit nothing from now on."""
        self._stop.set()

    def cancel(self) -> None:
        """Cancel all that may be running, and what a submit that is under way brings yet."""
        self._cancelled.set()
        if request_ids := self.request_ids():
            outcomes = cancel_here(self._hook, ENDPOINT, request_ids, why="The task ends.")
            self._over.update(one for one, outcome in outcomes.items() if outcome in OVER_AFTER_CANCEL)

    def note_cancel(self) -> None:
        """Let a new try submit what was cancelled."""
        for item in self._ledger.of(Phase.SUBMITTED):
            if item.request_id in self._over:
                self._ledger.put(submitted_anew(item))
        try:
            self._ledger.flush()
        except OdiRouterError as error:
            log.warning("It could not be noted that the requests are cancelled: %s", error)

    def _cancel_late(self, request_id: str) -> None:
        if self._cancelled.is_set() and cancel(self._hook, ENDPOINT, request_id) in OVER_AFTER_CANCEL:
            self._over.add(request_id)
