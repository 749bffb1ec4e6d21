"""
The queue protocol without I/O: what each call sends, how each answer reads, what may be repeated.

This room must never open a socket, read a clock or sleep. Whoever sends a :class:`Call` brings back an
:class:`Answer`.

Sources: the vendor's page of ``gpt_image_1_edit``; where it is silent, the documentation and the command line client
of SeaCloud, which runs the same queue engine; and the answers that public programs are seen to handle.
"""

from airflow_provider_odirouter.protocol.answers import read_cancel, read_result, read_status, read_submission
from airflow_provider_odirouter.protocol.calls import (
    DEFAULT_BASE_URL,
    Action,
    Answer,
    Call,
    cancel,
    file,
    result,
    status,
    submit,
    submit_body,
)
from airflow_provider_odirouter.protocol.refusals import file_error_of
from airflow_provider_odirouter.protocol.repeats import pause_before_repeat, verdict

__all__ = [
    "DEFAULT_BASE_URL",
    "Action",
    "Answer",
    "Call",
    "cancel",
    "file",
    "file_error_of",
    "pause_before_repeat",
    "read_cancel",
    "read_result",
    "read_status",
    "read_submission",
    "result",
    "status",
    "submit",
    "submit_body",
    "verdict",
]
