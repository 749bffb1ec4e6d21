"""
What goes wrong in a store, in words.

Each store's library raises errors of its own: of botocore, of aiohttp, of Google's and Azure's clients, of Airflow's
connections. What they have in common is ``Exception``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from airflow.sdk import Connection, ObjectStoragePath

from airflow_provider_odirouter.images.lineage import make_collector
from airflow_provider_odirouter.images.paths import LOCAL_PROTOCOLS, connection_of, scheme_of, storage_path
from airflow_provider_odirouter.images.threads import aside

PACKAGES = {
    **dict.fromkeys(("s3", "s3a", "s3n"), "apache-airflow-providers-amazon[s3fs]"),
    **dict.fromkeys(("gs", "gcs"), "apache-airflow-providers-google"),
    **dict.fromkeys(("abfs", "abfss", "adl"), "apache-airflow-providers-microsoft-azure"),
}
"""What has to be installed for a scheme."""

STORE_ADVICE = "Check the store and its connection; a retry may succeed."
SHORTEST_SECRET = 5
"""Characters, as for Airflow: to hide a shorter one would hide much else."""
# Airflow's own list does not know them all, and before 3.2 does not hide what a connection's extras hold.
_SECRETS_NAME = re.compile("secret|token|key|pass|credential|signature|connection_string", re.IGNORECASE)
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
    words = _words(error)
    if conn_id:
        with _one_at_a_time():
            trouble, secrets = aside(lambda: _ask_for(conn_id))
        if trouble:
            # Some providers go on without a connection that is not there: with the worker's own rights, or as anybody.
            words += f"; and the connection {conn_id!r} cannot be had: {trouble}"
        for secret in secrets:
            words = words.replace(secret, "***")
    return words


def may_pass(error: Exception, path: str) -> bool:
    """Tell whether the same call may succeed later: a store may be down, a file's name does not get better."""
    return scheme_of(path) not in LOCAL_PROTOCOLS and not isinstance(error, _FINAL)


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).rstrip(".")
    return f"{error} ({type(error).__name__})"


def _ask_for(conn_id: str) -> tuple[str | None, list[str]]:
    """Return why a connection cannot be had, and its secrets."""
    # Somebody may have written a password into the URL, where Airflow expects an id.
    in_url = conn_id.partition(":")[2]
    try:
        connection = Connection.get(conn_id)
    except Exception as error:  # noqa: BLE001 - whatever it is, it explains what it is told beside
        return str(error), [in_url] if in_url else []
    secrets = [connection.password or "", *_secrets_in(connection.extra_dejson)]
    return None, [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]


def _secrets_in(extra: object, name: str = "") -> Iterator[str]:
    match extra:
        case Mapping():
            for key, value in extra.items():
                yield from _secrets_in(value, str(key))
        case str() if _SECRETS_NAME.search(name):
            yield extra
