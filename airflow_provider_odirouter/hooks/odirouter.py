"""The hook: authentication and the calls, synchronous on a worker and asynchronous in the triggerer."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

import httpx
from airflow.sdk import BaseHook

from airflow_provider_odirouter import __version__, protocol
from airflow_provider_odirouter.compat import AirflowNotFoundException
from airflow_provider_odirouter.errors import (
    AuthenticationError,
    ConnectionNotFoundError,
    NoAnswerError,
    NotSentError,
    OdiRouterError,
    PathNotFoundError,
    RateLimitedError,
    RequestNotFoundError,
)
from airflow_provider_odirouter.get_provider_info import CONNECTION_TYPE
from airflow_provider_odirouter.hooks.downloads import Downloader
from airflow_provider_odirouter.hooks.intake import MAX_ANSWER_BYTES, HeaderWatch, Intake, as_our_errors
from airflow_provider_odirouter.hooks.settings import ConnectionSettings
from airflow_provider_odirouter.models import (
    IMAGE_EDIT_ENDPOINT,
    CancelOutcome,
    RequestResult,
    RequestStatus,
    Submission,
)
from airflow_provider_odirouter.protocol import Answer, Call
from airflow_provider_odirouter.redaction import bare

if TYPE_CHECKING:
    from airflow_provider_odirouter.hooks.transport import Transport

T = TypeVar("T")

USER_AGENT = f"airflow-provider-odirouter/{__version__}"
MAX_FILE_BYTES = 100 * 2**20
"""An edited picture has a few MiB; a host that sends more than this sends no picture."""
FILE_TIMEOUT = 600.0
"""Seconds for one download, however busily its host trickles."""


class OdiRouterHook(BaseHook):
    """
    Talk to OdiRouter's image editing queue.

    The API key goes to the connection's base URL alone: URLs are built from it, redirects are not followed, and
    downloads are made without it. Downloads go to public addresses alone, unless the base URL is at another one.

    Every method raises a subclass of :class:`~airflow_provider_odirouter.errors.OdiRouterError`. Whether a call is
    repeated is decided in :mod:`~airflow_provider_odirouter.protocol`: a submit that may have arrived never is.

    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``: API key in the password field, base URL in
        the host field (empty: ``https://odirouter.ai/model``), extras ``timeout`` (seconds for one call, 60) and
        ``verify`` (``false``, or a CA file).
    """

    conn_name_attr = "odirouter_conn_id"
    default_conn_name = "odirouter_default"
    conn_type = "odirouter"
    hook_name = "OdiRouter"

    def __init__(self, odirouter_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.odirouter_conn_id = odirouter_conn_id
        self._settings: ConnectionSettings | None = None
        self._reading = asyncio.Lock()
        self._leases: AsyncExitStack | None = None
        self._transport: Transport | None = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields, for Airflow 3.1; newer versions read ``get_provider_info``."""
        from wtforms import IntegerField, StringField

        widgets = {"number": IntegerField, "string": StringField}
        return {
            name: widgets[definition["schema"]["type"][0]](definition["label"], description=definition["description"])
            for name, definition in CONNECTION_TYPE["conn-fields"].items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels, for Airflow 3.1; newer versions read ``get_provider_info``."""
        behaviour = CONNECTION_TYPE["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    # --- On a worker

    def submit(self, endpoint: str, parameters: Mapping[str, Any]) -> Submission:
        """
        Create a request. It costs money.

        :param endpoint: The model, such as ``gpt_image_1_edit``.
        :param parameters: Sent as they are.
        :raises LostSubmitError: If the request may have arrived, but no answer tells. It is not sent again.
        """
        call = protocol.submit(self.settings.base_url, endpoint, parameters, trace_id=uuid4().hex)
        return self._repeat(call, lambda: protocol.read_submission(call, self._send(call)))

    def get_status(self, endpoint: str, request_id: str) -> RequestStatus:
        """Look at a request, once."""
        call = protocol.status(self.settings.base_url, endpoint, request_id)
        return self._repeat(call, lambda: protocol.read_status(call, self._send(call)))

    def get_result(self, endpoint: str, request_id: str) -> RequestResult | RequestStatus:
        """Fetch the outputs of a request; its status, if it has not ended."""
        call = protocol.result(self.settings.base_url, endpoint, request_id)
        return self._repeat(call, lambda: protocol.read_result(call, self._send(call)))

    def cancel(self, endpoint: str, request_id: str) -> CancelOutcome:
        """Cancel a request. It may be repeated; that a request has already ended is no error."""
        call = protocol.cancel(self.settings.base_url, endpoint, request_id)
        return self._repeat(call, lambda: protocol.read_cancel(call, self._send(call)))

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
        twin._settings = self._settings
        return twin

    # --- In the triggerer

    async def __aenter__(self) -> Self:
        self._leases = AsyncExitStack()
        self._reading = asyncio.Lock()  # of this event loop
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._leases is not None:
            await self._leases.aclose()
        self._leases = self._transport = None

    async def aget_status(self, endpoint: str, request_id: str) -> RequestStatus:
        """Look at a request, once. Inside ``async with hook``, many looks share one transport."""
        settings = await self._asettings()
        call = protocol.status(settings.base_url, endpoint, request_id)
        return await self._arepeat(call, lambda answer: protocol.read_status(call, answer))

    async def acancel(self, endpoint: str, request_id: str) -> CancelOutcome:
        """Cancel a request, as :meth:`cancel` does."""
        settings = await self._asettings()
        call = protocol.cancel(settings.base_url, endpoint, request_id)
        return await self._arepeat(call, lambda answer: protocol.read_cancel(call, answer))

    # --- The connection

    @property
    def settings(self) -> ConnectionSettings:
        """The connection, read once."""
        if self._settings is None:
            with self._finding_connection():
                self._settings = ConnectionSettings.of(self.get_connection(self.odirouter_conn_id))
        return self._settings

    async def _asettings(self) -> ConnectionSettings:
        if self._settings is not None:
            return self._settings
        async with self._reading:
            if self._settings is None:
                with self._finding_connection():
                    self._settings = ConnectionSettings.of(await self.aget_connection(self.odirouter_conn_id))
        return self._settings

    @contextmanager
    def _finding_connection(self) -> Iterator[None]:
        try:
            yield
        except AirflowNotFoundException as error:
            raise ConnectionNotFoundError(f"Airflow finds no connection {self.odirouter_conn_id!r}.") from error

    # --- The lines that send

    @cached_property
    def _client(self) -> httpx.Client:
        # No connection is kept: one that the service has just closed would leave the fate of a submit open.
        return httpx.Client(
            verify=self.settings.ssl_context(),
            timeout=self.settings.timeout,
            limits=httpx.Limits(max_keepalive_connections=0),
            # What the service sets goes to no host of files.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    def _send(self, call: Call) -> Answer:
        body = io.BytesIO()
        headers = self._headers(call)
        auth = _Bearer(self.settings)
        watch = {"trace": HeaderWatch(self.settings.timeout + 1)}
        with (
            as_our_errors(call, self.settings.redactor),
            self._client.stream(
                call.method, call.url, headers=headers, auth=auth, content=call.body, extensions=watch
            ) as got,
        ):
            intake = Intake(call, body, seconds=self.settings.timeout, most=MAX_ANSWER_BYTES)
            for chunk in got.iter_bytes():
                intake.take(chunk)
            return self._answer(got.status_code, got.headers, body.getvalue(), self.settings)

    def _receive_file(self, call: Call, into: IO[bytes]) -> None:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        Downloader(self._client, self.settings, headers, seconds=FILE_TIMEOUT, max_bytes=MAX_FILE_BYTES).receive(
            call, into
        )

    def _repeat(self, call: Call, once: Callable[[], T]) -> T:
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                return once()
            except OdiRouterError as error:
                pause = self._pause(call, error, attempt, began)
            time.sleep(pause)

    async def _asend(self, call: Call, read: Callable[[Answer], T]) -> T:
        settings = await self._asettings()
        async with self._lease(settings) as transport:
            try:
                return read(self._answer(*await transport.send(call, self._headers(call), settings), settings))
            except RateLimitedError as error:
                transport.pace.learn(error, settings)
                raise

    async def _arepeat(self, call: Call, read: Callable[[Answer], T]) -> T:
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                return await self._asend(call, read)
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
        if self._transport is None:
            self._transport = await self._leases.enter_async_context(shared_transport(settings))
        yield self._transport

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
