"""What happens to live requests when a worker's try ends, whatever ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_provider_odirouter.compat import AirflowTaskTimeout, TaskDeferred
from airflow_provider_odirouter.errors import (
    NotOwnerError,
    RequestTimeoutError,
    RequestUnreachableError,
    SubmitStoppedError,
)
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import guard as guard_module
from airflow_provider_odirouter.lifecycle.guard import RequestGuard
from airflow_provider_odirouter.lifecycle.ownership import Ownership
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import actions

ENDPOINT = "gpt_image_1_edit"
PARAMETERS = {"prompt": "Blue", "images": ["https://example.com/cup.png"]}


class Requests:
    """Live requests at the sandbox."""

    def __init__(self, hook: OdiRouterHook, number: int = 2) -> None:
        self.ids = [hook.submit(ENDPOINT, PARAMETERS).request_id for _ in range(number)]
        self.forgotten: set[str] = set()

    def request_ids(self) -> Sequence[str]:
        return self.ids

    def forget(self, request_ids: Collection[str]) -> None:
        self.forgotten |= set(request_ids)


class Owner:
    """Whether this process is the owner, as a test says."""

    def __init__(self) -> None:
        self.is_owner = True

    def check(self) -> None:
        if not self.is_owner:
            raise NotOwnerError("This process no longer acts for its task.")

    def is_owner_within(self, seconds: float) -> bool:
        return self.is_owner


Make = Callable[..., RequestGuard]


@pytest.fixture
def hook(conn_id: str, sandbox: Sandbox) -> OdiRouterHook:
    sandbox.configure(run_seconds=600)
    return OdiRouterHook(conn_id)


@pytest.fixture
def requests(hook: OdiRouterHook) -> Requests:
    return Requests(hook)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The task's state in Airflow's database, which needs a worker's supervisor."""
    states: list[str | None] = ["running"]
    monkeypatch.setattr(guard_module, "ask_task_state", lambda _: states[0])
    return states


@pytest.fixture
def make(hook: OdiRouterHook, owner: Owner, state: list[str | None]) -> Make:
    def make(*, survives_retry: bool = False, **options: bool) -> RequestGuard:
        task = cast("Any", SimpleNamespace(dag_id="dag", task_id="edit", run_id="run", map_index=-1))
        defaults = {"cancel_on_kill": True, "cancel_on_timeout": True, "will_be_retried": False}
        return RequestGuard(
            hook,
            ENDPOINT,
            task,
            cast("Ownership", owner),
            survives_retry=lambda: survives_retry,
            **(defaults | options),
        )

    return make


NEXT_TRY = {"survives_retry": True, "will_be_retried": True}


def hold(guard: RequestGuard, requests: Requests, *acts: Callable[[], object]) -> None:
    """Do something while requests are held; what the first act raises does not keep the next from it."""
    with guard.hold(requests), ExitStack() as stack:
        for act in reversed(acts):
            stack.callback(act)


def end(guard: RequestGuard, requests: Requests, error: BaseException) -> None:
    """End a try with an error."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        hold(guard, requests, fail)


@pytest.mark.parametrize(
    ("error", "options", "is_cancelled"),
    [
        (ValueError("a defect"), {}, True),
        (ValueError("a defect"), NEXT_TRY, False),
        (ValueError("a defect"), {"survives_retry": True}, True),
        (ValueError("a defect"), {"will_be_retried": True}, True),
        (RequestUnreachableError("The status cannot be read."), NEXT_TRY, False),
        (AirflowTaskTimeout("too long"), {}, True),
        (AirflowTaskTimeout("too long"), NEXT_TRY, True),
        (AirflowTaskTimeout("too long"), {"cancel_on_timeout": False}, False),
        (RequestTimeoutError("too long"), NEXT_TRY, False),
    ],
    ids=str,
)
def test_a_try_that_fails_cancels_what_no_next_try_waits_for(
    error: BaseException, options: dict[str, bool], is_cancelled: bool, make: Make, requests: Requests, sandbox: Sandbox
) -> None:
    end(make(**options), requests, error)
    assert bool(sandbox.alive) is not is_cancelled
    assert requests.forgotten == (set(requests.ids) if is_cancelled else set())


def test_a_try_that_ends_with_an_error_that_no_retry_helps_cancels(
    make: Make, requests: Requests, sandbox: Sandbox
) -> None:
    error = RequestTimeoutError("too long")
    error.retry_helps = False  # type: ignore[misc]
    end(make(**NEXT_TRY), requests, error)
    assert not sandbox.alive


def test_requests_of_a_try_that_succeeds_or_defers_stay_as_they_are(
    make: Make, requests: Requests, sandbox: Sandbox
) -> None:
    with make().hold(requests):
        pass
    end(make(), requests, TaskDeferred(trigger=cast("Any", None), method_name="execute_complete"))
    assert sandbox.alive == requests.ids
    assert not requests.forgotten


def test_a_kill_cancels_at_once_and_the_try_ends(make: Make, requests: Requests, sandbox: Sandbox) -> None:
    guard = make()
    with pytest.raises(RuntimeError, match="The task was killed"), guard.hold(requests):
        guard.on_kill()
    assert not sandbox.alive
    assert requests.forgotten == set(requests.ids)


def test_a_kill_of_a_process_without_a_free_thread_names_the_requests(
    make: Make, requests: Requests, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    guard = make(**NEXT_TRY)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="The task was killed"):
            hold(guard, requests, guard.on_kill)
    assert "Not cancelled (can't start new thread)" in caplog.text
    assert f"2 requests {', '.join(requests.ids)}." in caplog.text


@pytest.mark.parametrize(
    ("options", "state_now", "is_cancelled"),
    [
        ({}, "running", True),
        (NEXT_TRY, "running", False),
        (NEXT_TRY, "up_for_retry", False),
        (NEXT_TRY, "failed", True),
        (NEXT_TRY, None, True),
        ({"cancel_on_kill": False}, "failed", False),
    ],
    ids=str,
)
def test_a_kill_spares_requests_that_airflow_still_wants(
    options: dict[str, bool],
    state_now: str | None,
    is_cancelled: bool,
    make: Make,
    requests: Requests,
    state: list[str | None],
    sandbox: Sandbox,
) -> None:
    """A worker that stops kills its process, and not its task."""
    state[0] = state_now
    guard = make(**options)
    with pytest.raises(RuntimeError), guard.hold(requests):
        guard.on_kill()
    assert bool(sandbox.alive) is not is_cancelled


def test_a_second_kill_does_nothing_more(make: Make, requests: Requests, sandbox: Sandbox) -> None:
    guard = make()
    with pytest.raises(RuntimeError, match="The task was killed"):
        hold(guard, requests, guard.on_kill, guard.on_kill)
    guard.on_kill()
    assert actions(sandbox).count("cancel") == len(requests.ids)


def test_a_kill_after_the_deferral_leaves_the_requests_to_the_trigger(
    make: Make, requests: Requests, sandbox: Sandbox
) -> None:
    guard = make()
    end(guard, requests, TaskDeferred(trigger=cast("Any", None), method_name="execute_complete"))
    guard.on_kill()
    assert sandbox.alive == requests.ids


def test_a_deferral_that_a_kill_overtakes_is_not_made(make: Make, requests: Requests, sandbox: Sandbox) -> None:
    guard = make()

    def defer() -> None:
        raise TaskDeferred(trigger=cast("Any", None), method_name="execute_complete")

    with pytest.raises(RuntimeError, match="The task was killed"):
        hold(guard, requests, guard.on_kill, defer)
    assert not sandbox.alive


def test_a_kill_before_there_is_a_request_lets_no_submit_be_sent(
    make: Make, requests: Requests, sandbox: Sandbox
) -> None:
    guard = make()
    guard.check_submit()
    guard.on_kill()
    with pytest.raises(SubmitStoppedError):
        guard.check_submit()
    noted: list[str] = []
    with (
        pytest.raises(RuntimeError, match="The task was killed"),
        guard.hold(requests, note=lambda: noted.append("noted")),
    ):
        pytest.fail("a killed task goes on")
    assert noted == ["noted"]
    assert not sandbox.alive


@pytest.mark.parametrize(
    ("submits", "words"), [(False, "This try has submitted nothing."), (True, "Its submit is under way")]
)
def test_a_kill_without_a_held_request_says_whether_one_may_exist(
    submits: bool, words: str, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    guard = make()
    if submits:
        guard.check_submit()
    guard.on_kill()
    assert f"The task is killed. {words}" in caplog.text
    assert ("may be running" in caplog.text) is submits


def test_a_kill_after_all_requests_have_ended_says_so(
    make: Make, requests: Requests, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    guard = make()
    requests.ids = []
    with pytest.raises(RuntimeError, match="The task was killed"):
        hold(guard, requests, guard.on_kill)
    assert "It has no live request; if a submit brings one now, it is cancelled." in caplog.text
    assert "cancel" not in actions(sandbox)
    assert "may be running" not in caplog.text


def test_a_request_that_a_submit_brings_after_the_cancel_is_cancelled_too(
    make: Make, hook: OdiRouterHook, requests: Requests, sandbox: Sandbox
) -> None:
    guard = make()
    late: list[str] = []

    def submit_late() -> None:
        late.extend(Requests(hook, 1).ids)
        guard.add(late[0])

    with pytest.raises(RuntimeError, match="The task was killed"):
        hold(guard, requests, guard.on_kill, submit_late)
    assert not sandbox.alive
    assert requests.forgotten == {*requests.ids, *late}


def test_a_request_that_is_added_while_nothing_is_cancelled_stays(
    make: Make, requests: Requests, sandbox: Sandbox
) -> None:
    guard = make()
    with guard.hold(requests):
        guard.add(requests.ids[0])
    assert sandbox.alive == requests.ids


def test_after_stop_submitting_requests_are_still_waited_for(make: Make, requests: Requests, sandbox: Sandbox) -> None:
    guard = make()
    before = guard.may_submit
    hold(guard, requests, guard.stop_submitting, guard.stop_if_killed)
    assert (before, guard.may_submit) == (True, False)
    assert sandbox.alive == requests.ids


@pytest.mark.parametrize("error", [ValueError("a defect"), NotOwnerError("another try has begun")], ids=repr)
def test_a_process_that_is_not_the_owner_cancels_nothing_and_names_the_requests(
    error: Exception,
    make: Make,
    owner: Owner,
    requests: Requests,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        owner.is_owner = False
        raise error

    with pytest.raises(type(error)):
        hold(make(), requests, fail)
    assert sandbox.alive == requests.ids
    assert f"odirouter-request cancel {ENDPOINT} {requests.ids[-1]} --conn-id odirouter_default" in caplog.text
    assert not requests.forgotten


def test_an_error_that_says_not_the_owner_cancels_nothing_whatever_airflow_says(
    make: Make, requests: Requests, sandbox: Sandbox
) -> None:
    end(make(), requests, NotOwnerError("the batch names another owner"))
    assert sandbox.alive == requests.ids


def test_a_kill_of_a_process_that_is_not_the_owner_cancels_nothing(
    make: Make, owner: Owner, requests: Requests, sandbox: Sandbox
) -> None:
    guard = make()

    def kill() -> None:
        owner.is_owner = False
        guard.on_kill()

    with pytest.raises(RuntimeError, match="The task was killed"):
        hold(guard, requests, kill)
    assert sandbox.alive == requests.ids


@pytest.mark.parametrize("state_now", ["failed", "success", None])
def test_a_task_that_airflow_has_ended_does_not_defer(
    state_now: str | None, make: Make, requests: Requests, state: list[str | None], sandbox: Sandbox
) -> None:
    state[0] = state_now
    guard = make()
    with pytest.raises(RuntimeError, match="The task was killed"), guard.hold(requests):
        guard.stop_if_not_running()
    assert not sandbox.alive


def test_an_airflow_that_does_not_answer_ends_nothing(
    make: Make, requests: Requests, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> str:
        raise OSError("no answer")

    monkeypatch.setattr(guard_module, "ask_task_state", fail)
    guard = make()
    with guard.hold(requests):
        guard.stop_if_not_running()
    assert sandbox.alive == requests.ids


def test_a_cancel_that_fails_is_not_forgotten(make: Make, requests: Requests, sandbox: Sandbox) -> None:
    sandbox.configure(api_key="another")
    end(make(), requests, ValueError("a defect"))
    assert not requests.forgotten
