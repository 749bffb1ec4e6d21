"""How a try finds the request of an earlier one, against the real sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_odirouter.errors import LostSubmitError, RequestUnreachableError, ServiceError, SubmitStoppedError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import resume
from airflow_provider_odirouter.lifecycle.resume import ResumedRequest
from airflow_provider_odirouter.lifecycle.state import Submitted
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import Clock, Listener, actions
from tests.lifecycle.conftest import ENDPOINT, PARAMETERS, Tries


@pytest.mark.parametrize("words", ["documented", "lower", "queued", "pending", "unknown"])
@pytest.mark.parametrize("where", ["queue_seconds", "run_seconds"])
def test_a_retry_resumes_a_live_request_whatever_its_state_is_called(
    where: str, words: str, tries: Tries, sandbox: Sandbox
) -> None:
    sandbox.configure(status_words=words, **{where: 60})
    assert tries.next() is None
    request = tries.first()
    assert tries.next() == ResumedRequest(request, succeeded=False)
    assert actions(sandbox) == ["submit", "status"]


@pytest.mark.parametrize("cancel_live", [True, False])
@pytest.mark.parametrize("max_tries", [1, 2], ids=["retry", "cleared"])
def test_what_has_succeeded_is_taken_also_by_a_cleared_task(
    max_tries: int, cancel_live: bool, tries: Tries, sandbox: Sandbox
) -> None:
    request = tries.first()
    earlier = tries.next(max_tries=max_tries, cancel_live=cancel_live)
    assert earlier == ResumedRequest(request.model_copy(update={"max_tries": max_tries}), succeeded=True)
    assert actions(sandbox) == ["submit", "status"]


@pytest.mark.parametrize("error_type", ["INFERENCE_FAILURE", "CONTENT_BLOCKED", "CANCELED"])
def test_what_has_failed_is_submitted_again(error_type: str, tries: Tries, sandbox: Sandbox) -> None:
    sandbox.configure(error_type=error_type)
    tries.first()
    assert tries.next() is None
    assert actions(sandbox) == ["submit", "status"]


def test_a_cleared_task_cancels_its_live_request_once_and_submits_again(
    tries: Tries, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(run_seconds=60)
    tries.first()
    caplog.set_level("INFO")
    assert tries.after_clear() is None
    assert actions(sandbox) == ["submit", "status", "cancel"]
    assert not sandbox.alive
    assert "The task was cleared." in caplog.text


def test_a_cleared_task_resumes_a_request_that_shall_not_be_cancelled(tries: Tries, sandbox: Sandbox) -> None:
    sandbox.configure(run_seconds=60)
    request = tries.first()
    earlier = tries.after_clear(cancel_live=False)
    assert earlier
    assert earlier.request.request_id == request.request_id
    assert actions(sandbox) == ["submit", "status"]


def test_a_cleared_task_resumes_a_request_that_cannot_be_cancelled(
    tries: Tries, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(run_seconds=60, cancel_supported=False)
    request = tries.first()
    assert tries.after_clear() == ResumedRequest(request.model_copy(update={"max_tries": 2}), succeeded=False)
    assert actions(sandbox) == ["submit", "status", "cancel", "status"]
    assert "Not cancelled, since the endpoint cannot cancel; still running, and may be paid: request " in caplog.text


@pytest.mark.parametrize("error_type", [None, "INFERENCE_FAILURE"])
def test_what_ends_between_the_poll_and_the_cancel_is_taken_if_it_has_succeeded(
    error_type: str | None, tries: Tries, sandbox: Sandbox, listeners: list[Listener], clock: Clock
) -> None:
    sandbox.configure(run_seconds=60, error_type=error_type)
    request = tries.first()
    listeners.append(lambda entry: clock.skip(60) if entry.action == "status" else None)
    earlier = tries.after_clear()
    assert actions(sandbox) == ["submit", "status", "cancel", "status"]
    if error_type:
        assert earlier is None
    else:
        assert earlier
        assert (earlier.request.request_id, earlier.succeeded) == (request.request_id, True)


def test_a_request_unknown_when_it_is_to_be_cancelled_is_submitted_again(
    tries: Tries, sandbox: Sandbox, listeners: list[Listener]
) -> None:
    sandbox.configure(run_seconds=60)
    tries.first()
    listeners.append(lambda entry: sandbox.reset() if entry.action == "status" else None)
    assert tries.after_clear() is None
    assert actions(sandbox) == ["cancel"]


def test_a_cleared_task_whose_request_cannot_be_cancelled_now_submits_nothing(
    tries: Tries, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(run_seconds=60)
    request = tries.first()
    sandbox.configure(server_errors=None, fault_actions={"cancel"})
    with pytest.raises(ServiceError):
        tries.after_clear()
    assert sandbox.alive == [request.request_id]
    assert tries.request_store.recall() == request
    assert "Not cancelled (" in caplog.text
    assert f"and may be paid: request {request.request_id}." in caplog.text


def test_a_request_is_lost_only_when_several_polls_do_not_find_it(tries: Tries, sandbox: Sandbox) -> None:
    tries.first()
    sandbox.reset()
    assert tries.next() is None
    assert actions(sandbox) == ["status"] * 3


def test_a_request_that_is_found_a_little_late_is_not_lost(
    tries: Tries, sandbox: Sandbox, listeners: list[Listener], clock: Clock
) -> None:
    sandbox.configure(not_found_seconds=10, run_seconds=60)
    tries.first()
    listeners.append(lambda _: clock.skip(5))
    assert tries.next()
    assert actions(sandbox) == ["submit"] + ["status"] * 3


@pytest.mark.parametrize(("max_tries", "cancels"), [(1, 0), (2, 1)], ids=["retry", "cleared"])
def test_a_poll_that_fails_with_a_transient_error_says_nothing_against_the_request(
    max_tries: int, cancels: bool, tries: Tries, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(run_seconds=60)
    tries.first()
    sandbox.configure(server_errors=1)
    assert bool(tries.next(max_tries=max_tries)) is not cancels
    assert actions(sandbox) == ["submit", "status"] + ["cancel"] * cancels
    assert "The request of an earlier try counts as alive." in caplog.text


def test_a_gateways_404_says_nothing_against_the_request(
    tries: Tries, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = tries.first()
    base = json.loads(os.environ["AIRFLOW_CONN_ODIROUTER_DEFAULT"])
    monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", json.dumps(base | {"host": base["host"] + "/elsewhere"}))
    assert tries.next() == ResumedRequest(request, succeeded=False)
    assert len(sandbox.journal) == 2


@pytest.fixture
def blind(tries: Tries, sandbox: Sandbox) -> Submitted:
    """A live request that the key of the connection may not poll any more."""
    sandbox.configure(run_seconds=60)
    request = tries.first()
    sandbox.configure(api_key="another")
    return request


def test_a_poll_that_cannot_succeed_ends_a_retry_before_anything_is_submitted(
    blind: Submitted, tries: Tries, sandbox: Sandbox
) -> None:
    with pytest.raises(RequestUnreachableError, match=f"refuses the API key.*{blind.request_id}"):
        tries.next()
    assert actions(sandbox) == ["submit", "status"]
    assert tries.request_store.recall() == blind


def test_a_cleared_task_whose_request_is_unreachable_submits_again_with_an_error_log(
    blind: Submitted, tries: Tries, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    assert tries.after_clear() is None
    assert actions(sandbox) == ["submit", "status", "cancel"]
    assert "Not cancelled (" in caplog.text
    assert f"and may be paid: request {blind.request_id}." in caplog.text


@pytest.mark.parametrize("parameters", [{}, {"prompt": "Red"}], ids=["same input", "another input"])
def test_a_cleared_task_that_was_done_submits_again_without_a_poll(
    parameters: dict[str, Any], tries: Tries, sandbox: Sandbox
) -> None:
    tries.first()
    tries.request_store.done()
    assert tries.after_clear(**parameters) is None
    assert actions(sandbox) == ["submit"]


def test_a_retry_of_what_was_done_takes_it_again(tries: Tries, sandbox: Sandbox) -> None:
    request = tries.first()
    tries.request_store.done()
    assert tries.next() == ResumedRequest(request, succeeded=True)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Another sandbox, behind the connection ``elsewhere``, whose requests take long."""
    other = Sandbox(queue_seconds=0, run_seconds=60)
    with other.serve() as server:
        document = {"conn_type": "odirouter", "password": "sandbox-key", "host": server.base_url}
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(document))
        yield other


def test_the_request_of_another_input_is_cancelled_where_it_was_submitted(
    tries: Tries, sandbox: Sandbox, elsewhere: Sandbox
) -> None:
    request = tries.first("elsewhere")
    assert tries.next(prompt="Red") is None
    assert [(entry.action, entry.request_id) for entry in elsewhere.journal[1:]] == [("cancel", request.request_id)]
    assert actions(sandbox) == []


def test_a_request_of_another_input_without_its_connection_is_logged_as_an_error(
    tries: Tries, elsewhere: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    request = tries.first("elsewhere")
    monkeypatch.delenv("AIRFLOW_CONN_ELSEWHERE")
    assert tries.next() is None
    assert actions(elsewhere) == ["submit"]
    assert "Not cancelled (" in caplog.text
    assert f"and may be paid: request {request.request_id}." in caplog.text
    assert f"odirouter-request cancel {ENDPOINT} {request.request_id} --conn-id elsewhere" in caplog.text


@pytest.mark.parametrize(
    ("settings", "arguments", "cancels"),
    [({"run_seconds": 0}, {}, True), ({"cancel_supported": False}, {}, True), ({}, {"cancel_live": False}, False)],
    ids=["ended", "cancel unsupported", "shall not be cancelled"],
)
def test_the_request_of_another_input_is_never_taken_nor_waited_for(
    settings: dict[str, Any],
    arguments: dict[str, Any],
    cancels: bool,
    tries: Tries,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox.configure(**({"run_seconds": 60} | settings))
    request = tries.first()
    assert tries.next(prompt="Red", **arguments) is None
    assert actions(sandbox) == ["submit", "cancel" if cancels else "status"]
    left_alone = f"Request {request.request_id}, submitted with another input, is not cancelled and may still run."
    assert (left_alone in caplog.text) is not cancels


@pytest.mark.parametrize("ended", ["cancelled", "succeeded", "not known any more"])
def test_a_request_of_another_input_that_has_ended_is_not_said_to_run(
    ended: str, tries: Tries, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(run_seconds=0 if ended == "succeeded" else 60)
    request = tries.first()
    if ended == "cancelled":
        OdiRouterHook(tries.conn_id).cancel(request.endpoint, request.request_id)
    if ended == "not known any more":
        sandbox.configure(not_found_seconds=60)
    assert tries.next(prompt="Red", cancel_live=False) is None
    assert "may still run" not in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [{}, {"prompt": "Red"}, {"max_tries": 2, "on_lost_submit": "fail"}],
    ids=["by default", "of another input", "when it is cleared"],
)
def test_a_submit_that_an_earlier_try_did_not_survive_is_sent_again_with_a_warning(
    arguments: dict[str, Any], tries: Tries, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    tries.request_store.note(tries.intent())
    assert tries.next(**arguments) is None
    assert "An earlier try died during its submit" in caplog.text
    assert "may be running and may be paid" in caplog.text
    assert actions(sandbox) == []


@pytest.mark.parametrize("parameters", [{}, {"prompt": "Red"}], ids=["same input", "another input"])
def test_a_submit_that_an_earlier_try_did_not_survive_is_refused_if_set_so(
    parameters: dict[str, Any], tries: Tries, sandbox: Sandbox
) -> None:
    tries.request_store.note(tries.intent())
    with pytest.raises(LostSubmitError, match="An earlier try died during its submit"):
        tries.next(on_lost_submit="fail", **parameters)
    assert actions(sandbox) == []
    assert tries.request_store.recall() == tries.intent()


def test_a_submit_that_a_kill_stops_before_it_is_sent_leaves_no_intent(tries: Tries, sandbox: Sandbox) -> None:
    def stop() -> None:
        raise SubmitStoppedError("The task was killed.")

    hook = OdiRouterHook(tries.conn_id)
    hook.before_submit = stop
    with pytest.raises(SubmitStoppedError):
        resume.submit(hook, tries.request_store, tries.intent(), PARAMETERS)
    assert tries.request_store.recall() is None
    assert actions(sandbox) == []
