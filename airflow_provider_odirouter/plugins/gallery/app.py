"""
The gallery's routes.

A mounted application inherits no authentication from Airflow: the dependency of this one checks the rights on each
route.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from airflow_provider_odirouter.addresses import COVER, EDIT, INSTANCE, SMALL, TASK, WHOLE
from airflow_provider_odirouter.compat import conf
from airflow_provider_odirouter.plugins.gallery import answers, views
from airflow_provider_odirouter.plugins.gallery.edits import Edit, Edits, read_edits
from airflow_provider_odirouter.plugins.gallery.files import DisplayError
from airflow_provider_odirouter.plugins.gallery.instances import (
    Instance,
    Task,
    count_instances,
    find_instances,
    newest_run,
)
from airflow_provider_odirouter.plugins.gallery.subjects import Kind, Picture, Subject, host_name

Number = Annotated[int, Path(ge=-1, lt=2**31)]
Version = Annotated[str, Query(pattern="^[0-9a-f]*$", max_length=64)]
"""How a picture's SHA-256 begins."""
MAX_PAGE = 10**6
NO_INSTANCE = "Airflow has no such task instance."

app = FastAPI(
    title="OdiRouter gallery",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.XCOM))],
    # These would be routes without a Dag, which everybody could open.
    openapi_url=None,
    docs_url=None,
    redoc_url=None,
)
app.add_exception_handler(DisplayError, answers.display_error)


@app.get(TASK)
def show_task(dag_id: str, task_id: str, request: Request, session: SessionDep) -> Response:
    """Redirect to all instances of a task in its newest run."""
    run_id = newest_run(session, dag_id, task_id)
    if run_id is None:
        return answers.html(views.notice("This task has not run yet."))
    return RedirectResponse(_site(request).root + Task(dag_id, run_id, task_id).address)


@app.get(INSTANCE)
async def show_instance(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str,
    request: Request,
    session: SessionDep,
    page: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1,
) -> Response:
    """
    Show a task instance, or all of a mapped task.

    :param map_index: A number. Anything else means all instances: Airflow's UI leaves ``{MAP_INDEX}`` as it is where it
        knows none.
    """
    task, site = Task(dag_id, run_id, task_id), _site(request)
    index = int(map_index) if re.fullmatch(r"-?[0-9]{1,9}", map_index) else None
    found, total = await run_in_threadpool(_find_for_page, session, task, index, page)
    if total is not None:
        make_page = partial(views.mapped_page, site, task, found, page=page, total=total)
    elif not found:
        return answers.html(views.notice(NO_INSTANCE), 404)
    elif not found[0].has_edits:
        make_page = partial(views.instance_page, site, found[0])
    else:
        edits, problem = await _try_to_read_edits(found[0])
        make_page = partial(views.batch_page, site, edits, page=page, problem=problem)
    return await run_in_threadpool(lambda: answers.html(make_page()))


@app.get(INSTANCE + EDIT)
async def show_edit(
    dag_id: str, run_id: str, task_id: str, map_index: Number, number: Number, request: Request, session: SessionDep
) -> Response:
    """Show an edit of a batch."""
    try:
        batch = await run_in_threadpool(find_instance, dag_id, run_id, task_id, map_index, session)
        edit = await find_edit(number, batch)
    except DisplayError as error:
        return answers.html(views.notice(str(error)), error.status_code)
    return answers.html(views.edit_page(_site(request), edit))


def find_instance(dag_id: str, run_id: str, task_id: str, map_index: Number, session: SessionDep) -> Instance:
    """Return the task instance that a route names."""
    found = find_instances(session, Task(dag_id, run_id, task_id), map_index=map_index)
    # The store may be slow, and the database's connections are few.
    session.close()
    if not found:
        raise DisplayError(NO_INSTANCE, 404)
    return found[0]


OfInstance = Annotated[Instance, Depends(find_instance)]


async def find_edit(number: Number, batch: OfInstance) -> Edit:
    """Return the edit of a batch that a route names."""
    return (await read_edits(batch)).parse(number)


OfEdit = Annotated[Edit, Depends(find_edit)]


@app.get(INSTANCE + SMALL)
async def show_small(
    instance: OfInstance, kind: Kind, index: Number, request: Request, sha256: Version = ""
) -> Response:
    """Send a small picture of a task instance."""
    return await answers.small(request, _stored_picture(instance, kind, index, sha256))


@app.get(INSTANCE + EDIT + SMALL)
async def show_small_of_edit(
    edit: OfEdit, kind: Kind, index: Number, request: Request, sha256: Version = ""
) -> Response:
    """Send a small picture of an edit of a batch."""
    return await answers.small(request, _stored_picture(edit, kind, index, sha256))


@app.get(INSTANCE + COVER)
async def show_cover(instance: OfInstance, request: Request) -> Response:
    """Send what covers the editable part of a task instance's first input."""
    return await answers.small(request, _stored_picture(instance, Kind.MASK, 0), cover=True)


@app.get(INSTANCE + EDIT + COVER)
async def show_cover_of_edit(edit: OfEdit, request: Request) -> Response:
    """Send what covers the editable part of an edit's first input."""
    return await answers.small(request, _stored_picture(edit, Kind.MASK, 0), cover=True)


@app.get(INSTANCE + WHOLE)
async def show_whole(
    instance: OfInstance, kind: Kind, index: Number, *, download: bool = False, sha256: Version = ""
) -> Response:
    """Send a picture of a task instance as it is."""
    return await answers.whole(_stored_picture(instance, kind, index, sha256), download=download)


@app.get(INSTANCE + EDIT + WHOLE)
async def show_whole_of_edit(
    edit: OfEdit, kind: Kind, index: Number, *, download: bool = False, sha256: Version = ""
) -> Response:
    """Send a picture of an edit of a batch as it is."""
    return await answers.whole(_stored_picture(edit, kind, index, sha256), download=download)


def _stored_picture(subject: Subject, kind: Kind, index: int, version: str = "") -> Picture:
    """
    Return a picture that the subject names; the gallery opens no URL.

    :param version: How its digest begins, if the address names one: a page must not show the picture of a later try.
    """
    picture = subject.find_picture(kind, index)
    if picture is None or picture.is_linked:
        raise HTTPException(404, "This task instance has no such picture.")
    if not str(picture.sha256).startswith(version):
        raise HTTPException(404, "This picture has changed since the page was made.")
    return picture


def _find_for_page(
    session: SessionDep, task: Task, map_index: int | None, page: int
) -> tuple[list[Instance], int | None]:
    """Return the instances that a page shows, and how many there are on all pages if it is a grid."""
    if map_index is not None:
        found, total = find_instances(session, task, map_index=map_index), None
    else:
        total = count_instances(session, task)
        # With a single instance, the page's number is that of its edits.
        offset = (page - 1) * views.CARDS_PER_PAGE if total > 1 else 0
        found = find_instances(session, task, offset=offset, limit=views.CARDS_PER_PAGE)
        if total == 1 and not any(instance.is_mapped for instance in found):
            total = None
    session.close()
    return found, total


async def _try_to_read_edits(batch: Instance) -> tuple[Edits, str | None]:
    """Return the edits of a batch, or none and the reason why they cannot be read."""
    try:
        return await read_edits(batch), None
    except DisplayError as error:
        return Edits(batch), str(error)


def _site(request: Request) -> views.Site:
    """Return where the gallery is, by all names that a proxy before Airflow may have left of its host."""
    names = [
        request.headers.get("Host", ""),
        *request.headers.get("X-Forwarded-Host", "").split(","),
        urlsplit(conf.get("api", "base_url", fallback="") or "").netloc,
    ]
    hosts = frozenset(host for name in names if (host := host_name(name.strip())))
    return views.Site(str(request.scope.get("root_path", "")), hosts)
