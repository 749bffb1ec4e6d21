"""All marks wait in one thread, whatever their number, and whether or not earlier marks could be handled."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

import pytest

from airflow_provider_odirouter.listeners import delay
from airflow_provider_odirouter.listeners.delay import Delay, Mark
from tests.listeners.conftest import finish

pytestmark = pytest.mark.every_version


def marks(number: int) -> list[Mark]:
    return [Mark("dag", "run", str(index)) for index in range(number)]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "odirouter-marked"]


class Work:
    """Records the marks that it gets, and blocks until ``may_go_on`` is set."""

    def __init__(self) -> None:
        self.got: list[Mark] = []
        self.calls = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.begun = threading.Event()

    def __call__(self, some: Sequence[Mark]) -> None:
        self.begun.set()
        assert self.may_go_on.wait(30)
        self.calls += 1
        self.got += some


def test_marks_that_come_together_are_handled_together_and_the_thread_ends() -> None:
    work = Work()
    waiting = Delay(work, seconds=0.2)
    for mark in marks(200):
        waiting.add(mark)
    assert len(threads()) == 1
    assert threads()[0].daemon
    finish(waiting)
    assert work.got == marks(200)
    assert work.calls == 1
    assert threads() == []


def test_adding_a_mark_does_not_wait_for_the_work_on_earlier_marks() -> None:
    work = Work()
    work.may_go_on.clear()
    waiting = Delay(work, seconds=0.0)
    first, *others = marks(200)
    waiting.add(first)
    assert work.begun.wait(30)
    for mark in others:
        waiting.add(mark)
    assert len(threads()) == 1
    work.may_go_on.set()
    finish(waiting)
    assert work.got == marks(200)


def test_an_error_for_some_marks_is_logged_and_the_others_are_handled(caplog: pytest.LogCaptureFixture) -> None:
    got: list[Mark] = []

    def work(some: Sequence[Mark]) -> None:
        got.extend(some)
        if len(got) == 1:
            raise OSError("the database is away")

    waiting = Delay(work, seconds=0.0)
    for mark in marks(2):
        waiting.add(mark)
        finish(waiting)
    assert got == marks(2)
    assert "the database is away" in caplog.text


def test_marks_beyond_the_limit_are_dropped_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delay, "MAX_MARKS", 2)
    work = Work()
    waiting = Delay(work, seconds=0.1)
    with caplog.at_level(logging.WARNING):
        for mark in marks(3):
            waiting.add(mark)
    finish(waiting)
    assert work.got == marks(2)
    assert "Requests of dag, run run, may be left running." in caplog.text


def test_a_forked_process_handles_its_own_marks() -> None:
    work = Work()
    work.may_go_on.clear()
    waiting = Delay(work, seconds=0.0)
    waiting.add(marks(1)[0])
    assert work.begun.wait(30)
    child = os.fork()
    if child == 0:
        work.may_go_on.set()
        waiting.add(Mark("dag", "run", "of the child"))
        finish(waiting)
        os._exit(0 if work.got == [Mark("dag", "run", "of the child")] else 1)
    _, status = os.waitpid(child, 0)
    work.may_go_on.set()
    finish(waiting)
    assert os.waitstatus_to_exitcode(status) == 0
