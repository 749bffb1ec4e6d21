"""Whether a process still acts for its task: no clock, no Airflow, no process is needed to say so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from airflow_provider_odirouter.errors import NotOwnerError
from airflow_provider_odirouter.lifecycle import ownership
from airflow_provider_odirouter.lifecycle.ownership import FROZEN_SECONDS, Ownership

pytestmark = pytest.mark.every_version

LONG = FROZEN_SECONDS + 1


class Process:
    """A process whose clock, parent and Airflow a test has in its hands."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.parent = 7
        self.answers: list[bool | Exception] = []
        self.questions = 0
        self.meanwhile: Callable[[], object] = lambda: None
        """Happens while Airflow thinks."""
        self.ownership = Ownership(self.is_current, patience=60.0, parent=lambda: self.parent, clock=lambda: self.now)

    def is_current(self) -> bool:
        self.questions += 1
        answer = self.answers.pop(0)
        self.meanwhile()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def freeze(self) -> None:
        self.now += LONG


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    process = Process()

    def sleep(seconds: float) -> None:
        process.now += min(seconds, FROZEN_SECONDS)

    # A pause takes no time; the beat, which would run for ever, has tests on real processes.
    monkeypatch.setattr("airflow_provider_odirouter.lifecycle.ownership.time.sleep", sleep)
    monkeypatch.setattr(Ownership, "_beat", lambda _: None)
    return process


def test_a_process_that_was_not_frozen_asks_nothing(process: Process) -> None:
    for _ in range(10):
        process.now += FROZEN_SECONDS
        process.ownership.check()
    assert process.questions == 0


def test_a_process_whose_supervisor_is_dead_is_not_the_owner_and_asks_nothing(process: Process) -> None:
    process.parent = 1
    with pytest.raises(NotOwnerError, match="supervisor of it is dead"):
        process.ownership.check()
    assert not process.ownership.is_owner_within(1.0)
    assert process.questions == 0


def test_a_process_that_was_frozen_goes_on_if_its_try_is_the_current_one(process: Process) -> None:
    process.answers = [True]
    process.freeze()
    process.ownership.check()
    process.ownership.check()
    assert process.questions == 1


@pytest.mark.parametrize("patience", [0.1, None], ids=["in a signal handler", "elsewhere"])
def test_a_process_that_was_frozen_ends_if_there_is_a_newer_try(patience: float | None, process: Process) -> None:
    process.answers = [False]
    process.freeze()
    if patience:
        assert not process.ownership.is_owner_within(patience)
    with pytest.raises(NotOwnerError, match="Airflow has begun another try"):
        process.ownership.check()
    with pytest.raises(NotOwnerError):
        process.ownership.check()
    assert process.questions == 1


def test_a_freeze_is_seen_by_the_beat_too_however_soon_it_comes_after_the_wake(process: Process) -> None:
    process.answers = [False]
    process.freeze()
    process.ownership._is_suspect()
    process.now += 0.1
    with pytest.raises(NotOwnerError):
        process.ownership.check()


def test_while_airflow_does_not_answer_a_process_that_was_frozen_waits(process: Process) -> None:
    process.answers = [OSError("away"), TimeoutError("away"), True]
    process.freeze()
    process.ownership.check()
    assert process.questions == 3


def test_after_its_deadline_a_process_without_an_answer_is_not_the_owner(
    process: Process,
) -> None:
    process.answers = [OSError("away")] * 100
    process.freeze()
    with pytest.raises(NotOwnerError, match=r"does not say whether it is the current try.*away"):
        process.ownership.check()
    asked = process.questions
    assert asked >= 60 / ownership.PAUSE_SECONDS
    with pytest.raises(NotOwnerError):
        process.ownership.check()
    assert process.questions == asked


def test_an_answer_says_nothing_about_a_freeze_that_came_while_airflow_thought(process: Process) -> None:
    process.answers = [True, False]
    process.meanwhile = process.freeze
    process.freeze()
    with pytest.raises(NotOwnerError):
        process.ownership.check()
    assert process.questions == 2


@pytest.mark.parametrize("error", [EOFError("closed"), BrokenPipeError("closed")], ids=repr)
def test_a_line_to_airflow_that_is_closed_means_that_the_supervisor_is_dead(error: Exception, process: Process) -> None:
    process.answers = [error]
    with pytest.raises(NotOwnerError, match="is dead"):
        process.ownership.begin()


def test_a_try_asks_once_when_it_begins_since_it_may_have_been_frozen_before(process: Process) -> None:
    process.answers = [False]
    with pytest.raises(NotOwnerError):
        process.ownership.begin()


def test_a_try_that_was_not_frozen_begins_though_airflow_does_not_answer(process: Process) -> None:
    process.answers = [OSError("away")]
    process.ownership.begin()
    process.ownership.check()
    assert process.questions == 1


def test_a_signal_handler_gets_no_for_an_answer_that_does_not_come_in_time(process: Process) -> None:
    answered = threading.Event()
    process.answers = [True]
    process.meanwhile = answered.wait
    process.freeze()
    assert not process.ownership.is_owner_within(0.01)
    answered.set()
    # The question was open, and is not asked twice.
    process.ownership.check()
    assert process.questions == 1


def test_a_signal_handler_gets_no_if_the_system_has_no_thread_left(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    process.freeze()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert not process.ownership.is_owner_within(1.0)
    process.answers = [True]
    assert process.ownership.is_owner_within(1.0)


def test_nothing_is_watched_in_dag_test(process: Process) -> None:
    unwatched = Ownership(None, patience=60.0, parent=lambda: process.parent, clock=lambda: process.now)
    unwatched.begin()
    process.parent = 1
    process.freeze()
    unwatched.check()
    assert unwatched.is_owner_within(0.0)


def test_threads_that_find_a_freeze_together_share_one_question(process: Process) -> None:
    asked = threading.Event()
    process.answers = [True]
    process.meanwhile = asked.wait
    process.freeze()
    threads = [threading.Thread(target=process.ownership.check) for _ in range(8)]
    for thread in threads:
        thread.start()
    asked.set()
    for thread in threads:
        thread.join(10)
    assert process.questions == 1


def test_a_kill_that_comes_while_airflow_thinks_is_no_answer_of_airflows(process: Process) -> None:
    """Signal handlers raise in the main thread, wherever it is."""

    def kill(*_: object) -> None:
        raise RuntimeError("The task was killed.")

    def be_killed() -> None:
        signal.raise_signal(signal.SIGUSR1)
        answered.wait()

    answered = threading.Event()
    process.answers = [True]
    process.meanwhile = be_killed
    process.freeze()
    before = signal.signal(signal.SIGUSR1, kill)
    try:
        with pytest.raises(RuntimeError, match="The task was killed"):
            process.ownership.check()
    finally:
        signal.signal(signal.SIGUSR1, before)
        answered.set()
    assert process.questions == 1
