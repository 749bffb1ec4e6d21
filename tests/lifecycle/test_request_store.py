"""What a task instance remembers of its request, as one store keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_odirouter.lifecycle.resume import is_cleared
from airflow_provider_odirouter.lifecycle.state import (
    KEY,
    Ended,
    Intent,
    Noted,
    RequestStore,
    Submitted,
    Unreadable,
    make_fingerprint,
)
from airflow_provider_odirouter.models import Spending
from tests.conftest import DictStore
from tests.lifecycle.conftest import INTENT, REQUEST

DONE = REQUEST.model_copy(update={"done": True})
ENDED = Ended(submits=3, cost=0.6)
ANY = (True, False)


@pytest.mark.parametrize("noted", [INTENT, REQUEST], ids=["intent", "request"])
def test_what_is_noted_comes_back_as_it_was_from_plain_json(noted: Intent, store: DictStore) -> None:
    RequestStore(store).note(noted)
    recalled = RequestStore(store).recall()
    assert (type(recalled), recalled) == (type(noted), noted)
    assert json.loads(store.values[KEY])["fingerprint"] == "this input"


def test_a_note_takes_the_place_of_the_one_before(store: DictStore) -> None:
    request_store = RequestStore(store)
    request_store.note(INTENT)
    request_store.note(REQUEST)
    assert (request_store.recall(), list(store.values)) == (REQUEST, [KEY])


def test_of_a_request_that_is_over_only_what_it_cost_is_remembered(store: DictStore) -> None:
    request_store = RequestStore(store)
    request_store.note(REQUEST.model_copy(update={"submits": 3, "cost": 0.6}))
    request_store.forget()
    request_store.forget()
    assert json.loads(store.values[KEY]) == {"version": 1, "submits": 3, "cost": 0.6, "ended": True}
    assert RequestStore(store).recall() == ENDED
    assert RequestStore(store).spent() == (3, 0.6)
    assert request_store.survives_retry


@pytest.mark.parametrize(("before", "left"), [(Spending(), None), (Spending(3, 0.6), ENDED)], ids=str)
def test_a_submit_that_created_no_request_is_not_counted(
    before: Spending, left: Ended | None, store: DictStore
) -> None:
    request_store = RequestStore(store)
    request_store.note(INTENT.model_copy(update={"submits": before.submits + 1}))
    request_store.forget(before)
    assert request_store.spent() == before
    assert RequestStore(store).recall() == left


def test_a_note_from_before_submits_were_counted_is_of_one_submit_without_a_price(store: DictStore) -> None:
    store.values[KEY] = json.dumps({name: value for name, value in WHOLE.items() if name not in {"submits", "cost"}})
    assert RequestStore(store).spent() == (1, None)


def test_half_a_note_may_still_tell_how_often_the_task_has_submitted(store: DictStore) -> None:
    store.values[KEY] = '{"version": 1, "submits": 3, "cost"'
    assert RequestStore(store).spent() == (3, None)
    store.values[KEY] = "not JSON"
    assert RequestStore(store).spent() == (1, None), "there was one at least"


def test_what_was_spent_is_read_once(store: DictStore, monkeypatch: pytest.MonkeyPatch) -> None:
    RequestStore(store).note(REQUEST)
    request_store = RequestStore(store)
    request_store.recall()
    monkeypatch.setattr(store, "get", OutOfOrder().get)
    assert request_store.spent() == (1, None)
    request_store.done()
    assert json.loads(store.values[KEY])["done"]


@pytest.mark.parametrize(
    ("status_code", "reason", "warns"), [(404, "not_found", False), (404, "a gateway's", True), (500, "away", True)]
)
@pytest.mark.parametrize("method", ["forget", "done"])
def test_only_airflows_404_for_a_cleared_task_is_no_warning(
    method: str, status_code: int, reason: str, warns: bool, store: DictStore, caplog: pytest.LogCaptureFixture
) -> None:
    request_store = RequestStore(store)
    request_store.note(REQUEST)

    def fail(*_: Any, **__: Any) -> None:
        detail = {"status_code": status_code, "detail": {"detail": {"reason": reason}}}
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))

    store.set = store.delete = fail  # type: ignore[method-assign]
    getattr(request_store, method)()
    assert [record.levelname for record in caplog.records] == (["WARNING"] if warns else [])


def recalled(value: Any, store: DictStore) -> Noted:
    store.values[KEY] = value if isinstance(value, str) else json.dumps(value)
    return RequestStore(store).recall()


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
        (WHOLE | {"submits": 0}, "submits: should be greater than or equal to 1"),
        (WHOLE | {"submits": "3"}, "submits: should be a valid integer"),
        (WHOLE | {"ended": True}, "Extra inputs are not permitted"),
        ({"ended": "yes"}, "ended: should be True"),
        ("null", "it is not a JSON object"),
        ('"mmsu_alien request_id"', "should be an object"),
        (["mmsu_alien", "request_id"], "should be an object"),
        ([], "should be an object"),
        (404_404, "it is not a JSON object"),
        (True, "it is not a JSON object"),
        ("", "Expecting value"),
        ("mmsu_alien", "Expecting value"),
        (json.dumps(WHOLE)[:-40], "Unterminated string"),
    ],
    ids=str,
)
def test_a_note_that_cannot_be_read_is_not_taken_for_none(note: Any, why: str, store: DictStore) -> None:
    noted = recalled(note, store)
    assert isinstance(noted, Unreadable)
    assert noted.path == "key 'odirouter_request' of Airflow's task state store"
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
    store.values[KEY] = "not JSON"
    for is_first in ANY:
        noted = RequestStore(store, first_since_clear=lambda is_first=is_first: is_first).recall()  # type: ignore[misc]
        assert isinstance(noted, Unreadable)
        assert is_cleared(noted, INTENT) is is_first


def test_what_is_noted_takes_the_place_of_what_could_not_be_read(store: DictStore) -> None:
    store.values[KEY] = "not JSON"
    request_store = RequestStore(store)
    request_store.done()
    assert store.values[KEY] == "not JSON"
    request_store.note(INTENT)
    assert request_store.recall() == INTENT


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
        RequestStore(OutOfOrder()).recall()


def test_what_a_store_may_not_have_taken_does_not_last_but_can_be_forgotten(
    store: DictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_store = RequestStore(store)
    request_store.note(INTENT)
    monkeypatch.setattr(store, "set", OutOfOrder().set)
    with pytest.raises(OSError, match="no answer"):
        request_store.note(REQUEST)
    assert not request_store.survives_retry
    request_store.forget()
    assert not store.values


def test_a_note_that_airflow_ends_does_not_last(store: DictStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's time-outs are no ``Exception``."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "set", end)
    request_store = RequestStore(store)
    with pytest.raises(KeyboardInterrupt):
        request_store.note(INTENT)
    assert not request_store.survives_retry


@pytest.mark.parametrize("end", [RequestStore.forget, RequestStore.done])
def test_a_store_that_takes_no_end_is_no_failure_of_the_try(
    end: Callable[[RequestStore], None], caplog: pytest.LogCaptureFixture
) -> None:
    end(RequestStore(OutOfOrder()))
    [warning] = caplog.records
    assert warning.levelname == "WARNING"
    assert "no answer" in warning.getMessage()


def test_what_is_done_is_remembered_as_long_as_airflow_remembers_anything(store: DictStore) -> None:
    """A user may clear the task next week, and its submits still count."""
    request_store = RequestStore(store)
    request_store.note(REQUEST)
    request_store.done()
    assert request_store.recall() == DONE
    assert store.retention is None


@pytest.mark.parametrize("noted", [INTENT, None], ids=["intent", "nothing"])
def test_nothing_is_done_where_no_request_is_remembered(noted: Intent | None, store: DictStore) -> None:
    request_store = RequestStore(store)
    if noted:
        request_store.note(noted)
    request_store.done()
    assert request_store.recall() == noted


def test_without_a_store_nothing_is_kept() -> None:
    request_store = RequestStore(None)
    request_store.note(REQUEST)
    request_store.done()
    assert request_store.recall() is None
    request_store.forget()
    assert not request_store.survives_retry


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
    fingerprints = [make_fingerprint(*submit) for submit in SUBMITS]
    assert len({*fingerprints}) == len(SUBMITS)
    assert fingerprints == [make_fingerprint(*submit) for submit in SUBMITS]
