"""
The contenders: real trigger classes, each made as its operator makes it.

All wait on the same server, with connections from environment variables, and use nothing of this provider. Settings
favour the other providers: the address is an IP, so that no poll has to resolve a name; the log shows warnings and
above only.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_odirouter.lifecycle.polling import FIRST_POLL_DELAY

ENDPOINT = "gpt_image_1_edit"
DAY = 24 * 60 * 60


class Waiter(Protocol):
    """A trigger, or an object with the same ``run``."""

    def run(self) -> AsyncIterator[Any]:
        """Wait, and yield an event."""


Make = Callable[[str, float], Waiter]
"""Makes a waiter for a request's id that polls at an interval in seconds."""


@dataclass(frozen=True)
class Contender:
    """
    A way to wait.

    :param title: Its name in the table.
    :param prepare: Imports the classes that it needs, and returns a function that makes its waiters.
    :param first_poll_delay: Seconds from a waiter's start to its first poll, by design.
    :param spreads: Whether waiters that start together spread their first polls over one interval, by design.
    """

    title: str
    prepare: Callable[[], Make]
    first_poll_delay: float = 0.0
    spreads: bool = False


def connections(port: int) -> dict[str, str]:
    """Return the connections as environment variables."""
    host = "https://127.0.0.1"
    batches = {"password": "any-key", "host": f"{host}:{port}/v1"}
    settings: dict[str, dict[str, Any]] = {
        "ODIROUTER_DEFAULT": {"conn_type": "odirouter", "password": "any-key", "host": f"{host}:{port}/model"},
        "HTTP_DEFAULT": {"conn_type": "http", "host": host, "port": port},
        "OPENAI_DEFAULT": {"conn_type": "openai", **batches},
        "PYDANTICAI_DEFAULT": {"conn_type": "pydanticai", **batches},
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(setting) for name, setting in settings.items()} | {
        "BENCHMARK_PORT": str(port)
    }


def status_path(request_id: str) -> str:
    """Return the path of a request's status."""
    return f"/model/v1/queue/{ENDPOINT}/requests/{request_id}/status"


def _prepare_ours() -> Make:
    from airflow_provider_odirouter.triggers.request import OdiRouterRequestTrigger

    def make(request_id: str, interval: float) -> Waiter:
        return OdiRouterRequestTrigger(
            odirouter_conn_id="odirouter_default",
            endpoint=ENDPOINT,
            request_id=request_id,
            deadline=time.time() + DAY,
            poll_interval=interval,
            submitted_at=time.time(),
        )

    return make


def _prepare_http() -> Make:
    from benchmarks.http_poll import PollingHttpTrigger

    return lambda request_id, interval: PollingHttpTrigger(endpoint=status_path(request_id), poll_interval=interval)


def _prepare_openai() -> Make:
    from airflow.providers.openai.triggers.openai import OpenAIBatchTrigger

    def make(request_id: str, interval: float) -> Waiter:
        trigger: Waiter = OpenAIBatchTrigger(
            conn_id="openai_default", batch_id=request_id, poll_interval=interval, timeout=DAY
        )
        return trigger

    return make


def _prepare_common_ai() -> Make:
    from airflow.providers.common.ai.triggers.llm_batch import LLMBatchTrigger

    def make(request_id: str, interval: float) -> Waiter:
        trigger: Waiter = LLMBatchTrigger(
            llm_conn_id="pydanticai_default",
            adapter="openai",
            batch_id=request_id,
            poll_interval=int(interval),
            end_time=time.time() + DAY,
            cancel_on_kill=True,
            cancel_on_timeout=True,
            timeout=DAY,
        )
        return trigger

    return make


def _prepare_raw() -> Make:
    import os

    from benchmarks.raw_loop import RawPool, RawWaiter

    pool = RawPool(int(os.environ["BENCHMARK_PORT"]))
    return lambda request_id, interval: RawWaiter(pool, status_path(request_id), interval)


OURS, RAW = "odirouter", "raw"

CONTENDERS = {
    OURS: Contender("odirouter", _prepare_ours, first_poll_delay=FIRST_POLL_DELAY, spreads=True),
    "http": Contender("http: HttpTrigger in a loop", _prepare_http),
    "common-ai": Contender("common-ai: LLMBatchTrigger", _prepare_common_ai),
    "openai": Contender("openai: OpenAIBatchTrigger", _prepare_openai),
    RAW: Contender("raw asyncio streams (the limit)", _prepare_raw),
}
PEERS = ("http", "common-ai", "openai")
