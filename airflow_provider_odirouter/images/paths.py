"""Where pictures lie, as a user writes it down."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import ObjectStoragePath


def storage_path(path: str) -> ObjectStoragePath:
    """
    Return the path that a text means: ``s3://…``, ``file://…``, or one of this worker's own file system.

    The latter is made absolute here: Airflow 3.1 knows neither ``~`` nor the working directory, the manifest is read by
    processes that have another one, and a colon in a name is no protocol.
    """
    if "://" in path:
        return ObjectStoragePath(path)
    try:
        local = Path(path).expanduser()
    except RuntimeError:  # There is no such user.
        local = Path(path)
    return ObjectStoragePath(str(local.absolute()))
