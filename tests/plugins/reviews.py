"""A person who answers a review through Airflow's API, as the page *Required Actions* does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseNotifier

from tests.plugins.conftest import Browser

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Makes the values of the form of what the request holds."""


class Person(BaseNotifier):
    """A person who hears of each request, as any notifier does, and answers it as soon as the task waits."""

    def __init__(self, browser: Browser, answer: Answer | None = None) -> None:
        super().__init__()
        self.browser = browser
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.before_answer: Callable[[], object] = lambda: None

    def notify(self, context: Any) -> None:
        """Look at the request; answer it later."""
        ti = context["ti"]
        parts = (quote(str(part), safe="") for part in (ti.dag_id, ti.run_id, ti.task_id))
        self.instance = "/api/v2/dags/{}/dagRuns/{}/taskInstances/{}".format(*parts)
        self.path = f"{self.instance}/{ti.map_index}/hitlDetails"
        self.requests.append(self.browser.client.get(self.path).json())
        if self.answer:
            threading.Thread(target=self._answer_when_task_waits, args=(self.path,), daemon=True).start()

    def _answer_when_task_waits(self, path: str) -> None:
        while self.browser.client.get(path).json()["task_instance"]["state"] in {"running", "queued", "scheduled"}:
            time.sleep(0.1)
        self.before_answer()
        self.send(path, self.answer(self.requests[-1]) if self.answer else {})

    def send(self, path: str, values: Mapping[str, Any]) -> Any:
        """Send an answer."""
        body = {"chosen_options": ["Submit"], "params_input": dict(values)}
        self.answers.append(self.browser.client.patch(path, json=body))
        return self.answers[-1]


def keeping(*numbers: int, note: str = "") -> Answer:
    """Make an answer that keeps just these pictures."""

    def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
        switches = [key for key in request["params"] if key != "note"]
        return {**{key: key in {f"keep_{number}" for number in numbers} for key in switches}, "note": note}

    return answer
