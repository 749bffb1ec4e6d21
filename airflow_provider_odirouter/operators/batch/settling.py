"""Noting how the requests of a batch have ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial

from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.images.threads import side_by_side
from airflow_provider_odirouter.models import BatchItem, CancelOutcome, Ending, Failure, ImageEdit, Phase, RequestEvent
from airflow_provider_odirouter.operators.batch.calls import cancel_here
from airflow_provider_odirouter.operators.batch.carrying import failed, submitted_anew
from airflow_provider_odirouter.operators.batch.ledger import Ledger
from airflow_provider_odirouter.polling import SUBMITS_ANEW, error_of, may_be_alive

log = logging.getLogger(__name__)

WORKERS = 8
"""Requests that are looked at once more at a time."""
GOES_ON = "a retry goes on with it"
TAKEN_BY_CLEAR = "clearing the task cancels it, or takes what it has made by then"


class Settling:
    """
    Notes how requests have ended.

    :param try_number: Airflow's.
    :param tried_again: Whether Airflow certainly tries again if this try fails.
    :param cancels: Whether a request that cannot be looked at, and that nobody will wait for, is cancelled.
    """

    def __init__(
        self, hook: OdiRouterHook, ledger: Ledger, *, try_number: int, tried_again: bool, cancels: bool
    ) -> None:
        self._hook = hook
        self._ledger = ledger
        self._try_number = try_number
        self._tried_again = tried_again
        self._cancels = cancels

    def settle(self, events: Iterable[RequestEvent]) -> None:
        """
        Note all, and write it.

        :param events: Those of failed requests may lack the vendor's words.
        """
        found = {event.request_id: event for event in events}
        found |= self._with_words([event for event in found.values() if event.ending is Ending.FAILED])
        found |= self._given_up([event for event in found.values() if event.ending is Ending.UNWATCHED])
        for item in self._ledger.of(Phase.SUBMITTED):
            if event := found.get(item.request_id or ""):
                self._ledger.put(self._settled(item, event))
        self._ledger.flush()

    def _settled(self, item: BatchItem, event: RequestEvent) -> BatchItem:
        alive = may_be_alive(event)
        left_alone = GOES_ON if self._tried_again else TAKEN_BY_CLEAR
        error = error_of(event, retry=left_alone if alive else SUBMITS_ANEW)
        if error is None:
            seen = {"completed_at": event.at, "inference_seconds": event.inference_seconds}
            return item.model_copy(update={"phase": Phase.SUCCEEDED, **seen})
        unexplained = event.ending is Ending.FAILED and event.failure is None
        if unexplained:
            error.advice = "Why could not be found out; a retry looks again, and does not pay anew for a refusal."
        ended_by_itself = not (alive or unexplained) and event.cancel is None
        if error.retry_helps and ended_by_itself and item.try_number != self._try_number:
            # It was an earlier try's: this one is the retry that submits anew.
            log.info("%s It is submitted anew.", error.what)
            return submitted_anew(item)
        bad = failed(item, error, error_type=event.failure.error_type if event.failure else None)
        # A new try must not pay once more for what may be paid.
        return bad.model_copy(update={"phase": Phase.SUBMITTED}) if alive or unexplained else bad

    def _with_words(self, events: Sequence[RequestEvent]) -> dict[str, RequestEvent]:
        """Look once more at requests that have failed: the event of many has no room for the vendor's words."""

        def look(event: RequestEvent) -> RequestEvent:
            if event.failure:
                return event
            try:
                status = self._hook.get_status(event.endpoint, event.request_id)
            except OdiRouterError as error:
                log.warning("Why request %s has failed cannot be found out: %s", event.request_id, error)
                return event
            return event.model_copy(update={"failure": status.failure or Failure()})

        looked = side_by_side([partial(look, event) for event in events], workers=WORKERS)
        return {event.request_id: event for event in looked}

    def _given_up(self, events: Sequence[RequestEvent]) -> dict[str, RequestEvent]:
        """Cancel requests that cannot be looked at, unless a new try goes on with them."""
        if self._tried_again or not self._cancels or not events:
            return {}
        outcomes = cancel_here(
            self._hook,
            ImageEdit.ENDPOINT,
            [event.request_id for event in events],
            why="It cannot be looked at, and no retry will.",
        )
        return {
            event.request_id: event.given_up(outcomes[event.request_id])
            for event in events
            if isinstance(outcomes.get(event.request_id), CancelOutcome | OdiRouterError)
        }
