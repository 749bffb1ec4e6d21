"""The tries of one task instance, against the real sandbox, with a store that is a dictionary."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_provider_odirouter.durability import Intent, Memory, Submitted
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.operators import recovery
from airflow_provider_odirouter.operators.recovery import Earlier
from airflow_provider_odirouter.protocol import Action, repeats
from tests.conftest import DictStore

ENDPOINT = "nano_banana_2"
PARAMETERS = {"prompt": "Blue"}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is repeated, and what is not found is looked for again at once."""
    monkeypatch.setattr(repeats, "PATIENCE", dict.fromkeys(Action, 0.0))
    monkeypatch.setattr(repeats, "RATE_LIMIT_PATIENCE", {})
    monkeypatch.setattr(recovery, "PAUSES_WHILE_NOT_FOUND", (0.0, 0.0))


class Tries:
    """The tries of one task instance."""

    def __init__(self, conn_id: str, store: DictStore) -> None:
        self.conn_id = conn_id
        self.memory = Memory(store)

    def intent(self, conn_id: str = "", max_tries: int = 1, **parameters: Any) -> Intent:
        context = cast("Any", {"ti": SimpleNamespace(max_tries=max_tries)})
        return recovery.intent_of(context, conn_id or self.conn_id, ENDPOINT, PARAMETERS | parameters)

    def first(self, conn_id: str = "") -> Submitted:
        """A try that dies when its request is noted."""
        hook = OdiRouterHook(conn_id or self.conn_id)
        request = recovery.submit(hook, self.memory, self.intent(conn_id), PARAMETERS)
        self.memory.note(request)
        return request

    def next(
        self, *, cancel_live: bool = True, on_lost_submit: Any = "submit", max_tries: int = 1, **parameters: Any
    ) -> Earlier | None:
        """What the next try finds."""
        return recovery.earlier_request(
            OdiRouterHook(self.conn_id),
            self.memory,
            self.intent(max_tries=max_tries, **parameters),
            cancel_live=cancel_live,
            on_lost_submit=on_lost_submit,
        )

    def after_clear(self, **arguments: Any) -> Earlier | None:
        """What the next try finds when the user has cleared the task."""
        return self.next(max_tries=2, **arguments)


@pytest.fixture
def tries(conn_id: str, store: DictStore) -> Tries:
    return Tries(conn_id, store)
