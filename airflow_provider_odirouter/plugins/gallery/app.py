"""
The gallery's routes.

A mounted application inherits no authentication from Airflow: every route here has the dependency of the application.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse

from airflow_provider_odirouter.plugins.gallery import instances, named, pictures
from airflow_provider_odirouter.plugins.gallery.addresses import Addresses
from airflow_provider_odirouter.plugins.gallery.instances import Instance, Task
from airflow_provider_odirouter.plugins.gallery.named import Kind, Named
from airflow_provider_odirouter.plugins.gallery.pages import Page, grid, instance_page, is_loaded, notice
from airflow_provider_odirouter.plugins.gallery.pictures import NotShownError

Number = Annotated[int, Path(ge=-1, lt=2**31)]

CARDS = 60
"""Instances on one page of a mapped task."""

app = FastAPI(
    title="OdiRouter gallery",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.XCOM))],
    # Routes without a Dag, which nobody could be kept from.
    openapi_url=None,
    docs_url=None,
    redoc_url=None,
)

IN_RUN = "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"


@app.get("/dags/{dag_id}/tasks/{task_id}")
def show_task(dag_id: str, task_id: str, request: Request, session: SessionDep) -> Response:
    """Lead to all instances of a task in its newest run."""
    run_id = instances.latest_run(session, dag_id, task_id)
    if run_id is None:
        return _html(notice("This task has not run yet."))
    return RedirectResponse(_addresses(request).all_of(Task(dag_id, run_id, task_id)))


@app.get(IN_RUN + "/{map_index}")
def show_instance(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str,
    request: Request,
    session: SessionDep,
    page: Annotated[int, Query(ge=1, le=10**6)] = 1,
) -> Response:
    """
    Show a task instance, or all of a mapped task.

    :param map_index: A number; anything else means all: the UI leaves ``{MAP_INDEX}`` as it is where it has none.
    """
    task = Task(dag_id, run_id, task_id)
    index = int(map_index) if re.fullmatch(r"-?[0-9]{1,9}", map_index) else None
    if index is None:
        total = instances.count(session, task)
        found = instances.find(session, task, offset=(page - 1) * CARDS, most=CARDS)
        if total != 1 or (found and found[0].map_index >= 0):
            cards = grid(_addresses(request), task, found, page=page, pages=max(1, -(-total // CARDS)), total=total)
            return _html(cards, found)
    else:
        found = instances.find(session, task, map_index=index)
    if not found:
        return _html(notice("Airflow has no such task instance."), status_code=404)
    return _html(instance_page(_addresses(request), found[0]), found)


@app.get(IN_RUN + "/{map_index}/{kind}/{index}/small")
async def show_small(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: Number,
    kind: Kind,
    index: Number,
    request: Request,
    session: SessionDep,
) -> Response:
    """Send a small picture."""
    picture = await run_in_threadpool(_named, session, Task(dag_id, run_id, task_id), map_index, kind, index)
    return await _small(request, picture)


@app.get(IN_RUN + "/{map_index}/mask/0/cover")
async def show_cover(
    dag_id: str, run_id: str, task_id: str, map_index: Number, request: Request, session: SessionDep
) -> Response:
    """Send what covers the part that a mask lets the service edit."""
    picture = await run_in_threadpool(_named, session, Task(dag_id, run_id, task_id), map_index, Kind.MASK, 0)
    return await _small(request, picture, cover=True)


@app.get(IN_RUN + "/{map_index}/{kind}/{index}/whole")
async def show_whole(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: Number,
    kind: Kind,
    index: Number,
    session: SessionDep,
    *,
    download: bool = False,
) -> Response:
    """Send a picture as it is."""
    picture = await run_in_threadpool(_named, session, Task(dag_id, run_id, task_id), map_index, kind, index)
    whole = await pictures.whole_picture(picture.place, str(picture.sha256))
    disposition = f"{'attachment' if download else 'inline'}; filename*=utf-8''{quote(picture.file_name, safe='')}"
    headers = {"Content-Disposition": disposition, "Content-Length": str(whole.size), **_PICTURE_HEADERS}
    return StreamingResponse(whole.chunks(), media_type=whole.content_type, headers=headers)


@app.exception_handler(NotShownError)
def _tell(_: Request, error: Exception) -> Response:
    status_code = error.status_code if isinstance(error, NotShownError) else 500
    return PlainTextResponse(str(error), status_code, headers=_HEADERS)


def _named(session: SessionDep, task: Task, map_index: int, kind: Kind, index: int) -> Named:
    """Return a picture that lies in a store: only what the task instance itself names."""
    found = instances.find(session, task, map_index=map_index)
    picture = named.find(found[0], kind, index) if found else None
    if picture is None or picture.is_linked:
        raise HTTPException(404, "This task instance names no such picture.")
    # The store may be slow, and the database's connections are few.
    session.close()
    return picture


async def _small(request: Request, picture: Named, *, cover: bool = False) -> Response:
    # To be asked each time, since the right to see it may be gone; but not to be sent again.
    headers = {"ETag": picture.etag, **_PICTURE_HEADERS}
    if request.headers.get("If-None-Match") == picture.etag:
        return Response(status_code=304, headers=headers)
    content = await pictures.small_picture(picture.place, str(picture.sha256), cover=cover)
    return Response(content, media_type="image/webp", headers=headers)


_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PICTURE_HEADERS = _HEADERS | {
    "Cache-Control": "private, no-cache",
    # Airflow before 3.3 would compress it again, and drop its length.
    "Content-Encoding": "identity",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}


def _addresses(request: Request) -> Addresses:
    return Addresses(request.scope.get("root_path", ""))


def _html(page: Page, shown: Iterable[Instance] = (), *, status_code: int = 200) -> Response:
    """Send a page that may load nothing but itself, our pictures, and those behind the vendor's links that it names."""
    nonce = secrets.token_urlsafe(16)
    loaded = (one for instance in shown for one in named.pictures_of(instance) if is_loaded(one))
    origins = {one.origin for one in loaded if one.is_linked}
    policy = {
        "default-src": "'none'",
        "img-src": " ".join(["'self'", *sorted(origin for origin in origins if origin)]),
        "style-src": f"'nonce-{nonce}'",
        "script-src": f"'nonce-{nonce}'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    }
    headers = _HEADERS | {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
    }
    return HTMLResponse(page.render(nonce).encode("utf-8", "replace"), status_code, headers=headers)
