"""
Everything that can go wrong, as one tree.

::

    OdiRouterError
    ├── InvalidParametersError      broken rules, all at once; found before anything was sent
    ├── ConnectionSettingsError     the Airflow connection cannot be used
    │   ├── EnvironmentSettingsError … or the proxy or TLS settings of the process cannot be
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
    ├── BatchFailedError            edits of a batch did not end well
    │   └── BatchRefusedError       … and none of them would in a new try
    ├── BatchStateError             what is remembered of a batch cannot be read
    │   └── BatchStateMissingError  … or is not there, as this worker sees it
    └── LandingError                the pictures could not be brought home
        ├── NoOutputError           the result names no file
        ├── FileExpiredError        the link to a picture is no longer valid
        ├── PrivateAddressError     … or leads to an address that is not public
        └── StorageError            a store cannot be written, or does not answer

:class:`NotOwnerError` is not among them: it is no fault of a call or a request, but ends all that this process does.

Three facts about each class decide what happens next, and they are stated here and nowhere else: ``passing`` (the same
call may well succeed a moment later), ``retry_helps`` (a new try of the Airflow task can cure it) and ``request_over``
(a new try has to submit a new request). This module must never import Airflow: the operators translate ``retry_helps``
into Airflow's own exceptions.
"""

from __future__ import annotations

from airflow_provider_odirouter.errors.base import (
    ConnectionNotFoundError,
    ConnectionSettingsError,
    EnvironmentSettingsError,
    InvalidParametersError,
    NotOwnerError,
    OdiRouterError,
    Problem,
    SubmitStoppedError,
)
from airflow_provider_odirouter.errors.calls import (
    AnswerError,
    AuthenticationError,
    EndpointNotFoundError,
    LostSubmitError,
    NoAnswerError,
    NoBalanceError,
    NotSentError,
    PathNotFoundError,
    RateLimitedError,
    RejectedError,
    RequestNotFoundError,
    ServiceError,
    TransportError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.errors.requests import (
    BatchFailedError,
    BatchRefusedError,
    BatchStateError,
    BatchStateMissingError,
    FileExpiredError,
    LandingError,
    NoOutputError,
    PrivateAddressError,
    RequestCanceledError,
    RequestError,
    RequestFailedError,
    RequestLostError,
    RequestRefusedError,
    RequestTimeoutError,
    RequestUnwatchedError,
    StorageError,
)

__all__ = [
    "AnswerError",
    "AuthenticationError",
    "BatchFailedError",
    "BatchRefusedError",
    "BatchStateError",
    "BatchStateMissingError",
    "ConnectionNotFoundError",
    "ConnectionSettingsError",
    "EndpointNotFoundError",
    "EnvironmentSettingsError",
    "FileExpiredError",
    "InvalidParametersError",
    "LandingError",
    "LostSubmitError",
    "NoAnswerError",
    "NoBalanceError",
    "NoOutputError",
    "NotOwnerError",
    "NotSentError",
    "OdiRouterError",
    "PathNotFoundError",
    "PrivateAddressError",
    "Problem",
    "RateLimitedError",
    "RejectedError",
    "RequestCanceledError",
    "RequestError",
    "RequestFailedError",
    "RequestLostError",
    "RequestNotFoundError",
    "RequestRefusedError",
    "RequestTimeoutError",
    "RequestUnwatchedError",
    "ServiceError",
    "StorageError",
    "SubmitStoppedError",
    "TransportError",
    "UnreadableAnswerError",
]
