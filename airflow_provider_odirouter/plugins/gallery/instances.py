"""Reads the instances of a task, and their XComs, from Airflow's database."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, select

from airflow_provider_odirouter.addresses import ALL, instance_address, task_instance_address
from airflow_provider_odirouter.compat import deserialize_xcom, has_custom_xcom_backend
from airflow_provider_odirouter.images.landing import stable_name
from airflow_provider_odirouter.models import BatchSummary, Manifest
from airflow_provider_odirouter.plugins.gallery.subjects import Subject
from airflow_provider_odirouter.xcoms import (
    BATCH_XCOM,
    FAILURE_XCOM,
    REQUEST_XCOM,
    STATUS_XCOM,
    BatchRecord,
    FailureRecord,
    RequestRecord,
    StatusRecord,
)

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

T = TypeVar("T")

OUR_OPERATORS = ("OdiRouter", "@task.odirouter")
"""How the names of our operators begin: a task that has not pushed anything yet is recognised by its operator."""

KEYS = (REQUEST_XCOM, STATUS_XCOM, BATCH_XCOM, FAILURE_XCOM)

REQUEST = TypeAdapter(RequestRecord)
BATCH = TypeAdapter(BatchRecord)
STATUS = TypeAdapter(StatusRecord)
FAILURE = TypeAdapter(FailureRecord)
RETURNED: TypeAdapter[Manifest | BatchSummary] = TypeAdapter(Manifest | BatchSummary)


@dataclass(frozen=True)
class Task:
    """A task in a run."""

    dag_id: str
    run_id: str
    task_id: str

    @property
    def address(self) -> str:
        """The address of the page of all its instances."""
        return instance_address(self.dag_id, self.run_id, self.task_id, ALL)


@dataclass(frozen=True, kw_only=True)
class Instance(Subject):
    """
    A task instance.

    :param label: The user's own name of a map index.
    :param status: The status of its request that its trigger has seen last.
    :param batch_summary: What a batch has returned, or pushed while it waits; ``None`` if it has done neither, and for
        a task that is not a batch.
    """

    task: Task
    map_index: int
    label: str | None
    operator: str
    try_number: int
    status: StatusRecord | None
    batch_summary: BatchSummary | BatchRecord | None

    @property
    def heading(self) -> str:
        """Its name for people."""
        return f"{self.task.task_id} {self.index_label}" if self.is_mapped else self.task.task_id

    @property
    def address(self) -> str:
        """The address of its page, below the gallery's own."""
        return instance_address(self.task.dag_id, self.task.run_id, self.task.task_id, self.map_index)

    @property
    def address_in_airflow(self) -> str:
        """The address of its logs, below that of Airflow's UI."""
        return task_instance_address(self.task.dag_id, self.task.run_id, self.task.task_id, self.map_index)

    @property
    def is_mapped(self) -> bool:
        """Whether its task is mapped."""
        return self.map_index >= 0

    @property
    def index_label(self) -> str:
        """What distinguishes it from the other instances of its task."""
        return f"[{self.label or self.map_index}]"

    @property
    def file_prefix(self) -> str:
        """How the names of its files begin."""
        mapped = [str(self.map_index)] if self.is_mapped else []
        return stable_name(self.task.dag_id, self.task.task_id, self.task.run_id, *mapped)

    @property
    def is_ours(self) -> bool:
        """Whether it edits pictures, or will."""
        return self.has_request or bool(self.batch_summary) or self.operator.startswith(OUR_OPERATORS)

    def can_have_landed(self, path: str) -> bool:
        """Return whether a file has the name of one of its outputs."""
        return PurePosixPath(path).name.startswith(f"{self.file_prefix}-") and ".." not in PurePosixPath(path).parts


def count_instances(session: Session, task: Task) -> int:
    """Return how many instances a task has in a run."""
    return session.scalar(select(func.count()).select_from(TaskInstance).where(*_belongs_to(task, TaskInstance))) or 0


def find_instances(
    session: Session, task: Task, *, map_index: int | None = None, offset: int = 0, limit: int = 1
) -> list[Instance]:
    """Return instances of a task in the order of their map index, or the one with this map index."""
    query = select(TaskInstance).where(*_belongs_to(task, TaskInstance))
    if map_index is not None:
        query = query.where(TaskInstance.map_index == map_index)
    rows = session.scalars(query.order_by(TaskInstance.map_index).offset(offset).limit(limit)).all()
    pushed = _pushed(session, task, [ti.map_index for ti in rows], KEYS)
    # The return value of another provider's task does not concern the gallery, and may be large.
    ours = [ti.map_index for ti in rows if pushed[ti.map_index] or _operator(ti).startswith(OUR_OPERATORS)]
    returned = _pushed(session, task, ours, [XCOM_RETURN_KEY])
    return [_instance(task, ti, pushed[ti.map_index] | returned[ti.map_index]) for ti in rows]


def newest_run(session: Session, dag_id: str, task_id: str) -> str | None:
    """Return the id of the newest run that has an instance of this task."""
    return session.scalar(
        select(DagRun.run_id)
        .join(TaskInstance, (TaskInstance.dag_id == DagRun.dag_id) & (TaskInstance.run_id == DagRun.run_id))
        .where(TaskInstance.dag_id == dag_id, TaskInstance.task_id == task_id)
        .order_by(DagRun.run_after.desc(), DagRun.id.desc())
        .limit(1)
    )


def _belongs_to(task: Task, table: Any) -> tuple[Any, ...]:
    return table.dag_id == task.dag_id, table.run_id == task.run_id, table.task_id == task.task_id


def _instance(task: Task, ti: TaskInstance, pushed: Mapping[str, Row[Any]]) -> Instance:
    returned = _read(RETURNED, pushed.get(XCOM_RETURN_KEY))
    record = _read(BATCH, pushed.get(BATCH_XCOM))
    request = _read(REQUEST, pushed.get(REQUEST_XCOM))
    status = _read(STATUS, pushed.get(STATUS_XCOM))
    return Instance(
        task=task,
        map_index=ti.map_index,
        state=str(ti.state) if ti.state else None,
        label=ti.rendered_map_index,
        operator=_operator(ti),
        try_number=ti.try_number,
        request=request,
        status=status if status and request and status.request_id == request.request_id else None,
        manifest=returned if isinstance(returned, Manifest) else None,
        failure=_read(FAILURE, pushed.get(FAILURE_XCOM)),
        batch_summary=returned if isinstance(returned, BatchSummary) else record,
    )


def _operator(ti: TaskInstance) -> str:
    return str(ti.custom_operator_name or ti.operator or "")


def _pushed(
    session: Session, task: Task, map_indexes: Sequence[int], keys: Sequence[str]
) -> defaultdict[int, dict[str, Row[Any]]]:
    rows = session.execute(
        select(XComModel.map_index, XComModel.key, XComModel.value).where(
            *_belongs_to(task, XComModel), XComModel.map_index.in_(map_indexes), XComModel.key.in_(keys)
        )
    )
    pushed: defaultdict[int, dict[str, Row[Any]]] = defaultdict(dict)
    for row in rows:
        pushed[row.map_index][row.key] = row
    return pushed


def _read(model: TypeAdapter[T], row: Row[Any] | None) -> T | None:
    """
    Return what was pushed; ``None`` if it is something else.

    Ours is plain JSON, and the database holds it as it is. Only another value is given to a custom XCom backend, which
    may keep ours elsewhere.
    """
    if row is None:
        return None
    try:
        return model.validate_python(row.value)
    except ValidationError:
        # Without a custom backend, Airflow would make objects of what anyone can have pushed.
        if not has_custom_xcom_backend():
            return None
    try:
        return model.validate_python(deserialize_xcom(row))
    except Exception as error:  # noqa: BLE001 - of any backend; one unreadable XCom must not hide all others
        log.warning("The XCom %s of map index %s cannot be read: %r", row.key, row.map_index, error)
        return None
