"""The sandbox: a whole OdiRouter in one object."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_odirouter.sandbox.control import CONTROL_PATH, control
from airflow_provider_odirouter.sandbox.engine import RequestSnapshot, State
from airflow_provider_odirouter.sandbox.inprocess import SandboxTransport
from airflow_provider_odirouter.sandbox.journal import Journal, JournalEntry
from airflow_provider_odirouter.sandbox.scope import Scope
from airflow_provider_odirouter.sandbox.server import SandboxServer
from airflow_provider_odirouter.sandbox.service import Service
from airflow_provider_odirouter.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.wire import Answer, Call


class Sandbox:
    """
    A local OdiRouter, served on a socket or in-process; safe to use from several threads.

    :param settings: How it behaves.
    :param clock: Tells the time; requests move on with it.
    :param on_call: Told of each call, as it is written into the journal.
    :param changes: Settings by name, in addition to ``settings``.
    """

    def __init__(
        self,
        settings: SandboxSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        on_call: Callable[[JournalEntry], None] | None = None,
        **changes: Any,
    ) -> None:
        scope = Scope(settings or SandboxSettings(), clock())
        scope.configure(changes, clock())
        self._journal = Journal(on_call)
        self._service = Service(scope, clock, self._journal)

    @property
    def settings(self) -> SandboxSettings:
        """The settings in force."""
        return self._service.scope.settings

    @property
    def journal(self) -> list[JournalEntry]:
        """The latest calls, oldest first."""
        return self._journal.read()

    @property
    def requests(self) -> list[RequestSnapshot]:
        """All requests, oldest first."""
        with self._service.lock:
            return list(self._service.queue.snapshots(self._service.clock()))

    @property
    def alive(self) -> list[str]:
        """Ids of the requests that still wait or run."""
        return [request.request_id for request in self.requests if request.state != State.COMPLETED.value]

    @property
    def paid(self) -> int:
        """How many submits were accepted, and paid."""
        return self._service.queue.paid

    @property
    def balance(self) -> float | None:
        """Credits left; ``None`` never runs out."""
        return self._service.scope.left("balance")

    def configure(self, **changes: Any) -> SandboxSettings:
        """
        Change settings while the sandbox runs; bad ones change nothing.

        :param changes: Settings by name.
        :return: The settings now in force.
        :raises pydantic.ValidationError: With the reasons.
        """
        with self._service.lock:
            self._service.scope.configure(changes, self._service.clock())
        return self.settings

    def handle(self, call: Call) -> Answer:
        """
        Answer a call.

        :param call: The call.
        """
        if call.path.startswith(f"{CONTROL_PATH}/"):
            return control(self, call)
        return self._service.handle(call)

    def clear_journal(self) -> None:
        """Forget all calls."""
        self._journal.clear()

    def reset(self) -> None:
        """Forget all calls and requests; settings and balance stay."""
        self._service.reset()
        self.clear_journal()

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> SandboxServer:
        """
        Serve on a socket of this machine, in a thread, for as long as the context lasts.

        :param host: A loopback address.
        :param port: Port; 0 picks a free one.
        """
        return SandboxServer(self.handle, host, port)

    def transport(self, sleep: Callable[[float], None] | None = None) -> SandboxTransport:
        """
        Make a transport for ``httpx.Client`` and ``httpx.AsyncClient`` that needs no socket.

        :param sleep: Told of each delay; without it, nothing is delayed.
        """
        return SandboxTransport(self.handle, sleep)
