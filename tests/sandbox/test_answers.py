"""The forms of the answers to calls that succeed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

Edit = Callable[..., httpx.Response]
Finished = Callable[..., dict[str, Any]]


def test_a_submit_can_be_answered_with_id_and_status_only(edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(submit_shape="bare")
    body = edit().json()
    assert body == {"request_id": sandbox.requests[0].request_id, "status": "QUEUED"}


def test_a_submit_can_be_answered_without_an_id(edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(submit_shape="no_id")
    assert "request_id" not in edit().json()
    assert sandbox.paid == 1


@pytest.mark.parametrize(("shape", "start"), [("html", "<html>"), ("empty", "")])
def test_a_submit_can_be_answered_without_json(shape: str, start: str, edit: Edit, sandbox: Sandbox) -> None:
    sandbox.configure(submit_shape=shape)
    answer = edit()
    assert (answer.status_code, answer.text[:6]) == (200, start)
    assert sandbox.paid == 1


def test_urls_in_answers_can_name_another_host(edit: Edit, sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.configure(answer_origin="https://elsewhere.example")
    body = edit().json()
    assert body["status_url"].startswith("https://elsewhere.example/model/v1/queue/")
    status = client.get(body["status_url"].replace("https://elsewhere.example", "http://sandbox.test")).json()
    assert status["response_url"] == body["response_url"]


def test_a_result_lists_its_pictures(finished: Finished, sandbox: Sandbox, anonymous: httpx.Client) -> None:
    result = finished(n=2, output_format="jpeg", prompt="A hill")
    files = [anonymous.get(record["url"]) for record in result["outputs"]]
    assert result["request_id"] == sandbox.requests[0].request_id
    assert result["metadata"] == {"prompt": "A hill"}
    assert [{**record, "url": None} for record in result["outputs"]] == [
        {
            "type": "image",
            "url": None,
            "content_type": "image/jpeg",
            "file_name": f"{number}.jpeg",
            "file_size": len(file.content),
            "width": 40,
            "height": 30,
        }
        for number, file in enumerate(files)
    ]


def test_a_result_can_have_the_other_documented_form(
    finished: Finished, sandbox: Sandbox, anonymous: httpx.Client
) -> None:
    sandbox.configure(result_shape="output")
    result = finished(n=2)
    contents = [content for item in result["output"] for content in item["content"]]
    assert [content["type"] for content in contents] == ["image", "image"]
    assert [anonymous.get(content["url"]).status_code for content in contents] == [200, 200]
    assert "outputs" not in result


def test_a_result_can_have_the_shapes_of_other_services(
    finished: Finished, sandbox: Sandbox, anonymous: httpx.Client
) -> None:
    sandbox.configure(result_shape="images")
    assert [anonymous.get(one["url"]).status_code for one in finished(n=2)["images"]] == [200, 200]
    sandbox.configure(result_shape="image")
    assert "type" not in finished()["image"]
    sandbox.configure(result_shape="b64_json")
    assert base64.b64decode(finished()["data"][0]["b64_json"]).startswith(b"\x89PNG")
    sandbox.configure(result_shape="data_url")
    assert finished()["outputs"][0]["url"].startswith("data:image/png;base64,iVBOR")
    sandbox.configure(result_shape="relative")
    assert finished()["outputs"][0]["url"].startswith("/files/")


def test_a_result_can_have_no_url_or_no_list(finished: Finished, sandbox: Sandbox) -> None:
    sandbox.configure(result_shape="no_url")
    assert "url" not in finished()["outputs"][0]
    sandbox.configure(result_shape="none")
    assert list(finished()) == ["request_id", "metadata"]


def test_a_request_can_bring_its_own_settings(
    edit: Edit, client: httpx.Client, wait: Callable[[float], None], sandbox: Sandbox
) -> None:
    edit({"x-sandbox-run-seconds": "1-2", "x-sandbox-error-type": "INFERENCE_TIMEOUT"})
    edit({"x-sandbox-settings": '{"queue_seconds": 0, "status_words": "lower"}'})
    edit()
    wait(4)
    statuses = [
        client.get(f"/v1/queue/{request.endpoint}/requests/{request.request_id}/status").json()
        for request in sandbox.requests
    ]
    assert [status["status"] for status in statuses] == ["COMPLETED", "in_progress", "IN_PROGRESS"]
    assert statuses[0]["error_type"] == "INFERENCE_TIMEOUT"
    assert sandbox.settings.status_words == "documented"


def test_a_requests_own_faults_apply_to_no_other_request(edit: Edit, client: httpx.Client) -> None:
    own = edit({"x-sandbox-server-errors": "1", "x-sandbox-fault-actions": "status"}).json()["status_url"]
    other = edit().json()["status_url"]
    assert [client.get(url).status_code for url in (other, own, own)] == [200, 503, 200]


@pytest.mark.parametrize(
    ("header", "value", "message"),
    [
        ("x-sandbox-balance", "1", "balance cannot be one request's own"),
        ("x-sandbox-run-seconds", "-1", "greater than or equal to 0"),
        ("x-sandbox-nonsense", "1", "Extra inputs are not permitted"),
        ("x-sandbox-settings", "[1]", "Extra inputs are not permitted"),
    ],
)
def test_bad_settings_of_one_request_are_refused(
    header: str, value: str, message: str, edit: Edit, sandbox: Sandbox
) -> None:
    answer = edit({header: value})
    assert answer.status_code == 422
    assert message in answer.json()["detail"]
    assert sandbox.paid == 0
    assert [entry.status_code for entry in sandbox.journal] == [422]
