"""One plain ``httpx.AsyncClient`` for all waiters: the first thing that one would write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


class HttpxWaiter:
    """Waits for one request, with the ``run`` of a trigger."""

    def __init__(self, client: httpx.AsyncClient, path: str, interval: float) -> None:
        self._client = client
        self._path = path
        self._interval = interval

    async def run(self) -> AsyncIterator[Any]:
        """Poll until it is done."""
        while True:
            answer = (await self._client.get(self._path)).json()
            if answer["status"] == "COMPLETED":
                yield answer
                return
            await asyncio.sleep(self._interval)
