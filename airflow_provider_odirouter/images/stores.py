"""
What goes wrong in a store, in words.

Each store's library raises errors of its own: of botocore, of aiohttp, of Google's and Azure's clients, of Airflow's
connections. What they have in common is ``Exception``.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from urllib.request import getproxies

from airflow.sdk import Connection, ObjectStoragePath

from airflow_provider_odirouter.compat import AirflowNotFoundException
from airflow_provider_odirouter.images.lineage import make_collector
from airflow_provider_odirouter.images.paths import LOCAL_PROTOCOLS, connection_of, scheme_of, storage_path
from airflow_provider_odirouter.images.threads import aside
from airflow_provider_odirouter.redaction import MASK, Redactor, secrets_in_extra, secrets_in_url, without_password

log = logging.getLogger(__name__)

PACKAGES = {
    **dict.fromkeys(("s3", "s3a", "s3n"), "apache-airflow-providers-amazon[s3fs]"),
    **dict.fromkeys(("gs", "gcs"), "apache-airflow-providers-google"),
    **dict.fromkeys(("abfs", "abfss", "adl"), "apache-airflow-providers-microsoft-azure"),
}
"""What has to be installed for a scheme."""

STORE_ADVICE = "Check the store and its connection; a retry may succeed."
_UNKNOWN_SCHEME = ("No filesystem registered", "Unsupported filesystem")
"""How Airflow and fsspec begin to say that they do not know a scheme: the errors' type is everybody's."""
_lock = threading.Lock()
_LONGEST_QUESTION = 60.0
"""Seconds: a thread that hangs must not keep all others waiting."""
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, ValueError, ImportError)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one thread at a time ask Airflow for a connection: before 3.2, the answers for two could be swapped."""
    locked = _lock.acquire(timeout=_LONGEST_QUESTION)
    try:
        yield
    finally:
        if locked:
            _lock.release()


def reached(path: str, storage_conn_id: str | None) -> ObjectStoragePath:
    """Return the path that a text means, and make what threads then share: its store's client, the lineage."""
    with _one_at_a_time():
        make_collector()
        found = storage_path(path, storage_conn_id)
        found.fs  # noqa: B018 - from Airflow 3.2 on, the path has already made the client, but hides why it could not
    return found


def in_words(error: Exception, path: str, storage_conn_id: str | None = None) -> str:
    """
    Say what an error of a store means, without the secrets of its connection.

    :param path: What was to be read or written, as the user names it.
    """
    scheme, conn_id = scheme_of(path), connection_of(path, storage_conn_id)
    unknown = isinstance(error, ValueError) and str(error).startswith(_UNKNOWN_SCHEME)
    if scheme in PACKAGES and (unknown or isinstance(error, ImportError)):
        return f"{scheme}:// needs a package that is not installed here: pip install '{PACKAGES[scheme]}'"
    if unknown:
        return f"no installed provider of Airflow knows {scheme}://"
    trouble, secrets = None, list(chain.from_iterable(map(secrets_in_url, getproxies().values())))
    if without_password(path) != path:
        secrets += secrets_in_url(path)
    if conn_id:
        with _one_at_a_time():
            trouble, of_connection = aside(lambda: _ask_for(conn_id))
        secrets += of_connection
    redactor = Redactor(secrets)
    words = without_password(redactor.text(_words(error)))
    if isinstance(trouble, str):
        # Some providers go on without a connection that is not there: with the worker's own rights, or as anybody.
        return f"{words}; and the connection {_id(conn_id)!r} cannot be had: {redactor.text(trouble)}"
    if trouble:
        # Whatever cannot be read may be quoted, by the store's error too, which is then the same.
        return f"{type(error).__name__}; and the connection {_id(conn_id)!r} cannot be had: {type(trouble).__name__}"
    # The error is raised without its frames and causes: they hold what the store's client was given.
    log.debug("%s", without_password(redactor.text("".join(traceback.format_exception(error)))))
    return words


def may_pass(error: Exception, path: str) -> bool:
    """Tell whether the same call may succeed later: a store may be down, a file's name does not get better."""
    return scheme_of(path) not in LOCAL_PROTOCOLS and not isinstance(error, _FINAL)


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).rstrip(".")
    return f"{error} ({type(error).__name__})"


def _ask_for(conn_id: str) -> tuple[str | Exception | None, list[str]]:
    """Return why a connection cannot be had, in words if they may be shown, and its secrets."""
    in_url = list(secrets_in_url(f"{conn_id}@")) if ":" in conn_id else []
    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException as error:
        return str(error).replace(conn_id, _id(conn_id)), in_url
    except Exception as error:  # noqa: BLE001 - of a secrets backend, or of what that holds
        return error, in_url
    return None, [connection.password or "", *secrets_in_extra(connection.extra_dejson), *in_url]


def _id(conn_id: str | None) -> str:
    """Return a connection's id for people: some write a password into a URL, where Airflow expects an id."""
    user, colon, _ = (conn_id or "").partition(":")
    return f"{user}:{MASK}" if colon else user
