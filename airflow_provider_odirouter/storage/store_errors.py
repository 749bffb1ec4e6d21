"""
Errors of object stores, in plain words.

Each store's library raises errors of another kind: botocore's, aiohttp's, those of Google's and Azure's clients and of
Airflow's connections. Their only common base is ``Exception``.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from urllib.request import getproxies

from airflow.sdk import Connection, ObjectStoragePath

from airflow_provider_odirouter.compat import AirflowNotFoundException
from airflow_provider_odirouter.redaction import MASK, Redactor, secrets_in_extra, secrets_in_url, without_password
from airflow_provider_odirouter.storage.lineage import make_collector
from airflow_provider_odirouter.storage.paths import (
    LOCAL_PROTOCOLS,
    PathError,
    check_folder,
    check_key,
    connection_of,
    is_local,
    scheme_of,
    storage_path,
)
from airflow_provider_odirouter.storage.threads import run_in_thread

log = logging.getLogger(__name__)

EXTRAS = {
    **dict.fromkeys(("s3", "s3a", "s3n"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "adl"), "azure"),
}
"""The extra of this package that brings what a scheme needs."""

STORE_ADVICE = "Check the store and its connection; a retry may succeed."
LAST_STORE_ADVICE = "Check the store and its connection, then clear the task."
_UNKNOWN_SCHEME = ("No filesystem registered", "Unsupported filesystem")
"""The beginnings of Airflow's and fsspec's errors about an unknown scheme: their type is only ``ValueError``."""
_lock = threading.Lock()
_MAX_LOCK_SECONDS = 60.0
"""A thread that hangs must not block all others for longer."""
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ValueError, ImportError)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one thread at a time ask Airflow for a connection: before Airflow 3.2, two could get each other's answer."""
    locked = _lock.acquire(timeout=_MAX_LOCK_SECONDS)
    try:
        yield
    finally:
        if locked:
            _lock.release()


def open_store(path: str, storage_conn_id: str | None, *, is_file: bool = False) -> ObjectStoragePath:
    """
    Return the path that a text means, and make what threads share later: the store's client, Airflow's lineage.

    :param is_file: Whether the text must name a file, and not a folder.
    :raises PathError: If another file than the text names would be opened.
    """
    with _one_at_a_time():
        make_collector()
        opened = storage_path(path, storage_conn_id)
        opened.fs  # noqa: B018 - from Airflow 3.2 on, the path has made the client already, but has hidden its error
    if not is_local(opened):
        check_key(path, opened)
        if is_file and path.endswith("/"):  # An object whose key ends so is not the one without.
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not is_file:
        check_folder(opened)
    return opened


def missing_connection(path: str, storage_conn_id: str | None) -> str | None:
    """
    Return that Airflow does not find the connection of a path; ``None``: it does, or the path needs none.

    Without it, some clients continue with the worker's own rights.
    """
    if not (conn_id := connection_of(path, storage_conn_id)):
        return None
    with _one_at_a_time():
        problem, secrets = run_in_thread(lambda: _check_connection(conn_id))
    if not isinstance(problem, str):
        return None
    return f"the connection {_id(conn_id)!r} cannot be loaded: {Redactor(secrets).redact_text(problem)}"


def describe_error(error: Exception, path: str, storage_conn_id: str | None = None) -> str:
    """
    Return a store's error in plain words, without the secrets of its connection.

    :param path: The path that was to be read or written, as the user wrote it.
    """
    secrets_in_path = list(secrets_in_url(path)) if without_password(path) != path else []
    if isinstance(error, PathError):
        return Redactor(secrets_in_path).redact_text(str(error))
    scheme, conn_id = scheme_of(path), connection_of(path, storage_conn_id)
    unknown = isinstance(error, ValueError) and str(error).startswith(_UNKNOWN_SCHEME)
    if scheme in EXTRAS and (unknown or isinstance(error, ImportError)):
        return (
            f"{scheme}:// needs a package that is not installed here: "
            f"pip install 'airflow-provider-odirouter[{EXTRAS[scheme]}]'"
        )
    if unknown:
        return f"no installed Airflow provider supports {scheme}://"
    problem, secrets = None, [*secrets_in_path, *chain.from_iterable(map(secrets_in_url, getproxies().values()))]
    if conn_id:
        with _one_at_a_time():
            problem, conn_secrets = run_in_thread(lambda: _check_connection(conn_id))
        secrets += conn_secrets
    redactor = Redactor(secrets)
    words = without_password(redactor.redact_text(_words(error)))
    if isinstance(problem, str):
        # Without the connection, some clients continue with the worker's own rights, or without any.
        return f"{words}; and the connection {_id(conn_id)!r} cannot be loaded: {redactor.redact_text(problem)}"
    if problem:
        # The error of a connection that cannot be parsed may quote its secrets; the store's error may be the same one.
        return f"{type(error).__name__}; and the connection {_id(conn_id)!r} cannot be loaded: {type(problem).__name__}"
    # StorageError is raised without frames and causes, since they hold the secrets: log the redacted traceback.
    log.debug("%s", without_password(redactor.redact_text("".join(traceback.format_exception(error)))))
    return words


def is_transient(error: Exception, path: str) -> bool:
    """Return whether the same call may succeed later: a store may be down, but a local error stays."""
    return scheme_of(path) not in LOCAL_PROTOCOLS and not isinstance(error, _FINAL)


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or _strerror_of_type(error) or str(error) or type(error).__name__).rstrip(".")
    return f"{error} ({type(error).__name__})"


def _strerror_of_type(error: OSError) -> str | None:
    """Return the words of an error that a store's client has made of a path alone, and not of a sentence."""
    for kind, number in ((FileNotFoundError, errno.ENOENT), (IsADirectoryError, errno.EISDIR)):
        if isinstance(error, kind) and " " not in str(error):
            return os.strerror(number)
    return None


def _check_connection(conn_id: str) -> tuple[str | Exception | None, list[str]]:
    """Return why a connection cannot be loaded, as text if it is free of secrets, and the connection's secrets."""
    url_secrets = list(secrets_in_url(f"{conn_id}@")) if ":" in conn_id else []
    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException as error:
        return str(error).replace(conn_id, _id(conn_id)), url_secrets
    except Exception as error:  # noqa: BLE001 - of a secrets backend, or of a connection that cannot be parsed
        return error, url_secrets
    return None, [connection.password or "", *secrets_in_extra(connection.extra_dejson), *url_secrets]


def _id(conn_id: str | None) -> str:
    """Return a connection's id for a message: some users write a user and a password into a URL instead."""
    user, colon, _ = (conn_id or "").partition(":")
    return f"{user}:{MASK}" if colon else user
