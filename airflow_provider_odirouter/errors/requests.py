"""What goes wrong with a request after its submit, with a batch of them, and with their pictures."""

from __future__ import annotations

from airflow_provider_odirouter.errors.base import OdiRouterError


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


class BatchFailedError(OdiRouterError):
    """Edits of a batch did not end well."""

    advice = "A retry submits only what is missing or failed in passing, and pays for nothing else."


class BatchRefusedError(BatchFailedError):
    """Edits of a batch did not end well, and none of them would in a new try."""

    retry_helps = False
    advice = (
        "A retry would end in the same way. Clearing the task submits the failed edits once more, as they are then, "
        "and pays for no other."
    )


class BatchStateError(OdiRouterError):
    """What is remembered of a batch cannot be read: without it, all its edits could be paid once more."""

    retry_helps = False
    advice = (
        "Somebody has edited it: put it right and clear the task. Or delete its folder, if no request of the batch is "
        "alive and all edits may be paid anew."
    )


class BatchStateMissingError(BatchStateError):
    """What is remembered of a batch is not where it should be, as this worker sees it."""

    retry_helps = True
    advice = (
        "If it was deleted, and no request of the batch is alive, clear the task: then all edits are paid anew. "
        "Otherwise make the store reachable; a retry that finds the state goes on with it."
    )


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


class PrivateAddressError(LandingError):
    """The link to a picture leads to an address that is not public, such as one of the worker's own network."""

    retry_helps = False
    advice = (
        "If OdiRouter's files are there indeed, set allow_private_downloads to true in the extra of the connection, "
        "and clear the task; if not, report the link to OdiRouter. The request itself is not over."
    )


class StorageError(LandingError):
    """The store of the outputs cannot be written, or that of the inputs does not answer."""

    advice = "Check the path, its permissions and the free space, then retry."
