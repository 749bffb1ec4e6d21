"""The hook: authentication and all calls, synchronous for workers and asynchronous for the triggerer."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

import httpx
from airflow.sdk import BaseHook

from airflow_provider_odirouter import IMAGE_EDIT_ENDPOINT, __version__, protocol
from airflow_provider_odirouter.errors import (
    AuthenticationError,
    ConnectionNotFoundError,
    EndpointNotFoundError,
    NoAnswerError,
    NoBalanceError,
    NotSentError,
    OdiRouterError,
    PathNotFoundError,
    RateLimitedError,
    RequestNotFoundError,
)
from airflow_provider_odirouter.hooks.bounded_io import (
    MAX_ANSWER_BYTES,
    MAX_RESULT_BYTES,
    BoundedBody,
    HeaderTimeout,
    map_transport_errors,
)
from airflow_provider_odirouter.hooks.client import worker_client
from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.hooks.current_settings import CurrentSettings
from airflow_provider_odirouter.hooks.downloads import Downloader
from airflow_provider_odirouter.hooks.form import connection_form_widgets, ui_field_behaviour
from airflow_provider_odirouter.metrics import Metrics
from airflow_provider_odirouter.models import CancelOutcome, RequestResult, RequestStatus, Submission
from airflow_provider_odirouter.protocol import Action, Answer, Call
from airflow_provider_odirouter.redaction import without_traceback

if TYPE_CHECKING:
    from airflow_provider_odirouter.hooks.async_transport import Transport

T = TypeVar("T")

USER_AGENT = f"airflow-provider-odirouter/{__version__}"
MAX_FILE_BYTES = 2 * 2**30
"""An edited picture has a few MiB; other models make videos."""
FILE_TIMEOUT = 1800.0
"""Seconds for one download, even if its host keeps sending."""


def _do_nothing() -> None:
    """Allow every call."""


class OdiRouterHook(BaseHook):
    """
    Talk to OdiRouter's image editing queue.

    The API key is sent to the connection's base URL only: the hook builds its URLs from it, follows no redirect, and
    downloads files without the key. If the service refuses the key (``401``), the hook reads the connection again, and
    sends the call again if the connection has changed. It downloads from public addresses only, unless the base URL
    itself is at an address that is not public.

    Every method raises subclasses of :class:`~airflow_provider_odirouter.errors.OdiRouterError`.
    The package ``protocol`` decides which calls are repeated: a submit that may have arrived never is.

    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``: the API key in the password field, the base
        URL in the host field (default: ``https://odirouter.ai/model``), and in the extra ``timeout`` (seconds for one
        call, default: 60), ``verify`` (``false``, or the path of a CA file; default: ``true``) and
        ``allow_private_downloads`` (default: ``false``), and ``prices``, for estimates of what requests cost.
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
        self.before_call: Callable[[], object] = _do_nothing
        """Called before each call of the API and each download, also before repeats. If it raises, nothing is sent."""
        self.before_submit: Callable[[], object] = _do_nothing
        """Called before each submit, after ``before_call``. If it raises, nothing is sent."""
        self.metrics = Metrics()
        """Of the task that uses the hook."""
        self._current = CurrentSettings(
            odirouter_conn_id,
            load=lambda conn_id: self.get_connection(conn_id),
            aload=lambda conn_id: self.aget_connection(conn_id),
        )
        self._load_lock = asyncio.Lock()
        self._clients: dict[ConnectionSettings, httpx.Client] = {}
        self._leases: AsyncExitStack | None = None
        self._transports: dict[ConnectionSettings, Transport] = {}

    # --- On a worker

    def prepare(self) -> None:
        """
        Prepare everything that a call needs except the network: settings, TLS, proxies, client.

        Call it before the intent to submit is noted: after it, a submit can fail only because of the network.

        :raises ConnectionSettingsError: If a setting of the connection or of the environment cannot be used.
        """
        self.settings.proxies.check(self.settings.base_url)
        self._client_of(self.settings)

    def submit(self, endpoint: str, parameters: Mapping[str, Any], *, waits_out_rate_limit: bool = True) -> Submission:
        """
        Create a request. It costs money.

        :param endpoint: The endpoint, such as ``gpt_image_1_edit``.
        :param parameters: The endpoint's parameters, sent unchanged.
        :param waits_out_rate_limit: Whether the submit is sent again, for up to five minutes, while the service answers
            ``429``. Default: true.
        :return: The request id.
        :raises LostSubmitError: If the request may have arrived, but no answer says so. It is not sent again.
        :raises InvalidParametersError: If the parameters are not JSON.
        :raises OdiRouterError: If the submit fails in another way; then it created no request.
        """
        trace_id = uuid4().hex

        def build(base_url: str) -> Call:
            call = protocol.submit(base_url, endpoint, parameters, trace_id=trace_id)
            return replace(call, waits_out_rate_limit=waits_out_rate_limit)

        return self._call(build, protocol.read_submission)

    def get_status(self, endpoint: str, request_id: str) -> RequestStatus:
        """
        Poll a request once.

        :param endpoint: The endpoint that the request was submitted to.
        :param request_id: The id that the submit returned.
        :raises RequestNotFoundError: If the service does not know the request.
        :raises OdiRouterError: If the poll fails. It is not repeated.
        """
        return self._call(lambda base_url: protocol.status(base_url, endpoint, request_id), protocol.read_status)

    def get_result(self, endpoint: str, request_id: str) -> RequestResult | RequestStatus:
        """
        Fetch the result of a request. It is repeated for up to five minutes.

        :param endpoint: The endpoint that the request was submitted to.
        :param request_id: The id that the submit returned.
        :return: The outputs, or the status if the request has not ended.
        :raises NoOutputError: If the result names no file.
        :raises OdiRouterError: If the call fails.
        """
        return self._call(lambda base_url: protocol.result(base_url, endpoint, request_id), protocol.read_result)

    def cancel(self, endpoint: str, request_id: str) -> CancelOutcome:
        """
        Cancel a request. It is repeated for up to 20 seconds, and longer after ``429``.

        :param endpoint: The endpoint that the request was submitted to.
        :param request_id: The id that the submit returned.
        :return: What the service answered. A request that has already ended is not an error.
        :raises OdiRouterError: If the call fails: the request may still run.
        """
        return self._call(lambda base_url: protocol.cancel(base_url, endpoint, request_id), protocol.read_cancel)

    def download(self, endpoint: str, request_id: str, url: str, into: IO[bytes]) -> None:
        """
        Download an output, without the API key. It is repeated for up to a minute.

        :param endpoint: The endpoint that the request was submitted to.
        :param request_id: The id that the submit returned.
        :param url: The link from the result.
        :param into: The file that the bytes are written to; it is emptied before each attempt.
        :raises FileExpiredError: If the link has expired.
        :raises PrivateAddressError: If the link leads to an address that is not public.
        :raises LandingError: If the link is not an ``http(s)`` URL, or the file has more than 2 GiB.
        """
        call = protocol.file(endpoint, request_id, url)
        self._repeat(call, lambda: self._receive_file(call, into))

    def test_connection(self) -> tuple[bool, str]:
        """
        Test the connection with one poll of a request that does not exist, which costs nothing.

        A ``404`` in the API's own words means that the key was accepted.

        :return: Whether the connection works, and a message for the user.
        """
        try:
            self.check_key()
        except PathNotFoundError:
            return False, f"{self.settings.base_url} is not the API's base URL: the host does not know the path."
        except AuthenticationError as error:
            return False, f"The API key is wrong: {self._without_id(error)}"
        except (NotSentError, NoAnswerError) as error:
            return False, f"The host cannot be reached: {error}"
        except ConnectionNotFoundError as error:
            return False, str(error)
        except OdiRouterError as error:
            return False, self._without_id(error)
        return True, f"OdiRouter accepts the API key at {self.settings.base_url}."

    def check_key(self) -> None:
        """
        Check connection and key with one poll of a request that does not exist, which costs nothing.

        :raises OdiRouterError: If the service cannot be reached, or does not accept the key.
        """
        try:
            self.get_status(IMAGE_EDIT_ENDPOINT, "airflow-connection-test")
        except PathNotFoundError:
            raise
        except RequestNotFoundError:
            pass  # in the API's own words: it accepted the key

    def _without_id(self, error: OdiRouterError) -> str:
        """Return an error's text without the connection's id: Airflow's form tests a copy with a random one."""
        text = str(error).replace(f"The connection is {self.odirouter_conn_id!r}, its base URL", "The base URL is")
        return text.replace(f"The connection {self.odirouter_conn_id!r}", "The connection")

    def with_own_client(self) -> OdiRouterHook:
        """Return a hook of the same connection with its own client, for a call that interrupts another call."""
        hook = OdiRouterHook(self.odirouter_conn_id)
        hook._current = self._current
        hook.before_call = self.before_call
        hook.metrics = self.metrics
        return hook

    def with_connection(self, odirouter_conn_id: str) -> OdiRouterHook:
        """Return a hook of another connection with the same ``before_call``."""
        hook = OdiRouterHook(odirouter_conn_id)
        hook.before_call = self.before_call
        hook.metrics = self.metrics
        return hook

    def request_url(self, endpoint: str, request_id: str) -> str:
        """Return the URL of a request's status. It answers only with the API key."""
        return protocol.status(self.settings.base_url, endpoint, request_id).url

    # --- In the triggerer

    async def __aenter__(self) -> Self:
        self._leases = AsyncExitStack()
        self._load_lock = asyncio.Lock()  # a lock belongs to one event loop
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._leases is not None:
            await self._leases.aclose()
        self._leases = None
        self._transports.clear()

    async def aget_status(self, endpoint: str, request_id: str, *, is_final: bool = False) -> RequestStatus:
        """
        Poll a request once, as :meth:`get_status` does. Inside ``async with hook``, many polls share a transport.

        :param is_final: Whether no other poll follows: then it is sent even while a ``Retry-After`` of an earlier call
            with the same key holds. Default: false.
        """

        def build(base_url: str) -> Call:
            return replace(protocol.status(base_url, endpoint, request_id), is_urgent=is_final)

        return await self._acall(build, protocol.read_status)

    async def acancel(self, endpoint: str, request_id: str) -> CancelOutcome:
        """Cancel a request, as :meth:`cancel` does."""
        return await self._acall(lambda base_url: protocol.cancel(base_url, endpoint, request_id), protocol.read_cancel)

    # --- The connection

    @property
    def settings(self) -> ConnectionSettings:
        """
        The settings of the connection, read once, and again after the service refuses the API key.

        :raises ConnectionSettingsError: If the connection does not exist or cannot be used.
        """
        return self._current.get()

    def freeze_connection(self) -> None:
        """Never read the connection again, in hooks from :meth:`with_own_client` neither: for signal handlers."""
        self._current.freeze_connection()

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
        Send a call. If the service refuses the key and the connection has changed, send it again with the new key.

        This holds for a submit, too: an answer of ``401`` means that it created no request.
        """
        tried = [self.settings]
        while True:
            call, sent_at = build(tried[-1].base_url), time.monotonic()
            try:
                return self._repeat(call, partial(self._once, call, read, tried[-1]))
            except AuthenticationError as error:
                self._name_connection(error, tried[-1])
                tried.append(self._current.reread(error, tried, sent_at))
            except (NoBalanceError, EndpointNotFoundError) as error:
                self._name_connection(error, tried[-1])
                raise

    def _once(self, call: Call, read: Callable[[Call, Answer], T], settings: ConnectionSettings) -> T:
        return read(call, self._send(call, settings))

    def _send(self, call: Call, settings: ConnectionSettings) -> Answer:
        body = io.BytesIO()
        headers = self._headers(call)
        auth = _Bearer(settings)
        extensions = {"trace": HeaderTimeout(settings.timeout + 1)}
        client = self._client_of(settings)
        with (
            map_transport_errors(call, settings.redactor),
            client.stream(
                call.method, call.url, headers=headers, auth=auth, content=call.body, extensions=extensions
            ) as answer,
        ):
            max_bytes = MAX_RESULT_BYTES if call.action is Action.RESULT else MAX_ANSWER_BYTES
            bounded_body = BoundedBody(call, body, seconds=settings.timeout, max_bytes=max_bytes)
            for chunk in answer.iter_bytes():
                bounded_body.write(chunk)
            return self._answer(answer.status_code, answer.headers, body.getvalue(), settings)

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
                answer = once()
            except OdiRouterError as error:
                pause = self._pause(call, error, attempt, began)
            else:
                self._count(call)
                return answer
            time.sleep(pause)

    async def _acall(self, build: Callable[[str], Call], read: Callable[[Call, Answer], T]) -> T:
        """Send a call as :meth:`_call` does."""
        tried = [await self._current.aget(self._load_lock)]
        while True:
            call, sent_at = build(tried[-1].base_url), time.monotonic()
            try:
                return await self._arepeat(call, read, tried[-1])
            except AuthenticationError as error:
                self._name_connection(error, tried[-1])
                tried.append(await self._current.areread(error, tried, sent_at, self._load_lock))
            except (NoBalanceError, EndpointNotFoundError) as error:
                self._name_connection(error, tried[-1])
                raise

    async def _asend(self, call: Call, read: Callable[[Call, Answer], T], settings: ConnectionSettings) -> T:
        async with self._lease(settings) as transport:
            try:
                return read(call, self._answer(*await transport.send(call, self._headers(call), settings), settings))
            except RateLimitedError as error:
                transport.rate_limit.note_retry_after(error, settings)
                raise

    async def _arepeat(self, call: Call, read: Callable[[Call, Answer], T], settings: ConnectionSettings) -> T:
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            self.before_call()
            try:
                answer = await self._asend(call, read, settings)
            except OdiRouterError as error:
                pause = self._pause(call, error, attempt, began)
            else:
                self._count(call)
                return answer
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _lease(self, settings: ConnectionSettings) -> AsyncIterator[Transport]:
        from airflow_provider_odirouter.hooks.async_transport import shared_transport

        if self._leases is None:
            async with shared_transport(settings) as transport:
                yield transport
            return
        if settings not in self._transports:
            self._transports[settings] = await self._leases.enter_async_context(shared_transport(settings))
        yield self._transports[settings]

    # --- Shared by both clients

    def _headers(self, call: Call) -> dict[str, str]:
        """Return the headers without the API key: the line that sends adds it."""
        return {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
            **call.headers,
        }

    def _answer(
        self, status_code: int, headers: Mapping[str, str], body: bytes, settings: ConnectionSettings
    ) -> Answer:
        # The service may echo the key, and its answers go to logs, errors and the database.
        redact = settings.redactor.redact_text
        redacted = {redact(name.lower()): redact(value) for name, value in headers.items()}
        return Answer(status_code, redacted, settings.redactor.redact_body(body), received_at=time.time())

    def _name_connection(self, error: OdiRouterError, settings: ConnectionSettings) -> None:
        """Say whose key and which host an error is about: a task may use several connections."""
        error.what += f" The connection is {self.odirouter_conn_id!r}, its base URL {settings.base_url}."

    def _count(self, call: Call, error: OdiRouterError | None = None) -> None:
        if isinstance(error, RateLimitedError) and not error.was_sent:
            return
        if call.action is Action.STATUS:
            self.metrics.polled(call.endpoint)
        if error:
            self.metrics.call_failed(call.endpoint, call.action, error)

    def _pause(self, call: Call, error: OdiRouterError, attempt: int, began: float) -> float:
        """Return the seconds before a call is sent again, or raise the error if it is not."""
        self._count(call, error)
        pause = protocol.pause_before_repeat(
            call, error, attempt=attempt, waited=time.monotonic() - began, random=random.random()
        )
        if pause is None:
            without_traceback(error)
            final = protocol.final_error(call, error)
            if final is error:
                raise error
            raise final from error
        self.log.warning("%s The %s call is sent again in %.1f s.", error.facts(), call.action, pause)
        return pause


class _Bearer(httpx.Auth):
    """Adds the API key as the call is sent: neither httpx's logs nor its errors show it then."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = self._settings.authorization()
        yield request
