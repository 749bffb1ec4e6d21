"""
The one server that all contenders wait on: HTTP/1.1 with keep-alive over TLS, a fixed latency away.

It reads only the first line of a request, so that it is never the bottleneck: it answers several thousand requests a
second on one core. It knows two APIs, OdiRouter's queue and OpenAI's batches. The id decides the status: ``w-1`` is in
progress for ever, ``d-1`` is completed. Started as ``python -m benchmarks.tls_server {…}``; its first line of output is
its port, and it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.tally import Tally

BATCH = {
    "id": "batch",
    "object": "batch",
    "completion_window": "24h",
    "created_at": 1_700_000_000,
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-1",
    "request_counts": {"total": 1, "completed": 0, "failed": 0},
}


class Service:
    """The state that all connections share."""

    def __init__(self, latency: float, tally: Tally) -> None:
        self.latency = latency
        self._tally = tally
        self._polls = 0
        self._waiters: set[bytes] = set()

    def arrived(self, request_id: bytes) -> None:
        """Count a waiter that polls for the first time."""
        if request_id.startswith(b"w-") and request_id not in self._waiters:
            self._waiters.add(request_id)
            self._tally.write(self._polls, len(self._waiters))

    def answer(self, path: bytes, request_id: bytes) -> bytes:
        """Return the answer to a poll, and count it."""
        if request_id.startswith(b"w-"):
            self._polls += 1
            self._tally.write(self._polls, len(self._waiters))
        return _answer(b"/batches/" in path, request_id.startswith(b"d-"))


class Connection(asyncio.Protocol):
    """One connection of a contender."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for answers."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read requests, which have no body."""
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        for request in requests:
            path = request.split(b" ", 2)[1]
            request_id = path.removesuffix(b"/status").rpartition(b"/")[2]
            self._service.arrived(request_id)
            self._loop.call_later(self._service.latency, self._reply, path, request_id)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the transport."""
        self._transport = None

    def _reply(self, path: bytes, request_id: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(self._service.answer(path, request_id))


def _http(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(content),
        content,
    )


ANSWERS = {
    (False, False): _http({"status": "IN_PROGRESS", "request_id": "one", "queue_position": 0}),
    (False, True): _http({"status": "COMPLETED", "request_id": "one", "metrics": {"inference_time": 1.0}}),
    (True, False): _http(BATCH | {"status": "in_progress"}),
    (True, True): _http(BATCH | {"status": "completed"}),
}


def _answer(is_batch: bool, is_done: bool) -> bytes:
    return ANSWERS[is_batch, is_done]


async def serve(folder: Path, latency: float, tally: Tally) -> None:
    """Serve until standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def listen_to_parent() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    service = Service(latency, tally)
    server = await loop.create_server(lambda: Connection(service, loop), "127.0.0.1", 0, ssl=context, backlog=4096)
    print(json.dumps(server.sockets[0].getsockname()[1]), flush=True)
    Thread(target=listen_to_parent, daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    asyncio.run(serve(Path(order["folder"]), order["latency"], Tally(Path(order["tally"]))))
