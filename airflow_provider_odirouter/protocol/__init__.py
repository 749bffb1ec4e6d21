"""
The queue protocol without I/O: the calls, how to read their answers, and which calls may be sent again.

This layer must never open a socket, read a clock or sleep. The hook sends a :class:`Call` and receives an
:class:`Answer`.

Sources: the vendor's page of ``gpt_image_1_edit``; for what it omits, the documentation and the command line client of
SeaCloud, which runs the same queue engine, and the answers that public programs handle.
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
from airflow_provider_odirouter.protocol.error_mapping import file_error_from_answer
from airflow_provider_odirouter.protocol.retries import final_error, pause_before_repeat

__all__ = [
    "DEFAULT_BASE_URL",
    "Action",
    "Answer",
    "Call",
    "cancel",
    "file",
    "file_error_from_answer",
    "final_error",
    "pause_before_repeat",
    "read_cancel",
    "read_result",
    "read_status",
    "read_submission",
    "result",
    "status",
    "submit",
    "submit_body",
]
