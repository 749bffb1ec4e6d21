"""The folder beside a task's outputs in which each try writes what the next one must know."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_odirouter.errors import StorageError
from airflow_provider_odirouter.redaction import raises_without_traceback, without_password
from airflow_provider_odirouter.storage.files import JSON, JSON_LINES, read, write_whole
from airflow_provider_odirouter.storage.store_errors import describe_error, open_store
from airflow_provider_odirouter.storage.threads import try_in_thread

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

T = TypeVar("T")

FOLDER = ".odirouter"
"""Below the output path. Most tools that read whole folders leave out names that begin with a dot."""


class StateFolder:
    """
    The folder of one task instance: ``{output_path}/.odirouter/{name}``.

    Its store is used beside the main thread, and the lineage does not see its files.

    :param output_path: Of the task.
    :param storage_conn_id: The connection of a store whose URL names none itself.
    :param name: Of the task instance, the same in all its tries.
    :param content: What the files hold, as the subject of an error: "The batch's state".
    :param advice: What to do about an error of the store. Default: that of :class:`StorageError`.
    """

    def __init__(
        self,
        output_path: str,
        storage_conn_id: str | None,
        name: str,
        *,
        content: str,
        advice: str | None = None,
    ) -> None:
        self._output_path = output_path
        self._storage_conn_id = storage_conn_id
        self._name = name
        self._content = content
        self._advice = advice
        self.was_forbidden = False
        """Whether the last call that failed did so because the store forbids it."""

    @raises_without_traceback()
    def run(self, file: str, job: Callable[[ObjectStoragePath], T], done: str) -> T:
        """
        Run a job with the path of a file.

        :param file: Its name; empty: the job gets the folder's path.
        :param done: What the job does to the file, for the error: "read", "written".
        :raises StorageError: If the job raises an error.
        """

        def run_job() -> T:
            folder: ObjectStoragePath = open_store(self._output_path, self._storage_conn_id) / FOLDER / self._name
            return job(folder / file if file else folder)

        outcome = try_in_thread(run_job)
        if isinstance(outcome, Exception):
            self.was_forbidden = isinstance(outcome, PermissionError)
            reason = describe_error(outcome, self._output_path, self._storage_conn_id)
            what = f"{self._content} cannot be {done}: {self.path_of(file)}: {reason}."
            raise StorageError(what, advice=self._advice)
        return outcome

    def read(self, file: str, max_bytes: int) -> bytes | None:
        """
        Return what a file holds, up to one byte more than ``max_bytes``; ``None``: there is no such file.

        :raises StorageError: If the store does not answer.
        """

        def read_if_there(path: ObjectStoragePath) -> bytes | None:
            try:
                return read(path, max_bytes, track_lineage=False)
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self.run(file, read_if_there, "read")

    def write(self, file: str, content: bytes) -> None:
        """
        Write a whole file, or nothing. The folder must be there if it is one of this worker's own file system.

        :raises StorageError: If it cannot be written.
        """
        content_type = JSON_LINES if file.endswith(".jsonl") else JSON
        self.run(
            file,
            lambda path: write_whole(io.BytesIO(content), path, content_type=content_type, track_lineage=False),
            "written",
        )

    def path_of(self, file: str = "") -> str:
        """Return the path of a file, or of the folder, for people."""
        return without_password(f"{self._output_path.rstrip('/')}/{FOLDER}/{self._name}/{file}".rstrip("/"))
