"""Requests in the queue: states, results, cancels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from airflow_provider_odirouter.sandbox import Sandbox

EDIT = "/v1/queue/gpt_image_1_edit"
Edit = Callable[..., httpx.Response]
Wait = Callable[[float], None]


def path(submission: httpx.Response, call: str, endpoint: str = "gpt_image_1_edit") -> str:
    return f"/v1/queue/{endpoint}/requests/{submission.json()['request_id']}/{call}"


def test_a_submit_answers_with_an_id_and_urls(edit: Edit) -> None:
    answer = edit()
    body = answer.json()
    here = f"http://sandbox.test/model{EDIT}/requests/{body['request_id']}"
    assert answer.status_code == 200
    assert body["request_id"].startswith("mmsu_")
    assert body == {
        "request_id": body["request_id"],
        "response_url": f"{here}/response",
        "status_url": f"{here}/status",
        "cancel_url": f"{here}/cancel",
        "queue_position": 0,
    }


def test_a_request_waits_runs_and_completes(edit: Edit, wait: Wait, client: httpx.Client) -> None:
    submission = edit()
    waiting = client.get(path(submission, "status")).json()
    wait(4)
    running = client.get(path(submission, "status")).json()
    wait(6)
    completed = client.get(path(submission, "status")).json()
    assert (waiting["status"], waiting["queue_position"]) == ("IN_QUEUE", 0)
    assert (running["status"], running["progress"]) == ("IN_PROGRESS", 0.25)
    assert running["logs"][0]["timestamp"] == "2027-01-15T08:00:02+00:00"
    assert (completed["status"], completed["metrics"]) == ("COMPLETED", {"inference_time": 8})
    assert "error" not in completed
    assert "error_type" not in completed


def test_a_result_is_202_with_the_status_until_the_request_has_ended(
    edit: Edit, wait: Wait, client: httpx.Client
) -> None:
    submission = edit()
    early, status = (client.get(path(submission, call)) for call in ("response", "status"))
    wait(10)
    late = client.get(path(submission, "response"))
    assert (early.status_code, early.json()) == (202, status.json())
    assert early.json()["status"] == "IN_QUEUE"
    assert (late.status_code, list(late.json())) == (200, ["request_id", "metadata", "outputs"])


def test_the_sandbox_knows_which_requests_are_alive(edit: Edit, wait: Wait, sandbox: Sandbox) -> None:
    first = edit().json()["request_id"]
    wait(5)
    second = edit().json()["request_id"]
    assert sandbox.alive == [first, second]
    wait(5)
    assert sandbox.alive == [second]
    assert [request.state for request in sandbox.requests] == ["COMPLETED", "IN_PROGRESS"]
    sandbox.reset()
    assert (sandbox.requests, sandbox.journal, sandbox.paid) == ([], [], 0)


def test_random_times_are_the_same_for_the_same_seed(pictured: Callable[..., str]) -> None:
    def ends(seed: int) -> list[float]:
        sandbox = Sandbox(clock=lambda: 0, run_seconds=(2, 6), queue_seconds="1-2", seed=seed)
        with httpx.Client(transport=sandbox.transport(), base_url="http://sandbox.test/model") as client:
            client.headers["authorization"] = "Bearer sandbox-key"
            for _ in range(5):
                client.post("/v1/queue/nano_banana_2", json={})
        return [request.ends_at for request in sandbox.requests]

    assert ends(1) == ends(1) != ends(2)
    assert len(set(ends(1))) == 5
    assert all(3 <= end <= 8 for end in ends(1))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("documented", ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]),
        ("lower", ["in_queue", "in_progress", "completed"]),
        ("queued", ["QUEUED", "IN_PROGRESS", "COMPLETED"]),
        ("pending", ["PENDING", "PROCESSING", "COMPLETED"]),
        ("unknown", ["WARMING_UP", "POLISHING", "COMPLETED"]),
        ("failed", ["IN_QUEUE", "IN_PROGRESS", "FAILED"]),
    ],
)
def test_states_can_have_other_words(
    words: str, expected: list[str], edit: Edit, wait: Wait, client: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.configure(status_words=words, error_type="INFERENCE_TIMEOUT")
    submission = edit()
    seen = []
    for _ in range(3):
        seen.append(client.get(path(submission, "status")).json()["status"])
        wait(5)
    assert seen == expected


@pytest.mark.parametrize(("words", "expected"), [("failed", "CANCELED"), ("cancelled", "CANCELLED")])
def test_a_cancelled_request_can_have_its_own_state(
    words: str, expected: str, edit: Edit, client: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.configure(status_words=words)
    submission = edit()
    client.put(path(submission, "cancel"))
    assert client.get(path(submission, "status")).json()["status"] == expected


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ("string", {"error": "No cats."}),
        ("message", {"error": {"code": "CONTENT_BLOCKED", "message": "No cats."}}),
        ("error_message", {"error": {"code": "CONTENT_BLOCKED", "error_message": "No cats."}}),
        ("absent", {}),
    ],
)
def test_a_failed_request_completes_with_an_error_in_each_form(
    shape: str, error: dict[str, Any], edit: Edit, wait: Wait, client: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.configure(error_type="CONTENT_BLOCKED", error_message="No cats.", error_shape=shape)
    submission = edit()
    wait(9)
    assert "error_type" not in client.get(path(submission, "status")).json()
    wait(1)
    status = client.get(path(submission, "status")).json()
    result = client.get(path(submission, "response"))
    assert status["status"] == "COMPLETED"
    assert status["error_type"] == "CONTENT_BLOCKED"
    assert status["provider_error"] == {"code": "content_blocked", "message": "No cats."}
    assert {key: status[key] for key in status if key == "error"} == error
    assert (result.status_code, result.json()) == (422, status)


def test_only_requests_submitted_with_error_type_fail(edit: Edit, wait: Wait, sandbox: Sandbox) -> None:
    edit()
    sandbox.configure(error_type="INFERENCE_FAILURE", fail_first=2)
    for _ in range(3):
        edit()
    sandbox.configure(fail_first=1)
    edit()
    sandbox.configure(error_type=None, fail_first=None)
    edit()
    wait(10)
    failed = "INFERENCE_FAILURE"
    assert [request.error_type for request in sandbox.requests] == [None, failed, failed, None, failed, None]


def test_a_cancel_is_accepted_and_ends_the_request(
    edit: Edit, wait: Wait, client: httpx.Client, sandbox: Sandbox
) -> None:
    submission = edit()
    wait(4)
    answers = [client.put(path(submission, "cancel")) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == {"status": "CANCELLATION_REQUESTED"}
    status = client.get(path(submission, "status")).json()
    assert (status["status"], status["error_type"]) == ("COMPLETED", "CANCELED")
    assert status["metrics"] == {"inference_time": 2}
    assert sandbox.alive == []


def test_a_cancel_in_the_queue_costs_no_inference(edit: Edit, client: httpx.Client) -> None:
    submission = edit()
    client.put(path(submission, "cancel"))
    assert client.get(path(submission, "status")).json()["metrics"] == {"inference_time": 0}


def test_a_cancel_of_a_completed_request_is_refused(edit: Edit, wait: Wait, client: httpx.Client) -> None:
    submission = edit()
    wait(10)
    answer = client.put(path(submission, "cancel"))
    assert (answer.status_code, answer.json()) == (400, {"status": "ALREADY_COMPLETED"})


def test_a_slow_cancel_can_come_after_the_end(edit: Edit, wait: Wait, client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(cancel_seconds=3)
    lost, won = edit(), edit()
    client.put(path(won, "cancel"))
    wait(2)
    assert client.get(path(won, "status")).json()["status"] == "IN_PROGRESS"
    wait(6)
    assert client.put(path(lost, "cancel")).status_code == 202
    wait(2)
    assert client.get(path(won, "status")).json()["error_type"] == "CANCELED"
    status = client.get(path(lost, "status")).json()
    assert (status["status"], "error_type" in status) == ("COMPLETED", False)


def test_cancelling_can_be_unsupported(edit: Edit, client: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(cancel_supported=False)
    answer = client.put(path(edit(), "cancel"))
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


def test_an_unknown_request_is_not_found(edit: Edit, client: httpx.Client) -> None:
    unknown = f"{EDIT}/requests/mmsu_unknown"
    other = path(edit(), "status", endpoint="gpt_image_2")
    for url in (f"{unknown}/status", f"{unknown}/response", other):
        answer = client.get(url)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Request not found"})
    answer = client.put(f"{unknown}/cancel")
    assert (answer.status_code, answer.json()) == (404, {"status": "NOT_FOUND"})


def test_a_request_can_be_unknown_for_some_seconds_after_its_submit(
    edit: Edit, wait: Wait, client: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.configure(not_found_seconds=1)
    submission = edit()
    assert client.get(path(submission, "status")).status_code == 404
    wait(1)
    assert client.get(path(submission, "status")).status_code == 200


def test_only_the_latest_requests_are_kept(edit: Edit, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_odirouter.sandbox.engine._MAX_REQUESTS", 2)
    ids = [edit().json()["request_id"] for _ in range(3)]
    assert [request.request_id for request in sandbox.requests] == ids[1:]
    assert sandbox.paid == 3


def test_other_models_accept_any_parameters(wait: Wait, client: httpx.Client, pictured: Callable[..., str]) -> None:
    body = {"prompt": 7, "n": 2, "size": "64x48", "output_format": "webp", "image_url": pictured(), "images": [3]}
    submission = client.post("/v1/queue/free-nano-banana-2", json=body)
    wait(10)
    outputs = client.get(path(submission, "response", "free-nano-banana-2")).json()["outputs"]
    assert [(o["width"], o["height"], o["content_type"]) for o in outputs] == [(64, 48, "image/webp")] * 2


def test_other_models_make_a_picture_without_an_input(wait: Wait, client: httpx.Client) -> None:
    submission = client.post("/v1/queue/kling-v1-image", json={"prompt": "A hill", "n": "many"})
    wait(10)
    outputs = client.get(path(submission, "response", "kling-v1-image")).json()["outputs"]
    assert [(output["width"], output["height"]) for output in outputs] == [(1024, 1024)]
