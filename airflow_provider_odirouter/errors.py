"""
All errors of this provider, as one tree.

::

    OdiRouterError
    ├── InvalidParametersError       parameters break the endpoint's rules; found before anything was sent
    │   └── NamesTakenError          files that the task has not made have the names of its outputs
    ├── ConnectionSettingsError      the Airflow connection cannot be used
    │   ├── EnvironmentSettingsError the proxy or TLS settings of the process cannot be used
    │   └── ConnectionNotFoundError  Airflow does not find the connection
    ├── TransportError               no answer from the API
    │   ├── NotSentError             the call certainly did not arrive
    │   ├── NoAnswerError            the call may have arrived: time-out, reset, incomplete answer
    │   └── UnreadableAnswerError    something else answered: a proxy's page, an empty body
    ├── AnswerError                  the API answered with an error
    │   ├── RejectedError            400, 422: the parameters
    │   ├── AuthenticationError      401, 403: the API key
    │   ├── NoBalanceError           402: the account
    │   ├── EndpointNotFoundError    404: the endpoint
    │   ├── RequestNotFoundError     404: the request
    │   │   └── PathNotFoundError    404: the URL's path; a wrong base URL, or a gateway
    │   ├── RateLimitedError         429
    │   └── ServiceError             5xx
    ├── LostSubmitError              a submit that may have arrived, and may be paid
    ├── SubmitLimitError             the task has submitted as often as it may
    ├── RequestError                 a request was submitted, but did not succeed
    │   ├── RequestFailedError       the service reports a failure
    │   │   └── RequestRefusedError  the service refuses the input, and would refuse it again
    │   ├── RequestCanceledError     cancelled, but not by this task
    │   ├── RequestTimeoutError      the deadline passed
    │   ├── RequestLostError         the service no longer knows the request
    │   └── RequestUnreachableError  too many polls failed in a row; the request may be alive
    ├── BatchFailedError             edits of a batch failed
    │   └── BatchRefusedError        edits of a batch failed, and a retry helps none of them
    ├── ReviewError                  pictures cannot be reviewed, or their review has no outcome
    │   └── NoneApprovedError        a person has approved no picture, and the task is to fail then
    ├── BatchStateError              the state of a batch cannot be read
    │   └── BatchStateMissingError   the state of a batch is missing
    └── LandingError                 outputs could not be downloaded or stored
        ├── NoOutputError            the result names no file
        ├── FileExpiredError         the link to an output has expired
        ├── PrivateAddressError      the link to an output leads to an address that is not public
        └── StorageError             a store cannot be written, or does not answer
            ├── UnusablePathError    a path that no store can use
            └── OutputExistsError    another process has written a file at an output's path

:class:`NotOwnerError` and :class:`SubmitStoppedError` are outside the tree: they end the task's work in this process,
and code that handles the failure of a call or a request must not catch them.

Three facts about each class decide what happens next, and only this module states them: ``is_transient`` (the same call
may succeed a moment later), ``retry_helps`` (a retry of the Airflow task may succeed) and ``request_over`` (a retry has
to submit a new request). This module must never import Airflow: the operators translate ``retry_helps`` into Airflow's
own exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

# --- Base


class OdiRouterError(Exception):
    """
    Base of all errors of this provider.

    Its text says, in this order: what happened, the vendor's own words, the request id, what to do.

    :param what: What happened, as a sentence.
    :param vendor: The vendor's own words. Default: none.
    :param request_id: The request that the error is about. Default: none.
    :param advice: What the user should do. Default: the advice of the class.
    :param last_advice: What the user should do if Airflow does not try again. Default: the same; without ``advice``,
        that of the class.
    """

    is_transient: ClassVar[bool] = False
    """Whether the same call may succeed a moment later."""
    retry_helps: ClassVar[bool] = True
    """Whether a retry of the Airflow task may succeed."""
    request_over: bool = False
    """Whether a retry can neither wait for the request nor fetch its result."""
    advice: str = ""
    last_advice: str = ""
    """What to do if Airflow does not try again; empty: the same."""
    landed: tuple[str, ...] = ()
    """The names of the files that have landed although other outputs of the same request have not."""

    def __init__(
        self,
        what: str,
        *,
        vendor: str | None = None,
        request_id: str | None = None,
        advice: str | None = None,
        last_advice: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.vendor = vendor
        self.request_id = request_id
        if advice is not None:
            self.advise(advice, last_advice)

    def advise(self, advice: str, last_advice: str | None = None) -> None:
        """
        Replace the advice.

        :param last_advice: What to do if Airflow does not try again. Default: the same.
        """
        self.advice, self.last_advice = advice, last_advice or ""

    def be_last(self) -> None:
        """Give the advice for an error after which Airflow does not try again."""
        self.advise(self.last_advice or self.advice)

    def __str__(self) -> str:
        return self._join(self.advice)

    def facts(self) -> str:
        """Return the text without the advice, which would mislead where the provider itself tries again."""
        return self._join("")

    def _join(self, advice: str) -> str:
        vendor = f"OdiRouter says: “{self.vendor}”." if self.vendor else ""
        request = f"Request: {self.request_id}." if self.request_id else ""
        separator = "\n" if "\n" in self.what else " "
        return separator.join(part for part in (self.what, vendor, request, advice) if part)

    def __reduce__(self) -> tuple[object, ...]:
        # By default, pickle calls the class with the positional arguments alone, and the rest would be lost.
        return _unpickle, (type(self), self.args, self.__dict__)


def _unpickle(kind: type[OdiRouterError], args: tuple[object, ...], state: dict[str, object]) -> OdiRouterError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class NotOwnerError(Exception):
    """
    This process no longer acts for its task: it must submit, cancel and write nothing more.

    Not an :class:`OdiRouterError`: code that handles the failure of a call or a request must let it pass.
    """


class SubmitStoppedError(RuntimeError):
    """
    The task was killed before the submit: it was certainly not sent.

    Not an :class:`OdiRouterError`, for the same reason.
    """


# --- Before a call


MAX_LINES = 200
"""Problems that one text lists: a list of thousands usually repeats the same mistake."""


class Problem(NamedTuple):
    """One broken rule."""

    field: str
    """The parameter, with its index if it is one of several: ``images[2]``."""
    message: str
    """The rule, the given value, and what to do if that is not obvious."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidParametersError(OdiRouterError, ValueError):
    """
    Parameters or input pictures break rules of the endpoint. Nothing was sent, and nothing was paid for them.

    :param endpoint: The endpoint whose rules are broken.
    :param problems: Every broken rule.
    """

    retry_helps = False
    advice = "Correct this; nothing was sent, and nothing was paid."
    last_advice = "Correct this, then clear the task; nothing was sent, and nothing was paid."
    advice_after_first_try = "Correct this, then clear the task; this try has submitted nothing."
    """An earlier try may have paid."""

    def __init__(self, endpoint: str, problems: Iterable[Problem]) -> None:
        self.endpoint = endpoint
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems[:MAX_LINES])
        if count > MAX_LINES:
            lines += f"\n  … and {count - MAX_LINES:,} more"
        super().__init__(f"{count} parameter{'s' if count != 1 else ''} of {endpoint} cannot be used:{lines}")


class NamesTakenError(InvalidParametersError):
    """
    Files of the output path, which the task has not made, have the names of its outputs.

    :param endpoint: Of the task.
    :param problems: Every edit whose name is taken.
    """

    choices = (
        'Move these files away, or give the edits other names. Or set if_exists="overwrite", which replaces these '
        'files, or if_exists="new_name", which keeps them and writes cup-2-0.png beside cup-0.png.'
    )
    advice = f"{choices} Nothing was sent, and nothing was paid."
    last_advice = f"{choices} Then clear the task; nothing was sent, and nothing was paid."
    advice_after_first_try = f"{choices} Then clear the task; this try has submitted nothing."


class ConnectionSettingsError(OdiRouterError):
    """The Airflow connection has no API key, or a field that cannot be used."""

    retry_helps = False
    advice = "Correct the connection (Admin → Connections) and clear the task."


class EnvironmentSettingsError(ConnectionSettingsError):
    """An environment variable of the process cannot be used, such as ``HTTPS_PROXY`` or ``SSL_CERT_FILE``."""

    retry_helps = True
    advice = (
        "Correct the environment of the workers and of the triggerer, and restart them; a retry helps then, or on a "
        "worker whose environment is right."
    )
    last_advice = "Correct the environment of the workers and of the triggerer, and restart them; then clear the task."


class ConnectionNotFoundError(ConnectionSettingsError):
    """Airflow does not find the connection. It gives the same answer while a secrets backend is down."""

    is_transient = True
    retry_helps = True
    advice = "Create the connection, or name one that exists; a retry helps only if a secrets backend was down."
    last_advice = (
        "Create the connection, or name one that exists, or wait until the secrets backend answers again; then clear "
        "the task."
    )


# --- Calls


class TransportError(OdiRouterError):
    """
    No answer from the API.

    :param hint: What to mend, if the error shows the likely cause; it replaces the advice.
    """

    is_transient = True
    advice = "Check the network and the connection's host; a retry may succeed."
    last_advice = "Check the network and the connection's host, then clear the task."

    def __init__(
        self, what: str, *, request_id: str | None = None, advice: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(what, request_id=request_id, advice=advice)
        self.hint = hint
        if hint:
            self.advise(f"{hint} A retry helps only after this is corrected.", f"{hint} Then clear the task.")


class NotSentError(TransportError):
    """The connection could not be opened, so the call certainly did not arrive."""


class NoAnswerError(TransportError):
    """The call was sent, but no complete answer came: a time-out, a reset, an answer that breaks off."""


class UnreadableAnswerError(TransportError):
    """
    The answer is not the API's: a proxy's HTML page, an empty body, half a JSON document, a redirect.

    :param status_code: The HTTP status.
    """

    advice = "Check that the connection's host is the API's base URL and that no proxy answers in its place."
    last_advice = (
        "Check that the connection's host is the API's base URL and that no proxy answers in its place; then clear "
        "the task."
    )

    def __init__(
        self, what: str, *, status_code: int, request_id: str | None = None, advice: str | None = None
    ) -> None:
        super().__init__(what, request_id=request_id, advice=advice)
        self.status_code = status_code


class AnswerError(OdiRouterError):
    """
    The API answered with an error.

    :param status_code: The HTTP status.
    :param code: The vendor's error code. Default: none.
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
    advice = "Correct the parameters: OdiRouter would reject them again."
    last_advice = "Correct the parameters, then clear the task."


class AuthenticationError(AnswerError):
    """The API key is missing, wrong, expired or not allowed to use this endpoint (``401``, ``403``)."""

    retry_helps = False
    advice = "Check the API key in the password field of the connection, and which endpoints it may use."
    last_advice = f"{advice} Then clear the task."


class NoBalanceError(AnswerError):
    """The account has no balance left (``402``, ``403`` "insufficient balance", codes 40201 to 40208)."""

    retry_helps = False
    advice = "Top up the OdiRouter account, then clear the task."


class EndpointNotFoundError(AnswerError):
    """The service does not know the endpoint (``404``)."""

    retry_helps = False
    advice = "Check the endpoint's name, and that the connection's host is the API's base URL."
    last_advice = f"{advice} Then clear the task."


class RequestNotFoundError(AnswerError):
    """The service does not know the request (``404``): wrong id, other endpoint, other key, or too early."""

    advice = "Check that endpoint, request id and API key belong together."
    last_advice = f"{advice} Then clear the task."


class PathNotFoundError(RequestNotFoundError):
    """A ``404`` that is not the API's own: a wrong base URL, or a gateway during a deployment."""

    is_transient = True
    advice = "Check that the connection's host is the API's base URL."
    last_advice = f"{advice} Then clear the task."


class RateLimitedError(AnswerError):
    """Too many calls (``429``)."""

    is_transient = True
    advice = "Lower the concurrency (an Airflow pool does it), or raise the account's limit; a retry may succeed."
    last_advice = "Lower the concurrency (an Airflow pool does it), or raise the account's limit; then clear the task."
    retry_after: float | None = None
    """Seconds that the service asks to wait; ``None``: it does not say."""
    was_sent: bool = True
    """Whether the call was sent; if not, an earlier ``Retry-After`` still holds."""


class ServiceError(AnswerError):
    """The service has an internal error or is not available (``5xx``)."""

    is_transient = True
    advice = "A retry may succeed."
    last_advice = "Clear the task when the service works again."


class LostSubmitError(OdiRouterError):
    """
    A submit was sent, and it is unknown whether it arrived: the request may exist, and may be paid.

    OdiRouter has neither an idempotency key nor a list of requests, so a second submit could pay twice.
    """

    retry_helps = False
    advice = (
        "The request may be running and may be paid. OdiRouter has no way to find out, so Airflow does not retry: "
        "clear the task to submit again."
    )


class SubmitLimitError(OdiRouterError):
    """
    The task has submitted as often as ``max_submits`` allows, all its tries together; the next submit was not sent.

    :param max_submits: The limit.
    :param spent: What the task has spent.
    """

    retry_helps = False
    advice = "To submit more, raise max_submits, and clear the task."

    def __init__(self, max_submits: int, spent: str) -> None:
        super().__init__(f"max_submits is {max_submits:,}, and this task has spent, in all its tries: {spent}.")


# --- Requests


class RequestError(OdiRouterError):
    """A request was submitted, but did not succeed."""


class RequestFailedError(RequestError):
    """The service ended the request with an error, such as ``INFERENCE_FAILURE``."""

    request_over = True
    advice = "A retry submits a new request."
    last_advice = "To submit a new request, clear the task."


class RequestRefusedError(RequestFailedError):
    """The service refuses this input, now and in each retry: ``CONTENT_BLOCKED``, ``REQUEST_INVALID``."""

    retry_helps = False
    advice = "Change the prompt or the pictures: OdiRouter would refuse them again."
    last_advice = "Change the prompt or the pictures, then clear the task."


class RequestCanceledError(RequestError):
    """The request was cancelled, but not by this task."""

    request_over = True
    advice = "Find out who cancelled it; a retry submits a new request."
    last_advice = "Find out who cancelled it; to submit a new request, clear the task."


class RequestTimeoutError(RequestError):
    """The deadline passed before the request ended."""


class RequestLostError(RequestError):
    """The service no longer knows the request."""

    request_over = True
    advice = (
        "Check that the endpoint and the API key belong to this request; a retry submits a new request. "
        "If this one was paid, give its id to OdiRouter's support."
    )
    last_advice = (
        "Check that the endpoint and the API key belong to this request; to submit a new request, clear the task. "
        "If this one was paid, give its id to OdiRouter's support."
    )


class RequestUnreachableError(RequestError):
    """Too many polls failed in a row; the request itself may be alive."""


# --- Batches


class BatchFailedError(OdiRouterError):
    """Edits of a batch failed."""

    advice = "A retry submits only the edits that are missing or that a retry can help, and pays for no other."
    last_advice = (
        "Clear the task: it then submits only the edits that are missing or have failed, and pays for no other."
    )


class BatchRefusedError(BatchFailedError):
    """Edits of a batch failed, and a retry helps none of them."""

    retry_helps = False
    last_advice = ""
    advice = "Correct the failed edits and clear the task: it then submits those, and pays for no other."


class ReviewError(OdiRouterError):
    """Pictures cannot be reviewed, or their review has no outcome."""

    advice = "A retry asks again, with the pictures as they are then."
    last_advice = "Clear the task: it asks again, with the pictures as they are then."


class NoneApprovedError(ReviewError):
    """A person has approved no picture, and ``on_none_approved`` is ``"fail"``."""

    retry_helps = False
    advice = "Edit the pictures again, then clear the task."
    last_advice = ""


class BatchStateError(OdiRouterError):
    """The state of a batch cannot be read: without it, all edits could be paid again."""

    retry_helps = False
    advice = (
        "It was changed or damaged: repair it and clear the task. Or delete its folder, if no request of the batch is "
        "alive and all edits may be paid again."
    )


class BatchStateMissingError(BatchStateError):
    """The state of a batch is missing, as this worker sees the store."""

    retry_helps = True
    advice = (
        "Make the store reachable: a retry that finds the state continues with it. If the state was deleted, and no "
        "request of the batch is alive, clear the task: all edits are then paid again."
    )
    last_advice = (
        "Make the store reachable and clear the task, which continues with the state. If the state was deleted, and "
        "no request of the batch is alive, clear the task, too: all edits are then paid again."
    )


# --- Landing


class LandingError(OdiRouterError):
    """The outputs of a request that succeeded could not be downloaded or stored."""

    advice = (
        "A retry submits a new request, and pays for it; an OdiRouterRequestSensor with this request id fetches the "
        "pictures of this one."
    )
    last_advice = (
        "An OdiRouterRequestSensor with this request id fetches the pictures of this request. If you clear the task, "
        "it submits a new request, and pays for it."
    )


class NoOutputError(LandingError):
    """The result of a request that succeeded names no file."""

    retry_helps = False
    request_over = True
    advice = (
        "Report this to OdiRouter with the request's id. If you clear the task, it submits a new request, and pays for "
        "it."
    )
    last_advice = ""


class FileExpiredError(LandingError):
    """The link to an output has expired (``403``, ``404``, ``410``); a new call for the result returns new links."""


class PrivateAddressError(LandingError):
    """The link to an output leads to an address that is not public, such as one of the worker's own network."""

    retry_helps = False
    last_advice = ""
    advice = (
        "If OdiRouter really stores its files there, set allow_private_downloads to true in the extra of the "
        "connection, and clear the task; if not, report the link to OdiRouter. The result can still be fetched."
    )


class StorageError(LandingError):
    """The outputs' store cannot be written, or the inputs' store does not answer."""

    advice = "Check the path, its permissions and the free space; a retry may succeed then."
    last_advice = "Check the path, its permissions and the free space, then clear the task."


class UnusablePathError(StorageError):
    """A path that no store can use, or that means another object on its way: in each try."""

    retry_helps = False
    advice = "Correct the path, then clear the task."
    last_advice = ""


class OutputExistsError(StorageError):
    """
    A file is at an output's path that this task has not made, and that it must not replace.

    :param path: Of the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"Another process has written {path} since the names were checked; this task does not overwrite it. Move "
            'that file away, or set if_exists="overwrite" or if_exists="new_name".'
        )
