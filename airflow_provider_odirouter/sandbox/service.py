"""The service: one call in, one answer out."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from airflow_provider_odirouter.sandbox.answers import result_body, status_body, submit_answer
from airflow_provider_odirouter.sandbox.engine import Queue, QueuedRequest, State
from airflow_provider_odirouter.sandbox.files import FILE_PATH, Signer, file_answer
from airflow_provider_odirouter.sandbox.journal import Journal, JournalEntry, abbreviate, redact
from airflow_provider_odirouter.sandbox.parameters import Order, read_anything, read_edit
from airflow_provider_odirouter.sandbox.pictures import PictureFile, converted
from airflow_provider_odirouter.sandbox.rates import RateLimit, check_alive
from airflow_provider_odirouter.sandbox.refusals import RefusalError, no_balance, unauthorized
from airflow_provider_odirouter.sandbox.routes import BASE_PATH, Route, find_route
from airflow_provider_odirouter.sandbox.scope import Scope, draw
from airflow_provider_odirouter.sandbox.studio import Studio
from airflow_provider_odirouter.sandbox.wire import Answer, Call, json_answer

_OWN_SETTINGS = "x-sandbox-"
_SHARED = frozenset(
    {"api_key", "endpoints", "balance", "price", "no_balance_shape", "rate_limit", "max_alive", "retry_after_form"}
)


@dataclass
class _Exchange:
    """A call, and what the service knows of it by now."""

    call: Call
    route: Route
    now: float
    scope: Scope
    authorized: bool
    body: Any = None
    request: QueuedRequest | None = None


class Service:
    """
    Everything that the sandbox answers below its base path, and its files.

    :param scope: The settings of the whole sandbox.
    :param clock: Returns the time, in epoch seconds.
    :param journal: Where calls are recorded.
    """

    def __init__(self, scope: Scope, clock: Callable[[], float], journal: Journal) -> None:
        self.scope = scope
        self.clock = clock
        self.journal = journal
        self.lock = RLock()
        self.queue = Queue()
        self._rates = RateLimit()
        self._signer = Signer()
        self._studio = Studio(self._own_file)

    def handle(self, call: Call) -> Answer:
        """
        Answer a call; takes a while if pictures have to be made or fetched.

        :param call: The call.
        """
        route, now = find_route(call.path), self.clock()
        key = f"Bearer {self.scope.settings.api_key}"
        authorized = hmac.compare_digest(call.headers.get("authorization", "").encode(), key.encode())
        exchange = _Exchange(call, route, now, self.scope, authorized)
        try:
            self._prepare(exchange)
            answer = self._answer_or_fail(exchange)
        except RefusalError as refusal:
            answer = self._refuse(exchange, refusal)
        with self.lock:
            delay = draw(exchange.scope.settings.latency_seconds, exchange.scope.random)
        self._note(exchange, answer)
        return replace(answer, delay=delay)

    def reset(self) -> None:
        """Forget all requests."""
        with self.lock:
            self.queue = Queue()

    def _prepare(self, exchange: _Exchange) -> None:
        """Find the request of the call, and the settings that apply to it."""
        if exchange.route.action == "submit":
            try:
                exchange.body = json.loads(exchange.call.body)
            except ValueError:
                exchange.body = None
            own = _own_settings(exchange.call)
            if own:
                with self.lock:
                    exchange.scope = _derive(self.scope, own, exchange.now)
        elif exchange.route.request_id:
            exchange.request = self.queue.find(exchange.route.request_id)
            if exchange.request:
                exchange.scope = exchange.request.scope

    def _answer_or_fail(self, exchange: _Exchange) -> Answer:
        """Answer the call, or let it fail before or after it takes effect."""
        with self.lock:
            fault = exchange.scope.fault(exchange.route.action, exchange.now)
        if fault and not fault.after_effect:
            return fault.apply_to(Answer())
        try:
            answer = self._answer(exchange)
        except RefusalError as refusal:
            answer = self._refuse(exchange, refusal)
        return fault.apply_to(answer) if fault else answer

    def _answer(self, exchange: _Exchange) -> Answer:
        call, route = exchange.call, exchange.route
        if route.action == "file":
            return self._file(exchange)
        if not call.path.startswith(f"{BASE_PATH}/"):
            raise RefusalError(404, "Not Found")
        if not exchange.authorized:
            raise unauthorized()
        with self.lock:
            self._rates.check(self.scope.settings, exchange.now)
        _refuse_unsupported(call)
        if route.action == "other":
            raise RefusalError(404, "Not Found")
        if call.method != route.method or (route.action == "cancel" and not exchange.scope.settings.cancel_supported):
            raise RefusalError(405, "Method Not Allowed", headers={"allow": route.method})
        if route.endpoint not in self.scope.settings.endpoints:
            raise RefusalError(404, f"App not found: {route.endpoint}", code="NOT_FOUND")
        match route.action:
            case "submit":
                return self._submit(exchange)
            case "status":
                request = self._existing(exchange)
                return json_answer(self._status(exchange, request))
            case "result":
                return self._result(exchange)
            case _:
                return self._cancel(exchange)

    def _submit(self, exchange: _Exchange) -> Answer:
        if not isinstance(exchange.body, dict):
            raise RefusalError(400, "The body is not a JSON object", code="INVALID_JSON", body="object")
        if any("webhook" in name.lower() for name in exchange.body):
            raise RefusalError(400, "webhook not supported")
        order = self._read_order(exchange)
        with self.lock:
            settings = self.scope.settings
            check_alive(settings, self.queue, exchange.now)
            if not self.scope.take("balance", settings.price):
                raise no_balance(settings.no_balance_shape)
            exchange.request = self.queue.submit(
                exchange.route.endpoint, abbreviate(exchange.body), order, exchange.scope, exchange.now
            )
        return submit_answer(exchange.request, exchange.call.origin)

    def _read_order(self, exchange: _Exchange) -> Order:
        if exchange.route.endpoint != "gpt_image_1_edit":
            return read_anything(exchange.body)
        order, broken = read_edit(exchange.body)
        if broken:
            status = exchange.scope.settings.rejection_status
            raise RefusalError(status, "; ".join(broken), code="INVALID_PARAMETERS", body="object")
        return order

    def _existing(self, exchange: _Exchange) -> QueuedRequest:
        request = exchange.request
        if (
            request is None
            or request.endpoint != exchange.route.endpoint
            or exchange.now < request.submitted_at + request.scope.settings.not_found_seconds
        ):
            raise RefusalError(404, "Request not found", code="NOT_FOUND")
        return request

    def _status(self, exchange: _Exchange, request: QueuedRequest) -> dict[str, Any]:
        if request.state(exchange.now) is not State.IN_QUEUE and request.order.urls:
            self._studio.fetch_inputs(request)
        return status_body(request, exchange.call.origin, exchange.now)

    def _result(self, exchange: _Exchange) -> Answer:
        request = self._existing(exchange)
        status = self._status(exchange, request)
        if request.state(exchange.now) is not State.COMPLETED:
            return json_answer(status, 202)
        if request.failure:
            return json_answer(status, 422)
        with self.lock:
            if request.scope.take("result_pending"):
                raise RefusalError(400, "Request is still in progress")
        expires = exchange.now + request.scope.settings.file_expiry_seconds
        files = [
            (self._signer.sign(exchange.call.origin, request, number, file, expires), file)
            for number, file in enumerate(self._files(request))
        ]
        return json_answer(result_body(request, files))

    def _cancel(self, exchange: _Exchange) -> Answer:
        try:
            request = self._existing(exchange)
        except RefusalError:
            return json_answer({"status": "NOT_FOUND"}, 404)
        with self.lock:
            accepted = request.cancel(exchange.now)
        if accepted:
            return json_answer({"status": "CANCELLATION_REQUESTED"}, 202)
        return json_answer({"status": "ALREADY_COMPLETED"}, 400)

    def _file(self, exchange: _Exchange) -> Answer:
        settings = exchange.scope.settings
        if exchange.call.method not in {"GET", "HEAD"}:
            raise RefusalError(405, "Method Not Allowed", headers={"allow": "GET, HEAD"})
        self._signer.check(exchange.call, exchange.now, settings.file_expired_status)
        files = self._files(exchange.request) if exchange.request else []
        if exchange.route.number >= len(files):
            raise RefusalError(404, "Not Found")
        return file_answer(files[exchange.route.number], settings)

    def _files(self, request: QueuedRequest) -> list[PictureFile]:
        settings = request.scope.settings
        return [converted(file, settings.file_format) for file in self._studio.pictures(request)]

    def _own_file(self, url: str) -> bytes | None:
        address = urlsplit(url)
        if not FILE_PATH.fullmatch(address.path):
            return None
        route = find_route(address.path)
        call = Call("GET", address.path, address.query)
        try:
            request = self.queue.find(route.request_id)
            answer = self._file(_Exchange(call, route, self.clock(), self.scope, authorized=False, request=request))
        except RefusalError:
            return None
        return answer.body

    def _refuse(self, exchange: _Exchange, refusal: RefusalError) -> Answer:
        trace_id = exchange.call.headers.get("x-request-id", f"sandbox-{exchange.now:.6f}")
        return refusal.answer(exchange.scope.settings.error_body, trace_id)

    def _note(self, exchange: _Exchange, answer: Answer) -> None:
        call, route = exchange.call, exchange.route
        request_id = exchange.request.request_id if exchange.request else route.request_id
        self.journal.write(
            JournalEntry(
                at=exchange.now,
                action=route.action,
                method=call.method,
                path=call.path,
                query=call.query,
                headers=redact(call.headers, self.scope.settings.api_key),
                authorization_sent="authorization" in call.headers,
                authorized=exchange.authorized,
                endpoint=route.endpoint or None,
                request_id=request_id or None,
                status_code=None if answer.lost else answer.status,
                body=abbreviate(exchange.body),
            )
        )


def _refuse_unsupported(call: Call) -> None:
    if any("webhook" in name.lower() for name in (*call.headers, *call.parameters)):
        raise RefusalError(400, "webhook not supported")
    if call.path.endswith("/status/stream"):
        raise RefusalError(404, "SSE streaming not supported")
    if "text/event-stream" in call.headers.get("accept", ""):
        raise RefusalError(400, "SSE streaming not supported")


def _own_settings(call: Call) -> dict[str, Any]:
    """Read the ``X-Sandbox-…`` headers of a submit."""
    own: dict[str, Any] = {}
    for name, value in call.headers.items():
        if name.startswith(_OWN_SETTINGS):
            setting = name.removeprefix(_OWN_SETTINGS).replace("-", "_")
            content = read_value(value)
            own |= content if setting == "settings" and isinstance(content, dict) else {setting: content}
    return own


def read_value(text: str) -> Any:
    """Read a setting's value as JSON; if it is not JSON, as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _derive(scope: Scope, own: dict[str, Any], now: float) -> Scope:
    if shared := _SHARED & own.keys():
        raise RefusalError(422, f"X-Sandbox: {', '.join(sorted(shared))} cannot be one request's own")
    try:
        return scope.derive(own, now)
    except ValidationError as error:
        raise RefusalError(422, f"X-Sandbox: {error}") from error
