"""``HttpTrigger`` in a loop, as its users write it: the class itself makes one request and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.http.triggers.http import HttpTrigger
from airflow.triggers.base import TriggerEvent


class PollingHttpTrigger(HttpTrigger):
    """
    Polls a status until it is final, with the hook, the session and the response of its base class.

    The provider's ``HttpSensorTrigger`` cannot read a status, and its ``HttpEventTrigger`` imports the check again for
    each poll, in a thread: this costs less than either of them.
    """

    def __init__(self, endpoint: str, poll_interval: float) -> None:
        super().__init__(method="GET", endpoint=endpoint)
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            "benchmarks.http_poll.PollingHttpTrigger",
            {"endpoint": self.endpoint, "poll_interval": self.poll_interval},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until it is completed."""
        hook = self._get_async_hook()
        while True:
            response = await self._get_response(hook)
            answer = response.json()
            if answer["status"] == "COMPLETED":
                yield TriggerEvent(answer)
                return
            await asyncio.sleep(self.poll_interval)
