"""What Airflow's database knows of the instances of one task."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.xcom import XCom
from pydantic import BaseModel, ValidationError
from sqlalchemy import func, select

from airflow_provider_odirouter.models import Manifest
from airflow_provider_odirouter.records import FAILURE_XCOM, REQUEST_XCOM, FailureRecord, RequestRecord

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

RETURN_VALUE = "return_value"
OURS = ("OdiRouter", "@task.odirouter")
"""How the names of our operators begin: what a task is before it has pushed anything."""
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass(frozen=True)
class Task:
    """A task in a run."""

    dag_id: str
    run_id: str
    task_id: str


@dataclass(frozen=True)
class Instance:
    """
    A task instance.

    :param label: The user's own name for a map index.
    """

    task: Task
    map_index: int
    state: str | None
    label: str | None
    operator: str
    try_number: int
    request: RequestRecord | None
    manifest: Manifest | None
    failure: FailureRecord | None

    @property
    def has_request(self) -> bool:
        """Whether it has pushed anything of ours."""
        return bool(self.request or self.manifest or self.failure)

    @property
    def is_ours(self) -> bool:
        """Whether it is, or will be, an edit."""
        return self.has_request or self.operator.startswith(OURS)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come, unless somebody clears it."""
        return self.state in ENDED


def count(session: Session, task: Task) -> int:
    """Return how many instances a task has in a run."""
    return session.scalar(select(func.count()).select_from(TaskInstance).where(*_is_of(task, TaskInstance))) or 0


def find(
    session: Session, task: Task, *, map_index: int | None = None, offset: int = 0, most: int = 1
) -> list[Instance]:
    """Return instances in the order of their map index, or the one that is asked for."""
    query = select(TaskInstance).where(*_is_of(task, TaskInstance))
    if map_index is not None:
        query = query.where(TaskInstance.map_index == map_index)
    found = session.scalars(query.order_by(TaskInstance.map_index).offset(offset).limit(most)).all()
    pushed = _pushed(session, task, [ti.map_index for ti in found], [REQUEST_XCOM, FAILURE_XCOM])
    # What a task returns that is not ours is none of our business, and may be large.
    ours = [ti.map_index for ti in found if pushed[ti.map_index] or _operator(ti).startswith(OURS)]
    returned = _pushed(session, task, ours, [RETURN_VALUE])
    return [
        Instance(
            task=task,
            map_index=ti.map_index,
            state=str(ti.state) if ti.state else None,
            label=ti.rendered_map_index,
            operator=_operator(ti),
            try_number=ti.try_number,
            request=_read(RequestRecord, pushed[ti.map_index].get(REQUEST_XCOM)),
            manifest=_read(Manifest, returned[ti.map_index].get(RETURN_VALUE)),
            failure=_read(FailureRecord, pushed[ti.map_index].get(FAILURE_XCOM)),
        )
        for ti in found
    ]


def latest_run(session: Session, dag_id: str, task_id: str) -> str | None:
    """Return the newest run in which there is such a task."""
    return session.scalar(
        select(DagRun.run_id)
        .join(TaskInstance, (TaskInstance.dag_id == DagRun.dag_id) & (TaskInstance.run_id == DagRun.run_id))
        .where(TaskInstance.dag_id == dag_id, TaskInstance.task_id == task_id)
        .order_by(DagRun.run_after.desc(), DagRun.id.desc())
        .limit(1)
    )


def _is_of(task: Task, table: Any) -> tuple[Any, ...]:
    return table.dag_id == task.dag_id, table.run_id == task.run_id, table.task_id == task.task_id


def _operator(ti: TaskInstance) -> str:
    return str(ti.custom_operator_name or ti.operator or "")


def _pushed(
    session: Session, task: Task, map_indexes: Sequence[int], keys: Sequence[str]
) -> defaultdict[int, dict[str, Row[Any]]]:
    rows = session.execute(
        select(XComModel.map_index, XComModel.key, XComModel.value).where(
            *_is_of(task, XComModel), XComModel.map_index.in_(map_indexes), XComModel.key.in_(keys)
        )
    )
    pushed: defaultdict[int, dict[str, Row[Any]]] = defaultdict(dict)
    for row in rows:
        pushed[row.map_index][row.key] = row
    return pushed


def _read(model: type[M], row: Row[Any] | None) -> M | None:
    """
    Return a model, ``None`` if something else was pushed.

    Ours are plain JSON, which lies there as it is. Only what does not is handed to a backend that keeps it elsewhere.
    """
    if row is None:
        return None
    try:
        return model.model_validate(row.value)
    except ValidationError:
        if XCom is BaseXCom:
            return None
    try:
        return model.model_validate(XCom.deserialize_value(row))
    except Exception as error:  # noqa: BLE001 - of any backend; one XCom that is gone must not hide all others
        log.warning("The XCom %s of map index %s cannot be read: %r", row.key, row.map_index, error)
        return None
