"""
The limit: the cost of a poll with nothing but asyncio's streams, TLS and one line of JSON.

No library, no retries, no error handling, only the headers that HTTP demands, on at most as many kept-alive connections
as ours. No provider could be built like this; it shows which part of a poll's cost cannot be saved.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

MAX_CONNECTIONS = 100


class RawPool:
    """Kept-alive connections to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tls = ssl.create_default_context()
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def get(self, path: str) -> Any:
        """Return the JSON of an answer."""
        async with self._slots:
            if self._free:
                reader, writer = self._free.pop()
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer any-key\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
            self._free.append((reader, writer))
        return json.loads(body)


class RawWaiter:
    """Waits for one request, with the ``run`` of a trigger."""

    def __init__(self, pool: RawPool, path: str, interval: float) -> None:
        self._pool = pool
        self._path = path
        self._interval = interval

    async def run(self) -> AsyncIterator[Any]:
        """Poll until it is done."""
        while True:
            answer = await self._pool.get(self._path)
            if answer["status"] == "COMPLETED":
                yield answer
                return
            await asyncio.sleep(self._interval)
