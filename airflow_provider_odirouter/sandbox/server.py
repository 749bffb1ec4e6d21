"""The sandbox on a socket of this machine."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from aiohttp import web

from airflow_provider_odirouter.sandbox.inputs import is_loopback
from airflow_provider_odirouter.sandbox.routes import BASE_PATH
from airflow_provider_odirouter.sandbox.wire import Answer, Call

_CHUNKS = 20


class SandboxServer:
    """
    Serves calls on a socket, in a background thread, for as long as the context lasts.

    :param handle: Answers calls.
    :param host: A loopback address.
    :param port: Port; 0 picks a free one.
    """

    def __init__(self, handle: Callable[[Call], Answer], host: str, port: int) -> None:
        if not is_loopback(host):
            raise ValueError(f"The sandbox serves this machine only, on a loopback address: not on {host}")
        if not 0 <= port <= 65535:
            raise ValueError(f"A port is a number from 0 to 65535, not {port}")
        self._handle = handle
        self._host = host
        self.port = port

    @property
    def origin(self) -> str:
        """``http://host:port``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The value for a connection's host field."""
        return f"{self.origin}{BASE_PATH}"

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self.port), family=family)
        self.port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="odirouter-sandbox", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        # Making pictures and fetching inputs block. The sandbox has its own threads, so that it does not use up the
        # default executor's.
        self._loop.set_default_executor(ThreadPoolExecutor(32, "odirouter-sandbox"))
        # With handler_cancellation, a call that hangs is cancelled when its caller disconnects.
        server = web.Server(self._respond, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await self._stop.wait()
        await runner.cleanup()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(
            request.method,
            unquote(request.rel_url.raw_path),
            request.rel_url.raw_query_string,
            {name.lower(): value for name, value in request.headers.items()},
            await request.content.read(),
            f"http://{request.host}",
        )
        answer = await asyncio.to_thread(self._handle, call)
        await asyncio.sleep(answer.delay)
        return await _deliver(request, answer)


async def _deliver(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    transport = request.transport
    if answer.delivery in {"reset", "close"} and transport is not None:
        if answer.delivery == "reset":
            # Without lingering, closing sends a reset.
            peer: socket.socket = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        return web.Response()
    if answer.delivery == "hang":
        await asyncio.Event().wait()
    if answer.delivery == "whole":
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    return await _stream(request, answer)


async def _stream(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.delivery != "endless":
        response.content_length = len(answer.body)
    await response.prepare(request)
    if answer.delivery == "half":
        await response.write(answer.body[: len(answer.body) // 2])
        if request.transport is not None:
            request.transport.close()
    if answer.delivery == "slow":
        size = len(answer.body) // _CHUNKS + 1
        for start in range(0, len(answer.body), size):
            await asyncio.sleep(answer.trickle / _CHUNKS)
            await response.write(answer.body[start : start + size])
    while answer.delivery == "endless":
        await response.write(answer.body)
    return response
