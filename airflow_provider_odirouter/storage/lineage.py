"""
Airflow's hook lineage of files in the worker's file system.

``ObjectStoragePath.open`` reports every file to Airflow that is read or written through it. But it reports a local file
without a scheme, which OpenLineage ignores, and a part file under its temporary name.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_odirouter.compat import get_lineage_collector

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)


def make_collector() -> None:
    """Make Airflow's one collector before threads need it: two threads that ask at once would get one each."""
    get_lineage_collector()


def note_input(path: ObjectStoragePath) -> None:
    """Report a local file that is read."""
    _note("add_input_asset", path)


def note_output(path: ObjectStoragePath) -> None:
    """Report a local file that was written."""
    _note("add_output_asset", path)


def _note(method: str, path: ObjectStoragePath) -> None:
    try:
        getattr(get_lineage_collector(), method)(context=path, uri=f"file://{path.path}")
    except ValueError as error:  # Airflow allows no asset of this name, such as one of 1,500 characters.
        log.warning("%s is missing in Airflow's lineage: %s", path, error)
