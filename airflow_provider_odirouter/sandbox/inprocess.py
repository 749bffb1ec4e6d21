"""The sandbox without a socket: a transport for httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx

from airflow_provider_odirouter.sandbox.wire import Answer, Call, Delivery


class SandboxTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """
    Carries calls to a sandbox; one object for ``httpx.Client`` and ``httpx.AsyncClient``.

    Broken connections raise what httpx raises for them; a call that would hang raises ``ReadTimeout`` at once.

    :param handle: Answers calls.
    :param sleep: Called with each delay, in seconds.
    """

    def __init__(self, handle: Callable[[Call], Answer], sleep: Callable[[float], None] | None = None) -> None:
        self._handle = handle
        self._sleep = sleep or (lambda _: None)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a call."""
        return self._carry(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a call."""
        return self._carry(request, await request.aread())

    def _carry(self, request: httpx.Request, body: bytes) -> httpx.Response:
        url = request.url
        query = url.query.decode()
        headers = {name.lower(): value for name, value in request.headers.items()}
        origin = f"{url.scheme}://{url.netloc.decode()}"
        answer = self._handle(Call(request.method, url.path, query, headers, body, origin))
        self._sleep(answer.delay + answer.trickle)
        if answer.delivery == "reset":
            raise httpx.ReadError("[Errno 104] Connection reset by peer", request=request)
        if answer.delivery == "close":
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        if answer.delivery == "hang":
            raise httpx.ReadTimeout("The read operation timed out", request=request)
        response_headers = dict(answer.headers)
        if answer.delivery != "endless":
            response_headers["content-length"] = str(len(answer.body))
        stream = _Body(b"" if request.method == "HEAD" else answer.body, answer.delivery)
        return httpx.Response(answer.status, headers=response_headers, stream=stream, request=request)


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, body: bytes, delivery: Delivery) -> None:
        self._body = body
        self._delivery = delivery

    def __iter__(self) -> Iterator[bytes]:
        if self._delivery == "half":
            yield self._body[: len(self._body) // 2]
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
        yield self._body
        while self._delivery == "endless":
            yield self._body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk
