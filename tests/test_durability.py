from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, get_args

import pytest

from airflow_provider_odirouter.durability import (
    KEY,
    Intent,
    Memory,
    Move,
    Noted,
    OnLostSubmit,
    Submitted,
    Unreadable,
    decide,
    fingerprint,
    is_cleared,
)
from airflow_provider_odirouter.models import RequestState
from tests.conftest import DictStore

INTENT = Intent(fingerprint="this input", odirouter_conn_id="conn", endpoint="gpt_image_1_edit", max_tries=1)
REQUEST = INTENT.submitted("mmsu_1", datetime(2026, 11, 22, 12, 30, 1, 500_000, UTC))
ALIVE = [state for state in RequestState if not state.terminal]
SUCCEEDED = RequestState.SUCCEEDED
OVER = [None, RequestState.FAILED, RequestState.CANCELED]
"""``None``: the service does not know it any more."""


def cleared(noted: Intent) -> Intent:
    """What a try noted before the user cleared the task, which then may be tried more often."""
    return noted.model_copy(update={"max_tries": INTENT.max_tries - 1})


def of_another_input(noted: Intent) -> Intent:
    return noted.model_copy(update={"fingerprint": "another input"})


INTENTS = [INTENT, of_another_input(INTENT)]
DONE = REQUEST.model_copy(update={"done": True})
UNREADABLE = Unreadable(place="a file", why="it is no JSON", max_tries=None, first_since_clear=False)
ANY = (True, False)
EITHER: tuple[OnLostSubmit, ...] = get_args(OnLostSubmit)

TABLE: dict[str, tuple[Sequence[Noted], Iterable[RequestState | None], Sequence[bool], Sequence[str], Move]] = {
    "nothing": ([None], [None], ANY, EITHER, Move.SUBMIT),
    "request of another input": ([of_another_input(REQUEST)], [None], [True], EITHER, Move.CANCEL),
    "request of another input, not to be cancelled": (
        [of_another_input(REQUEST)],
        [None],
        [False],
        EITHER,
        Move.SUBMIT,
    ),
    "intent for any input": (INTENTS, [None], ANY, ["submit"], Move.SUBMIT_AGAIN),
    "intent for any input, not to be submitted again": (INTENTS, [None], ANY, ["fail"], Move.REFUSE),
    "intent for any input, cleared": ([cleared(one) for one in INTENTS], [None], ANY, EITHER, Move.SUBMIT_AGAIN),
    "request that succeeded, cleared or not": ([REQUEST, cleared(REQUEST)], [SUCCEEDED], ANY, EITHER, Move.TAKE),
    "request that is over, cleared or not": ([REQUEST, cleared(REQUEST)], OVER, ANY, EITHER, Move.SUBMIT),
    "live request": ([REQUEST], ALIVE, ANY, EITHER, Move.WAIT),
    "live request, cleared": ([cleared(REQUEST)], ALIVE, [True], EITHER, Move.CANCEL),
    "live request, cleared, not to be cancelled": ([cleared(REQUEST)], ALIVE, [False], EITHER, Move.WAIT),
    "done": ([DONE], [SUCCEEDED], ANY, EITHER, Move.TAKE),
    "done, but only submitted": ([DONE], ALIVE, ANY, EITHER, Move.WAIT),
    "unreadable": (
        [UNREADABLE, replace(UNREADABLE, max_tries=INTENT.max_tries, first_since_clear=True)],
        [None],
        ANY,
        EITHER,
        Move.REFUSE,
    ),
    "unreadable, cleared": (
        [replace(UNREADABLE, first_since_clear=True), replace(UNREADABLE, max_tries=INTENT.max_tries - 1)],
        [None],
        ANY,
        EITHER,
        Move.SUBMIT_AGAIN,
    ),
    "done and cleared": ([cleared(DONE), cleared(of_another_input(DONE))], RequestState, ANY, EITHER, Move.SUBMIT),
}
"""What is remembered: the notes that mean it, the request's states, ``may_cancel``, ``on_lost_submit``; the move."""


@pytest.mark.parametrize(
    ("noted", "state", "may_cancel", "on_lost_submit", "move"),
    [
        pytest.param(*case, move, id="-".join([words, *map(str, case[1:])]))
        for words, (*options, move) in TABLE.items()
        for case in product(*options)
    ],
)
def test_a_try_decides_by_what_it_remembers_and_what_became_of_it(
    noted: Noted, state: RequestState | None, may_cancel: bool, on_lost_submit: OnLostSubmit, move: Move
) -> None:
    assert decide(noted, INTENT, state, may_cancel=may_cancel, on_lost_submit=on_lost_submit) is move


def test_the_table_knows_every_state_of_a_request() -> None:
    assert {*ALIVE, *OVER, SUCCEEDED} == {*RequestState, None}


@pytest.mark.parametrize("noted", [INTENT, REQUEST], ids=["intent", "request"])
def test_what_is_noted_comes_back_as_it_was_from_plain_json(noted: Intent, store: DictStore) -> None:
    Memory(store).note(noted)
    recalled = Memory(store).recall()
    assert (type(recalled), recalled) == (type(noted), noted)
    assert json.loads(store.values[KEY])["fingerprint"] == "this input"


def test_a_note_takes_the_place_of_the_one_before(store: DictStore) -> None:
    memory = Memory(store)
    memory.note(INTENT)
    memory.note(REQUEST)
    assert (memory.recall(), list(store.values)) == (REQUEST, [KEY])


def test_what_is_forgotten_is_gone(store: DictStore) -> None:
    memory = Memory(store)
    memory.note(REQUEST)
    memory.forget()
    memory.forget()
    assert memory.recall() is None
    assert not store.values
    assert memory.lasts


def recalled(value: Any, store: DictStore) -> Noted:
    store.values[KEY] = value if isinstance(value, str) else json.dumps(value)
    return Memory(store).recall()


WHOLE = REQUEST.model_dump(mode="json")


def test_a_note_carries_its_version_and_one_from_before_that_is_understood(store: DictStore) -> None:
    assert WHOLE["version"] == 1
    assert recalled({name: value for name, value in WHOLE.items() if name != "version"}, store) == REQUEST


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (WHOLE | {"version": 2}, "version: should be 1"),
        (WHOLE | {"version": None}, "version: should be 1"),
        (WHOLE | {"phase": "deferred"}, "phase: Extra inputs are not permitted"),
        (WHOLE | {"submitted_at": "yesterday"}, "submitted_at: should be a valid datetime"),
        (WHOLE | {"submitted_at": "2026-11-22T12:30:01"}, "submitted_at: should have timezone info"),
        (WHOLE | {"submitted_at": None}, "submitted_at: should be a valid datetime"),
        (WHOLE | {"done": "true"}, "done: should be a valid boolean"),
        (WHOLE | {"request_id": ""}, "request_id: String should match pattern"),
        (WHOLE | {"request_id": "../mmsu_1"}, "request_id: String should match pattern"),
        (WHOLE | {"request_id": 1}, "request_id: should be a valid string"),
        (WHOLE | {"fingerprint": None}, "fingerprint: should be a valid string"),
        (WHOLE | {"endpoint": ""}, "endpoint: String should have at least 1 character"),
        (WHOLE | {"max_tries": "1"}, "max_tries: should be a valid integer"),
        ({"job": "mmsu_alien"}, "max_tries: Field required"),
        ({"request_id": "mmsu_alien"}, "max_tries: Field required"),
        ({}, "max_tries: Field required"),
        ("null", "it is no JSON object"),
        ('"mmsu_alien request_id"', "should be an object"),
        (["mmsu_alien", "request_id"], "should be an object"),
        ([], "should be an object"),
        (404_404, "it is no JSON object"),
        (True, "it is no JSON object"),
        ("", "Expecting value"),
        ("mmsu_alien", "Expecting value"),
        (json.dumps(WHOLE)[:-40], "Unterminated string"),
    ],
    ids=str,
)
def test_a_note_that_cannot_be_read_is_not_taken_for_none(note: Any, why: str, store: DictStore) -> None:
    noted = recalled(note, store)
    assert isinstance(noted, Unreadable)
    assert noted.place == "key 'odirouter_request' of Airflow's task state store"
    assert why in noted.why


@pytest.mark.parametrize(
    ("note", "max_tries"),
    [
        (WHOLE | {"version": 2}, 1),
        (json.dumps(WHOLE)[:60], 1),
        (json.dumps(WHOLE)[:20], None),
        ("null", None),
        (WHOLE | {"max_tries": "1"}, None),
        (WHOLE | {"max_tries": -1, "version": 2}, None),
    ],
    ids=str,
)
def test_half_a_note_may_still_tell_whether_the_task_was_cleared_since(
    note: Any, max_tries: int | None, store: DictStore
) -> None:
    noted = recalled(note, store)
    assert isinstance(noted, Unreadable)
    assert noted.max_tries == max_tries


def test_airflow_tells_whether_the_task_was_cleared_where_the_note_does_not(store: DictStore) -> None:
    store.values[KEY] = "gone"
    for is_first in ANY:
        noted = Memory(store, first_since_clear=lambda is_first=is_first: is_first).recall()  # type: ignore[misc]
        assert isinstance(noted, Unreadable)
        assert is_cleared(noted, INTENT) is is_first


def test_what_is_noted_takes_the_place_of_what_could_not_be_read(store: DictStore) -> None:
    store.values[KEY] = "gone"
    memory = Memory(store)
    memory.done()
    assert store.values[KEY] == "gone"
    memory.note(INTENT)
    assert memory.recall() == INTENT


class OutOfOrder(DictStore):
    """A store whose calls fail."""

    def get(self, key: str, default: Any = None) -> Any:
        raise OSError("no answer")

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        raise OSError("no answer")

    def delete(self, key: str) -> None:
        raise OSError("no answer")


def test_a_store_that_does_not_answer_is_no_empty_one() -> None:
    with pytest.raises(OSError, match="no answer"):
        Memory(OutOfOrder()).recall()


def test_what_a_store_may_not_have_taken_does_not_last_but_can_be_forgotten(
    store: DictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(store)
    memory.note(INTENT)
    monkeypatch.setattr(store, "set", OutOfOrder().set)
    with pytest.raises(OSError, match="no answer"):
        memory.note(REQUEST)
    assert not memory.lasts
    memory.forget()
    assert not store.values


def test_a_note_that_airflow_ends_does_not_last(store: DictStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's time-outs are no ``Exception``."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "set", end)
    memory = Memory(store)
    with pytest.raises(KeyboardInterrupt):
        memory.note(INTENT)
    assert not memory.lasts


@pytest.mark.parametrize("end", [Memory.forget, Memory.done])
def test_a_store_that_takes_no_end_is_no_failure_of_the_try(
    end: Callable[[Memory], None], caplog: pytest.LogCaptureFixture
) -> None:
    end(Memory(OutOfOrder()))
    [warning] = caplog.records
    assert warning.levelname == "WARNING"
    assert "no answer" in warning.getMessage()


def test_what_is_done_is_remembered_for_a_day(store: DictStore) -> None:
    memory = Memory(store)
    memory.note(REQUEST)
    memory.done()
    assert memory.recall() == DONE
    assert store.retention == timedelta(days=1)


@pytest.mark.parametrize("noted", [INTENT, None], ids=["intent", "nothing"])
def test_nothing_is_done_where_no_request_is_remembered(noted: Intent | None, store: DictStore) -> None:
    memory = Memory(store)
    if noted:
        memory.note(noted)
    memory.done()
    assert memory.recall() == noted


def test_without_a_store_nothing_is_kept() -> None:
    memory = Memory(None)
    memory.note(REQUEST)
    memory.done()
    assert memory.recall() is None
    memory.forget()
    assert not memory.lasts


def test_what_is_submitted_keeps_what_was_intended() -> None:
    assert isinstance(REQUEST, Submitted)
    assert REQUEST.model_dump(include=set(Intent.model_fields)) == INTENT.model_dump()


SUBMITS = [
    ("conn", "nano_banana_2", b'{"prompt":"Blue"}'),
    ("other", "nano_banana_2", b'{"prompt":"Blue"}'),
    ("conn", "nano_banana", b'{"prompt":"Blue"}'),
    ("conn", "nano_banana_2", b'{"prompt":"Red"}'),
    ("conn", "nano_banana_2", b""),
    # The same bytes, split otherwise between the three.
    ("connn", "ano_banana_2", b'{"prompt":"Blue"}'),
    ("conn", "nano_banana", b'_2{"prompt":"Blue"}'),
    ("", "connnano_banana_2", b'{"prompt":"Blue"}'),
]


def test_different_submits_have_different_fingerprints_and_the_same_has_the_same() -> None:
    fingerprints = [fingerprint(*submit) for submit in SUBMITS]
    assert len({*fingerprints}) == len(SUBMITS)
    assert fingerprints == [fingerprint(*submit) for submit in SUBMITS]
