"""
The shapes: what the API answers, what an edit is, what a task returns.

All models are frozen. Those that the vendor fills keep fields that they do not know; those that the user fills refuse
them. This room must never do I/O.
"""

from airflow_provider_odirouter.models.answers import (
    Answered,
    CancelOutcome,
    Failure,
    OutputFile,
    RequestResult,
    RequestState,
    RequestStatus,
    Submission,
)
from airflow_provider_odirouter.models.batch import BatchEvent, BatchItem, BatchSummary, Phase
from airflow_provider_odirouter.models.edit import IMAGE_EDIT_ENDPOINT, ImageEdit
from airflow_provider_odirouter.models.event import Ending, RequestEvent
from airflow_provider_odirouter.models.manifest import LandedOutput, Manifest
from airflow_provider_odirouter.models.sources import Source

__all__ = [
    "IMAGE_EDIT_ENDPOINT",
    "Answered",
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
    "RequestEvent",
    "RequestResult",
    "RequestState",
    "RequestStatus",
    "Source",
    "Submission",
]
