"""One contender of the cancellation benchmark: ``python -m benchmarks.cancellation_process {…}``."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from typing import Any

from benchmarks.contenders import CONTENDERS, Make, status_path


def main(order: dict[str, Any]) -> None:
    """Kill, then wait, and print the result."""
    result = asyncio.run(_run(order))
    print(json.dumps(result), flush=True)
    os._exit(0)  # Do not wait for lost connections.


async def _run(order: dict[str, Any]) -> dict[str, Any]:
    make, interval = _prepare(order["contender"]), order["interval"]
    first_poll_delay = CONTENDERS[order["contender"]].first_poll_delay if order["contender"] in CONTENDERS else 0.0
    began = time.monotonic()

    async def kill(number: int) -> str | None:
        await asyncio.sleep(random.random() * order["start_seconds"])
        task = asyncio.create_task(_wait(make(f"w-{number}", interval)))
        await asyncio.sleep(first_poll_delay + random.random() * order["kill_seconds"])
        task.cancel()
        return _error((await asyncio.gather(task, return_exceptions=True))[0])

    ends = await asyncio.gather(*(kill(number) for number in range(order["kills"])))
    killed = time.monotonic()
    await asyncio.sleep(1)

    async def wait(number: int) -> float:
        before = time.monotonic()
        async with asyncio.timeout(order["patience"]):
            await _wait(make(f"d-{number}", interval))
        return time.monotonic() - before - first_poll_delay

    waits = await asyncio.gather(*(wait(number) for number in range(order["waiters"])), return_exceptions=True)
    succeeded = [end for end in waits if isinstance(end, float)]
    return {
        "killed": ends.count("CancelledError"),
        "kill_s": killed - began - first_poll_delay,
        "succeeded": len(succeeded),
        "slowest_s": max(succeeded, default=None),
        "errors": sorted({error for error in map(_error, waits) if error}),
    }


def _prepare(contender: str) -> Make:
    if contender in CONTENDERS:
        return CONTENDERS[contender].prepare()
    import httpx

    from benchmarks.shared_httpx import HttpxWaiter

    client = httpx.AsyncClient(base_url=f"https://127.0.0.1:{os.environ['BENCHMARK_PORT']}")
    return lambda request_id, interval: HttpxWaiter(client, status_path(request_id), interval)


async def _wait(waiter: Any) -> Any:
    async for event in waiter.run():
        return event
    raise RuntimeError("a waiter ended without an event")


def _error(end: object) -> str | None:
    return type(end).__name__ if isinstance(end, BaseException) else None


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
