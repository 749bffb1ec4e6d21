"""Where pictures lie, as a user writes it down."""

from __future__ import annotations

import re
from pathlib import Path

from airflow.sdk import ObjectStoragePath

from airflow_provider_odirouter.redaction import without_password

LOCAL_PROTOCOLS = frozenset({"", "file", "local"})


def storage_path(path: str, storage_conn_id: str | None = None) -> ObjectStoragePath:
    """
    Return the path that a text means: ``s3://…``, ``file://…``, or one of this worker's own file system.

    The latter is made absolute here: Airflow 3.1 knows neither ``~`` nor the working directory, the manifest is read by
    processes that have another one, and a colon in a name is no protocol.

    :param storage_conn_id: The connection of a store whose URL names none itself (``s3://conn_id@bucket/key``).
    """
    if "://" in path:
        # Airflow 3.1 would let the argument win over what the URL names, newer ones the other way round.
        conn_id = connection_of(path, storage_conn_id)
        return ObjectStoragePath(path, conn_id=conn_id) if conn_id else ObjectStoragePath(path)
    try:
        local = Path(path).expanduser()
    except RuntimeError:  # There is no such user.
        local = Path(path)
    return ObjectStoragePath(str(local.absolute()))


def url_of(path: ObjectStoragePath) -> str:
    """Return the text that means the same path in any process: with its connection, or the plain path of a file."""
    return str(path.path) if is_local(path) else str(path)


def is_local(path: ObjectStoragePath) -> bool:
    """Return whether a path lies in this worker's own file system."""
    return path.protocol in LOCAL_PROTOCOLS


def scheme_of(path: str) -> str:
    """Return what stands before ``://``; nothing, if it is a plain path."""
    scheme, colon, _ = path.partition("://")
    return scheme.lower() if colon else ""


def connection_of(path: str, storage_conn_id: str | None = None) -> str | None:
    """Return the id of the connection that reaches a path, if there is one."""
    named = re.match(r"[^:/]*://([^/?#]*)@", path)
    if named and named[1]:
        return named[1]
    return None if scheme_of(path) in LOCAL_PROTOCOLS else storage_conn_id


def shown(path: str) -> str:
    """Return a path for people: not too long, and without a password."""
    path = without_password(path)
    return repr(path if len(path) <= 200 else path[:199] + "…")
