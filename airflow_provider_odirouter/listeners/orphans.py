"""
Cancelling what marked task instances have left running.

Where a worker or a trigger has heard of the mark, it has cancelled by now, and nothing is left to do. A request that is
still alive is cancelled only while Airflow's database says that its task instance is the one that was marked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from airflow_provider_odirouter.errors import BatchStateError, OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.listeners.instances import Marked
from airflow_provider_odirouter.models import Phase, RequestStatus
from airflow_provider_odirouter.operators.batch.ledger import Ledger
from airflow_provider_odirouter.records import BatchRecord, RequestRecord
from airflow_provider_odirouter.triggers.canceling import by_hand, cancel_all, tell

log = logging.getLogger(__name__)

STATUS_SECONDS = 60.0
CANCEL_SECONDS = 60.0


@dataclass(frozen=True)
class Requests:
    """Requests that one connection reaches, each with the task instance that waited for it."""

    hook: OdiRouterHook
    endpoint: str
    waiting: Mapping[str, Marked]

    async def that_are_alive(self) -> Requests:
        """Ask for the status of each; one that cannot be asked for may be alive."""
        async with self.hook as hook:
            polls = {one: asyncio.create_task(hook.aget_status(self.endpoint, one)) for one in self.waiting}
            await asyncio.wait(polls.values(), timeout=STATUS_SECONDS)
            for poll in polls.values():
                poll.cancel()
            await asyncio.gather(*polls.values(), return_exceptions=True)
        return replace(self, waiting={one: self.waiting[one] for one, poll in polls.items() if not _has_ended(poll)})

    def that_wait_for_nothing_else(self, marked: Mapping[str, Marked]) -> Requests:
        """Leave out those whose task instance is not the one that was marked any more."""
        return replace(self, waiting={key: one for key, one in self.waiting.items() if marked.get(one.id) == one})

    async def cancel(self) -> None:
        """Cancel all, and say so for each task instance."""
        outcomes = await cancel_all(self.hook, self.endpoint, list(self.waiting), seconds=CANCEL_SECONDS)
        for marked, request_ids in _by_instance(self.waiting):
            tell(
                {one: outcomes[one] for one in request_ids},
                conn_id=self.hook.odirouter_conn_id,
                endpoint=self.endpoint,
                log=log.log,
                why=f"{marked.name} was marked as {marked.state}; neither its worker nor its trigger has cancelled.",
            )


def cancel_orphans(found: Mapping[str, Marked], *, look_again: Callable[[], Mapping[str, Marked]]) -> None:
    """
    Cancel the requests that marked task instances have left running, and say so in this process's log.

    A task instance says itself whether it wants that: its ``cancel_on_kill``.

    :param found: The task instances, by their id.
    :param look_again: Finds them once more, right before anything is cancelled.
    """
    asyncio.run(_cancel(list(_requests_of(found.values())), look_again))


async def _cancel(found: Sequence[Requests], look_again: Callable[[], Mapping[str, Marked]]) -> None:
    alive = [some for some in await asyncio.gather(*(some.that_are_alive() for some in found)) if some.waiting]
    if alive:
        marked = look_again()
        orphans = [some.that_wait_for_nothing_else(marked) for some in alive]
        await asyncio.gather(*(some.cancel() for some in orphans))


def _requests_of(instances: Iterable[Marked]) -> Iterator[Requests]:
    waiting: defaultdict[tuple[str, str], dict[str, Marked]] = defaultdict(dict)
    for marked in instances:
        record = marked.record
        if record.cancel_on_kill and record.odirouter_conn_id:
            ids = dict.fromkeys(_request_ids(marked), marked)
            waiting[record.odirouter_conn_id, record.endpoint] |= ids
    for (conn_id, endpoint), requests in waiting.items():
        if requests and (hook := _hook(conn_id, endpoint, requests)):
            yield Requests(hook, endpoint, requests)


def _request_ids(marked: Marked) -> list[str]:
    record = marked.record
    if isinstance(record, RequestRecord):
        return [record.request_id]
    try:
        return _request_ids_of_batch(record, marked)
    except OdiRouterError as error:
        log.warning(
            "%s was marked as %s. Whether that has left requests running cannot be found out here: %s",
            marked.name,
            marked.state,
            error,
        )
        return []


def _request_ids_of_batch(record: BatchRecord, marked: Marked) -> list[str]:
    ledger = Ledger(record.output_path or "", record.storage_conn_id, record.name or "", max_tries=marked.max_tries)
    if not ledger.load(None):
        raise BatchStateError(
            f"Nothing is noted of the batch below {record.output_path}.",
            advice="If that is a worker's own disk, the API server does not see it: the task's log names the requests.",
        )
    # Without a retry, those that were given up were to be left running.
    return [str(item.request_id) for item in ledger.of(Phase.SUBMITTED) if item.error is None or marked.tries_left]


def _hook(conn_id: str, endpoint: str, requests: Mapping[str, Marked]) -> OdiRouterHook | None:
    """Return the hook with its connection read: on an event loop, Airflow reads one in another way."""
    hook = OdiRouterHook(conn_id)
    try:
        hook.settings  # noqa: B018
    except Exception as error:  # noqa: BLE001 - one connection that cannot be read must not hide all others
        for marked, request_ids in _by_instance(requests):
            log.warning(
                "%s was marked as %s. Unless its log says that the request was cancelled, it may be running; "
                "that cannot be found out here: %s To cancel it by hand: %s",
                marked.name,
                marked.state,
                error,
                by_hand(conn_id, endpoint, request_ids[0]),
            )
        return None
    return hook


def _by_instance(requests: Mapping[str, Marked]) -> Iterator[tuple[Marked, list[str]]]:
    of_instance: defaultdict[str, list[str]] = defaultdict(list)
    for request_id, marked in requests.items():
        of_instance[marked.id].append(request_id)
    for request_ids in of_instance.values():
        yield requests[request_ids[0]], request_ids


def _has_ended(poll: asyncio.Task[RequestStatus]) -> bool:
    return not poll.cancelled() and poll.exception() is None and poll.result().state.terminal
