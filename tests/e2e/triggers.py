"""A trigger that crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_odirouter.lifecycle.polling import FIRST_POLL_DELAY


class CrashingTrigger(BaseTrigger):
    """Crashes in the place of another trigger, and has its arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._arguments = arguments

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.CrashingTrigger", self._arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        # Airflow itself fails a task whose trigger ends while the worker's process still lingers.
        await asyncio.sleep(FIRST_POLL_DELAY)
        yield TriggerEvent(1 / 0)
