"""What the log says of a batch while it runs."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from airflow_provider_odirouter.lifecycle.wait import REPORT_SECONDS, in_words
from airflow_provider_odirouter.models import BatchItem, Phase, Prices, Spending
from airflow_provider_odirouter.models.prices import quality_of

log = logging.getLogger(__name__)

MAX_NAMED = 20
"""Failed edits that a line of the log names."""


class BatchProgress:
    """
    The progress of a batch, in a line from time to time, and its failures: the first of a kind at once, then counts.

    :param items: All edits; some may have ended in an earlier try, or before a deferral.
    :param clock: Returns seconds of a steady clock.
    """

    def __init__(self, items: Sequence[BatchItem], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._logged = clock()
        self._ended_before = _count_ended(items)
        self._failures = Counter(_kind(item) for item in items if item.phase is Phase.FAILED)
        self._first: dict[str, BatchItem] = {}
        self._counted = self._failures.copy()
        """How often each kind of failure had come when the log last said so."""

    def note(self, item: BatchItem) -> None:
        """Count an edit that has failed."""
        if not item.error:
            return
        kind = _kind(item)
        self._failures[kind] += 1
        if kind not in self._first:
            self._first[kind] = item
            self._counted[kind] += 1
            log.warning("Edit %d (%s) has failed: %s", item.number, item.name, item.error)

    def log_if_due(self, items: Callable[[], Sequence[BatchItem]]) -> None:
        """
        Log the progress if the last line is :data:`~airflow_provider_odirouter.lifecycle.wait.REPORT_SECONDS` old.

        :param items: Returns all edits.
        """
        if self._clock() >= self._logged + REPORT_SECONDS:
            self.log(items())

    def log(self, items: Sequence[BatchItem]) -> None:
        """Log the progress, and how often each kind of failure has come since."""
        self._logged = self._clock()
        log.info(self.line(items))
        for kind, first in self._first.items():
            if self._failures[kind] > self._counted[kind]:
                self._counted[kind] = self._failures[kind]
                log.warning(
                    "%d edits have failed with %s; the first is edit %d (%s).",
                    self._failures[kind],
                    kind,
                    first.number,
                    first.name,
                )

    def line(self, items: Sequence[BatchItem]) -> str:
        """Return how many edits are where, and how long the rest takes if it goes on like this."""
        # Once: each edit that has landed is made from its line.
        phases = Counter("failed" if item.error is not None else item.phase for item in items)
        counts = {
            "failed": phases["failed"],
            "running": phases[Phase.SUBMITTED],
            "to land": phases[Phase.SUCCEEDED],
            "to submit": phases[Phase.PLANNED] + phases[Phase.SUBMITTING],
        }
        text = ", ".join(
            [f"{phases[Phase.LANDED]:,}/{len(items):,} landed"]
            + [f"{count:,} {name}" for name, count in counts.items() if count or name == "failed"]
        )
        ended = phases[Phase.LANDED] + phases["failed"]
        rate = (ended - self._ended_before) / max(self._clock() - self._began, 1.0)
        left = len(items) - ended
        return f"{text}; about {in_words(left / rate)} left" if left and rate else text


def describe_price(items: Sequence[BatchItem], endpoint: str, prices: Prices) -> str:
    """Return what the edits that are to be submitted will cost, as a sentence; empty, if there are no prices."""
    if not prices.by_endpoint:
        return ""
    total = 0.0
    without: Counter[str] = Counter()
    for item in items:
        if item.phase is Phase.PLANNED:
            cost = prices.spending(endpoint, item.edit).cost
            total += cost or 0.0
            without.update([quality_of(item.edit)] if cost is None else [])
    text = f"By the prices of the connection, this costs about {total:,.2f}"
    if without:
        named = ", ".join(f"{count:,} with quality {quality!r}" for quality, count in without.most_common(MAX_NAMED))
        text += f", without those that have no price there ({endpoint}: {named})"
    return f"{text}."


def log_begin(
    items: Sequence[BatchItem],
    manifest: str,
    *,
    max_in_flight: int,
    timeout: float,
    ends_at: datetime | None,
    price: str = "",
) -> None:
    """
    Say what a batch is about to do.

    :param timeout: Seconds from the submit of an edit to the end of the wait for it.
    :param ends_at: The end of the task's ``execution_timeout``, if it has one.
    :param price: What the submits will cost, as a sentence.
    """
    log.info(
        "The batch has %s edits, of which %s are to be submitted. Requests alive at once: at most %s. Each has %s "
        "after its submit%s. The manifest will be %s.%s",
        f"{len(items):,}",
        f"{sum(item.phase is Phase.PLANNED for item in items):,}",
        f"{max_in_flight:,}",
        in_words(timeout),
        f", at most until {ends_at:%Y-%m-%d %H:%M:%S} UTC" if ends_at else "",
        manifest,
        f" {price}" if price else "",
    )


def log_end(items: Sequence[BatchItem], manifest: str, *, spent: Spending, is_failure: bool) -> None:
    """
    Say how a batch has ended, and name the edits without pictures.

    :param spent: By the task instance in all its tries.
    :param is_failure: Whether an error follows that says so.
    """
    failed = [item for item in items if item.phase is not Phase.LANDED]
    log.info(
        "%s of %s edits have landed. The manifest is %s. This task has spent, in all its tries: %s.",
        f"{len(items) - len(failed):,}",
        f"{len(items):,}",
        manifest,
        spent,
    )
    if failed and not is_failure:
        named = ", ".join(f"{item.number} ({item.name}): {_kind(item)}" for item in failed[:MAX_NAMED])
        more = f" and {len(failed) - MAX_NAMED:,} more" if len(failed) > MAX_NAMED else ""
        log.warning("%s edits have no pictures: %s%s. The manifest says why.", f"{len(failed):,}", named, more)


def _count_ended(items: Sequence[BatchItem]) -> int:
    return sum(item.phase is Phase.LANDED or item.error is not None for item in items)


def _kind(item: BatchItem) -> str:
    return item.error_type or "an error without a type"
