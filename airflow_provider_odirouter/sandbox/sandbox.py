"""The sandbox: a whole OdiRouter in one object, and its control from outside over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from airflow_provider_odirouter.sandbox.engine import RequestSnapshot, State
from airflow_provider_odirouter.sandbox.inprocess import SandboxTransport
from airflow_provider_odirouter.sandbox.journal import Journal, JournalEntry
from airflow_provider_odirouter.sandbox.scope import Scope
from airflow_provider_odirouter.sandbox.server import SandboxServer
from airflow_provider_odirouter.sandbox.service import Service
from airflow_provider_odirouter.sandbox.settings import SandboxSettings
from airflow_provider_odirouter.sandbox.wire import Answer, Call, json_answer

CONTROL_PATH = "/sandbox"
"""Outside of the API's base path: below it, settings, journal and requests are read and changed."""


class Sandbox:
    """
    A local OdiRouter, served on a socket or in-process; safe to use from several threads.

    :param settings: Its settings.
    :param clock: Returns the time, in epoch seconds, from which the states of requests follow.
    :param on_call: Called with each entry of the journal.
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
        """The current settings."""
        return self._service.scope.settings

    @property
    def journal(self) -> list[JournalEntry]:
        """The latest calls, oldest first."""
        return self._journal.read()

    @property
    def submits(self) -> list[JournalEntry]:
        """Those of the latest calls that submit a request, also without success; ``body`` has the parameters."""
        return [entry for entry in self.journal if entry.action == "submit"]

    @property
    def cancels(self) -> list[JournalEntry]:
        """Those of the latest calls that cancel a request, also without success."""
        return [entry for entry in self.journal if entry.action == "cancel"]

    @property
    def requests(self) -> list[RequestSnapshot]:
        """All requests, oldest first."""
        with self._service.lock:
            return list(self._service.queue.snapshots(self._service.clock()))

    @property
    def alive(self) -> list[str]:
        """Ids of the requests that wait or run."""
        return [request.request_id for request in self.requests if request.state != State.COMPLETED.value]

    @property
    def paid(self) -> int:
        """How many submits were accepted, and so paid for."""
        return self._service.queue.paid

    @property
    def balance(self) -> float | None:
        """Credits left; ``None`` never runs out."""
        return self._service.scope.left("balance")

    def configure(self, **changes: Any) -> SandboxSettings:
        """
        Change settings while the sandbox runs; if one is bad, none is changed.

        :param changes: Settings by name.
        :return: The new settings.
        :raises pydantic.ValidationError: If a setting is unknown or its value is wrong.
        """
        with self._service.lock:
            self._service.scope.configure(changes, self._service.clock())
        return self.settings

    def connection(self, base_url: str) -> str:
        """
        Return an Airflow connection to the sandbox as JSON: the value of ``AIRFLOW_CONN_ODIROUTER_DEFAULT``.

        :param base_url: Of the server.
        """
        connection = {"conn_type": "odirouter", "password": self.settings.api_key, "host": base_url}
        return json.dumps(connection, separators=(",", ":"))

    def handle(self, call: Call) -> Answer:
        """
        Answer a call.

        :param call: The call.
        """
        if call.path.startswith(f"{CONTROL_PATH}/"):
            return _control(self, call)
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

        :param sleep: Called with each delay, in seconds; without it, nothing is delayed.
        """
        return SandboxTransport(self.handle, sleep)


def _control(sandbox: Sandbox, call: Call) -> Answer:
    match call.method, call.path.removeprefix(CONTROL_PATH):
        case "GET", "/settings":
            return json_answer(sandbox.settings.model_dump(mode="json"))
        case "PATCH", "/settings":
            return _configure(sandbox, call.body)
        case "GET", "/journal":
            return json_answer([{**asdict(entry), "user_agent": entry.user_agent} for entry in sandbox.journal])
        case "DELETE", "/journal":
            sandbox.clear_journal()
            return Answer(204)
        case "GET", "/requests":
            return json_answer([asdict(request) for request in sandbox.requests])
        case "POST", "/reset":
            sandbox.reset()
            return Answer(204)
        case _, "/settings" | "/journal" | "/requests" | "/reset":
            return json_answer({"detail": "Method Not Allowed"}, 405)
    return json_answer({"detail": "Not Found"}, 404)


def _configure(sandbox: Sandbox, body: bytes) -> Answer:
    try:
        changes: Any = json.loads(body)
        settings = sandbox.configure(**changes)
    except ValidationError as error:
        return json_answer({"detail": json.loads(error.json(include_url=False, include_input=False))}, 422)
    except (ValueError, TypeError):
        return json_answer({"detail": "The body is not a JSON object of settings"}, 422)
    return json_answer(settings.model_dump(mode="json"))
