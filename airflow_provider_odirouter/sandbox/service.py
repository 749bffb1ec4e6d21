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
from airflow_provider_odirouter.sandbox.rates import RateLimit
from airflow_provider_odirouter.sandbox.refusals import RefusalError, no_balance, unauthorized
from airflow_provider_odirouter.sandbox.routes import BASE_PATH, Route, find_route
from airflow_provider_odirouter.sandbox.scope import Scope, draw
from airflow_provider_odirouter.sandbox.studio import Studio
from airflow_provider_odirouter.sandbox.wire import Answer, Call, json_answer

_OWN_SETTINGS = "x-sandbox-"
_SHARED = frozenset({"api_key", "endpoints", "balance", "price", "no_balance_shape", "rate_limit", "retry_after_form"})


@dataclass
class _Visit:
    """A call on its way through the service."""

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
    :param clock: Tells the time.
    :param journal: Where calls are written down.
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
        Answer a call; may take a while where pictures are made or fetched.

        :param call: The call.
        """
        route, now = find_route(call.path), self.clock()
        key = f"Bearer {self.scope.settings.api_key}"
        authorized = hmac.compare_digest(call.headers.get("authorization", "").encode(), key.encode())
        visit = _Visit(call, route, now, self.scope, authorized)
        try:
            self._prepare(visit)
            answer = self._strike(visit)
        except RefusalError as refusal:
            answer = self._refuse(visit, refusal)
        with self.lock:
            delay = draw(visit.scope.settings.latency_seconds, visit.scope.random)
        self._note(visit, answer)
        return replace(answer, delay=delay)

    def reset(self) -> None:
        """Forget all requests."""
        with self.lock:
            self.queue = Queue()

    def _prepare(self, visit: _Visit) -> None:
        """Find out what the call is about, and whose settings it goes by."""
        if visit.route.action == "submit":
            try:
                visit.body = json.loads(visit.call.body)
            except ValueError:
                visit.body = None
            own = _own_settings(visit.call)
            if own:
                with self.lock:
                    visit.scope = _derive(self.scope, own, visit.now)
        elif visit.route.request_id:
            visit.request = self.queue.find(visit.route.request_id)
            if visit.request:
                visit.scope = visit.request.scope

    def _strike(self, visit: _Visit) -> Answer:
        """Let a fault strike, before or after the call takes effect, or none."""
        with self.lock:
            fault = visit.scope.fault(visit.route.action, visit.now)
        if fault and not fault.after_effect:
            return fault.spoil(Answer())
        try:
            answer = self._answer(visit)
        except RefusalError as refusal:
            answer = self._refuse(visit, refusal)
        return fault.spoil(answer) if fault else answer

    def _answer(self, visit: _Visit) -> Answer:
        call, route = visit.call, visit.route
        if route.action == "file":
            return self._file(visit)
        if not call.path.startswith(f"{BASE_PATH}/"):
            raise RefusalError(404, "Not Found")
        if not visit.authorized:
            raise unauthorized()
        with self.lock:
            self._rates.check(self.scope.settings, visit.now)
        _refuse_what_is_not_offered(call)
        if route.action == "other":
            raise RefusalError(404, "Not Found")
        if call.method != route.method or (route.action == "cancel" and not visit.scope.settings.cancel_supported):
            raise RefusalError(405, "Method Not Allowed", headers={"allow": route.method})
        if route.endpoint not in self.scope.settings.endpoints:
            raise RefusalError(404, f"App not found: {route.endpoint}", code="NOT_FOUND")
        match route.action:
            case "submit":
                return self._submit(visit)
            case "status":
                request = self._existing(visit)
                return json_answer(self._status(visit, request))
            case "result":
                return self._result(visit)
            case _:
                return self._cancel(visit)

    def _submit(self, visit: _Visit) -> Answer:
        if not isinstance(visit.body, dict):
            raise RefusalError(400, "The body is not a JSON object", code="INVALID_JSON", body="object")
        if any("webhook" in name.lower() for name in visit.body):
            raise RefusalError(400, "webhook not supported")
        order = self._read_order(visit)
        with self.lock:
            settings = self.scope.settings
            if not self.scope.take("balance", settings.price):
                raise no_balance(settings.no_balance_shape)
            visit.request = self.queue.submit(
                visit.route.endpoint, abbreviate(visit.body), order, visit.scope, visit.now
            )
        return submit_answer(visit.request, visit.call.origin)

    def _read_order(self, visit: _Visit) -> Order:
        if visit.route.endpoint != "gpt_image_1_edit":
            return read_anything(visit.body)
        order, broken = read_edit(visit.body)
        if broken:
            status = visit.scope.settings.rejection_status
            raise RefusalError(status, "; ".join(broken), code="INVALID_PARAMETERS", body="object")
        return order

    def _existing(self, visit: _Visit) -> QueuedRequest:
        request = visit.request
        if (
            request is None
            or request.endpoint != visit.route.endpoint
            or visit.now < request.submitted_at + request.scope.settings.not_found_seconds
        ):
            raise RefusalError(404, "Request not found", code="NOT_FOUND")
        return request

    def _status(self, visit: _Visit, request: QueuedRequest) -> dict[str, Any]:
        if request.state(visit.now) is not State.IN_QUEUE and request.order.urls:
            self._studio.fetch_inputs(request)
        return status_body(request, visit.call.origin, visit.now)

    def _result(self, visit: _Visit) -> Answer:
        request = self._existing(visit)
        status = self._status(visit, request)
        if request.state(visit.now) is not State.COMPLETED:
            return json_answer(status, 202)
        if request.failure:
            return json_answer(status, 422)
        expires = visit.now + request.scope.settings.file_expiry_seconds
        files = [
            (self._signer.sign(visit.call.origin, request, number, file, expires), file)
            for number, file in enumerate(self._studio.pictures(request))
        ]
        return json_answer(result_body(request, files))

    def _cancel(self, visit: _Visit) -> Answer:
        try:
            request = self._existing(visit)
        except RefusalError:
            return json_answer({"status": "NOT_FOUND"}, 404)
        with self.lock:
            accepted = request.cancel(visit.now)
        if accepted:
            return json_answer({"status": "CANCELLATION_REQUESTED"}, 202)
        return json_answer({"status": "ALREADY_COMPLETED"}, 400)

    def _file(self, visit: _Visit) -> Answer:
        settings = visit.scope.settings
        if visit.call.method not in {"GET", "HEAD"}:
            raise RefusalError(405, "Method Not Allowed", headers={"allow": "GET, HEAD"})
        self._signer.check(visit.call, visit.now, settings.file_gone_status)
        pictures = self._studio.pictures(visit.request) if visit.request else []
        if visit.route.number >= len(pictures):
            raise RefusalError(404, "Not Found")
        return file_answer(pictures[visit.route.number], settings)

    def _own_file(self, url: str) -> bytes | None:
        address = urlsplit(url)
        if not FILE_PATH.fullmatch(address.path):
            return None
        route = find_route(address.path)
        call = Call("GET", address.path, address.query)
        try:
            request = self.queue.find(route.request_id)
            answer = self._file(_Visit(call, route, self.clock(), self.scope, authorized=False, request=request))
        except RefusalError:
            return None
        return answer.body

    def _refuse(self, visit: _Visit, refusal: RefusalError) -> Answer:
        trace_id = visit.call.headers.get("x-request-id", f"sandbox-{visit.now:.6f}")
        return refusal.answer(visit.scope.settings.error_body, trace_id)

    def _note(self, visit: _Visit, answer: Answer) -> None:
        call, route = visit.call, visit.route
        request_id = visit.request.request_id if visit.request else route.request_id
        self.journal.write(
            JournalEntry(
                at=visit.now,
                action=route.action,
                method=call.method,
                path=call.path,
                query=call.query,
                headers=redact(call.headers, self.scope.settings.api_key),
                authorization_sent="authorization" in call.headers,
                authorized=visit.authorized,
                endpoint=route.endpoint or None,
                request_id=request_id or None,
                status_code=None if answer.lost else answer.status,
                body=abbreviate(visit.body),
            )
        )


def _refuse_what_is_not_offered(call: Call) -> None:
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
    """Read a setting's value: JSON if it is JSON, else the words as they are."""
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
