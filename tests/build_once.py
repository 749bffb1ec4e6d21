"""What Airflow does anew in each process, for each task or in each call, and which is the same each time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from contextlib import closing
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
from airflow import settings
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.sdk.execution_time import supervisor, task_runner
from airflow.utils.db import initdb
from pydantic import TypeAdapter
from sqlalchemy import event


def create_database(folder: Path) -> None:
    """Create Airflow's tables in this process's home; the processes that share the folder copy those of the first."""
    event.listen(settings.engine, "connect", _leave_writing_to_the_system)
    assert settings.engine
    settings.engine.dispose()
    own, first = Path(os.environ["AIRFLOW_HOME"]) / "airflow.db", folder / "airflow.db"
    with (folder / "airflow.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if first.exists():
            copy_database(first, own)
            return
        initdb()
        DagBundlesManager().sync_bundles_to_db()
        copy_database(own, first)


def _leave_writing_to_the_system(connection: Any, _: object) -> None:
    """Or each of many commits waits for the disk, though no database outlives its tests."""
    connection.execute("PRAGMA synchronous=OFF")


def copy_database(database: Path, to: Path) -> None:
    """Let SQLite do it: to open and close such a file by other means takes away the locks of this process."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def build_once(patch: pytest.MonkeyPatch) -> None:
    """Let Airflow keep what it needs again."""
    # As in Airflow 3.3: older versions build their API again for each task, which takes four seconds.
    patch.setattr(supervisor, "in_process_api_server", cache(supervisor.in_process_api_server))
    # For each templated field of each task.
    patch.setattr(task_runner, "TypeAdapter", cache(TypeAdapter))
    _serve_the_newest_version_only(patch)
    _read_signatures_once(patch)
    _answer_without_more_threads(patch)


def _serve_the_newest_version_only(patch: pytest.MonkeyPatch) -> None:
    """Tasks call Airflow's API in its newest version; to build all those of older workers takes five seconds."""
    from airflow.api_fastapi.execution_api import versions
    from airflow.api_fastapi.execution_api.routes import execution_api_router
    from cadwyn import HeadVersion, Version, VersionBundle

    newest = Version(versions.bundle.versions[0].value)
    patch.setattr(versions, "bundle", VersionBundle(HeadVersion(), newest))
    in_newest = [one for one in execution_api_router.routes if "_CADWYN_DELETED_ROUTE" not in getattr(one, "tags", [])]
    patch.setattr(execution_api_router, "routes", in_newest)


def _read_signatures_once(patch: pytest.MonkeyPatch) -> None:
    """Where an app overrides dependencies, as Airflow's API in this process does, FastAPI reads all in each call."""
    from fastapi.dependencies import utils

    get_dependant: Any = utils.get_dependant

    @lru_cache(1000)
    def keep(*arguments: tuple[str, Any]) -> Any:
        return get_dependant(**{name: list(value) if isinstance(value, tuple) else value for name, value in arguments})

    def get(**arguments: Any) -> Any:
        return keep(*((name, tuple(value) if isinstance(value, list) else value) for name, value in arguments.items()))

    patch.setattr(utils, "get_dependant", get)


def _answer_without_more_threads(patch: pytest.MonkeyPatch) -> None:
    """Tasks call the API in this process one after the other, and each call would change threads six times."""
    from anyio import to_thread

    run_sync: Any = to_thread.run_sync

    async def run(function: Any, *arguments: Any, **options: Any) -> Any:
        if threading.current_thread().name == "InProcessExecutionAPI-loop":  # As Airflow 3.3 calls it.
            return function(*arguments)
        return await run_sync(function, *arguments, **options)

    patch.setattr(to_thread, "run_sync", run)
