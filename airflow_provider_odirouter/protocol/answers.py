"""How each answer reads. Unknown fields are kept or passed over, never an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from airflow_provider_odirouter.errors import (
    NoOutputError,
    PathNotFoundError,
    RejectedError,
    RequestNotFoundError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.models import (
    CancelOutcome,
    Failure,
    OutputFile,
    RequestResult,
    RequestState,
    RequestStatus,
    Submission,
)
from airflow_provider_odirouter.protocol.bodies import (
    document_of,
    is_small_object,
    number_of,
    shortened,
    text_of,
    words_of,
)
from airflow_provider_odirouter.protocol.calls import Answer, Call, is_safe_request_id
from airflow_provider_odirouter.protocol.refusals import error_of
from airflow_provider_odirouter.redaction import MASK


def read_submission(call: Call, answer: Answer) -> Submission:
    """
    Read the answer to a submit.

    :raises OdiRouterError: If it is an error, or has no request id.
    """
    document = document_of(answer)
    request_id = document.get("request_id") if document else None
    if type(request_id) is int and document:
        document["request_id"] = request_id = str(request_id)
    if answer.is_success and document and isinstance(request_id, str) and is_safe_request_id(request_id):
        return Submission.model_validate(document)
    if answer.is_success and isinstance(request_id, str) and MASK in request_id:
        # It cannot be used as it is shown, and must not be noted as it is.
        what = f"The request id in the answer to the submit of {call.endpoint} holds a secret of the connection."
        raise UnreadableAnswerError(what, status_code=answer.status_code)
    raise error_of(call, answer)


def read_status(call: Call, answer: Answer) -> RequestStatus:
    """
    Read the answer to a look.

    :raises OdiRouterError: If it is an error, or not a status.
    """
    document = document_of(answer)
    word = document.get("status") if document else None
    if not answer.is_success or document is None or not isinstance(word, str):
        raise error_of(call, answer)
    metrics = document.get("metrics")
    inference = metrics.get("inference_time") if isinstance(metrics, dict) else None
    queue_position = number_of(document.get("queue_position"))
    failure = _failure(document)
    return RequestStatus(
        state=_state(word, failure),
        word=shortened(word),
        queue_position=None if queue_position is None else int(queue_position),
        progress=number_of(document.get("progress")),
        inference_seconds=number_of(inference),
        failure=failure,
    )


def _state(word: str, failure: Failure | None) -> RequestState:
    match word.strip().upper():
        case "IN_QUEUE" | "QUEUED" | "PENDING":
            return RequestState.IN_QUEUE
        case "IN_PROGRESS":
            return RequestState.IN_PROGRESS
        case "CANCELED" | "CANCELLED":
            return RequestState.CANCELED
        case "COMPLETED" | "FAILED" as end:
            if failure and failure.error_type in {"CANCELED", "CANCELLED"}:
                return RequestState.CANCELED
            return RequestState.FAILED if failure or end == "FAILED" else RequestState.SUCCEEDED
        case _:
            return RequestState.UNKNOWN


def _failure(document: Mapping[str, Any]) -> Failure | None:
    code, message = words_of({"error": document.get("error")})
    error_type = text_of(document.get("error_type")) or code
    provider = document.get("provider_error")
    if isinstance(provider, dict):
        words = (text_of(provider.get(key)) for key in ("code", "message"))
        details = ": ".join(word for word in words if word and word != message)
        message = shortened(f"{message or 'the model provider failed'} ({details})") if details else message
    if not error_type and not document.get("error"):
        return None
    return Failure(error_type=error_type.upper() if error_type else None, message=message)


def read_result(call: Call, answer: Answer) -> RequestResult | RequestStatus:
    """
    Read the answer to a fetch of the outputs; a status where the request has not ended (documented: ``202``).

    :raises NoOutputError: If it names no file.
    :raises OdiRouterError: If it is an error.
    """
    if answer.status_code == 202:
        return read_status(call, answer)
    document = document_of(answer)
    if not answer.is_success or document is None:
        raise error_of(call, answer)
    records = [*_list(document.get("outputs"))]
    for message in _list(document.get("output")):
        records += _list(message.get("content")) if isinstance(message, dict) else []
    by_link = {record["url"]: record for record in records if _has_link(record)}
    outputs = tuple(map(_output, by_link.values()))
    if not outputs and isinstance(document.get("status"), dict):
        raise error_of(call, answer)
    if not outputs and isinstance(document.get("status"), str):
        status = read_status(call, answer)
        if not status.state.terminal:
            return status
    if not outputs:
        raise NoOutputError(
            f"The result of {call.endpoint} names no file; its keys are {', '.join(sorted(document)) or 'none'}.",
            vendor=words_of(document)[1],
            request_id=call.request_id,
        )
    metadata = document.get("metadata")
    return RequestResult(
        outputs=outputs,
        without_link=sum(not _has_link(record) for record in _list(document.get("outputs"))),
        metadata=metadata if is_small_object(metadata) else {},
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _has_link(record: object) -> bool:
    return isinstance(record, dict) and isinstance(record.get("url"), str) and bool(record["url"])


def _output(record: dict[str, Any]) -> OutputFile:
    try:
        return OutputFile.model_validate(record)
    except ValidationError:
        # Only the link and the kind matter: what else it says is measured when the file has landed.
        kind = {name: value for name in ("type", "content_type") if isinstance(value := record.get(name), str)}
        return OutputFile(url=record["url"], **kind)


def read_cancel(call: Call, answer: Answer) -> CancelOutcome:
    """
    Read the answer to a cancel. The vendor documents none; these are those of fal.ai, whose protocol it is.

    :raises OdiRouterError: If it is an error.
    """
    text = answer.body.decode(errors="replace").upper().replace("_", " ")
    if "ALREADY COMPLETED" in text and answer.status_code < 500:
        return CancelOutcome.ALREADY_COMPLETED
    if answer.is_success:
        return CancelOutcome.REQUESTED
    if answer.status_code in {405, 501}:
        return CancelOutcome.UNSUPPORTED
    error = error_of(call, answer)
    if isinstance(error, PathNotFoundError | RejectedError):
        return CancelOutcome.UNSUPPORTED
    if isinstance(error, RequestNotFoundError):
        return CancelOutcome.NOT_FOUND
    raise error
