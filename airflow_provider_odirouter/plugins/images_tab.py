"""
Registration of the *Images* tab and of the listener.

Found through the entry point ``airflow.plugins``, by every process of Airflow.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from types import ModuleType
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/odirouter"


class Gallery:
    """
    The gallery as an ASGI application that is loaded with its first call.

    Workers and schedulers load plugins too, but never call it: FastAPI and Airflow's API are a second of imports.
    """

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Hand a call on."""
        from airflow_provider_odirouter.plugins.gallery.app import app

        await app(scope, receive, send)


def _view(destination: str, path: str) -> dict[str, str]:
    return {
        "name": "Images",
        # Relative to the UI's own address, which may have a prefix.
        "href": f"{PREFIX.removeprefix('/')}/dags/{{DAG_ID}}/{path}",
        "destination": destination,
        "url_route": f"odirouter-{destination.replace('_', '-')}-images",
    }


class ListenersOfApiServer:
    """
    A plugin's listeners, wherever Airflow's API server asks for them; elsewhere there are none.

    It alone calls them when a person marks something. A worker would call them at the end of each task; and where Dags
    are parsed, Airflow refuses each task with ``end_from_trigger`` as soon as there is any listener.
    """

    def __get__(self, plugin: AirflowPlugin | None, owner: type[AirflowPlugin]) -> list[ModuleType]:
        """Return them, as Airflow asks for them when it first has something to say."""
        # The scheduler and the dag processor ask before they call themselves servers.
        if os.environ.get("_AIRFLOW_PROCESS_CONTEXT") != "server":
            return []
        from airflow_provider_odirouter.listeners import marked

        return [marked]


class OdiRouterPlugin(AirflowPlugin):
    """The *Images* tab of a task instance, and of a task; and what sees to requests that a mark leaves running."""

    name = "odirouter"
    fastapi_apps: list[Any] = [  # noqa: RUF012 - as Airflow declares it
        {"app": Gallery(), "url_prefix": PREFIX, "name": "OdiRouter gallery"}
    ]
    external_views: list[Any] = [  # noqa: RUF012
        _view("task_instance", "runs/{RUN_ID}/tasks/{TASK_ID}/{MAP_INDEX}"),
        _view("task", "tasks/{TASK_ID}"),
    ]
    listeners: Any = ListenersOfApiServer()
