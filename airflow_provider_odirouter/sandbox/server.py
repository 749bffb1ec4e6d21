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

_PIECES = 20


class SandboxServer:
    """
    Serves calls on a socket, from a thread of its own, for as long as the context lasts.

    :param handle: Answers calls.
    :param host: A loopback address.
    :param port: Port; 0 picks a free one.
    """

    def __init__(self, handle: Callable[[Call], Answer], host: str, port: int) -> None:
        if not is_loopback(host):
            raise ValueError(f"The sandbox serves this machine only, on a loopback address: not on {host}")
        self._handle = handle
        self._host = host
        self.port = port
        self._thread = threading.Thread(target=self._run, name="odirouter-sandbox", daemon=True)
        self._started = threading.Event()
        self._error: OSError | None = None

    @property
    def origin(self) -> str:
        """``http://host:port``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What goes into a connection's host field."""
        return f"{self.origin}{BASE_PATH}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._error:
            self._thread.join()
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        # Making pictures and fetching inputs block: threads of our own, so that nobody else's are used up.
        with ThreadPoolExecutor(32, "odirouter-sandbox") as threads:
            self._loop.set_default_executor(threads)
            # Cancels calls that hang when their caller hangs up.
            server = web.Server(self._respond, handler_cancellation=True, access_log=None)
            runner = web.ServerRunner(server, shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, self._host, self.port).start()
                self.port = runner.addresses[0][1]
                self._started.set()
                await self._stop.wait()
            except OSError as error:
                self._error = error
                self._started.set()
            finally:
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
        size = len(answer.body) // _PIECES + 1
        for start in range(0, len(answer.body), size):
            await asyncio.sleep(answer.trickle / _PIECES)
            await response.write(answer.body[start : start + size])
    while answer.delivery == "endless":
        await response.write(answer.body)
    return response
