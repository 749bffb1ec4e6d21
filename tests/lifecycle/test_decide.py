"""The decision of a new try about an earlier one's request: pure, with nothing but what it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from airflow_provider_odirouter.errors import NoAnswerError
from airflow_provider_odirouter.lifecycle.resume import AskState, CancelNoted, Decision, Seen, Step, decide, is_cleared
from airflow_provider_odirouter.lifecycle.state import Intent, Noted, OnLostSubmit, Unreadable
from airflow_provider_odirouter.models import CancelOutcome, RequestState
from tests.conftest import DictStore
from tests.lifecycle.conftest import INTENT, REQUEST

ALIVE = [state for state in RequestState if not state.is_terminal]
SUCCEEDED = RequestState.SUCCEEDED
OVER = [None, RequestState.FAILED, RequestState.CANCELED]
"""``None``: the service does not know it any more."""


def cleared(noted: Intent) -> Intent:
    """What a try noted before the user cleared the task, which then may be tried more often."""
    return noted.model_copy(update={"max_tries": INTENT.max_tries - 1})


def of_another_input(noted: Intent) -> Intent:
    return noted.model_copy(update={"fingerprint": "another input"})


def run(
    noted: Noted, *answers: Seen, may_cancel: bool = True, on_lost_submit: OnLostSubmit = "submit"
) -> tuple[list[Step], Decision | None]:
    """Answer the questions of a decision in turn; return them, and the decision, if the answers sufficed."""
    steps = decide(noted, INTENT, may_cancel=may_cancel, on_lost_submit=on_lost_submit)
    asked: list[Step] = []
    try:
        asked.append(next(steps))
        for answer in answers:
            asked.append(steps.send(answer))
    except StopIteration as stop:
        return asked, stop.value
    return asked, None


INTENTS = [INTENT, of_another_input(INTENT)]
DONE = REQUEST.model_copy(update={"done": True})
UNREADABLE = Unreadable(path="a file", why="it is no JSON", max_tries=None, first_since_clear=False)
ANY = (True, False)
EITHER: tuple[OnLostSubmit, ...] = get_args(OnLostSubmit)

TABLE: dict[
    str, tuple[Sequence[Noted], Iterable[RequestState | None], Sequence[bool], Sequence[str], Decision | None]
] = {
    "nothing": ([None], [None], ANY, EITHER, Decision.SUBMIT),
    "request of another input": ([of_another_input(REQUEST)], [None], [True], EITHER, None),
    "request of another input, not to be cancelled": (
        [of_another_input(REQUEST)],
        [None],
        [False],
        EITHER,
        Decision.SUBMIT_BESIDE,
    ),
    "intent for any input": (INTENTS, [None], ANY, ["submit"], Decision.SUBMIT_AGAIN),
    "intent for any input, not to be submitted again": (INTENTS, [None], ANY, ["fail"], Decision.REFUSE),
    "intent for any input, cleared": ([cleared(one) for one in INTENTS], [None], ANY, EITHER, Decision.SUBMIT_AGAIN),
    "request that succeeded, cleared or not": ([REQUEST, cleared(REQUEST)], [SUCCEEDED], ANY, EITHER, Decision.TAKE),
    "request that is over, cleared or not": ([REQUEST, cleared(REQUEST)], OVER, ANY, EITHER, Decision.SUBMIT),
    "live request": ([REQUEST], ALIVE, ANY, EITHER, Decision.WAIT),
    "live request, cleared": ([cleared(REQUEST)], ALIVE, [True], EITHER, None),
    "live request, cleared, not to be cancelled": ([cleared(REQUEST)], ALIVE, [False], EITHER, Decision.WAIT),
    "done": ([DONE], [SUCCEEDED], ANY, EITHER, Decision.TAKE),
    "done, but only submitted": ([DONE], ALIVE, ANY, EITHER, Decision.WAIT),
    "unreadable": (
        [UNREADABLE, replace(UNREADABLE, max_tries=INTENT.max_tries, first_since_clear=True)],
        [None],
        ANY,
        EITHER,
        Decision.REFUSE,
    ),
    "unreadable, cleared": (
        [replace(UNREADABLE, first_since_clear=True), replace(UNREADABLE, max_tries=INTENT.max_tries - 1)],
        [None],
        ANY,
        EITHER,
        Decision.SUBMIT_AGAIN,
    ),
    "done and cleared": ([cleared(DONE), cleared(of_another_input(DONE))], RequestState, ANY, EITHER, Decision.SUBMIT),
}
"""
What is remembered: the notes that mean it, the request's states, ``may_cancel``, ``on_lost_submit``; the decision.

``None``: the request is cancelled first.
"""


@pytest.mark.parametrize(
    ("noted", "state", "may_cancel", "on_lost_submit", "decision"),
    [
        pytest.param(*case, decision, id="-".join([words, *map(str, case[1:])]))
        for words, (*options, decision) in TABLE.items()
        for case in product(*options)
    ],
)
def test_a_try_decides_by_the_note_and_the_state_of_its_request(
    noted: Noted, state: RequestState | None, may_cancel: bool, on_lost_submit: OnLostSubmit, decision: Decision | None
) -> None:
    steps = decide(noted, INTENT, may_cancel=may_cancel, on_lost_submit=on_lost_submit)
    seen: Seen = None
    found: Decision | None = None
    try:
        while not isinstance(steps.send(seen), CancelNoted):
            seen = state
    except StopIteration as stop:
        found = stop.value
    assert found is decision


def test_the_table_knows_every_state_of_a_request() -> None:
    assert {*ALIVE, *OVER, SUCCEEDED} == {*RequestState, None}


@pytest.mark.parametrize(
    "noted", [None, INTENT, UNREADABLE, of_another_input(REQUEST), cleared(DONE)], ids=lambda one: type(one).__name__
)
def test_the_state_is_asked_for_only_where_it_decides(noted: Noted) -> None:
    asked, _ = run(noted)
    assert not any(isinstance(step, AskState) for step in asked)


@pytest.mark.parametrize("is_cleared_now", ANY)
def test_only_a_clear_gives_up_a_request_whose_state_cannot_be_read(is_cleared_now: bool) -> None:
    asked, _ = run(cleared(REQUEST) if is_cleared_now else REQUEST)
    assert asked == [AskState(cancel_if_unreachable=is_cleared_now)]


@pytest.mark.parametrize("outcome", [CancelOutcome.REQUESTED, CancelOutcome.NOT_FOUND])
def test_a_cleared_request_that_was_cancelled_is_submitted_again(outcome: CancelOutcome) -> None:
    asked, decision = run(cleared(REQUEST), RequestState.IN_PROGRESS, outcome)
    assert asked[1:] == [CancelNoted("The task was cleared.")]
    assert decision is Decision.SUBMIT


@pytest.mark.parametrize("outcome", [CancelOutcome.ALREADY_COMPLETED, CancelOutcome.UNSUPPORTED])
@pytest.mark.parametrize(
    ("state", "then"),
    [
        (SUCCEEDED, Decision.TAKE),
        (RequestState.FAILED, Decision.SUBMIT),
        (None, Decision.SUBMIT),
        (RequestState.IN_PROGRESS, Decision.WAIT),
    ],
)
def test_a_cleared_request_that_cannot_be_cancelled_is_asked_for_again(
    outcome: CancelOutcome, state: RequestState | None, then: Decision
) -> None:
    asked, decision = run(cleared(REQUEST), RequestState.IN_PROGRESS, outcome, state)
    assert [type(step) for step in asked] == [AskState, CancelNoted, AskState]
    assert decision is then


def test_a_cleared_request_whose_cancel_fails_is_not_paid_beside_a_new_one() -> None:
    failure = NoAnswerError("OdiRouter did not answer the cancel within 60 s.")
    with pytest.raises(NoAnswerError):
        run(cleared(REQUEST), RequestState.IN_PROGRESS, failure)


@pytest.mark.parametrize("outcome", [*CancelOutcome, NoAnswerError("no answer")], ids=str)
def test_a_request_of_another_input_is_cancelled_and_this_one_submitted(outcome: CancelOutcome | NoAnswerError) -> None:
    asked, decision = run(of_another_input(REQUEST), outcome)
    assert asked == [CancelNoted("Its input has changed since its last try.")]
    assert decision is Decision.SUBMIT


def test_an_answer_to_another_question_is_a_defect() -> None:
    with pytest.raises(TypeError, match="the state of a request is"):
        run(REQUEST, CancelOutcome.REQUESTED)


def test_airflow_tells_whether_the_task_was_cleared_where_the_note_does_not(store: DictStore) -> None:
    for is_first in ANY:
        noted = replace(UNREADABLE, first_since_clear=is_first)
        assert is_cleared(noted, INTENT) is is_first
