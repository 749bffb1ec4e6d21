"""Reading the answer to each call."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_odirouter.errors import (
    AuthenticationError,
    EndpointNotFoundError,
    NoBalanceError,
    NoOutputError,
    OdiRouterError,
    RejectedError,
    RequestNotFoundError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.models import (
    CancelOutcome,
    OutputFile,
    RequestResult,
    RequestState,
    RequestStatus,
    Submission,
)
from airflow_provider_odirouter.protocol import Answer, Call, read_cancel, read_result, read_status, read_submission
from tests.protocol.exchange import CANCEL, PAGE, RESULT, STATUS, SUBMIT, answer


def status_of(**body: Any) -> RequestStatus:
    return read_status(STATUS, answer(200, body))


def result_of(body: Any) -> RequestResult:
    result = read_result(RESULT, answer(200, body))
    assert isinstance(result, RequestResult)
    return result


# --- Submit


def test_the_documented_answer_to_a_submit_gives_the_request_id() -> None:
    urls = {name: f"https://elsewhere.example/{name}" for name in ("response_url", "status_url", "cancel_url")}
    submission = read_submission(SUBMIT, answer(200, {"request_id": "mmsu_1", **urls, "queue_position": 0}))
    assert submission.request_id == "mmsu_1"


@pytest.mark.parametrize("status_code", [200, 201, 202])
def test_a_short_answer_to_a_submit_is_enough(status_code: int) -> None:
    submission = read_submission(SUBMIT, answer(status_code, {"request_id": "mmsu_1", "status": "QUEUED"}))
    assert submission.request_id == "mmsu_1"


def test_unknown_fields_of_a_submission_are_kept() -> None:
    submission = read_submission(SUBMIT, answer(200, {"request_id": "mmsu_1", "region": {"name": "eu"}}))
    assert submission.model_dump() == {"request_id": "mmsu_1", "region": {"name": "eu"}}


@pytest.mark.parametrize("body", [{}, {"status": "QUEUED"}], ids=str)
def test_a_submission_without_a_request_id_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_submission(SUBMIT, answer(200, body))


@pytest.mark.parametrize(
    "request_id", [None, "", " ", 5.5, True, [], {}, ".", "..", "a/b", "a\\b", "a\n", "\x00"], ids=repr
)
def test_a_submission_without_a_usable_request_id_is_an_error(request_id: Any) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_submission(SUBMIT, answer(200, {"request_id": request_id, "status": "QUEUED"}))


def test_a_request_id_may_be_a_number() -> None:
    assert read_submission(SUBMIT, answer(200, {"request_id": 123})).request_id == "123"


def test_an_error_with_a_request_id_is_not_a_submission() -> None:
    body = {"error": {"code": "UNAUTHORIZED", "message": "Missing key"}, "request_id": "mmsu_1"}
    with pytest.raises(AuthenticationError):
        read_submission(SUBMIT, answer(401, body))


# --- Status


@pytest.mark.parametrize(
    ("raw_status", "state"),
    [
        ("IN_QUEUE", "IN_QUEUE"),
        ("QUEUED", "IN_QUEUE"),
        ("PENDING", "IN_QUEUE"),
        ("IN_PROGRESS", "IN_PROGRESS"),
        ("COMPLETED", "SUCCEEDED"),
        ("FAILED", "FAILED"),
        ("CANCELED", "CANCELED"),
        ("CANCELLED", "CANCELED"),
    ],
)
@pytest.mark.parametrize(
    "written", [str, str.lower, str.title, " {}\n".format], ids=["upper", "lower", "title", "space"]
)
def test_every_status_is_known_in_any_case(raw_status: str, state: str, written: Callable[[str], str]) -> None:
    status = status_of(status=written(raw_status))
    assert status.state == state
    assert status.raw_status == written(raw_status).strip()


@pytest.mark.parametrize("raw_status", ["WARMING_UP", "RUNNING", "COMPLETE", "", "完成"])
def test_an_unknown_status_is_not_terminal(raw_status: str) -> None:
    status = status_of(status=raw_status)
    assert (status.state, status.raw_status, status.state.is_terminal) == (RequestState.UNKNOWN, raw_status, False)


@pytest.mark.parametrize(
    ("state", "terminal"),
    [
        (RequestState.IN_QUEUE, False),
        (RequestState.IN_PROGRESS, False),
        (RequestState.UNKNOWN, False),
        (RequestState.SUCCEEDED, True),
        (RequestState.FAILED, True),
        (RequestState.CANCELED, True),
    ],
)
def test_only_three_states_are_terminal(state: RequestState, terminal: bool) -> None:
    assert state.is_terminal is terminal


def test_a_status_has_queue_position_and_inference_time() -> None:
    status = status_of(
        status="IN_PROGRESS",
        request_id="mmsu_1",
        queue_position=3,
        progress=0.25,
        metrics={"inference_time": 12.34},
        logs=[{"message": "Loading", "timestamp": "2027-01-15T08:00:00Z"}],
        response_url="https://elsewhere.example/",
        region="eu",
    )
    assert (status.queue_position, status.inference_seconds) == (3, 12.34)
    assert status.failure is None


def test_a_status_may_have_no_other_field() -> None:
    status = status_of(status="IN_QUEUE")
    assert (status.queue_position, status.inference_seconds, status.failure) == (None,) * 3


def test_numbers_may_be_texts() -> None:
    status = status_of(status="IN_QUEUE", queue_position="3", metrics={"inference_time": "7"})
    assert (status.queue_position, status.inference_seconds) == (3, 7.0)


@pytest.mark.parametrize("error", [None, "", {}, []], ids=str)
def test_an_empty_error_is_not_a_failure(error: Any) -> None:
    status = status_of(status="COMPLETED", error=error, error_type=None)
    assert (status.state, status.failure) == (RequestState.SUCCEEDED, None)


@pytest.mark.parametrize(
    ("body", "error_type", "message"),
    [
        ({"error": "Out of memory"}, None, "Out of memory"),
        ({"error": "No", "error_type": "INFERENCE_FAILURE"}, "INFERENCE_FAILURE", "No"),
        ({"error": {"code": "E1", "message": "No"}}, "E1", "No"),
        ({"error": {"code": "E1", "error_message": "No"}}, "E1", "No"),
        ({"error": {"code": 17, "message": "No"}}, "17", "No"),
        ({"error": {"code": "E1"}}, "E1", None),
        ({"error": {"message": "No"}}, None, "No"),
        ({"error": {"code": "E1", "message": "No"}, "error_type": "CONTENT_BLOCKED"}, "CONTENT_BLOCKED", "No"),
        ({"error_type": "INFERENCE_TIMEOUT"}, "INFERENCE_TIMEOUT", None),
        ({"error_type": "request_invalid"}, "REQUEST_INVALID", None),
        ({"error_type": "SOMETHING_NEW", "error": "No"}, "SOMETHING_NEW", "No"),
        ({"error": ["No", "no"]}, None, None),
        ({"error": {"message": ["No", "no"]}}, None, '["No", "no"]'),
        ({"error": {"message": {"zh": "不行"}}}, None, '{"zh": "不行"}'),
        (
            {"error": "No", "provider_error": {"code": "moderation", "message": "Blocked", "type": "user_error"}},
            None,
            "No (moderation: Blocked)",
        ),
        ({"error": "No", "provider_error": {"message": "Blocked"}}, None, "No (Blocked)"),
        ({"error": "No", "provider_error": {"message": "No"}}, None, "No"),
        ({"error": "No", "provider_error": {"code": "E2", "message": "No"}}, None, "No (E2)"),
        ({"error": "No", "provider_error": {"code": 400}}, None, "No (400)"),
        ({"error": "No", "provider_error": {"type": "user_error"}}, None, "No"),
        ({"error": "No", "provider_error": "Blocked"}, None, "No"),
        (
            {"error_type": "INFERENCE_FAILURE", "provider_error": {"message": "Blocked"}},
            "INFERENCE_FAILURE",
            "the model provider failed (Blocked)",
        ),
    ],
    ids=str,
)
def test_completed_with_an_error_is_a_failure_in_the_vendors_words(
    body: dict[str, Any], error_type: str | None, message: str | None
) -> None:
    status = status_of(status="COMPLETED", **body)
    assert status.state is RequestState.FAILED
    assert status.failure is not None
    assert (status.failure.error_type, status.failure.message) == (error_type, message)


@pytest.mark.parametrize("raw_status", ["COMPLETED", "FAILED", "CANCELED"])
@pytest.mark.parametrize(
    "error",
    [{"error_type": "CANCELED"}, {"error_type": "cancelled"}, {"error": {"code": "CANCELED", "message": "by user"}}],
    ids=str,
)
def test_a_cancelled_request_is_canceled_and_not_failed(raw_status: str, error: dict[str, Any]) -> None:
    assert status_of(status=raw_status, **error).state is RequestState.CANCELED


def test_failed_is_a_failure_even_without_an_error() -> None:
    status = status_of(status="FAILED")
    assert (status.state, status.failure) == (RequestState.FAILED, None)


def test_a_running_request_with_an_error_still_runs() -> None:
    assert status_of(status="IN_PROGRESS", error="Retrying", error_type="INFERENCE_FAILURE").state == "IN_PROGRESS"


def test_a_provider_error_alone_is_not_a_failure() -> None:
    assert status_of(status="COMPLETED", provider_error={"code": None, "message": None}).state == "SUCCEEDED"


@pytest.mark.parametrize("field", ["error", "error_type", "provider_error", "status"])
def test_the_vendors_message_is_one_line_of_bounded_length(field: str) -> None:
    endless = "very\nlong \x1b[31m" + "x" * 10_000
    body = {"status": "FAILED", "error": "No", field: {"message": endless} if field == "provider_error" else endless}
    status = status_of(**body)
    failure = status.failure
    assert failure is not None
    for text in (status.raw_status, failure.error_type or "", failure.message or ""):
        assert len(text) <= 500
        assert text.isprintable()


# --- Result


def test_the_outputs_are_read_in_order() -> None:
    records = [
        {
            "type": "image",
            "url": f"https://cdn.example/{index}.png",
            "content_type": "image/png",
            "file_name": f"{index}.png",
            "file_size": 1000 + index,
            "width": 1024,
            "height": 1536,
        }
        for index in range(3)
    ]
    result = result_of({"request_id": "mmsu_1", "outputs": records, "metadata": {"seed": 7}})
    assert [output.model_dump() for output in result.outputs] == records
    assert result.metadata == {"seed": 7}


def test_the_other_shape_of_a_result_gives_the_same_list() -> None:
    body = {
        "output": [
            {"content": [{"type": "image", "url": "https://cdn.example/0.png"}, {"type": "text", "text": "Done"}]},
            {"content": [{"type": "image", "url": "https://cdn.example/1.png"}]},
        ]
    }
    assert [output.url for output in result_of(body).outputs] == [
        "https://cdn.example/0.png",
        "https://cdn.example/1.png",
    ]


def test_an_output_may_have_only_a_url() -> None:
    assert result_of({"outputs": [{"url": "https://cdn.example/0"}]}) == RequestResult(
        outputs=(OutputFile(url="https://cdn.example/0"),), metadata={}
    )


def test_unknown_fields_of_an_output_are_kept() -> None:
    [output] = result_of({"outputs": [{"url": "https://cdn.example/0", "revised_prompt": "A blue cup"}]}).outputs
    assert output.model_extra == {"revised_prompt": "A blue cup"}


@pytest.mark.parametrize(
    "field", [{"width": "wide"}, {"file_size": []}, {"content_type": 5}, {"type": None}, {"file_name": {}}], ids=str
)
def test_a_url_is_read_even_if_other_fields_are_invalid(field: dict[str, Any]) -> None:
    [output] = result_of({"outputs": [{"url": "https://cdn.example/0", **field}]}).outputs
    assert output == OutputFile(url="https://cdn.example/0")


def test_a_url_in_both_shapes_is_one_output() -> None:
    record = {"type": "image", "url": "https://cdn.example/0"}
    assert len(result_of({"outputs": [record], "output": [{"content": [record]}]}).outputs) == 1


def test_outputs_without_a_url_are_counted() -> None:
    assert result_of({"outputs": [{"url": "u"}, {}, {"url": ""}]}).without_url == 2


def test_the_type_is_read_even_if_other_fields_are_invalid() -> None:
    [output] = result_of(
        {"outputs": [{"url": "u", "type": "video", "content_type": "video/mp4", "width": "?"}]}
    ).outputs
    assert (output.type, output.content_type) == ("video", "video/mp4")


def test_records_without_a_url_are_ignored() -> None:
    records: list[Any] = [
        None,
        5,
        "x",
        [],
        {},
        {"url": None},
        {"url": ""},
        {"url": 5},
        {"url": {"href": "x"}},
        {"url": "https://u"},
    ]
    assert [output.url for output in result_of({"outputs": records}).outputs] == ["https://u"]


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ({"request_id": "r", "outputs": [], "metadata": {}}, "metadata, outputs, request_id"),
        ({"outputs": None}, "outputs"),
        ({"output": [{"content": [{"type": "text", "text": "Done"}]}]}, "output"),
        ({}, "none"),
    ],
)
def test_a_result_without_a_url_is_an_error_that_lists_its_keys(body: dict[str, Any], keys: str) -> None:
    with pytest.raises(NoOutputError) as caught:
        read_result(RESULT, answer(200, body))
    assert caught.value.what == f"The result of gpt_image_1_edit names no file; its keys are {keys}."
    assert caught.value.request_id == "mmsu_0001"


def test_a_result_without_a_url_quotes_the_vendors_message() -> None:
    with pytest.raises(NoOutputError) as caught:
        read_result(RESULT, answer(200, {"error": "Blocked", "outputs": []}))
    assert caught.value.vendor == "Blocked"


@pytest.mark.parametrize(
    ("code", "kind"), [(402, NoBalanceError), (503, ServiceError), (401, AuthenticationError), (400, RejectedError)]
)
def test_an_error_in_an_envelope_is_not_a_result_without_a_file(code: int, kind: type[OdiRouterError]) -> None:
    body = {"status": {"code": code, "message": "No"}, "data": None}
    with pytest.raises(kind):
        read_result(RESULT, answer(200, body))


def test_an_envelope_around_outputs_does_not_hide_them() -> None:
    body = {"status": {"code": 200, "message": "ok"}, "outputs": [{"url": "https://cdn.example/0"}]}
    assert len(result_of(body).outputs) == 1


def test_a_202_is_a_status_and_not_an_error() -> None:
    status = read_result(RESULT, answer(202, {"status": "IN_PROGRESS", "request_id": "mmsu_1", "progress": 0.5}))
    assert isinstance(status, RequestStatus)
    assert status.state is RequestState.IN_PROGRESS


def test_a_running_status_in_a_200_is_a_status() -> None:
    status = read_result(RESULT, answer(200, {"status": "IN_PROGRESS"}))
    assert isinstance(status, RequestStatus)
    with pytest.raises(NoOutputError):
        read_result(RESULT, answer(200, {"status": "COMPLETED"}))


@pytest.mark.parametrize("body", [b"", PAGE, {}, []], ids=["empty", "page", "object", "array"])
def test_a_202_without_a_status_is_unreadable(body: Any) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_result(RESULT, answer(202, body))


@pytest.mark.parametrize("metadata", [None, [], "x", 5])
def test_metadata_that_is_not_an_object_is_ignored(metadata: Any) -> None:
    assert result_of({"outputs": [{"url": "u"}], "metadata": metadata}).metadata == {}


@pytest.mark.parametrize(
    "metadata",
    [{"a": "x" * 10_000}, {"a": "\0"}, {"a": "\ud800"}, {"a": json.loads("[" * 30 + "]" * 30)}],
    ids=["large", "NUL", "lone surrogate", "deep"],
)
def test_metadata_that_a_database_refuses_is_left_out(metadata: Any) -> None:
    assert result_of({"outputs": [{"url": "u"}], "metadata": metadata}).metadata == {}


def test_small_metadata_is_kept() -> None:
    metadata = {"cost": 0.04, "texts": ["é", "😀", {"deep": [[1]]}]}
    assert result_of({"outputs": [{"url": "u"}], "metadata": metadata}).metadata == metadata


def test_numbers_that_a_database_refuses_are_null() -> None:
    body = b'{"outputs": [{"url": "u"}], "metadata": {"a": NaN, "b": -Infinity, "c": 1e999, "d": 1.5, "e": 2}}'
    result = read_result(RESULT, answer(200, body))
    assert isinstance(result, RequestResult)
    assert result.metadata == {"a": None, "b": None, "c": None, "d": 1.5, "e": 2}


# --- Cancel


@pytest.mark.parametrize(
    ("status_code", "body", "outcome"),
    [
        (202, {"status": "CANCELLATION_REQUESTED"}, CancelOutcome.REQUESTED),
        (200, {"status": "CANCELED"}, CancelOutcome.REQUESTED),
        (200, {}, CancelOutcome.REQUESTED),
        (204, b"", CancelOutcome.REQUESTED),
        (200, b"OK", CancelOutcome.REQUESTED),
        (400, {"status": "ALREADY_COMPLETED"}, CancelOutcome.ALREADY_COMPLETED),
        (409, {"detail": "Request is already completed"}, CancelOutcome.ALREADY_COMPLETED),
        (200, {"status": "already_completed"}, CancelOutcome.ALREADY_COMPLETED),
        (404, {"status": "NOT_FOUND"}, CancelOutcome.NOT_FOUND),
        (404, {"detail": "Request not found"}, CancelOutcome.NOT_FOUND),
        (400, {"detail": "This model cannot be cancelled"}, CancelOutcome.UNSUPPORTED),
        (405, {"detail": "Method Not Allowed"}, CancelOutcome.UNSUPPORTED),
        (405, b"", CancelOutcome.UNSUPPORTED),
        (501, b"", CancelOutcome.UNSUPPORTED),
    ],
)
def test_every_normal_answer_to_a_cancel_is_an_outcome(status_code: int, body: Any, outcome: CancelOutcome) -> None:
    assert read_cancel(CANCEL, answer(status_code, body)) is outcome


@pytest.mark.parametrize(
    ("status_code", "body", "kind"),
    [
        (401, {"error": "invalid_api_key"}, AuthenticationError),
        (404, {"detail": "App not found: nothing"}, EndpointNotFoundError),
        (404, PAGE, UnreadableAnswerError),
        (500, {"detail": "already completed"}, ServiceError),
        (503, b"", ServiceError),
    ],
)
def test_a_cancel_that_is_refused_is_an_error(status_code: int, body: Any, kind: type[OdiRouterError]) -> None:
    with pytest.raises(kind):
        read_cancel(CANCEL, answer(status_code, body))


# --- Garbage

Reader = Callable[[Call, Answer], object]
READERS: dict[str, tuple[Call, Reader]] = {
    "submit": (SUBMIT, read_submission),
    "status": (STATUS, read_status),
    "result": (RESULT, read_result),
    "cancel": (CANCEL, read_cancel),
}
SANE = (Submission, RequestStatus, RequestResult, CancelOutcome, OdiRouterError)
STATUS_CODES = [100, 200, 202, 204, 302, 400, 401, 402, 403, 404, 405, 408, 409, 418, 422, 425, 429, 500, 503, 599, 999]
READ_CLOSELY = [200, 202, 404]
"""Status codes for which the body decides."""


def nest(levels: int) -> str:
    return "[" * levels + "]" * levels


NOT_JSON_OBJECTS = {
    "nothing": b"",
    "blank": b" \r\n ",
    "null": b"null",
    "true": b"true",
    "number": b"5",
    "text": b'"COMPLETED"',
    "array": b'[{"status": "COMPLETED"}]',
    "page": PAGE,
    "half": b'{"status": "COMPL',
    "two": b"{}{}",
    "NaN": b"NaN",
    "no UTF-8": b"\xff\xfe\xfa\x00",
    "UTF-8 cut": '{"status": "完'.encode()[:-1],
    "zeros": b"\x00" * 64,
    "picture": b"\x89PNG\r\n\x1a\n\x00\x00",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00",
    "deep array": nest(20_000).encode(),
    "deep object": b'{"a":' * 20_000,
    "endless number": b"1" * 5000,
}

ODD = {
    "null": "null",
    "true": "true",
    "false": "false",
    "zero": "0",
    "negative": "-1",
    "fraction": "0.5",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "beyond float": "1e999",
    "huge integer": "1" + "0" * 400,
    "endless integer": "1" + "0" * 5000,
    "empty text": '""',
    "text": '"x"',
    "half a character": r'"\ud83d"',
    "zero byte": r'"a\u0000b"',
    "long text": f'"{"x" * 5000}"',
    "empty array": "[]",
    "array of null": "[null]",
    "array of array": "[[]]",
    "mixed array": '[1, "x", true, {}, {"url": 5}, {"url": []}, {"content": 5}, {"content": {"url": 5}}]',
    "odd url": r'[{"url": "\ud83d", "width": 1e999, "file_size": true, "content_type": []}]',
    "empty object": "{}",
    "odd code": '{"code": [], "message": {}}',
    "odd message": '{"code": {"a": [1]}, "message": [true], "error_code": 1e999, "error_message": false}',
    "huge code": '{"code": 1' + "0" * 400 + ', "message": 5}',
    "odd metric": '{"inference_time": [1]}',
    "nested": nest(300),
    "deep": nest(950),
    "too deep": nest(20_000),
    "deep code": f'{{"code": {nest(600)}, "message": {nest(600)}}}',
    "deep entry": f'[{{"url": {nest(600)}, "content": {nest(600)}}}]',
}
FIELDS = [
    "status",
    "request_id",
    "error",
    "error_type",
    "provider_error",
    "metrics",
    "queue_position",
    "progress",
    "logs",
    "outputs",
    "output",
    "metadata",
    "detail",
    "message",
    "data",
    "response_url",
]
GOOD = {"status": '"COMPLETED"', "request_id": '"mmsu_1"', "outputs": '[{"url": "https://u"}]'}


def written(fields: dict[str, str]) -> bytes:
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()


def outcome_of(read: Reader, call: Call, answer: Answer) -> object:
    try:
        return read(call, answer)
    except OdiRouterError as error:
        return error


def assert_sane(read: Reader, call: Call, body: bytes, status_codes: list[int]) -> None:
    """Reading ends in a value or an error of ours, whose text can be logged and stored."""
    for status_code in status_codes:
        outcome = outcome_of(read, call, answer(status_code, body))
        assert isinstance(outcome, SANE)
        if isinstance(outcome, OdiRouterError):
            assert len(str(outcome).encode()) < 5000
        if isinstance(outcome, RequestStatus):
            json.dumps(outcome.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(("call", "read"), READERS.values(), ids=READERS)
@pytest.mark.parametrize("body", NOT_JSON_OBJECTS.values(), ids=NOT_JSON_OBJECTS)
def test_a_body_that_is_not_a_json_object_is_an_error_of_ours(call: Call, read: Reader, body: bytes) -> None:
    assert_sane(read, call, body, STATUS_CODES)


@pytest.mark.parametrize(("call", "read"), READERS.values(), ids=READERS)
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_an_odd_value_in_any_field_is_handled(call: Call, read: Reader, value: str) -> None:
    for field in FIELDS:
        for others in ({}, GOOD):
            assert_sane(read, call, written({**others, field: value}), READ_CLOSELY)


@pytest.mark.parametrize(
    "body", [body for name, body in NOT_JSON_OBJECTS.items() if name != "picture"], ids=lambda body: str(body[:12])
)
@pytest.mark.parametrize(("call", "read"), list(READERS.values())[:3], ids=list(READERS)[:3])
def test_a_success_that_cannot_be_read_is_unreadable(call: Call, read: Reader, body: bytes) -> None:
    with pytest.raises(UnreadableAnswerError) as caught:
        read(call, answer(200, body))
    assert caught.value.status_code == 200


@pytest.mark.parametrize("odd", ["true", "[]", '"soon"', "NaN", "1e999", "1" + "0" * 400, "null", "{}"])
def test_values_that_are_not_numbers_become_none(odd: str) -> None:
    body = written({"status": '"IN_QUEUE"', "queue_position": odd, "metrics": f'{{"inference_time": {odd}}}'})
    status = read_status(STATUS, answer(200, body))
    assert (status.queue_position, status.inference_seconds) == (None, None)


def test_a_lone_surrogate_in_the_vendors_message_is_replaced() -> None:
    status = status_of(status="FAILED", error="A cup \ud83d", error_type="BAD\x00TYPE")
    assert status.failure is not None
    assert (status.failure.message, status.failure.error_type) == ("A cup �", "BAD�TYPE")


def test_an_unknown_request_and_an_unknown_endpoint_differ() -> None:
    with pytest.raises(RequestNotFoundError):
        read_status(STATUS, answer(404, {"detail": "Request not found"}))
    with pytest.raises(EndpointNotFoundError):
        read_status(STATUS, answer(404, {"detail": "App not found: gpt_image_1_edit"}))
