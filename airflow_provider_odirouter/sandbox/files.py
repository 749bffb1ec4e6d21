"""Result files: signed URLs that expire, outside the API and without a key."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from secrets import token_bytes
from typing import TYPE_CHECKING

from airflow_provider_odirouter.sandbox.refusals import RefusalError
from airflow_provider_odirouter.sandbox.wire import Answer, Call, html_answer

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.engine import QueuedRequest
    from airflow_provider_odirouter.sandbox.pictures import PictureFile
    from airflow_provider_odirouter.sandbox.settings import SandboxSettings

FILE_PATH = re.compile(r"/files/(?P<request_id>\w+)/(?P<number>\d{1,3})\.(?:png|jpeg|webp|svg|avif|tiff|bmp|mp4)")


class Signer:
    """Signs file URLs, and checks the signature."""

    def __init__(self) -> None:
        self._secret = token_bytes(16)

    def sign(self, origin: str, request: QueuedRequest, number: int, file: PictureFile, expires: float) -> str:
        """
        Make a URL.

        :param origin: What it begins with.
        :param request: The request that made the file.
        :param number: Which of the request's files.
        :param file: The file.
        :param expires: When the URL expires.
        """
        path = f"/files/{request.request_id}/{number}.{file.format}"
        return f"{origin}{path}?expires={expires}&signature={self._signature(path, str(expires))}"

    def check(self, call: Call, now: float, expired_status: int) -> None:
        """
        Check a URL.

        :param call: The call.
        :param now: The clock's time.
        :param expired_status: Status code for an expired URL.
        :raises RefusalError: If the URL is not the sandbox's own, or has expired.
        """
        expires, signature = call.parameters.get("expires", ""), call.parameters.get("signature", "")
        if not hmac.compare_digest(signature.encode(), self._signature(call.path, expires).encode()):
            raise RefusalError(403, "SignatureDoesNotMatch", code="ACCESS_DENIED")
        if now > float(expires):
            raise RefusalError(expired_status, "Request has expired", code="EXPIRED")

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()[:32]


def file_answer(file: PictureFile, settings: SandboxSettings) -> Answer:
    """
    Serve a file, or a broken one.

    :param file: The file.
    :param settings: Their ``file_fault`` says how the file is broken.
    """
    answer = Answer(200, {"content-type": settings.file_content_type or file.content_type}, file.data)
    match settings.file_fault:
        case "404":
            raise RefusalError(404, "Not Found")
        case "html":
            return html_answer(200)
        case "endless":
            return replace(answer, delivery="endless")
        case "truncated":
            return replace(answer, delivery="half")
        case "cut":
            return replace(answer, body=file.data[:-1])
        case "empty":
            return replace(answer, body=b"")
        case "slow":
            return replace(answer, delivery="slow", trickle=settings.slow_seconds)
    return answer
