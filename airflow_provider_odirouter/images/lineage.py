"""
Airflow's hook lineage of files in the worker's own file system.

``ObjectStoragePath.open`` tells Airflow of every file that is read or written through it, but of a local one without a
scheme, which OpenLineage passes over, and of a part file under the name that it does not keep.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

try:
    from airflow.sdk.lineage import get_hook_lineage_collector
except ImportError:  # Airflow 3.1
    from airflow.lineage.hook import get_hook_lineage_collector  # type: ignore[no-redef,import-not-found]

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)


def make_collector() -> None:
    """Make Airflow's one collector before threads need it: of two that ask at once, each would get its own."""
    get_hook_lineage_collector()


def note_input(path: ObjectStoragePath) -> None:
    """Tell Airflow that a local file is read."""
    _note("add_input_asset", path)


def note_output(path: ObjectStoragePath) -> None:
    """Tell Airflow that a local file was written."""
    _note("add_output_asset", path)


def _note(method: str, path: ObjectStoragePath) -> None:
    try:
        getattr(get_hook_lineage_collector(), method)(context=path, uri=f"file://{path.path}")
    except ValueError as error:  # A name that Airflow takes for no asset's, such as one of 1,500 characters.
        log.warning("Airflow's lineage misses %s: %s", path, error)
