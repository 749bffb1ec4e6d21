"""
The addresses of the gallery's pages and pictures, below the path under which Airflow's API server mounts it.

The templates are the routes, too. :func:`task_instance_address` alone is an address of Airflow's UI.
"""

from __future__ import annotations

from urllib.parse import quote

PREFIX = "/odirouter"
"""The path under which the gallery is mounted, below that of Airflow's ``[api] base_url``."""
ALL = "all"
"""The map index in the address of a whole task."""

TASK = "/dags/{dag_id}/tasks/{task_id}"
INSTANCE = "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}"
EDIT = "/edits/{number}"
"""Below the address of its batch."""
SMALL = "/{kind}/{index}/small"
"""Below the address of a task instance, or of an edit of a batch; so are the next two."""
WHOLE = "/{kind}/{index}/whole"
COVER = "/mask/0/cover"


def instance_address(dag_id: str, run_id: str, task_id: str, map_index: int | str) -> str:
    """
    Return the address of the page of a task instance.

    :param map_index: -1 if the task is not mapped; :data:`ALL` for the page of all its instances.
    """
    names = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
    return INSTANCE.format(**{key: quote(name, safe="") for key, name in names.items()}, map_index=map_index)


def task_instance_address(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """
    Return the address of a task instance's logs in Airflow's UI, below that of the UI.

    :param map_index: -1 if the task is not mapped.
    """
    dag, run, task = (quote(name, safe="") for name in (dag_id, run_id, task_id))
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"/dags/{dag}/runs/{run}/tasks/{task}{mapped}"


def link_from_ui(address: str) -> str:
    """
    Return a link to a page of the gallery, for the pages of Airflow's UI.

    It is relative to the UI's own address, which may have a prefix, and which a worker need not know.
    """
    return (PREFIX + address).removeprefix("/")


def with_page(address: str, number: int) -> str:
    """Return the address of one page of a grid; the first has number 1."""
    return f"{address}?page={number}" if number > 1 else address
