"""The queue. Nothing runs in the background: a request's state is computed from the time that has passed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from threading import RLock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_odirouter.sandbox.scope import Scope, draw

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.parameters import Order

_MAX_REQUESTS = 10_000


class State(Enum):
    """The state of a request."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


@dataclass(frozen=True)
class Failure:
    """Why a request fails."""

    error_type: str
    message: str


@dataclass
class QueuedRequest:
    """
    A request that was accepted and paid for.

    :param request_id: Its id.
    :param endpoint: Its model.
    :param parameters: Its parameters, with pictures abbreviated.
    :param order: The pictures to make.
    :param scope: The settings that apply to it.
    :param submitted_at: When it was accepted.
    :param starts_at: When it leaves the queue.
    :param ends_at: When it ends.
    :param failure: Why it fails; ``None``: it succeeds.
    """

    request_id: str
    endpoint: str
    parameters: Any
    order: Order
    scope: Scope
    submitted_at: float
    starts_at: float
    ends_at: float
    failure: Failure | None = None
    cancel_requested: bool = False
    inputs_fetched: bool = False
    lock: RLock = field(default_factory=RLock, repr=False)

    def state(self, now: float) -> State:
        """Return the state at a time."""
        if now >= self.ends_at:
            return State.COMPLETED
        return State.IN_PROGRESS if now >= self.starts_at else State.IN_QUEUE

    def cancel(self, now: float) -> bool:
        """
        Ask the request to stop; a second cancel changes nothing.

        :return: ``False`` if it had ended already.
        """
        if self.cancel_requested:
            return True
        if self.state(now) is State.COMPLETED:
            return False
        self.cancel_requested = True
        at = now + self.scope.settings.cancel_seconds
        if at < self.ends_at:
            self.ends_at = at
            self.failure = Failure("CANCELED", "The request was canceled.")
        return True


@dataclass(frozen=True)
class RequestSnapshot:
    """A request as it was at one moment: see :class:`QueuedRequest`."""

    request_id: str
    endpoint: str
    state: str
    parameters: Any
    submitted_at: float
    starts_at: float
    ends_at: float
    cancel_requested: bool
    error_type: str | None


class Queue:
    """The requests of one sandbox. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self._requests: dict[str, QueuedRequest] = {}
        self.paid = 0

    def count_alive(self, now: float) -> int:
        """Return how many requests have not ended."""
        return sum(request.state(now) is not State.COMPLETED for request in self._requests.values())

    def submit(self, endpoint: str, parameters: Any, order: Order, scope: Scope, now: float) -> QueuedRequest:
        """
        Accept a request.

        :param endpoint: Its model.
        :param parameters: Its parameters, with pictures abbreviated.
        :param order: The pictures to make.
        :param scope: The settings that apply to it.
        :param now: The clock's time.
        """
        settings = scope.settings
        random = Random(f"{settings.seed} {self.paid}")
        starts_at = now + draw(settings.queue_seconds, random)
        fails = settings.error_type is not None and scope.take("fail_first")
        request = QueuedRequest(
            request_id=f"mmsu_{uuid4().hex}",
            endpoint=endpoint,
            parameters=parameters,
            order=order,
            scope=scope,
            submitted_at=now,
            starts_at=starts_at,
            ends_at=starts_at + draw(settings.run_seconds, random),
            failure=Failure(str(settings.error_type), settings.error_message) if fails else None,
        )
        self.paid += 1
        self._requests[request.request_id] = request
        if len(self._requests) > _MAX_REQUESTS:
            del self._requests[next(iter(self._requests))]
        return request

    def find(self, request_id: str) -> QueuedRequest | None:
        """Find a request."""
        return self._requests.get(request_id)

    def snapshots(self, now: float) -> Iterator[RequestSnapshot]:
        """Describe all requests, oldest first."""
        for request in self._requests.values():
            state = request.state(now)
            failure = request.failure if state is State.COMPLETED else None
            yield RequestSnapshot(
                request.request_id,
                request.endpoint,
                state.value,
                request.parameters,
                request.submitted_at,
                request.starts_at,
                request.ends_at,
                request.cancel_requested,
                failure.error_type if failure else None,
            )
