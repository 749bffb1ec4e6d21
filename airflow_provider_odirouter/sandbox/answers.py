"""The bodies of submit, status and result, in each of the forms that the settings can choose."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_odirouter.sandbox.engine import Failure, QueuedRequest, State
from airflow_provider_odirouter.sandbox.wire import Answer, html_answer, json_answer

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.pictures import PictureFile
    from airflow_provider_odirouter.sandbox.settings import ResultShape, SandboxSettings, StatusWords

_WORDS: dict[StatusWords, tuple[str, str, str]] = {
    "lower": ("in_queue", "in_progress", "completed"),
    "queued": ("QUEUED", "IN_PROGRESS", "COMPLETED"),
    "pending": ("PENDING", "PROCESSING", "COMPLETED"),
    "unknown": ("WARMING_UP", "POLISHING", "COMPLETED"),
}
_DOCUMENTED = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
_CANCELED: dict[StatusWords, str] = {"failed": "CANCELED", "cancelled": "CANCELLED"}


def submit_answer(request: QueuedRequest, origin: str) -> Answer:
    """
    Answer an accepted submit.

    :param request: The new request.
    :param origin: What its URLs begin with.
    """
    shape = request.scope.settings.submit_shape
    if shape == "html":
        return html_answer(200)
    if shape == "empty":
        return Answer()
    if shape == "bare":
        return json_answer({"request_id": request.request_id, "status": "QUEUED"})
    urls = {f"{name}_url": _url(request, origin, name) for name in ("response", "status", "cancel")}
    identity = {} if shape == "no_id" else {"request_id": request.request_id}
    return json_answer({**identity, **urls, "queue_position": 0})


def status_body(request: QueuedRequest, origin: str, now: float) -> dict[str, Any]:
    """
    Describe a request.

    :param request: The request.
    :param origin: What its URLs begin with.
    :param now: The clock's time.
    """
    state = request.state(now)
    failure = request.failure if state is State.COMPLETED else None
    body: dict[str, Any] = {
        "status": _word(request.scope.settings.status_words, state, failure),
        "request_id": request.request_id,
        "response_url": _url(request, origin, "response"),
    }
    if state is State.IN_QUEUE:
        return {**body, "queue_position": 0}
    body["logs"] = [{"message": "The sandbox began to paint.", "timestamp": _iso(request.starts_at)}]
    if state is State.IN_PROGRESS:
        done = (now - request.starts_at) / (request.ends_at - request.starts_at)
        return {**body, "progress": round(done, 3)}
    body["metrics"] = {"inference_time": round(max(0.0, request.ends_at - request.starts_at), 3)}
    return {**body, **(_failure(failure, request.scope.settings) if failure else {"progress": 1.0})}


def result_body(request: QueuedRequest, files: list[tuple[str, PictureFile]]) -> dict[str, Any]:
    """
    List a request's pictures.

    :param request: The request.
    :param files: Each picture, with its URL.
    """
    body = {"request_id": request.request_id, "metadata": {"prompt": request.order.prompt}}
    shape = request.scope.settings.result_shape
    if shape == "none":
        return body
    if shape == "output":
        return {**body, "output": [{"content": [{"type": "image", "url": url} for url, _ in files]}]}
    if shape == "b64_json":
        return {**body, "data": [{"b64_json": _base64(file)} for _, file in files]}
    records = [
        {
            "type": "video" if file.format == "mp4" else "image",
            "url": _link(url, file, shape),
            "content_type": request.scope.settings.file_content_type or file.content_type,
            "file_name": url.partition("?")[0].rpartition("/")[2],
            "file_size": len(file.data),
            "width": file.width,
            "height": file.height,
        }
        for url, file in files
    ]
    if shape == "no_url":
        for record in records:
            del record["url"]
    if shape in {"images", "image"}:
        for record in records:
            del record["type"]
        return {**body, "images": records} if shape == "images" else {**body, "image": records[0]}
    return {**body, "outputs": records}


def _link(url: str, file: PictureFile, shape: ResultShape) -> str:
    if shape == "data_url":
        return f"data:{file.content_type};base64,{_base64(file)}"
    address = urlsplit(url)
    return f"{address.path}?{address.query}" if shape == "relative" else url


def _base64(file: PictureFile) -> str:
    return base64.b64encode(file.data).decode()


def _word(words: StatusWords, state: State, failure: Failure | None) -> str:
    if failure and words in _CANCELED:
        return _CANCELED[words] if failure.error_type == "CANCELED" else "FAILED"
    return dict(zip(State, _WORDS.get(words, _DOCUMENTED), strict=True))[state]


def _failure(failure: Failure, settings: SandboxSettings) -> dict[str, Any]:
    provider_error = {"code": failure.error_type.lower(), "message": failure.message}
    body: dict[str, Any] = {"error_type": failure.error_type, "provider_error": provider_error}
    if settings.error_shape == "string":
        body["error"] = failure.message
    elif settings.error_shape != "absent":
        body["error"] = {"code": failure.error_type, settings.error_shape: failure.message}
    return body


def _url(request: QueuedRequest, origin: str, name: str) -> str:
    origin = request.scope.settings.answer_origin or origin
    return f"{origin}/model/v1/queue/{request.endpoint}/requests/{request.request_id}/{name}"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
