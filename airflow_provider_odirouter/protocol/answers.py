"""Reads the answer to each call. Unknown fields are kept or ignored; they are never an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_odirouter.errors import (
    NoOutputError,
    PathNotFoundError,
    RejectedError,
    RequestNotFoundError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.models import (
    CancelOutcome,
    Failure,
    RequestResult,
    RequestState,
    RequestStatus,
    Submission,
)
from airflow_provider_odirouter.protocol.calls import Answer, Call, is_safe_request_id
from airflow_provider_odirouter.protocol.error_mapping import error_from_answer
from airflow_provider_odirouter.protocol.json_bodies import (
    code_and_message,
    finite_number,
    is_storable_object,
    json_object_in,
    message_text,
    shorten,
)
from airflow_provider_odirouter.protocol.outputs import count_without_file, describe_unread, find_outputs
from airflow_provider_odirouter.redaction import MASK

NOT_YET = re.compile(
    r"\b(still|currently) (in progress|in queue|running|processing|pending)\b|\bnot (yet )?(complete|ready|finished)"
    r"|^(request is )?in[ _](progress|queue)\b",
    re.IGNORECASE,
)
"""How a refusal of a result says that there is none yet."""


def read_submission(call: Call, answer: Answer) -> Submission:
    """
    Read the answer to a submit.

    :raises OdiRouterError: If the answer is an error, or has no request id.
    """
    document = json_object_in(answer)
    request_id = document.get("request_id") if document else None
    if type(request_id) is int and document:
        document["request_id"] = request_id = str(request_id)
    if answer.is_success and document and isinstance(request_id, str) and is_safe_request_id(request_id):
        return Submission.model_validate(document)
    if answer.is_success and isinstance(request_id, str) and MASK in request_id:
        # The id is redacted, so it cannot be used; unredacted, it must not be stored.
        what = f"The request id in the answer to the submit of {call.endpoint} holds a secret of the connection."
        raise UnreadableAnswerError(what, status_code=answer.status_code)
    raise error_from_answer(call, answer)


def read_status(call: Call, answer: Answer) -> RequestStatus:
    """
    Read the answer to a poll.

    :raises OdiRouterError: If the answer is an error, or not a status.
    """
    document = json_object_in(answer)
    raw_status = document.get("status") if document else None
    if not answer.is_success or document is None or not isinstance(raw_status, str):
        raise error_from_answer(call, answer)
    metrics = document.get("metrics")
    inference = metrics.get("inference_time") if isinstance(metrics, dict) else None
    queue_position = finite_number(document.get("queue_position"))
    failure = _failure(document)
    return RequestStatus(
        state=_state(raw_status, failure),
        raw_status=shorten(raw_status),
        queue_position=None if queue_position is None else int(queue_position),
        inference_seconds=finite_number(inference),
        failure=failure,
    )


def _state(raw_status: str, failure: Failure | None) -> RequestState:
    match raw_status.strip().upper():
        case "IN_QUEUE" | "QUEUED" | "PENDING":
            return RequestState.IN_QUEUE
        case "IN_PROGRESS":
            return RequestState.IN_PROGRESS
        case "CANCELED" | "CANCELLED":
            return RequestState.CANCELED
        case "COMPLETED" | "FAILED" as status:
            if failure and failure.error_type in {"CANCELED", "CANCELLED"}:
                return RequestState.CANCELED
            return RequestState.FAILED if failure or status == "FAILED" else RequestState.SUCCEEDED
        case _:
            return RequestState.UNKNOWN


def _failure(document: Mapping[str, Any]) -> Failure | None:
    code, message = code_and_message({"error": document.get("error")})
    error_type = message_text(document.get("error_type")) or code
    provider = document.get("provider_error")
    if isinstance(provider, dict):
        texts = (message_text(provider.get(key)) for key in ("code", "message"))
        details = ": ".join(text for text in texts if text and text != message)
        message = shorten(f"{message or 'the model provider failed'} ({details})") if details else message
    if not error_type and not document.get("error"):
        return None
    return Failure(error_type=error_type.upper() if error_type else None, message=message)


def read_result(call: Call, answer: Answer) -> RequestResult | RequestStatus:
    """
    Read the answer to a call for the result; it is a status if the request has not ended (documented: ``202``).

    :raises NoOutputError: If the result names no file.
    :raises ServiceError: If the result is refused since there is none yet, as fal.ai does.
    :raises OdiRouterError: If the answer is an error.
    """
    if answer.status_code == 202:
        return read_status(call, answer)
    document = json_object_in(answer)
    if answer.status_code in {400, 409, 422} and (words := _words_of_not_yet(document or {})):
        what = f"OdiRouter does not have the result of {call.endpoint} yet ({answer.status_code})."
        raise ServiceError(what, status_code=answer.status_code, vendor=words, request_id=call.request_id)
    if not answer.is_success or document is None:
        raise error_from_answer(call, answer)
    outputs = find_outputs(document, call.base_url)
    if not outputs and isinstance(document.get("status"), dict):
        raise error_from_answer(call, answer)
    if not outputs and isinstance(document.get("status"), str):
        status = read_status(call, answer)
        if not status.state.is_terminal:
            return status
    if not outputs:
        raise NoOutputError(
            f"The result of {call.endpoint} names no file; {describe_unread(document)}",
            vendor=code_and_message(document)[1],
            request_id=call.request_id,
        )
    metadata = document.get("metadata")
    return RequestResult(
        outputs=outputs,
        without_url=count_without_file(document),
        metadata=metadata if is_storable_object(metadata) else {},
    )


def _words_of_not_yet(document: Mapping[str, Any]) -> str | None:
    """Return the words of a refusal that say that a request has not ended; ``None``: it says something else."""
    words = code_and_message(document)[1] or message_text(document.get("status"))
    return words if words and NOT_YET.search(words) else None


def read_cancel(call: Call, answer: Answer) -> CancelOutcome:
    """
    Read the answer to a cancel. The vendor documents no answers; these are fal.ai's, whose protocol it uses.

    :raises OdiRouterError: If the answer is an error.
    """
    text = answer.body.decode(errors="replace").upper().replace("_", " ")
    if "ALREADY COMPLETED" in text and answer.status_code < 500:
        return CancelOutcome.ALREADY_COMPLETED
    if answer.is_success:
        return CancelOutcome.REQUESTED
    if answer.status_code in {405, 501}:
        return CancelOutcome.UNSUPPORTED
    error = error_from_answer(call, answer)
    if isinstance(error, PathNotFoundError | RejectedError):
        return CancelOutcome.UNSUPPORTED
    if isinstance(error, RequestNotFoundError):
        return CancelOutcome.NOT_FOUND
    raise error
