"""
One contender with N waiters, in its own process: ``python -m benchmarks.waiting_process {…}``.

The loop runs in the main thread as it does in a triggerer. A second thread sleeps, reads the counters at the beginning
and the end of each window, and ends the process: a loop that is blocked for a minute could not do this in time.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contenders import CONTENDERS, ENDPOINT, OURS, Make, Waiter
from benchmarks.heartbeat import Heartbeat, summary
from benchmarks.tally import Tally
from dev.processes import cpu_seconds

SETTLE = 1.0
TICK = 0.02


def main(order: dict[str, Any]) -> None:
    """Run the waiters until the observer ends the process."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(_run(order))


async def _run(order: dict[str, Any]) -> None:
    make = CONTENDERS[order["contender"]].prepare()
    await _warm_up(order["contender"], make)
    heartbeat = Heartbeat()
    tasks = [asyncio.create_task(heartbeat.beat())]
    observer = threading.Thread(target=_observe, args=(order, heartbeat, _memory(), time.monotonic()), daemon=True)
    observer.start()
    began = time.monotonic()
    for number in range(order["waiters"]):
        due = began + order["start_seconds"] * number / order["waiters"]
        if (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(_wait(make(f"w-{number}", order["interval"]))))
    await asyncio.gather(*tasks)
    raise RuntimeError("all waiters ended, but their requests never do")


async def _wait(waiter: Waiter) -> Any:
    # As the triggerer does.
    async for event in waiter.run():
        raise RuntimeError(f"a waiter ended, but its request never does: {event}")


async def _warm_up(contender: str, make: Make) -> None:
    """Load modules once, so that they do not count as memory of the waiters."""
    if contender == OURS:
        from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

        # A trigger would poll only after 7 seconds.
        async with OdiRouterHook() as hook:
            await hook.aget_status(ENDPOINT, "d-0")
        return
    async for _ in make("d-0", 0.001).run():
        return


def _observe(order: dict[str, Any], heartbeat: Heartbeat, memory: int, began: float) -> None:
    try:
        print(json.dumps(_observed(order, heartbeat, memory, began)), flush=True)
    except BaseException:  # noqa: BLE001 - after any error, the loop would go on for ever
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # Do not cancel thousands of tasks one by one.


def _observed(order: dict[str, Any], heartbeat: Heartbeat, memory: int, began: float) -> list[dict[str, Any]]:
    tally, server = Tally(Path(order["tally"])), psutil.Process(order["server"])
    cpu_before = time.process_time()
    intended = began + order["last_first_poll"]
    started_at = _all_started(tally, order["waiters"], until=intended + order["patience"])
    start = {
        "started": tally.read()[1],
        "start_late_s": None if started_at is None else max(0.0, started_at - intended),
        "start_cpu_ms_per_waiter": 1000 * (time.process_time() - cpu_before) / order["waiters"],
        "start_lag_max_ms": summary(heartbeat.lags(began, time.monotonic()))["lag_max_ms"],
    }
    time.sleep(SETTLE)
    windows = [_window(order, heartbeat, tally, server) for _ in range(order["windows"])]
    start["memory_kib_per_waiter"] = (_memory() - memory) / 1024 / order["waiters"]
    return [start | window for window in windows or [{}]]


def _window(order: dict[str, Any], heartbeat: Heartbeat, tally: Tally, server: psutil.Process) -> dict[str, Any]:
    begin, cpu, polls, server_cpu = time.monotonic(), time.process_time(), tally.read()[0], cpu_seconds(server)
    time.sleep(order["seconds"])
    end, made = time.monotonic(), tally.read()[0] - polls
    spent, server_spent, seconds = time.process_time() - cpu, cpu_seconds(server) - server_cpu, end - begin
    return {
        "wanted_per_s": order["waiters"] / (order["interval"] + order["latency"]),
        "polls_per_s": made / seconds,
        "cpu_ms_per_poll": 1000 * spent / made if made else None,
        "cpu_share": spent / seconds,
        "server_cpu_share": server_spent / seconds,
        **summary(heartbeat.lags(begin, end)),
    }


def _all_started(tally: Tally, waiters: int, *, until: float) -> float | None:
    while (now := time.monotonic()) < until:
        if tally.read()[1] >= waiters:
            return now
        time.sleep(TICK)
    return None


def _memory() -> int:
    size: int = psutil.Process().memory_info().rss
    return size


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
