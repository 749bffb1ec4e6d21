"""Registration of the *Images* tab: found through the entry point ``airflow.plugins``, by every process of Airflow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
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


class OdiRouterPlugin(AirflowPlugin):
    """The *Images* tab of a task instance, and of a task."""

    name = "odirouter"
    fastapi_apps: list[Any] = [  # noqa: RUF012 - as Airflow declares it
        {"app": Gallery(), "url_prefix": PREFIX, "name": "OdiRouter gallery"}
    ]
    external_views: list[Any] = [  # noqa: RUF012
        _view("task_instance", "runs/{RUN_ID}/tasks/{TASK_ID}/{MAP_INDEX}"),
        _view("task", "tasks/{TASK_ID}"),
    ]
