"""The moments of a trial at which something happens to its worker."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.dags.batches import FEWER
from tests.e2e.trial import Trial

Moment = Callable[[Trial], bool]
AT_A_TIME = 8
"""Submits of a batch, by default: as many may be under way when its worker is struck."""


def submits(trial: Trial) -> bool:
    """Whether some submits have arrived whose answers may be under way."""
    return trial.sandbox.paid >= 1


def submits_many(trial: Trial) -> bool:
    return trial.sandbox.paid >= FEWER // 4


def has_submitted(trial: Trial) -> bool:
    return bool(trial.request_id)


def waits(trial: Trial) -> bool:
    requests = trial.witness.requests
    return bool(requests) and all(request.polls for request in requests)


def waits_for_many(trial: Trial) -> bool:
    return trial.sandbox.paid == FEWER and waits(trial)
