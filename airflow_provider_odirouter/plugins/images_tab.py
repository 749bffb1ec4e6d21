"""
Registration of the *Images* tab and of the listener.

Found through the entry point ``airflow.plugins``, by every process of Airflow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from types import ModuleType
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_odirouter.addresses import INSTANCE, PREFIX, TASK, link_from_ui
from airflow_provider_odirouter.compat import is_api_server


class Gallery:
    """
    The gallery as an ASGI application, which is imported by its first call.

    Workers and schedulers load plugins, too, but never call it; importing FastAPI and Airflow's API takes a second.
    """

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Forward a call to the application."""
        from airflow_provider_odirouter.plugins.gallery.app import app

        await app(scope, receive, send)


def _view(destination: str, address: str) -> dict[str, str]:
    names = {"dag_id": "{DAG_ID}", "run_id": "{RUN_ID}", "task_id": "{TASK_ID}", "map_index": "{MAP_INDEX}"}
    return {
        "name": "Images",
        "href": link_from_ui(address.format(**names)),
        "destination": destination,
        "url_route": f"odirouter-{destination.replace('_', '-')}-images",
    }


class ListenersOfApiServer:
    """
    A plugin's listeners in Airflow's API server; an empty list in every other process.

    Only the API server calls them when a person marks a task. A worker would call them at the end of each task; and
    where Dags are parsed, Airflow refuses each task with ``end_from_trigger`` if there is any listener.
    """

    def __get__(self, plugin: AirflowPlugin | None, owner: type[AirflowPlugin]) -> list[ModuleType]:
        """Return them; Airflow asks when it first has an event for them."""
        # The scheduler and the dag processor ask before they call themselves servers.
        if not is_api_server():
            return []
        from airflow_provider_odirouter.listeners import marked

        return [marked]


class OdiRouterPlugin(AirflowPlugin):
    """The *Images* tab of a task instance and of a task, and the listener that cancels requests of marked tasks."""

    name = "odirouter"
    fastapi_apps: list[Any] = [  # noqa: RUF012 - as Airflow declares it
        {"app": Gallery(), "url_prefix": PREFIX, "name": "OdiRouter gallery"}
    ]
    external_views: list[Any] = [  # noqa: RUF012
        _view("task_instance", INSTANCE),
        _view("task", TASK),
    ]
    listeners: Any = ListenersOfApiServer()
