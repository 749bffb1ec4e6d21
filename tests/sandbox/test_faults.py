"""Injected failures of calls, in-process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

UNKNOWN = "/v1/queue/gpt_image_1_edit/requests/mmsu_x/status"
Edit = Callable[..., httpx.Response]
Wait = Callable[[float], None]


def statuses(client: httpx.Client, count: int) -> list[int]:
    return [client.get(UNKNOWN).status_code for _ in range(count)]


def test_the_next_calls_end_in_a_server_error(client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(server_errors=2, server_error_status=502)
    answer = client.get(UNKNOWN)
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")
    assert "502 Bad Gateway" in answer.text
    assert statuses(client, 3) == [502, 404, 404]


def test_a_server_error_can_be_json(client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(server_errors=1, server_error_status=500, server_error_body="object")
    assert client.get(UNKNOWN).json()["error"]["code"] == "INTERNAL_SERVER_ERROR"


def test_other_settings_do_not_restart_a_countdown(client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(server_errors=1)
    assert statuses(client, 1) == [503]
    sandbox.configure(run_seconds=1)
    assert statuses(client, 1) == [404]
    sandbox.configure(server_errors=None)
    assert statuses(client, 3) == [503] * 3


def test_server_errors_can_last_some_seconds(client: httpx.Client, wait: Wait, sandbox: Sandbox) -> None:
    sandbox.configure(server_error_seconds=5)
    assert statuses(client, 2) == [503, 503]
    wait(5)
    assert statuses(client, 1) == [404]


def test_random_server_errors_are_the_same_for_the_same_seed(client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(server_error_rate=0.5, seed=3)
    first = statuses(client, 20)
    sandbox.configure(seed=3)
    assert set(first) == {404, 503}
    assert statuses(client, 20) == first


def test_faults_apply_to_the_chosen_calls_only(edit: Edit, client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(server_errors=1, fault_actions={"status"})
    submission = edit()
    assert submission.status_code == 200
    assert statuses(client, 2) == [503, 404]


def test_a_submit_that_ends_in_a_server_error_is_not_paid(edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(server_errors=1)
    assert edit().status_code == 503
    assert sandbox.paid == 0


def test_a_submit_with_a_lost_answer_is_paid(edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(server_errors=1, fault_after_effect=True)
    assert edit().status_code == 503
    assert (sandbox.paid, len(sandbox.alive)) == (1, 1)
    assert sandbox.journal[0].request_id == sandbox.alive[0]


@pytest.mark.parametrize(
    ("mode", "error", "paid"),
    [
        ("before", httpx.ReadError, 0),
        ("after", httpx.RemoteProtocolError, 1),
        ("half", httpx.RemoteProtocolError, 1),
    ],
)
def test_a_connection_breaks(mode: str, error: type[Exception], paid: int, edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(drop_next=1, drop_mode=mode)
    with pytest.raises(error):
        edit()
    assert sandbox.paid == paid
    assert sandbox.journal[0].status_code is None
    assert edit().status_code == 200


def test_every_third_connection_breaks(client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(drop_every=3)
    seen: list[Any] = []
    for _ in range(6):
        try:
            seen.append(client.get(UNKNOWN).status_code)
        except httpx.RemoteProtocolError:
            seen.append("lost")
    assert seen == [404, 404, "lost"] * 2


@pytest.mark.parametrize("after_effect", [False, True])
def test_a_call_hangs(after_effect: bool, edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(hang=True, fault_after_effect=after_effect)
    with pytest.raises(httpx.ReadTimeout):
        edit()
    assert sandbox.paid == int(after_effect)


def test_calls_can_be_redirected(client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(redirect_to="https://elsewhere.example/model")
    answer = client.get(UNKNOWN)
    assert (answer.status_code, answer.headers["location"]) == (307, "https://elsewhere.example/model")


def test_answers_are_delayed_by_the_latency(sandbox: Sandbox) -> None:
    slept: list[float] = []
    sandbox.configure(latency_seconds=(2, 3))
    with httpx.Client(transport=sandbox.transport(slept.append), base_url="http://sandbox.test/model") as client:
        statuses(client, 3)
    assert len(set(slept)) == 3
    assert all(2 <= seconds <= 3 for seconds in slept)
