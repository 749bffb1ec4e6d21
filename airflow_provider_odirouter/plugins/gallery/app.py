"""
The gallery's routes.

A mounted application inherits no authentication from Airflow: every route here has the dependency of the application.
"""

from __future__ import annotations

import re
from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from airflow_provider_odirouter.plugins.gallery import answers, grids, instances, named
from airflow_provider_odirouter.plugins.gallery.addresses import Addresses
from airflow_provider_odirouter.plugins.gallery.edits import Edit, Edits, edits_of
from airflow_provider_odirouter.plugins.gallery.files import NotShownError
from airflow_provider_odirouter.plugins.gallery.instances import Instance, Task
from airflow_provider_odirouter.plugins.gallery.named import Kind, Named
from airflow_provider_odirouter.plugins.gallery.pages import edit_page, instance_page
from airflow_provider_odirouter.plugins.gallery.rendering import notice

Number = Annotated[int, Path(ge=-1, lt=2**31)]

app = FastAPI(
    title="OdiRouter gallery",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.XCOM))],
    # Routes without a Dag, which nobody could be kept from.
    openapi_url=None,
    docs_url=None,
    redoc_url=None,
)
app.add_exception_handler(NotShownError, answers.tell)

IN_RUN = "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"
INSTANCE = IN_RUN + "/{map_index}"
EDIT = INSTANCE + "/edits/{number}"


@app.get("/dags/{dag_id}/tasks/{task_id}")
def show_task(dag_id: str, task_id: str, request: Request, session: SessionDep) -> Response:
    """Lead to all instances of a task in its newest run."""
    run_id = instances.latest_run(session, dag_id, task_id)
    if run_id is None:
        return answers.html(notice("This task has not run yet."))
    return RedirectResponse(_addresses(request).all_of(Task(dag_id, run_id, task_id)))


@app.get(INSTANCE)
async def show_instance(
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
    answer = await run_in_threadpool(_answer_from_database, session, task, index, _addresses(request), page)
    if isinstance(answer, Response):
        return answer
    try:
        edits, trouble = await edits_of(answer), None
    except NotShownError as error:
        edits, trouble = Edits(answer), str(error)
    return await run_in_threadpool(_batch_answer, _addresses(request), edits, page, trouble)


@app.get(EDIT)
async def show_edit(
    dag_id: str, run_id: str, task_id: str, map_index: Number, number: Number, request: Request, session: SessionDep
) -> Response:
    """Show an edit of a batch."""
    try:
        batch = await run_in_threadpool(find_instance, dag_id, run_id, task_id, map_index, session)
        edit = await find_edit(number, batch)
    except NotShownError as error:
        return answers.html(notice(str(error)), status_code=error.status_code)
    return answers.html(edit_page(_addresses(request), edit, grids.CARDS), [edit])


def find_instance(dag_id: str, run_id: str, task_id: str, map_index: Number, session: SessionDep) -> Instance:
    """Return the task instance that a call asks for."""
    found = instances.find(session, Task(dag_id, run_id, task_id), map_index=map_index)
    # A store may be slow, and the database's connections are few.
    session.close()
    if not found:
        raise NotShownError("Airflow has no such task instance.", 404)
    return found[0]


async def find_edit(number: Number, batch: Annotated[Instance, Depends(find_instance)]) -> Edit:
    """Return the edit of a batch that a call asks for."""
    return (await edits_of(batch)).one(number)


async def find_picture(kind: Kind, index: Number, instance: Annotated[Instance, Depends(find_instance)]) -> Named:
    """Return the picture of a task instance that a call asks for."""
    return _named(instance, kind, index)


async def find_picture_of_edit(kind: Kind, index: Number, edit: Annotated[Edit, Depends(find_edit)]) -> Named:
    """Return the picture of an edit of a batch that a call asks for."""
    return _named(edit, kind, index)


OfInstance = Annotated[Named, Depends(find_picture)]
OfEdit = Annotated[Named, Depends(find_picture_of_edit)]


@app.get(INSTANCE + "/{kind}/{index}/small")
async def show_small(picture: OfInstance, request: Request) -> Response:
    """Send a small picture."""
    return await answers.small(request, picture)


@app.get(EDIT + "/{kind}/{index}/small")
async def show_small_of_edit(picture: OfEdit, request: Request) -> Response:
    """Send a small picture."""
    return await answers.small(request, picture)


@app.get(INSTANCE + "/mask/0/cover")
async def show_cover(instance: Annotated[Instance, Depends(find_instance)], request: Request) -> Response:
    """Send what covers the part that a mask lets the service edit."""
    return await answers.small(request, _named(instance, Kind.MASK, 0), cover=True)


@app.get(EDIT + "/mask/0/cover")
async def show_cover_of_edit(edit: Annotated[Edit, Depends(find_edit)], request: Request) -> Response:
    """Send what covers the part that a mask lets the service edit."""
    return await answers.small(request, _named(edit, Kind.MASK, 0), cover=True)


@app.get(INSTANCE + "/{kind}/{index}/whole")
async def show_whole(picture: OfInstance, *, download: bool = False) -> Response:
    """Send a picture as it is."""
    return await answers.whole(picture, download=download)


@app.get(EDIT + "/{kind}/{index}/whole")
async def show_whole_of_edit(picture: OfEdit, *, download: bool = False) -> Response:
    """Send a picture as it is."""
    return await answers.whole(picture, download=download)


def _named(instance: Instance, kind: Kind, index: int) -> Named:
    """Return a picture that lies in a store: only what the task instance itself names."""
    picture = named.find(instance, kind, index)
    if picture is None or picture.is_linked:
        raise HTTPException(404, "This task instance names no such picture.")
    return picture


def _answer_from_database(
    session: SessionDep, task: Task, index: int | None, addresses: Addresses, page: int
) -> Response | Instance:
    """Return the answer, or the batch whose manifest has to be read for it."""
    if index is None:
        total = instances.count(session, task)
        # The pages of a task with one instance are those of its edits.
        found = instances.find(session, task, offset=(page - 1) * grids.CARDS if total > 1 else 0, most=grids.CARDS)
        if total != 1 or (found and found[0].map_index >= 0):
            return answers.html(grids.mapped_page(addresses, task, found, page=page, total=total), found)
    else:
        found = instances.find(session, task, map_index=index)
    session.close()
    if not found:
        return answers.html(notice("Airflow has no such task instance."), status_code=404)
    return found[0] if found[0].told else answers.html(instance_page(addresses, found[0]), found)


def _batch_answer(addresses: Addresses, edits: Edits, page: int, trouble: str | None) -> Response:
    return answers.html(grids.batch_page(addresses, edits, page=page, trouble=trouble))


def _addresses(request: Request) -> Addresses:
    return Addresses(request.scope.get("root_path", ""))
