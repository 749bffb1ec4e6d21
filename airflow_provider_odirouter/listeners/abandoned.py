"""
Cancels the requests that marked task instances have left running.

A worker or a trigger that has heard of the mark has cancelled by now. A request that is still alive is cancelled only
if Airflow's database still has the task instance as it was when it was marked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from airflow_provider_odirouter.batch.state import BatchStore
from airflow_provider_odirouter.errors import BatchStateError, OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.cancel import cancel_all, cancel_command, log_outcomes
from airflow_provider_odirouter.listeners.instances import MarkedInstance
from airflow_provider_odirouter.models import RequestStatus
from airflow_provider_odirouter.xcoms import BatchRecord, RequestRecord

log = logging.getLogger(__name__)

STATUS_SECONDS = 60.0
CANCEL_SECONDS = 60.0


@dataclass(frozen=True)
class Requests:
    """Requests of one connection and endpoint, each with the task instance that waited for it."""

    hook: OdiRouterHook
    endpoint: str
    instances: Mapping[str, MarkedInstance]
    """By the id of the request."""

    async def without_ended(self) -> Requests:
        """Poll each request once, and leave out those that have ended; one that does not answer may be alive."""
        async with self.hook as hook:
            polls = {one: asyncio.create_task(hook.aget_status(self.endpoint, one)) for one in self.instances}
            await asyncio.wait(polls.values(), timeout=STATUS_SECONDS)
            for poll in polls.values():
                poll.cancel()
            await asyncio.gather(*polls.values(), return_exceptions=True)
        alive = {one: self.instances[one] for one, poll in polls.items() if not _has_ended(poll)}
        return replace(self, instances=alive)

    def without_changed(self, marked: Mapping[str, MarkedInstance]) -> Requests:
        """Leave out the requests whose task instance has changed since it was marked."""
        unchanged = {request_id: one for request_id, one in self.instances.items() if marked.get(one.id) == one}
        return replace(self, instances=unchanged)

    async def cancel(self) -> None:
        """Cancel all requests, and log the outcome for each task instance."""
        outcomes = await cancel_all(
            self.hook, self.endpoint, list(self.instances), seconds=CANCEL_SECONDS, cause="marked"
        )
        for marked, request_ids in _by_instance(self.instances):
            log_outcomes(
                {one: outcomes[one] for one in request_ids},
                conn_id=self.hook.odirouter_conn_id,
                endpoint=self.endpoint,
                log=log.log,
                why=f"{marked.name} was marked as {marked.state}, and neither its worker nor its trigger cancelled.",
            )


def cancel_abandoned(
    found: Mapping[str, MarkedInstance], *, find_again: Callable[[], Mapping[str, MarkedInstance]]
) -> None:
    """
    Cancel the requests that marked task instances have left running, if the task's ``cancel_on_kill`` is set.

    The outcomes go into this process's log.

    :param found: The marked task instances, by their id.
    :param find_again: Called right before the cancels: finds the task instances that are still marked.
    """
    asyncio.run(_cancel(list(_requests_of(found.values())), find_again))


async def _cancel(found: Sequence[Requests], find_again: Callable[[], Mapping[str, MarkedInstance]]) -> None:
    polled = await asyncio.gather(*(requests.without_ended() for requests in found))
    alive = [requests for requests in polled if requests.instances]
    if alive:
        marked = find_again()
        await asyncio.gather(*(requests.without_changed(marked).cancel() for requests in alive))


def _requests_of(instances: Iterable[MarkedInstance]) -> Iterator[Requests]:
    by_endpoint: defaultdict[tuple[str, str], dict[str, MarkedInstance]] = defaultdict(dict)
    for marked in instances:
        record = marked.record
        if record.cancel_on_kill and record.odirouter_conn_id:
            by_endpoint[record.odirouter_conn_id, record.endpoint] |= dict.fromkeys(_request_ids(marked), marked)
    for (conn_id, endpoint), requests in by_endpoint.items():
        if requests and (hook := _hook(conn_id, endpoint, requests)):
            yield Requests(hook, endpoint, requests)


def _request_ids(marked: MarkedInstance) -> list[str]:
    record = marked.record
    if isinstance(record, RequestRecord):
        return [record.request_id]
    try:
        return _request_ids_of_batch(record, marked)
    except OdiRouterError as error:
        log.warning(
            "%s was marked as %s. Its requests may still be running; the API server cannot check them: %s",
            marked.name,
            marked.state,
            error,
        )
        return []


def _request_ids_of_batch(record: BatchRecord, marked: MarkedInstance) -> list[str]:
    batch_store = BatchStore(
        record.output_path or "", record.storage_conn_id, record.name or "", max_tries=marked.max_tries
    )
    if not batch_store.load(None):
        raise BatchStateError(
            f"There is no state of the batch below {record.output_path}.",
            advice="If this path is on a worker's own disk, the API server cannot read it: the task's log has the "
            "request ids.",
        )
    # The task has stopped waiting for an item with an error. If no retry follows, its request was left running on
    # purpose.
    return [str(item.request_id) for item in batch_store.submitted() if item.error is None or marked.tries_left]


def _hook(conn_id: str, endpoint: str, requests: Mapping[str, MarkedInstance]) -> OdiRouterHook | None:
    """Return the hook with its connection already read, since on an event loop Airflow reads it in another way."""
    hook = OdiRouterHook(conn_id)
    try:
        hook.settings  # noqa: B018
    except Exception as error:  # noqa: BLE001 - one unreadable connection must not stop the others
        for marked, request_ids in _by_instance(requests):
            log.warning(
                "%s was marked as %s. If its log does not say that the request was cancelled, the request may still be "
                "running; the API server cannot check it: %s To cancel it by hand: %s",
                marked.name,
                marked.state,
                error,
                cancel_command(conn_id, endpoint, request_ids[0]),
            )
        return None
    return hook


def _by_instance(requests: Mapping[str, MarkedInstance]) -> Iterator[tuple[MarkedInstance, list[str]]]:
    of_instance: defaultdict[str, list[str]] = defaultdict(list)
    for request_id, marked in requests.items():
        of_instance[marked.id].append(request_id)
    for request_ids in of_instance.values():
        yield requests[request_ids[0]], request_ids


def _has_ended(poll: asyncio.Task[RequestStatus]) -> bool:
    return not poll.cancelled() and poll.exception() is None and poll.result().state.is_terminal
