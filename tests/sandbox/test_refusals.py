"""Which calls the service refuses, and with which answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

EDIT = "/v1/queue/gpt_image_1_edit"
Edit = Callable[..., httpx.Response]
Wait = Callable[[float], None]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "sandbox-key"}])
def test_a_call_without_the_key_is_refused(headers: dict[str, str], anonymous: httpx.Client, sandbox: Sandbox) -> None:
    answer = anonymous.post(f"/model{EDIT}", json={}, headers={"x-request-id": "mine", **headers})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "UNAUTHORIZED"
    assert answer.json()["request_id"] == "mine"
    assert sandbox.paid == 0


def test_another_key_can_be_chosen(anonymous: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(api_key="other")
    headers = {"authorization": "Bearer other"}
    assert anonymous.get(f"/model{EDIT}/requests/x/status", headers=headers).status_code == 404


def test_an_unknown_model_is_not_found(client: httpx.Client, sandbox: Sandbox) -> None:
    answer = client.post("/v1/queue/dall_e", json={"prompt": "x"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "App not found: dall_e"})
    sandbox.configure(endpoints="dall_e,dall_e_2")
    assert client.post("/v1/queue/dall_e_2", json={}).status_code == 200
    assert client.post(EDIT, json={}).status_code == 404


@pytest.mark.parametrize(
    "send",
    [
        {"json": {"prompt": "x", "webhook_url": "http://a"}},
        {"json": {"prompt": "x"}, "params": {"fal_webhook": "http://a"}},
        {"json": {"prompt": "x"}, "headers": {"X-Webhook": "http://a"}},
    ],
)
def test_webhooks_are_refused_wherever_they_are(send: dict[str, Any], client: httpx.Client, sandbox: Sandbox) -> None:
    answer = client.post(EDIT, **send)
    assert (answer.status_code, answer.json()) == (400, {"detail": "webhook not supported"})
    assert sandbox.paid == 0


def test_there_is_no_status_stream(edit: Edit, client: httpx.Client) -> None:
    status = f"{EDIT}/requests/{edit().json()['request_id']}/status"
    stream = client.get(f"{status}/stream")
    accept = client.get(status, headers={"accept": "text/event-stream"})
    assert (stream.status_code, stream.json()) == (404, {"detail": "SSE streaming not supported"})
    assert (accept.status_code, accept.json()) == (400, {"detail": "SSE streaming not supported"})


def test_there_is_no_synchronous_call(client: httpx.Client) -> None:
    answer = client.post(f"{EDIT}/sync", json={})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", EDIT, "POST"),
        ("POST", f"{EDIT}/requests/x/status", "GET"),
        ("DELETE", f"{EDIT}/requests/x/response", "GET"),
        ("POST", f"{EDIT}/requests/x/cancel", "PUT"),
    ],
)
def test_a_wrong_method_is_not_allowed(method: str, path: str, allowed: str, client: httpx.Client) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
    assert answer.headers["allow"] == allowed


def test_other_paths_are_not_found(anonymous: httpx.Client) -> None:
    assert anonymous.get("/").status_code == 404
    assert anonymous.get("/sandbox/nothing").status_code == 404


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_submit_must_be_a_json_object(content: bytes, client: httpx.Client) -> None:
    assert client.post(EDIT, content=content).status_code == 400


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("documented", {"error": {"code": "INVALID_PARAMETERS", "message": "MESSAGE"}, "request_id": "mine"}),
        ("object", {"error": {"code": "INVALID_PARAMETERS", "message": "MESSAGE"}, "request_id": "mine"}),
        ("string", {"error": "MESSAGE"}),
        ("detail", {"detail": "MESSAGE"}),
        ("envelope", {"status": {"code": 422, "message": "MESSAGE", "error_code": 42200}, "data": None}),
        ("message", {"message": "MESSAGE"}),
    ],
)
def test_a_refusal_has_the_configured_body(body: str, expected: dict[str, Any], edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(error_body=body)
    answer = edit({"x-request-id": "mine"}, n=11)
    assert answer.status_code == 422
    assert json.loads(answer.text.replace("n: must be an integer from 1 to 10", "MESSAGE")) == expected


def test_a_refusal_can_be_html_or_empty(edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(error_body="html", rejection_status=400)
    page = edit(n=11)
    sandbox.configure(error_body="empty")
    empty = edit(n=11)
    assert (page.status_code, page.headers["content-type"]) == (400, "text/html")
    assert "400 Bad Request" in page.text
    assert (empty.status_code, empty.content) == (400, b"")


def test_submits_spend_the_balance_until_it_is_used_up(edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(balance=5, price=2)
    assert [edit().status_code for _ in range(3)] == [200, 200, 402]
    assert (sandbox.paid, sandbox.balance) == (2, 1)
    assert edit(n=0).status_code == 422
    assert sandbox.balance == 1
    sandbox.configure(balance=2)
    assert edit().status_code == 200


def test_a_used_up_balance_has_two_answers(edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(balance=0)
    answer = edit()
    sandbox.configure(no_balance_shape="403")
    other = edit()
    status = {"code": 402, "message": "Insufficient credits", "error_code": 40201}
    assert (answer.status_code, answer.json()) == (402, {"status": status, "data": None})
    assert (other.status_code, other.json()["error"]["message"]) == (403, "insufficient balance")


def test_calls_beyond_the_rate_limit_get_429_with_retry_after(
    edit: Edit, wait: Wait, client: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.configure(rate_limit=2)
    assert edit().status_code == 200
    wait(0.6)
    assert client.get(f"{EDIT}/requests/x/status").status_code == 404
    refused = edit()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    wait(0.4)
    assert edit().status_code == 200
    assert sandbox.paid == 2


def test_a_rate_limit_can_be_below_one_call_per_second(edit: Edit, wait: Wait, sandbox: Sandbox) -> None:
    sandbox.configure(rate_limit=0.1)
    assert edit().status_code == 200
    wait(7)
    assert edit().headers["retry-after"] == "3"
    wait(3)
    assert edit().status_code == 200


def test_a_submit_beyond_the_limit_of_live_requests_gets_429_and_is_not_paid(
    edit: Edit, wait: Wait, client: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.configure(max_alive=2, queue_seconds=1, run_seconds=3)
    request_ids = [edit().json()["request_id"] for _ in range(2)]
    refused = edit()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert client.get(f"{EDIT}/requests/{request_ids[0]}/status").status_code == 200
    assert sandbox.paid == 2
    client.put(f"{EDIT}/requests/{request_ids[0]}/cancel")
    assert [edit().status_code, edit().status_code] == [200, 429]
    wait(4)
    assert [edit().status_code, edit().status_code, edit().status_code] == [200, 200, 429]
    sandbox.configure(max_alive=None)
    assert edit().status_code == 200


def test_the_limit_of_live_requests_has_the_same_forms_of_retry_after(
    edit: Edit, now: list[float], sandbox: Sandbox
) -> None:
    sandbox.configure(max_alive=1, retry_after_form="date")
    edit()
    assert parsedate_to_datetime(edit().headers["retry-after"]).timestamp() == now[0] + 1
    sandbox.configure(retry_after_form="absent")
    refused = edit()
    assert refused.status_code == 429
    assert "retry-after" not in refused.headers


def test_retry_after_can_be_a_date_or_absent(edit: Edit, now: list[float], sandbox: Sandbox) -> None:
    sandbox.configure(rate_limit=1, retry_after_form="date")
    edit()
    date = edit().headers["retry-after"]
    assert date.endswith("GMT")
    assert parsedate_to_datetime(date).timestamp() == now[0] + 1
    sandbox.configure(retry_after_form="absent")
    refused = edit()
    assert refused.status_code == 429
    assert "retry-after" not in refused.headers
