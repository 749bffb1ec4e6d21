"""Error answers (4xx), in each of the bodies that clients have seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_provider_odirouter.sandbox.wire import Answer, html_answer, json_answer

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.settings import ErrorBody


class RefusalError(Exception):
    """
    The service refuses a call.

    :param status: Status code.
    :param message: What is wrong.
    :param code: The error's code in words.
    :param number: The error's code as a number, for the ``envelope`` body.
    :param body: The body that is documented for this refusal.
    :param headers: Additional headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "INVALID_REQUEST",
        number: int | None = None,
        body: ErrorBody = "detail",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.number = number or status * 100
        self.body = body
        self.headers = headers or {}

    def answer(self, body: ErrorBody, trace_id: str) -> Answer:
        """
        Return the refusal as an answer.

        :param body: The wanted shape; ``documented`` is the refusal's own.
        :param trace_id: The ``request_id`` that error objects carry.
        """
        shape = self.body if body == "documented" else body
        if shape == "html":
            return html_answer(self.status, self.headers)
        if shape == "empty":
            return Answer(self.status, self.headers)
        contents = {
            "object": {"error": {"code": self.code, "message": self.message}, "request_id": trace_id},
            "string": {"error": self.message},
            "envelope": {
                "status": {"code": self.status, "message": self.message, "error_code": self.number},
                "data": None,
            },
            "message": {"message": self.message},
            "detail": {"detail": self.message},
        }
        return json_answer(contents[shape], self.status, self.headers)


def unauthorized() -> RefusalError:
    """No key, or a wrong one."""
    message = "Authorization Bearer token is required and has to be valid"
    return RefusalError(401, message, code="UNAUTHORIZED", body="object")


def no_balance(shape: str) -> RefusalError:
    """The credits are used up."""
    if shape == "403":
        return RefusalError(403, "insufficient balance", code="FORBIDDEN", body="object")
    return RefusalError(402, "Insufficient credits", code="PAYMENT_REQUIRED", number=40201, body="envelope")
