"""What Airflow's database knows of the instances of one task."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.xcom import XCom
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, select

from airflow_provider_odirouter.images.landing import stable_name
from airflow_provider_odirouter.models import BatchSummary, Manifest
from airflow_provider_odirouter.records import (
    BATCH_XCOM,
    FAILURE_XCOM,
    REQUEST_XCOM,
    BatchRecord,
    FailureRecord,
    RequestRecord,
)

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

T = TypeVar("T")

RETURN_VALUE = "return_value"
OURS = ("OdiRouter", "@task.odirouter")
"""How the names of our operators begin: what a task is before it has pushed anything."""
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})

REQUEST = TypeAdapter(RequestRecord)
BATCH = TypeAdapter(BatchRecord)
FAILURE = TypeAdapter(FailureRecord)
RETURNED: TypeAdapter[Manifest | BatchSummary] = TypeAdapter(Manifest | BatchSummary)


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
    :param batch: What a batch knows while it waits.
    :param summary: What it returns.
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
    batch: BatchRecord | None
    summary: BatchSummary | None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.task.task_id} [{self.label or self.map_index}]" if self.map_index >= 0 else self.task.task_id

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked for."""
        return self.request.parameters if self.request else {}

    @property
    def file_name(self) -> str:
        """What the names of its files begin with."""
        mapped = [str(self.map_index)] if self.map_index >= 0 else []
        return stable_name(self.task.dag_id, self.task.task_id, self.task.run_id, *mapped)

    @property
    def told(self) -> BatchSummary | BatchRecord | None:
        """What a batch tells of all its edits; ``None``: it is none, or has told nothing yet."""
        return self.summary or self.batch

    @property
    def has_request(self) -> bool:
        """Whether it has pushed anything of ours."""
        return bool(self.request or self.manifest or self.failure or self.told)

    @property
    def is_ours(self) -> bool:
        """Whether it is, or will be, an edit."""
        return self.has_request or self.operator.startswith(OURS)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come, unless somebody clears it."""
        return self.state in ENDED

    def can_have_landed(self, path: str) -> bool:
        """Return whether a file can be its output: a manifest that was tampered with shows no other's."""
        return PurePosixPath(path).name.startswith(f"{self.file_name}-") and ".." not in PurePosixPath(path).parts


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
    pushed = _pushed(session, task, [ti.map_index for ti in found], [REQUEST_XCOM, BATCH_XCOM, FAILURE_XCOM])
    # What a task returns that is not ours is none of our business, and may be large.
    ours = [ti.map_index for ti in found if pushed[ti.map_index] or _operator(ti).startswith(OURS)]
    returned = _pushed(session, task, ours, [RETURN_VALUE])
    return [_instance(task, ti, pushed[ti.map_index] | returned[ti.map_index]) for ti in found]


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


def _instance(task: Task, ti: TaskInstance, pushed: Mapping[str, Row[Any]]) -> Instance:
    returned = _read(RETURNED, pushed.get(RETURN_VALUE))
    return Instance(
        task=task,
        map_index=ti.map_index,
        state=str(ti.state) if ti.state else None,
        label=ti.rendered_map_index,
        operator=_operator(ti),
        try_number=ti.try_number,
        request=_read(REQUEST, pushed.get(REQUEST_XCOM)),
        manifest=returned if isinstance(returned, Manifest) else None,
        failure=_read(FAILURE, pushed.get(FAILURE_XCOM)),
        batch=_read(BATCH, pushed.get(BATCH_XCOM)),
        summary=returned if isinstance(returned, BatchSummary) else None,
    )


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


def _read(shape: TypeAdapter[T], row: Row[Any] | None) -> T | None:
    """
    Return what was pushed, ``None`` if something else was pushed.

    Ours are plain JSON, which lies there as it is. Only what does not is handed to a backend that keeps it elsewhere.
    """
    if row is None:
        return None
    try:
        return shape.validate_python(row.value)
    except ValidationError:
        if XCom is BaseXCom:
            return None
    try:
        return shape.validate_python(XCom.deserialize_value(row))
    except Exception as error:  # noqa: BLE001 - of any backend; one XCom that is gone must not hide all others
        log.warning("The XCom %s of map index %s cannot be read: %r", row.key, row.map_index, error)
        return None
