"""
The addresses of the gallery's pages and pictures, below the path under which Airflow's API server mounts it.

The templates are the routes, too.
"""

from __future__ import annotations

from urllib.parse import quote

PREFIX = "/odirouter"
"""The path under which the gallery is mounted, below that of Airflow's ``[api] base_url``."""
ALL = "all"
"""The map index in the address of a whole task."""

IMAGES_ROUTE = "odirouter-task-instance-images"
"""The name of a task instance's *Images* tab in the addresses of Airflow's UI."""
TASK_IN_UI = "dags/{dag_id}/runs/{run_id}/tasks/{task_id}"
"""Below the address of Airflow's UI."""
VERSION_CHARACTERS = 12
"""Of a digest in an address, which must be short: a review's page has hundreds."""

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


def images_tab(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the address of a task instance's *Images* tab, below that of Airflow's UI."""
    names = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
    task = TASK_IN_UI.format(**{key: quote(name, safe="") for key, name in names.items()})
    return f"{task}{f'/mapped/{map_index}' if map_index >= 0 else ''}/plugin/{IMAGES_ROUTE}"


def of_version(address: str, sha256: str) -> str:
    """
    Return the address of one version of a picture: where another has taken its place, nothing is shown.

    :param sha256: The digest of that version.
    """
    return f"{address}?sha256={sha256[:VERSION_CHARACTERS]}"


def with_page(address: str, number: int) -> str:
    """Return the address of one page of a grid; the first has number 1."""
    return f"{address}?page={number}" if number > 1 else address
