"""What the tests of the triggers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_odirouter.lifecycle import ownership
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.triggers import request
from tests.conftest import actions


@dataclass
class Task:
    """The task instance that a triggerer gives to its trigger."""

    dag_id: str = "dag"
    task_id: str = "edit"
    run_id: str = "run"
    map_index: int = -1


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in other threads, too
            await asyncio.sleep(0.02)


def polls(sandbox: Sandbox) -> int:
    return actions(sandbox).count("status")


def pushed(monkeypatch: pytest.MonkeyPatch, value: Any) -> list[str]:
    """Let the task have pushed this, which needs a triggerer's supervisor; an exception is raised. Notes the keys."""
    keys: list[str] = []

    def get(_: object, key: str) -> Any:
        keys.append(key)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(ownership, "_pushed", get)
    return keys


def owned(monkeypatch: pytest.MonkeyPatch, *, orphaned: bool, seconds: float = 0.01) -> None:
    """Answer the ownership check, which needs a triggerer's supervisor, after a while."""

    async def check(*_: object, **__: object) -> bool:
        await asyncio.sleep(seconds)
        return orphaned

    monkeypatch.setattr(request, "is_abandoned", check)
