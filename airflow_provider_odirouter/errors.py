"""
Everything that can go wrong, as one tree.

::

    OdiRouterError
    ├── InvalidParametersError      broken rules, all at once; found before anything was sent
    ├── ConnectionSettingsError     the Airflow connection cannot be used
    │   └── ConnectionNotFoundError … or Airflow does not find it
    ├── TransportError              no answer of the API came back
    │   ├── NotSentError            … and the call certainly never arrived
    │   ├── NoAnswerError           … and the call may have arrived: time-out, reset, half an answer
    │   └── UnreadableAnswerError   something else answered: a proxy's page, an empty body
    ├── AnswerError                 the API answered with an error
    │   ├── RejectedError           400, 422: the parameters
    │   ├── AuthenticationError     401, 403: the API key
    │   ├── NoBalanceError          402: the account
    │   ├── EndpointNotFoundError   404: the model
    │   ├── RequestNotFoundError    404: the request
    │   │   └── PathNotFoundError   … or no such path at all: a gateway's answer
    │   ├── RateLimitedError        429
    │   └── ServiceError            5xx
    ├── LostSubmitError             a submit whose fate is unknown; it may have been paid
    ├── RequestError                the request was submitted, and did not end well
    │   ├── RequestFailedError      the service says why
    │   │   └── RequestRefusedError … and would say it again of the same input
    │   ├── RequestCanceledError    somebody cancelled it
    │   ├── RequestTimeoutError     the deadline passed
    │   ├── RequestLostError        the service does not know it any more
    │   └── RequestUnwatchedError   looking failed too often; the request may be alive
    └── LandingError                the pictures could not be brought home
        ├── NoOutputError           the result names no file
        ├── FileExpiredError        the link to a picture is no longer valid
        └── StorageError            a store cannot be written, or does not answer

Three facts about each class decide what happens next, and they are stated here and nowhere else: ``passing`` (the same
call may well succeed a moment later), ``retry_helps`` (a new try of the Airflow task can cure it) and ``request_over``
(a new try has to submit a new request). This module must never import Airflow: the operators translate ``retry_helps``
into Airflow's own exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple


class OdiRouterError(Exception):
    """
    Base of all errors of this provider.

    The text names, in this order: what happened, the vendor's own words, the request id, what to do.

    :param what: What happened, as a sentence.
    :param vendor: The vendor's own words, if there are any.
    :param request_id: The request that it is about, if there is one.
    :param advice: What the user should do; the class has a default.
    """

    passing: ClassVar[bool] = False
    """Whether the same call may succeed a moment later."""
    retry_helps: ClassVar[bool] = True
    """Whether a new try of the Airflow task can cure it."""
    request_over: bool = False
    """Whether nothing is left of the request that a new try could wait for or fetch."""
    advice: str = ""

    def __init__(
        self,
        what: str,
        *,
        vendor: str | None = None,
        request_id: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.vendor = vendor
        self.request_id = request_id
        if advice is not None:
            self.advice = advice

    def __str__(self) -> str:
        parts = [self.what]
        if self.vendor:
            parts.append(f"OdiRouter says: “{self.vendor}”.")
        if self.request_id:
            parts.append(f"Request: {self.request_id}.")
        if self.advice:
            parts.append(self.advice)
        return ("\n" if "\n" in self.what else " ").join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are made again from their positional arguments alone, which would lose the rest.
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[OdiRouterError], args: tuple[object, ...], state: dict[str, object]) -> OdiRouterError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class Problem(NamedTuple):
    """One broken rule."""

    field: str
    """The parameter, with its index where it is one of several: ``images[2]``."""
    message: str
    """The rule, what was given instead, and what to do where that is not plain."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidParametersError(OdiRouterError, ValueError):
    """
    Parameters or input pictures break rules of the endpoint. Nothing was sent, nothing was paid.

    :param endpoint: The endpoint whose rules are broken.
    :param problems: Every broken rule.
    """

    retry_helps = False
    advice = "Correct this; nothing was sent, nothing was paid, and a retry would fail in the same way."

    def __init__(self, endpoint: str, problems: Iterable[Problem]) -> None:
        self.endpoint = endpoint
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"{count} parameter{'s' if count != 1 else ''} of {endpoint} cannot be used:{lines}")


class ConnectionSettingsError(OdiRouterError):
    """The Airflow connection has no API key, or holds something that cannot be used."""

    retry_helps = False
    advice = "Correct the connection (Admin → Connections) and clear the task."


class ConnectionNotFoundError(ConnectionSettingsError):
    """Airflow does not find the connection: it says the same of a secrets backend that is down for a moment."""

    passing = True
    retry_helps = True
    advice = "Create the connection, or name one that exists; a retry helps only if a secrets backend was down."


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


class RequestError(OdiRouterError):
    """A request was submitted and did not end well."""


class RequestFailedError(RequestError):
    """The service ended the request with an error, such as ``INFERENCE_FAILURE``."""

    request_over = True
    advice = "A retry submits a new request."


class RequestRefusedError(RequestFailedError):
    """The service's verdict on the input: ``CONTENT_BLOCKED``, ``REQUEST_INVALID``. The same input gets it again."""

    retry_helps = False
    advice = "Change the prompt or the pictures; a retry would be refused again."


class RequestCanceledError(RequestError):
    """The request was cancelled, but not by this task."""

    request_over = True
    advice = "Find out who cancelled it; a retry submits a new request."


class RequestTimeoutError(RequestError):
    """The deadline passed before the request ended."""


class RequestLostError(RequestError):
    """The service does not know the request any more."""

    request_over = True
    advice = (
        "Check that the endpoint and the API key are this request's own; a retry submits a new request. "
        "If this one was paid, tell OdiRouter's support its id."
    )


class RequestUnwatchedError(RequestError):
    """Looking at the request failed too often in a row; the request itself may be alive."""


class LandingError(OdiRouterError):
    """The pictures of a request that succeeded could not be brought home."""

    advice = (
        "A retry submits a new request, and pays for it; an OdiRouterRequestSensor with this request id fetches the "
        "pictures of this one."
    )


class NoOutputError(LandingError):
    """The result of a request that succeeded names no file."""

    retry_helps = False
    request_over = True
    advice = "Report this to OdiRouter with the request's id; a new request would be paid anew."


class FileExpiredError(LandingError):
    """The link to a picture is no longer valid (``403``, ``404``, ``410``); a fresh result has fresh links."""


class StorageError(LandingError):
    """The store of the outputs cannot be written, or that of the inputs does not answer."""

    advice = "Check the path, its permissions and the free space, then retry."
