"""
The data models: the parameters of an edit, the API's answers, a trigger's events, a task's return values.

All models are frozen. Models of the API's answers keep unknown fields; models of the user's input refuse them. This
layer must never do I/O.
"""

from airflow_provider_odirouter.models.api import (
    ApiModel,
    CancelOutcome,
    Failure,
    OutputFile,
    RequestResult,
    RequestState,
    RequestStatus,
    Submission,
)
from airflow_provider_odirouter.models.batch import (
    BatchEvent,
    BatchItem,
    BatchSummary,
    Phase,
    pack_deadlines,
    unpack_deadlines,
)
from airflow_provider_odirouter.models.edit import ImageEdit, Source
from airflow_provider_odirouter.models.prices import Prices
from airflow_provider_odirouter.models.results import Ending, LandedOutput, Manifest, RequestEvent
from airflow_provider_odirouter.models.review import ReviewRecord
from airflow_provider_odirouter.models.spending import NOTHING_SPENT, Spending

__all__ = [
    "NOTHING_SPENT",
    "ApiModel",
    "BatchEvent",
    "BatchItem",
    "BatchSummary",
    "CancelOutcome",
    "Ending",
    "Failure",
    "ImageEdit",
    "LandedOutput",
    "Manifest",
    "OutputFile",
    "Phase",
    "Prices",
    "RequestEvent",
    "RequestResult",
    "RequestState",
    "RequestStatus",
    "ReviewRecord",
    "Source",
    "Spending",
    "Submission",
    "pack_deadlines",
    "unpack_deadlines",
]
