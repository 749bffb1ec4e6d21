"""Cancelling requests that nobody waits for any more, one or a thousand, and saying what that came to."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import CancelOutcome
from airflow_provider_odirouter.polling import CANCEL_FATES

LONGEST_LIST = 50
"""Request ids in one line of the log."""

Outcome = CancelOutcome | Exception


async def cancel_all(
    hook: OdiRouterHook, endpoint: str, request_ids: Sequence[str], *, seconds: float
) -> dict[str, Outcome]:
    """
    Cancel requests, side by side.

    :param seconds: How long to try; what is not cancelled by then has a ``TimeoutError``.
    :return: What the cancel of each came to.
    """
    async with hook:
        cancels = {one: asyncio.create_task(hook.acancel(endpoint, one)) for one in request_ids}
        if cancels:
            await asyncio.wait(cancels.values(), timeout=seconds)
        for cancel in cancels.values():
            cancel.cancel()
        results = await asyncio.gather(*cancels.values(), return_exceptions=True)
    return {one: _outcome(result, seconds) for one, result in zip(cancels, results, strict=True)}


def by_hand(conn_id: str, endpoint: str, request_id: str) -> str:
    """Return the call that cancels a request by hand."""
    return f"OdiRouterHook({conn_id!r}).cancel({endpoint!r}, {request_id!r})"


def tell(
    outcomes: Mapping[str, Outcome],
    *,
    conn_id: str,
    endpoint: str,
    log: Callable[[int, str], object],
    why: str = "",
) -> None:
    """
    Say in the log what the cancels came to.

    :param log: Takes a level and a text.
    :param why: Why they were made, as a sentence.
    """
    alike: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for request_id, outcome in outcomes.items():
        alike[_level_and_fate(outcome)].append(request_id)
    for (level, fate), request_ids in alike.items():
        shown = ", ".join(request_ids[:LONGEST_LIST]) + ("…" if len(request_ids) > LONGEST_LIST else "")
        which = f"{len(request_ids):,} requests" if len(request_ids) > 1 else "Request"
        text = f"{why} {which} {shown}{fate}.".lstrip()
        if level == logging.ERROR:
            text += f" To cancel it by hand: {by_hand(conn_id, endpoint, request_ids[0])}"
        log(level, text)


def _level_and_fate(outcome: Outcome) -> tuple[int, str]:
    if isinstance(outcome, CancelOutcome):
        level = logging.ERROR if outcome is CancelOutcome.UNSUPPORTED else logging.INFO
        return level, f": {CANCEL_FATES[outcome]}"
    reason = (str(outcome) or type(outcome).__name__).rstrip(".")
    return (
        logging.ERROR,
        f" may be running with nobody waiting for it, and be paid: it could not be cancelled ({reason})",
    )


def _outcome(result: CancelOutcome | BaseException, seconds: float) -> Outcome:
    if isinstance(result, CancelOutcome | Exception):
        return result
    return TimeoutError(f"no answer within {seconds:g} s")
