"""A person who answers a review through Airflow's API, as the page *Required Actions* does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from airflow.sdk import BaseNotifier
from airflow.utils.state import TaskInstanceState

from tests.plugins.conftest import Browser

HAS_AWAITING_INPUT = hasattr(TaskInstanceState, "AWAITING_INPUT")
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
        while self.browser.client.get(path).json()["task_instance"]["state"] == "running":
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


@pytest.fixture
def answers_reach_the_trigger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    Let ``dag.test()`` wait for a person.

    Before Airflow 3.3, its trigger asks a supervisor that ``dag.test()`` does not have; from 3.3 on, the scheduler ends
    the wait, which ``dag.test()`` does not have either.
    """
    from airflow.providers.standard.triggers import hitl as trigger

    if HAS_AWAITING_INPUT:
        over = threading.Event()
        thread = threading.Thread(target=_end_waits, args=(over,), daemon=True)
        thread.start()
        yield
        over.set()
        thread.join()
        return
    monkeypatch.setattr(trigger, "get_hitl_detail_content_detail", _read_detail)
    monkeypatch.setattr(trigger, "update_hitl_detail_response", _answer_for_no_person)
    monkeypatch.setattr(trigger, "asyncio", SimpleNamespace(sleep=lambda _: asyncio.sleep(0.1)))
    yield


def _end_waits(over: threading.Event) -> None:
    """Do what the scheduler does from time to time."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    runner = SchedulerJobRunner(Job())
    while not over.wait(0.5):
        runner.check_awaiting_input_timeouts()


def _read_detail(ti_id: Any) -> Any:
    from airflow.utils.session import create_session

    with create_session() as session:
        detail = _detail(session, ti_id)
        user = detail.responded_by_user
        return SimpleNamespace(
            response_received=detail.response_received,
            chosen_options=detail.chosen_options,
            params_input=detail.params_input,
            responded_at=detail.responded_at,
            responded_by_user=user and SimpleNamespace(**user),
        )


def _answer_for_no_person(ti_id: Any, chosen_options: Any, params_input: Any) -> Any:
    from airflow.utils.session import create_session

    with create_session() as session:
        detail = _detail(session, ti_id)
        detail.responded_at, detail.chosen_options = datetime.now(UTC), chosen_options
        detail.params_input = params_input
    return _read_detail(ti_id)


def _detail(session: Any, ti_id: Any) -> Any:
    from airflow.models.hitl import HITLDetail

    kind: Any = HITLDetail.ti_id.type.python_type  # a text before Airflow 3.2
    return session.get(HITLDetail, kind(str(ti_id)))
