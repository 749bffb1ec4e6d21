"""Where the gallery's pages and pictures are."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from airflow_provider_odirouter.plugins.gallery.edits import Edit
from airflow_provider_odirouter.plugins.gallery.instances import Instance, Task
from airflow_provider_odirouter.plugins.gallery.named import Named

ALL = "all"
"""In the place of a map index."""


@dataclass(frozen=True)
class Addresses:
    """
    Makes addresses.

    :param root: The path under which the gallery is mounted, with the prefix of Airflow's ``[api] base_url``.
    """

    root: str

    def all_of(self, task: Task, page: int = 1) -> str:
        """Return the page of all instances of a task in a run."""
        return f"{self._task(task)}/{ALL}{_query(page)}"

    def instance(self, instance: Instance) -> str:
        """Return the page of a task instance, or of an edit of a batch."""
        if isinstance(instance, Edit):
            return self.edit(instance, instance.number)
        return self.batch(instance)

    def batch(self, instance: Instance, page: int = 1) -> str:
        """Return the page of a task instance, also of one of whose edits one is given."""
        return f"{self._task(instance.task)}/{instance.map_index}{_query(page)}"

    def edit(self, batch: Instance, number: int) -> str:
        """Return the page of an edit of a batch."""
        return f"{self.batch(batch)}/edits/{number}"

    def small(self, instance: Instance, picture: Named) -> str:
        """Return a small picture, or the vendor's link."""
        return picture.place if picture.is_linked else f"{self._picture(instance, picture)}/small"

    def whole(self, instance: Instance, picture: Named) -> str:
        """Return a whole picture, or the vendor's link."""
        return picture.place if picture.is_linked else f"{self._picture(instance, picture)}/whole"

    def cover(self, instance: Instance, mask: Named) -> str:
        """Return what covers the part that a mask lets the service edit."""
        return f"{self._picture(instance, mask)}/cover"

    def _task(self, task: Task) -> str:
        dag_id, run_id, task_id = (quote(part, safe="") for part in (task.dag_id, task.run_id, task.task_id))
        return f"{self.root}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"

    def _picture(self, instance: Instance, picture: Named) -> str:
        return f"{self.instance(instance)}/{picture.kind}/{picture.index}"


def _query(page: int) -> str:
    return f"?page={page}" if page > 1 else ""
