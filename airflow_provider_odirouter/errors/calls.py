"""What goes wrong with a call."""

from __future__ import annotations

from airflow_provider_odirouter.errors.base import OdiRouterError


class TransportError(OdiRouterError):
    """No answer of the API came back."""

    passing = True
    advice = "Check the network and the connection's host; a retry may succeed."


class NotSentError(TransportError):
    """The connection could not be opened, so that the call certainly never arrived."""


class NoAnswerError(TransportError):
    """The call went out, but no whole answer came: a time-out, a reset, an answer that breaks off."""


class UnreadableAnswerError(TransportError):
    """
    What came back is not the API's: a proxy's HTML page, an empty body, half a JSON document, a redirect.

    :param status_code: The HTTP status.
    """

    advice = "Check that the connection's host is the API's base URL and that no proxy answers in its place."

    def __init__(
        self, what: str, *, status_code: int, request_id: str | None = None, advice: str | None = None
    ) -> None:
        super().__init__(what, request_id=request_id, advice=advice)
        self.status_code = status_code


class AnswerError(OdiRouterError):
    """
    The API answered with an error.

    :param status_code: The HTTP status.
    :param code: The vendor's error code, if it sent one.
    """

    def __init__(
        self,
        what: str,
        *,
        status_code: int,
        code: str | None = None,
        vendor: str | None = None,
        request_id: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(what, vendor=vendor, request_id=request_id, advice=advice)
        self.status_code = status_code
        self.code = code


class RejectedError(AnswerError):
    """The service rejects the parameters (``400``, ``422``)."""

    retry_helps = False
    advice = "Correct the parameters; a retry would be rejected again."


class AuthenticationError(AnswerError):
    """The API key is missing, wrong, expired or not allowed to use this endpoint (``401``, ``403``)."""

    retry_helps = False
    advice = "Check the API key in the password field of the connection, and what it is allowed to use."


class NoBalanceError(AnswerError):
    """The account has no balance left (``402``, ``403`` with these words, codes 40201 to 40208)."""

    retry_helps = False
    advice = "Top up the OdiRouter account, then clear the task."


class EndpointNotFoundError(AnswerError):
    """The service does not know the endpoint (``404``)."""

    retry_helps = False
    advice = "Check the endpoint's name, and that the connection's host is the API's base URL."


class RequestNotFoundError(AnswerError):
    """The service does not know the request (``404``): wrong id, other endpoint, other key, or too early."""

    advice = "Check that endpoint, request id and API key belong together."


class PathNotFoundError(RequestNotFoundError):
    """The host has no such path (``404``), whatever the request: a wrong base URL, or a gateway during a deployment."""

    passing = True
    advice = "Check that the connection's host is the API's base URL."


class RateLimitedError(AnswerError):
    """Too many calls (``429``)."""

    passing = True
    advice = "Lower the concurrency (an Airflow pool does it), or raise the account's limit; a retry may succeed."
    retry_after: float | None = None
    """Seconds that the service asks to wait, if it said so."""


class ServiceError(AnswerError):
    """The service has an internal error or is not available (``5xx``)."""

    passing = True
    advice = "A retry may succeed."


class LostSubmitError(OdiRouterError):
    """
    A submit went out and its fate is unknown: the request may exist, and may be paid.

    OdiRouter has no idempotency key and no list of requests, so that a second submit could pay twice.
    """

    retry_helps = False
    advice = (
        "The request may be running and may be paid. OdiRouter has no way to find out, so Airflow does not retry: "
        "clear the task to submit again."
    )
