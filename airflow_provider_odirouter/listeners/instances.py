"""What Airflow's database knows of marked task instances, and of the requests that they waited for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from pydantic import ValidationError
from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import aliased

from airflow_provider_odirouter.records import BATCH_XCOM, FAILURE_XCOM, REQUEST_XCOM, BatchRecord, RequestRecord

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session

    from airflow_provider_odirouter.listeners.delay import Mark

log = logging.getLogger(__name__)

RETURN_VALUE = "return_value"
MARKED = ("failed", "success", "skipped")
"""What a person can mark a task instance, and what a run's mark makes of its instances."""
AT_A_TIME = 500
"""Task instances in one question."""


@dataclass(frozen=True)
class Marked:
    """A task instance of ours that did not end by itself."""

    id: str
    """Airflow's, which changes with each try and each clear."""
    name: str
    """For people."""
    state: str
    max_tries: int
    tries_left: bool
    record: RequestRecord | BatchRecord
    """What it waited for."""


def find(marks: Iterable[Mark]) -> dict[str, Marked]:
    """Return the marked task instances, by their id, that are ours and that nobody has cleared since."""
    marks = list(marks)
    ids = list({mark.task_instance for mark in marks if mark.task_instance})
    runs = {(mark.dag_id, mark.run_id) for mark in marks if not mark.task_instance}
    found: dict[str, Marked] = {}
    with create_session() as session:
        for first in range(0, len(ids), AT_A_TIME):
            found |= _found(session, TaskInstance.id.in_(ids[first : first + AT_A_TIME]))
        for dag_id, run_id in runs:
            found |= _found(session, and_(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id))
    return found


def _found(session: Session, which: ColumnElement[bool]) -> dict[str, Marked]:
    rows = session.execute(
        select(
            TaskInstance.id,
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.state,
            TaskInstance.try_number,
            TaskInstance.max_tries,
            XComModel.key,
            XComModel.value,
        )
        .join(XComModel, _is_pushed_by_it(XComModel))
        .where(
            which,
            TaskInstance.state.in_(MARKED),
            XComModel.key.in_([REQUEST_XCOM, BATCH_XCOM]),
            ~_ended_by_itself(),
        )
    )
    return {str(row.id): marked for row in rows if (marked := _marked(row))}


def _is_pushed_by_it(xcom: Any) -> ColumnElement[bool]:
    names = ("dag_id", "run_id", "task_id", "map_index")
    return and_(*(getattr(xcom, name) == getattr(TaskInstance, name) for name in names))


def _ended_by_itself() -> ColumnElement[bool]:
    """Whether its last try had come to its own end before the mark: what that has left running was to be left."""
    told = aliased(XComModel)
    has_failed = and_(told.key == FAILURE_XCOM, TaskInstance.try_number > TaskInstance.max_tries)
    return exists().where(_is_pushed_by_it(told), or_(told.key == RETURN_VALUE, has_failed)).correlate(TaskInstance)


def _marked(row: Row[Any]) -> Marked | None:
    record = _record(row)
    if record is None:
        return None
    index = f" [{row.map_index}]" if row.map_index >= 0 else ""
    return Marked(
        id=str(row.id),
        name=f"{row.dag_id}.{row.task_id}{index} of {row.run_id}",
        state=str(row.state),
        max_tries=row.max_tries,
        tries_left=row.try_number <= row.max_tries,
        record=record,
    )


def _record(row: Row[Any]) -> RequestRecord | BatchRecord | None:
    """Return what was pushed: plain JSON, wherever no XCom backend keeps it elsewhere."""
    shape = RequestRecord if row.key == REQUEST_XCOM else BatchRecord
    try:
        return shape.model_validate(row.value)
    except ValidationError:
        # Only where there is a backend: it comes with the task's side of Airflow.
        from airflow.sdk.execution_time.xcom import XCom
    try:
        return shape.model_validate(XCom.deserialize_value(row))
    except Exception as error:  # noqa: BLE001 - of any backend; one XCom that is gone must not hide all others
        log.warning("The XCom %s of %s.%s cannot be read: %r", row.key, row.dag_id, row.task_id, error)
        return None
