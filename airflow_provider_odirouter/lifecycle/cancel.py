"""Cancelling requests that no task waits for, one or a thousand, and saying in the log how each cancel ended."""

from __future__ import annotations

import asyncio
import logging
import shlex
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from airflow_provider_odirouter import metrics
from airflow_provider_odirouter.errors import NoAnswerError, NotOwnerError, OdiRouterError
from airflow_provider_odirouter.hooks import async_transport  # noqa: F401 - a kill must not wait for this import
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.polling import CANCEL_MEANINGS
from airflow_provider_odirouter.models import CancelOutcome
from airflow_provider_odirouter.protocol import Action
from airflow_provider_odirouter.protocol.retries import MAX_RATE_LIMITED_SECONDS
from airflow_provider_odirouter.storage.threads import start_or_error

log = logging.getLogger(__name__)

SECONDS_IN_A_KILL = 60.0
"""For all cancels of a task that is killed: Airflow uses SIGKILL long before."""
MAX_LISTED_IDS = 50
"""Request ids in one line of the log."""

Outcome: TypeAlias = CancelOutcome | Exception
"""How a cancel ended: the service's answer, or why there is none."""


async def cancel_all(
    hook: OdiRouterHook, endpoint: str, request_ids: Sequence[str], *, seconds: float, cause: str
) -> dict[str, Outcome]:
    """
    Cancel requests side by side.

    :param cause: Why, in one word for the metrics.
    :param seconds: For all of them together; a cancel without an answer by then has a
        :class:`~airflow_provider_odirouter.errors.NoAnswerError`.
    :return: How the cancel of each request ended.
    """
    async with hook:
        cancels = {one: asyncio.create_task(hook.acancel(endpoint, one)) for one in request_ids}
        if cancels:
            await asyncio.wait(cancels.values(), timeout=seconds)
        for cancel in cancels.values():
            cancel.cancel()
        results = await asyncio.gather(*cancels.values(), return_exceptions=True)
    outcomes = {one: _outcome(result, seconds) for one, result in zip(cancels, results, strict=True)}
    for outcome in outcomes.values():
        hook.metrics.cancelled(endpoint, cause, outcome)
    return outcomes


def cancel_on_worker(
    hook: OdiRouterHook,
    endpoint: str,
    request_ids: Sequence[str],
    *,
    cause: str,
    why: str = "",
    seconds: float | None = None,
) -> dict[str, Outcome]:
    """
    Cancel requests side by side, from any thread and from a signal handler, and say in the log how that ended.

    It happens in a thread of its own: a signal handler may have interrupted an event loop, and a thread has but one.
    The client is its own, too: the handler may have interrupted the other one in the middle of a call.

    :param cause: Why, in one word for the metrics.
    :param why: A sentence for the log.
    :param seconds: For all of them together. Default: as long as the hook repeats a cancel that is rate limited, and
        one call more.
    :return: How the cancel of each request ended.
    :raises NotOwnerError: If this process no longer acts for its task.
    """
    outcomes: dict[str, Outcome] = {}

    def cancel() -> None:
        try:
            client = hook.with_own_client()
            limit = seconds or MAX_RATE_LIMITED_SECONDS[Action.CANCEL] + client.settings.timeout
            outcomes.update(asyncio.run(cancel_all(client, endpoint, request_ids, seconds=limit, cause=cause)))
        except Exception as error:  # noqa: BLE001 - such as a process without a free file: then none is cancelled
            outcomes.update(dict.fromkeys(request_ids, error))

    thread = threading.Thread(target=cancel, name="odirouter-cancel")
    if error := start_or_error(thread):
        outcomes.update(dict.fromkeys(request_ids, error))
    else:
        thread.join()
    metrics.flush()  # they were counted on an event loop
    log_outcomes(outcomes, conn_id=hook.odirouter_conn_id, endpoint=endpoint, log=log.log, why=why)
    for outcome in outcomes.values():
        if isinstance(outcome, NotOwnerError):
            raise outcome
    return outcomes


def cancel_request(hook: OdiRouterHook, endpoint: str, request_id: str, *, cause: str) -> Outcome:
    """Cancel one request, see :func:`cancel_on_worker`."""
    return cancel_on_worker(hook, endpoint, [request_id], cause=cause)[request_id]


def cancel_command(conn_id: str, endpoint: str, request_id: str) -> str:
    """Return the shell command with which a user cancels a request (``lifecycle/by_hand.py``)."""
    return shlex.join(["odirouter-request", "cancel", endpoint, request_id, "--conn-id", conn_id])


def log_outcomes(
    outcomes: Mapping[str, Outcome],
    *,
    conn_id: str,
    endpoint: str,
    log: Callable[[int, str], object],
    why: str = "",
) -> None:
    """
    Say in the log how cancels ended, in one line for all that ended alike.

    :param log: Takes a level and a text.
    :param why: Why the requests were cancelled, as a sentence.
    """
    alike: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for request_id, outcome in outcomes.items():
        alike[_level_and_meaning(outcome)].append(request_id)
    for (level, meaning), request_ids in alike.items():
        text = f"{why} {meaning}: {list_requests(request_ids)}.".lstrip()
        if level == logging.ERROR:
            text += f" To cancel by hand: {cancel_command(conn_id, endpoint, request_ids[0])}"
        log(level, text)


def list_requests(request_ids: Sequence[str]) -> str:
    """Return how a line of the log names requests, with their ids."""
    listed = ", ".join(request_ids[:MAX_LISTED_IDS]) + ("…" if len(request_ids) > MAX_LISTED_IDS else "")
    return f"request {listed}" if len(request_ids) == 1 else f"{len(request_ids):,} requests {listed}"


def _level_and_meaning(outcome: Outcome) -> tuple[int, str]:
    if isinstance(outcome, CancelOutcome):
        level = logging.ERROR if outcome is CancelOutcome.UNSUPPORTED else logging.INFO
        return level, CANCEL_MEANINGS[outcome].heading
    reason = outcome.facts() if isinstance(outcome, OdiRouterError) else str(outcome) or type(outcome).__name__
    return logging.ERROR, f"Not cancelled ({reason.rstrip('.')}); may still be running without a task, and may be paid"


def _outcome(result: CancelOutcome | BaseException, seconds: float) -> Outcome:
    if isinstance(result, CancelOutcome | Exception):
        return result
    return NoAnswerError(f"OdiRouter did not answer the cancel within {seconds:g} s.")
