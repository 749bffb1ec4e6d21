"""The hook: authentication and the calls, synchronous on a worker and asynchronous in the triggerer."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

import httpx
from airflow.sdk import BaseHook

from airflow_provider_odirouter import __version__, protocol
from airflow_provider_odirouter.errors import (
    AuthenticationError,
    NoAnswerError,
    NotSentError,
    OdiRouterError,
    PathNotFoundError,
    RateLimitedError,
    RequestNotFoundError,
)
from airflow_provider_odirouter.hooks.client import worker_client
from airflow_provider_odirouter.hooks.current_settings import CurrentSettings
from airflow_provider_odirouter.hooks.downloads import Downloader
from airflow_provider_odirouter.hooks.form import connection_form_widgets, ui_field_behaviour
from airflow_provider_odirouter.hooks.intake import MAX_ANSWER_BYTES, HeaderWatch, Intake, as_our_errors
from airflow_provider_odirouter.hooks.settings import ConnectionSettings
from airflow_provider_odirouter.models import (
    IMAGE_EDIT_ENDPOINT,
    CancelOutcome,
    RequestResult,
    RequestStatus,
    Submission,
)
from airflow_provider_odirouter.protocol import Action, Answer, Call
from airflow_provider_odirouter.redaction import bare

if TYPE_CHECKING:
    from airflow_provider_odirouter.hooks.transport import Transport

T = TypeVar("T")

USER_AGENT = f"airflow-provider-odirouter/{__version__}"
MAX_FILE_BYTES = 100 * 2**20
"""An edited picture has a few MiB; a host that sends more than this sends no picture."""
FILE_TIMEOUT = 600.0
"""Seconds for one download, however busily its host trickles."""


def _allow() -> None:
    """Let every call be made."""


class OdiRouterHook(BaseHook):
    """
    Talk to OdiRouter's image editing queue.

    The API key goes to the connection's base URL alone: URLs are built from it, redirects are not followed, and
    downloads are made without it. Where the service refuses it (``401``), the connection is read again, and the call
    goes on if the connection has changed. Downloads go to public addresses alone, unless the base URL is at another
    one.

    Every method raises a subclass of :class:`~airflow_provider_odirouter.errors.OdiRouterError`. Whether a call is
    repeated is decided in :mod:`~airflow_provider_odirouter.protocol`: a submit that may have arrived never is.

    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``: API key in the password field, base URL in
        the host field (empty: ``https://odirouter.ai/model``), extras ``timeout`` (seconds for one call, 60),
        ``verify`` (``false``, or a CA file) and ``allow_private_downloads`` (false).
    """

    conn_name_attr = "odirouter_conn_id"
    default_conn_name = "odirouter_default"
    conn_type = "odirouter"
    hook_name = "OdiRouter"
    # Airflow 3.1 looks for them in this class itself.
    get_connection_form_widgets = staticmethod(connection_form_widgets)
    get_ui_field_behaviour = staticmethod(ui_field_behaviour)

    def __init__(self, odirouter_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.odirouter_conn_id = odirouter_conn_id
        self.before_call: Callable[[], object] = _allow
        """Called before each call of the API and each download, repeats included; what it raises ends the call."""
        self.before_submit: Callable[[], object] = _allow
        """Called before each submit, in addition."""
        self._current = CurrentSettings(
            odirouter_conn_id,
            ask=lambda conn_id: self.get_connection(conn_id),
            aask=lambda conn_id: self.aget_connection(conn_id),
        )
        self._reading = asyncio.Lock()
        self._clients: dict[ConnectionSettings, httpx.Client] = {}
        self._leases: AsyncExitStack | None = None
        self._transports: dict[ConnectionSettings, Transport] = {}

    # --- On a worker

    def prepare(self) -> None:
        """
        Make all that a call needs beside the network: settings, TLS, proxies, client.

        What comes after it can fail for the network's sake only: so it is called before the intent to submit is noted.

        :raises ConnectionSettingsError: If the connection, or the environment, has a setting that cannot be used.
        """
        self.settings.proxies.check(self.settings.base_url)
        self._client_of(self.settings)

    def submit(self, endpoint: str, parameters: Mapping[str, Any]) -> Submission:
        """
        Create a request. It costs money.

        :param endpoint: The model, such as ``gpt_image_1_edit``.
        :param parameters: Sent as they are.
        :raises LostSubmitError: If the request may have arrived, but no answer tells. It is not sent again.
        """
        trace_id = uuid4().hex

        def build(base_url: str) -> Call:
            return protocol.submit(base_url, endpoint, parameters, trace_id=trace_id)

        return self._call(build, protocol.read_submission)

    def get_status(self, endpoint: str, request_id: str) -> RequestStatus:
        """Look at a request, once."""
        return self._call(lambda base_url: protocol.status(base_url, endpoint, request_id), protocol.read_status)

    def get_result(self, endpoint: str, request_id: str) -> RequestResult | RequestStatus:
        """Fetch the outputs of a request; its status, if it has not ended."""
        return self._call(lambda base_url: protocol.result(base_url, endpoint, request_id), protocol.read_result)

    def cancel(self, endpoint: str, request_id: str) -> CancelOutcome:
        """Cancel a request. It may be repeated; that a request has already ended is no error."""
        return self._call(lambda base_url: protocol.cancel(base_url, endpoint, request_id), protocol.read_cancel)

    def download(self, endpoint: str, request_id: str, url: str, into: IO[bytes]) -> None:
        """
        Download an output, without the API key.

        :param url: The link of a result.
        :param into: What the bytes are written to; it is emptied before each try.
        :raises FileExpiredError: If the link is no longer valid.
        :raises PrivateAddressError: If it leads to an address that is not public.
        :raises LandingError: If it is none, or if there is more behind it than a picture can have.
        """
        call = protocol.file(endpoint, request_id, url)
        self._repeat(call, lambda: self._receive_file(call, into))

    def test_connection(self) -> tuple[bool, str]:
        """
        Tell whether the connection works: one look at a request that cannot exist, which costs nothing.

        A ``404`` in the API's own words means that the key was accepted.
        """
        try:
            self.get_status(IMAGE_EDIT_ENDPOINT, "airflow-connection-test")
        except PathNotFoundError:
            return False, f"{self.settings.base_url} is not the API's base URL: there is no such path."
        except RequestNotFoundError:
            pass  # in the API's own words: it has taken the key
        except AuthenticationError as error:
            return False, f"The API key is wrong: {error}"
        except (NotSentError, NoAnswerError) as error:
            return False, f"The host cannot be reached: {error}"
        except OdiRouterError as error:
            return False, str(error)
        return True, f"OdiRouter accepts the API key at {self.settings.base_url}."

    def twin(self) -> OdiRouterHook:
        """Return a hook of the same connection with a client of its own: for a call in the middle of another one."""
        twin = OdiRouterHook(self.odirouter_conn_id)
        twin._current = self._current
        twin.before_call = self.before_call
        return twin

    def with_connection(self, odirouter_conn_id: str) -> OdiRouterHook:
        """Return a hook of another connection, under the same conditions."""
        hook = OdiRouterHook(odirouter_conn_id)
        hook.before_call = self.before_call
        return hook

    # --- In the triggerer

    async def __aenter__(self) -> Self:
        self._leases = AsyncExitStack()
        self._reading = asyncio.Lock()  # of this event loop
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._leases is not None:
            await self._leases.aclose()
        self._leases = None
        self._transports.clear()

    async def aget_status(self, endpoint: str, request_id: str) -> RequestStatus:
        """Look at a request, once. Inside ``async with hook``, many looks share one transport."""
        return await self._acall(lambda base_url: protocol.status(base_url, endpoint, request_id), protocol.read_status)

    async def acancel(self, endpoint: str, request_id: str) -> CancelOutcome:
        """Cancel a request, as :meth:`cancel` does."""
        return await self._acall(lambda base_url: protocol.cancel(base_url, endpoint, request_id), protocol.read_cancel)

    # --- The connection

    @property
    def settings(self) -> ConnectionSettings:
        """The connection, read once, and again where the service refuses its key."""
        return self._current.get()

    def ask_no_more(self) -> None:
        """Never ask Airflow for the connection again, twins included: for signal handlers."""
        self._current.ask_no_more()

    # --- The lines that send

    @property
    def _client(self) -> httpx.Client:
        return self._client_of(self.settings)

    def _client_of(self, settings: ConnectionSettings) -> httpx.Client:
        if settings not in self._clients:
            self._clients[settings] = worker_client(settings)
        return self._clients[settings]

    def _call(self, build: Callable[[str], Call], read: Callable[[Call, Answer], T]) -> T:
        """
        Send a call, and again with what the connection says by now where the service refuses its key.

        A submit, too: one that is refused with ``401`` was certainly not accepted.
        """
        tried = [self.settings]
        while True:
            call, sent_at = build(tried[-1].base_url), time.monotonic()
            try:
                return self._repeat(call, partial(self._once, call, read, tried[-1]))
            except AuthenticationError as error:
                tried.append(self._current.renewed(error, tried, sent_at))

    def _once(self, call: Call, read: Callable[[Call, Answer], T], settings: ConnectionSettings) -> T:
        return read(call, self._send(call, settings))

    def _send(self, call: Call, settings: ConnectionSettings) -> Answer:
        body = io.BytesIO()
        headers = self._headers(call)
        auth = _Bearer(settings)
        watch = {"trace": HeaderWatch(settings.timeout + 1)}
        client = self._client_of(settings)
        with (
            as_our_errors(call, settings.redactor),
            client.stream(
                call.method, call.url, headers=headers, auth=auth, content=call.body, extensions=watch
            ) as got,
        ):
            intake = Intake(call, body, seconds=settings.timeout, most=MAX_ANSWER_BYTES)
            for chunk in got.iter_bytes():
                intake.take(chunk)
            return self._answer(got.status_code, got.headers, body.getvalue(), settings)

    def _receive_file(self, call: Call, into: IO[bytes]) -> None:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        Downloader(self._client, self.settings, headers, seconds=FILE_TIMEOUT, max_bytes=MAX_FILE_BYTES).receive(
            call, into
        )

    def _repeat(self, call: Call, once: Callable[[], T]) -> T:
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            self.before_call()
            if call.action is Action.SUBMIT:
                self.before_submit()
            try:
                return once()
            except OdiRouterError as error:
                pause = self._pause(call, error, attempt, began)
            time.sleep(pause)

    async def _acall(self, build: Callable[[str], Call], read: Callable[[Call, Answer], T]) -> T:
        """Send a call as :meth:`_call` does."""
        tried = [await self._current.aget(self._reading)]
        while True:
            call, sent_at = build(tried[-1].base_url), time.monotonic()
            try:
                return await self._arepeat(call, read, tried[-1])
            except AuthenticationError as error:
                tried.append(await self._current.arenewed(error, tried, sent_at, self._reading))

    async def _asend(self, call: Call, read: Callable[[Call, Answer], T], settings: ConnectionSettings) -> T:
        async with self._lease(settings) as transport:
            try:
                return read(call, self._answer(*await transport.send(call, self._headers(call), settings), settings))
            except RateLimitedError as error:
                transport.pace.learn(error, settings)
                raise

    async def _arepeat(self, call: Call, read: Callable[[Call, Answer], T], settings: ConnectionSettings) -> T:
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            self.before_call()
            try:
                return await self._asend(call, read, settings)
            except OdiRouterError as error:
                pause = self._pause(call, error, attempt, began)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _lease(self, settings: ConnectionSettings) -> AsyncIterator[Transport]:
        from airflow_provider_odirouter.hooks.transport import shared_transport

        if self._leases is None:
            async with shared_transport(settings) as transport:
                yield transport
            return
        if settings not in self._transports:
            self._transports[settings] = await self._leases.enter_async_context(shared_transport(settings))
        yield self._transports[settings]

    # --- What both share

    def _headers(self, call: Call) -> dict[str, str]:
        """Return what is sent along, but for the key: that is added on the line that sends."""
        return {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
            **call.headers,
        }

    def _answer(
        self, status_code: int, headers: Mapping[str, str], body: bytes, settings: ConnectionSettings
    ) -> Answer:
        # Whatever the service echoes can end in a log, an error or the database: the key must not.
        hide = settings.redactor.text
        shown = {hide(name.lower()): hide(value) for name, value in headers.items()}
        return Answer(status_code, shown, settings.redactor.body(body), received_at=time.time())

    def _pause(self, call: Call, error: OdiRouterError, attempt: int, began: float) -> float:
        """Return the seconds before a call is sent again, or raise what it came to."""
        pause = protocol.pause_before_repeat(
            call, error, attempt=attempt, waited=time.monotonic() - began, luck=random.random()
        )
        if pause is None:
            bare(error)
            verdict = protocol.verdict(call, error)
            if verdict is error:
                raise error
            raise verdict from error
        self.log.warning("%s The %s is repeated in %.1f s.", error, call.action, pause)
        return pause


class _Bearer(httpx.Auth):
    """Adds the API key to what goes out, where httpx shows it to nobody."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = self._settings.authorization()
        yield request
