"""Airflow's real API server in this process, with the gallery in it, and Dags that have really run."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from starlette.testclient import TestClient

from tests.dags.conftest import Run, RunDag, airflow_db, fail_after_submit, run_dag
from tests.plugins.auth import PerDagAuthManager

__all__ = ["airflow_db", "fail_after_submit", "run_dag"]


@pytest.fixture(scope="session")
def airflow_app(airflow_db: None) -> Iterator[Any]:
    """The API server's application, with all plugins that Airflow finds."""
    with pytest.MonkeyPatch.context() as patch:
        auth_manager = f"{PerDagAuthManager.__module__}.{PerDagAuthManager.__name__}"
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", auth_manager)
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", secrets.token_hex(64))
        from airflow.api_fastapi import app

        app.purge_cached_app()
        yield app.create_app()
        app.purge_cached_app()


@dataclass(frozen=True)
class Browser:
    """A browser at the gallery; without a token, no user has logged in."""

    client: TestClient
    prefix: str = ""

    def get(self, path: str, **headers: str) -> Any:
        """Open an address below the gallery's; nothing on the way makes it harmless."""
        return self.client.get(f"{self.prefix}/odirouter{path}", headers=headers, follow_redirects=False)

    def page(self, run: Run, task_id: str = "edit", map_index: object = -1) -> str:
        """Return the HTML of a task instance's page."""
        answer = self.get(path_of(run, task_id, map_index))
        assert answer.status_code == 200, answer.text
        return str(answer.text)


def path_of(run: Run, task_id: str = "edit", map_index: object = -1, rest: str = "") -> str:
    """The path of a task instance's page, or of what lies below it."""
    parts = (quote(str(part), safe="") for part in (run.run.dag_id, run.run.run_id, task_id, map_index))
    return "/dags/{}/runs/{}/tasks/{}/{}".format(*parts) + rest


Visitor = Callable[..., Browser]


@pytest.fixture
def visitor(airflow_app: Any) -> Visitor:
    """Makes a browser in which this user has logged in, or none: ``visitor("edit")``, ``visitor(None)``."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def make(username: str | None, prefix: str = "") -> Browser:
        client = TestClient(airflow_app, base_url="http://airflow.test", root_path=prefix)
        if username:
            user = SimpleAuthManagerUser(username=username, role="viewer")
            client.cookies.set("_token", get_auth_manager().generate_jwt(user=user))
        return Browser(client, prefix)

    return make


@pytest.fixture
def browser(visitor: Visitor) -> Browser:
    """The browser of a user who may read the Dag `edit`."""
    return visitor("edit")


def push(run: Run, key: str, value: Any, task_id: str = "edit", map_index: int = -1) -> None:
    """Replace an XCom, as a person can who may write to Airflow's database."""
    with create_session() as session:
        row = (
            session.query(XComModel)
            .filter_by(dag_id=run.run.dag_id, run_id=run.run.run_id, task_id=task_id, map_index=map_index, key=key)
            .one()
        )
        row.value = value


def images_in(page: str) -> list[str]:
    """The addresses of a page's pictures; those of the gallery without its prefix."""
    return [unescape(source).removeprefix("/odirouter") for source in re.findall(r'<img [^>]*src="([^"]*)"', page)]


__all__ += ["Browser", "RunDag", "Visitor", "images_in", "path_of", "push"]
