"""The HTTP request of each call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_odirouter import protocol
from airflow_provider_odirouter.errors import InvalidParametersError
from airflow_provider_odirouter.protocol import Answer, Call
from tests.protocol.exchange import BASE_URL, CANCEL, ENDPOINT, FILE, REQUEST_ID, RESULT, STATUS, SUBMIT

LEAVES_ITS_PLACE = ["", " ", ".", "..", " .. ", "a\\b", "..\\a", "a\nb", "a\r\nHost: b", "a\x00", "a\x7f", "\ud800"]
"""Values that cannot be a segment of a path."""


@pytest.mark.parametrize(
    ("call", "method", "url"),
    [
        (SUBMIT, "POST", "https://odirouter.ai/model/v1/queue/gpt_image_1_edit"),
        (STATUS, "GET", "https://odirouter.ai/model/v1/queue/gpt_image_1_edit/requests/mmsu_0001/status"),
        (RESULT, "GET", "https://odirouter.ai/model/v1/queue/gpt_image_1_edit/requests/mmsu_0001/response"),
        (CANCEL, "PUT", "https://odirouter.ai/model/v1/queue/gpt_image_1_edit/requests/mmsu_0001/cancel"),
        (FILE, "GET", "https://cdn.example/pictures/0.png?signature=secret"),
    ],
    ids=lambda value: value.action if isinstance(value, Call) else None,
)
def test_each_call_has_its_documented_method_and_path(call: Call, method: str, url: str) -> None:
    assert (call.method, call.url) == (method, url)


def test_the_default_base_url_is_the_documented_one() -> None:
    assert protocol.DEFAULT_BASE_URL == "https://odirouter.ai/model"


def test_urls_are_built_from_the_given_base_url() -> None:
    call = protocol.status("http://127.0.0.1:8080/prefix", "gpt_image_2", "mmsu_1")
    assert call.url == "http://127.0.0.1:8080/prefix/v1/queue/gpt_image_2/requests/mmsu_1/status"


def test_a_submit_sends_the_parameters_without_a_wrapper() -> None:
    call = protocol.submit(BASE_URL, ENDPOINT, {"prompt": "A cup", "n": 2, "images": ["QUJD"]}, trace_id="trace-1")
    assert call.body == b'{"prompt":"A cup","n":2,"images":["QUJD"]}'
    assert call.headers == {"Content-Type": "application/json", "X-Request-Id": "trace-1"}


def test_a_submit_may_have_text_in_any_script() -> None:
    call = protocol.submit(BASE_URL, ENDPOINT, {"prompt": "Ein „blauer“ Becher 蓝色杯子 ☕"}, trace_id="t")
    assert call.body is not None
    assert json.loads(call.body) == {"prompt": "Ein „blauer“ Becher 蓝色杯子 ☕"}


@pytest.mark.parametrize("call", [STATUS, RESULT, CANCEL, FILE], ids=lambda call: call.action)
def test_only_a_submit_has_a_body_and_extra_headers(call: Call) -> None:
    assert (call.body, call.headers) == (None, {})


@pytest.mark.parametrize("call", [STATUS, RESULT, CANCEL, FILE], ids=lambda call: call.action)
def test_a_call_has_its_endpoint_and_request_id(call: Call) -> None:
    assert (call.endpoint, call.request_id) == (ENDPOINT, REQUEST_ID)


def test_a_submit_has_no_request_id() -> None:
    assert (SUBMIT.endpoint, SUBMIT.request_id) == (ENDPOINT, None)


def test_the_repr_of_a_call_does_not_show_the_body() -> None:
    call = protocol.submit(BASE_URL, ENDPOINT, {"images": ["QUJDREVG"]}, trace_id="t")
    assert "QUJDREVG" not in repr(call)


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("gpt_image_1", "gpt_image_1"),
        ("nano_banana_2", "nano_banana_2"),
        ("free-nano-banana-2", "free-nano-banana-2"),
        ("kling-v1-image", "kling-v1-image"),
        ("vendor/model", "vendor/model"),
        ("a model", "a%20model"),
        ("model?sync=1", "model%3Fsync%3D1"),
        ("model#part", "model%23part"),
        ("%2e%2e", "%252e%252e"),
        ("模型", "%E6%A8%A1%E5%9E%8B"),
    ],
)
def test_an_endpoint_is_quoted_into_the_path(endpoint: str, path: str) -> None:
    assert protocol.submit(BASE_URL, endpoint, {}, trace_id="t").url == f"https://odirouter.ai/model/v1/queue/{path}"


@pytest.mark.parametrize(
    ("request_id", "segment"),
    [
        ("a b", "a%20b"),
        ("a?b=c", "a%3Fb%3Dc"),
        ("a#b", "a%23b"),
        ("a%2Fb", "a%252Fb"),
        ("..%2f..", "..%252f.."),
        ("a@b:c", "a%40b%3Ac"),
        ("...", "..."),
    ],
)
def test_a_request_id_is_quoted_into_one_segment(request_id: str, segment: str) -> None:
    url = protocol.cancel(BASE_URL, "e", request_id).url
    assert url == f"https://odirouter.ai/model/v1/queue/e/requests/{segment}/cancel"


@pytest.mark.parametrize("call", [protocol.status, protocol.result, protocol.cancel])
@pytest.mark.parametrize("request_id", [*LEAVES_ITS_PLACE, "a/b", "../other", "/a", "a/"])
def test_a_request_id_that_would_change_the_path_is_refused(call: Any, request_id: str) -> None:
    with pytest.raises(InvalidParametersError) as caught:
        call(BASE_URL, ENDPOINT, request_id)
    [problem] = caught.value.problems
    assert problem.field == "request_id"
    assert problem.message == f"{request_id!r} is not a request id: it would change the path of the URL"


@pytest.mark.parametrize("endpoint", [*LEAVES_ITS_PLACE, "../a", "a/..", "a/../b", "a//b", "/a", "a/", "a/./b"])
def test_an_endpoint_that_would_change_the_path_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidParametersError) as of_submit:
        protocol.submit(BASE_URL, endpoint, {}, trace_id="t")
    with pytest.raises(InvalidParametersError) as of_status:
        protocol.status(BASE_URL, endpoint, REQUEST_ID)
    assert of_submit.value.problems == of_status.value.problems
    assert [problem.field for problem in of_submit.value.problems] == ["endpoint"]


def endless() -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    parameters["self"] = parameters
    return parameters


def nested(levels: int) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for _ in range(levels):
        parameters = {"inner": parameters}
    return parameters


@pytest.mark.parametrize(
    "parameters",
    [
        {"image": b"raw"},
        {"sizes": {1, 2}},
        {"strength": float("nan")},
        {"strength": float("inf")},
        {("a", "b"): 1},
        {"callback": print},
        endless(),
        nested(100_000),
    ],
    ids=["bytes", "set", "nan", "infinity", "tuple as key", "function", "cycle", "too deep"],
)
def test_parameters_that_are_not_json_are_refused(parameters: Any) -> None:
    with pytest.raises(InvalidParametersError) as caught:
        protocol.submit(BASE_URL, ENDPOINT, parameters, trace_id="t")
    [problem] = caught.value.problems
    assert problem.field == "parameters"
    assert problem.message.startswith("are not a JSON object: ")


@pytest.mark.parametrize(
    ("status_code", "success"), [(199, False), (200, True), (202, True), (204, True), (299, True), (300, False)]
)
def test_every_2xx_is_a_success(status_code: int, success: bool) -> None:
    assert Answer(status_code, {}, b"", received_at=0.0).is_success is success
