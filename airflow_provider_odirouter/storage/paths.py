"""Paths and URLs of files, as users write them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from airflow.sdk import ObjectStoragePath

from airflow_provider_odirouter.redaction import shorten_url

LOCAL_PROTOCOLS = frozenset({"", "file", "local"})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://")
"""Its scheme; a chain of fsspec's has several. A plain path may hold ``://``, too."""
_KEY_ADVICE = (
    "give it a name that has no '?' or '#' at the end, no '?versionId=', no '::', no line break, and no '.' or '..' "
    "between slashes"
)


class PathError(ValueError):
    """A text that no store can use as a path; the error's text says why, without the path."""


def storage_path(path: str, storage_conn_id: str | None = None) -> ObjectStoragePath:
    """
    Return the path that a text means: ``s3://…``, ``file://…``, or a path of this worker's file system.

    A path of the file system becomes absolute here: Airflow 3.1 knows neither ``~`` nor the working directory, other
    processes that read the manifest have another working directory, and a colon in a name is not a protocol.

    :param storage_conn_id: The connection of a store whose URL does not name one (``s3://conn_id@bucket/key``).
    :raises PathError: If it is a URL that cannot be a file's.
    """
    if path.lower().startswith(("file:/", "local://")):
        return _local_path(_path_of_file_url(path))
    if url := _URL.match(path):
        # In Airflow 3.1, the argument wins over the URL's connection; in newer versions, the URL's wins.
        conn_id = connection_of(path, storage_conn_id)
        path = url[0].lower() + path[url.end() :]  # which 3.1 demands
        return ObjectStoragePath(path, conn_id=conn_id) if conn_id else ObjectStoragePath(path)
    if _URL.match(path.lstrip()):
        raise PathError("it begins with a blank; remove it")
    try:
        local = Path(path).expanduser()
    except RuntimeError:  # The user of ``~user`` does not exist.
        local = Path(path)
    return _local_path(str(local.absolute()))


def check_key(url: str, path: ObjectStoragePath) -> None:
    """
    Refuse the URL of an object whose key is changed on its way: another object would be read or written.

    :param url: As the user wrote it.
    :param path: What :func:`storage_path` has made of it.
    :raises PathError: If Airflow's path class or the store's client changes the key.
    """
    written = re.sub("^[^:/]*://(?:[^/?#]*@)?", "", url).strip("/")
    if {".", ".."} & set(written.split("/")):
        raise PathError(
            f"a '.' or '..' between slashes means another object in some versions of Airflow; {_KEY_ADVICE}"
        )
    for key in (path.path, _key_of_client(path)):
        # The paths of other stores, such as those of SFTP, begin behind the host.
        is_same = key.strip("/") == written or (not _is_object_store(path) and written.endswith(f"/{key.strip('/')}"))
        if not is_same:
            raise PathError(f"Airflow would open {path.protocol}://{key} instead, another object; {_KEY_ADVICE}")


def check_folder(folder: ObjectStoragePath) -> None:
    """
    Refuse a folder whose files would lie in another one.

    :raises PathError: If Airflow's path class changes the folder (before 3.2, also a local one).
    """
    inside = (folder / "x").path.strip("/").removesuffix("x").strip("/")
    if inside != folder.path.strip("/"):
        raise PathError(f"Airflow would open {inside!r} instead, another folder; {_KEY_ADVICE}")


def _is_object_store(path: ObjectStoragePath) -> bool:
    return hasattr(path.fs, "split_path")


def _key_of_client(path: ObjectStoragePath) -> str:
    """Return bucket and key as the store's client reads them; S3's takes ``?versionId=`` for a version."""
    fs: Any = path.fs
    return "/".join(fs.split_path(path.path)[:2]) if _is_object_store(path) else str(path.path)


def _local_path(path: str) -> ObjectStoragePath:
    # In two parts, since Airflow reads the first one as a URL, and drops a '?' or a '#' at its end.
    return ObjectStoragePath("/", path.lstrip("/"))


def _path_of_file_url(url: str) -> str:
    rest = url.partition(":")[2]
    host, _, name = rest[2:].partition("/") if rest.startswith("//") else ("", "/", rest[1:])
    if host.rpartition("@")[2].lower() not in {"", "localhost"}:
        raise PathError(
            "it names another host; a file of this machine is file:///folder/cup.png, with three slashes, or its plain "
            "path"
        )
    try:
        return f"/{unquote(name, errors='strict')}"
    except UnicodeDecodeError as error:
        raise PathError("its %-escapes are not UTF-8; give the plain path") from error


def portable_path(path: ObjectStoragePath) -> str:
    """Return a path as text that means the same in any process: a URL with its connection, or a plain absolute path."""
    return str(path.path) if is_local(path) else str(path)


def is_local(path: ObjectStoragePath) -> bool:
    """Return whether a path is in this worker's file system."""
    return path.protocol in LOCAL_PROTOCOLS


def scheme_of(path: str) -> str:
    """Return the scheme of a URL, in lower case; of a plain path, an empty text."""
    url = _URL.match(path)
    return url[1].lower() if url else ""


def connection_of(path: str, storage_conn_id: str | None = None) -> str | None:
    """Return the id of a path's connection: the URL's own, or the given one; a local path has none."""
    named = re.match(r"[^:/]*://([^/?#]*)@", path)
    if named and named[1]:
        return named[1]
    return None if scheme_of(path) in LOCAL_PROTOCOLS else storage_conn_id


def quote_path(path: str) -> str:
    """Return a path or URL for a message: quoted, shortened, and without secrets."""
    path = shorten_url(path)
    return repr(path if len(path) <= 200 else path[:199] + "…")
