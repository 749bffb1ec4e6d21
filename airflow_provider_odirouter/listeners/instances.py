"""Finds marked task instances, and the requests that they waited for, in Airflow's database."""

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

from airflow_provider_odirouter.compat import deserialize_xcom
from airflow_provider_odirouter.xcoms import BATCH_XCOM, FAILURE_XCOM, REQUEST_XCOM, BatchRecord, RequestRecord

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session

    from airflow_provider_odirouter.listeners.delay import Mark

log = logging.getLogger(__name__)

RETURN_VALUE = "return_value"
MARKED_STATES = ("failed", "success", "skipped")
"""The states that a person can give to a task instance, or, with a mark of the run, to all its unfinished instances."""
MAX_IDS_PER_QUERY = 500


@dataclass(frozen=True)
class MarkedInstance:
    """A task instance of this provider that a person has marked before it ended by itself."""

    id: str
    """Airflow's id, which changes with each try and each clear."""
    name: str
    """How log lines name it."""
    state: str
    max_tries: int
    tries_left: bool
    record: RequestRecord | BatchRecord
    """The requests that it waited for."""


def find_marked(marks: Iterable[Mark]) -> dict[str, MarkedInstance]:
    """Return the marked task instances of this provider by their id, without those that were cleared since."""
    marks = list(marks)
    ids = list({mark.task_instance for mark in marks if mark.task_instance})
    runs = {(mark.dag_id, mark.run_id) for mark in marks if not mark.task_instance}
    found: dict[str, MarkedInstance] = {}
    with create_session() as session:
        for first in range(0, len(ids), MAX_IDS_PER_QUERY):
            found |= _query(session, TaskInstance.id.in_(ids[first : first + MAX_IDS_PER_QUERY]))
        for dag_id, run_id in runs:
            found |= _query(session, and_(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id))
    return found


def _query(session: Session, condition: ColumnElement[bool]) -> dict[str, MarkedInstance]:
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
        .join(XComModel, _belongs_to_instance(XComModel))
        .where(
            condition,
            TaskInstance.state.in_(MARKED_STATES),
            XComModel.key.in_([REQUEST_XCOM, BATCH_XCOM]),
            ~_ended_by_itself(),
        )
    )
    return {str(row.id): marked for row in rows if (marked := _instance(row))}


def _belongs_to_instance(xcom: Any) -> ColumnElement[bool]:
    names = ("dag_id", "run_id", "task_id", "map_index")
    return and_(*(getattr(xcom, name) == getattr(TaskInstance, name) for name in names))


def _ended_by_itself() -> ColumnElement[bool]:
    """
    Return whether the instance's last try ended by itself before the mark.

    Such a try has cancelled its requests already, or has left them running on purpose.
    """
    xcom = aliased(XComModel)
    succeeded = xcom.key == RETURN_VALUE
    failed = and_(xcom.key == FAILURE_XCOM, TaskInstance.try_number > TaskInstance.max_tries)
    return exists().where(_belongs_to_instance(xcom), or_(succeeded, failed)).correlate(TaskInstance)


def _instance(row: Row[Any]) -> MarkedInstance | None:
    record = _record(row)
    if record is None:
        return None
    index = f" [{row.map_index}]" if row.map_index >= 0 else ""
    return MarkedInstance(
        id=str(row.id),
        name=f"{row.dag_id}.{row.task_id}{index} of {row.run_id}",
        state=str(row.state),
        max_tries=row.max_tries,
        tries_left=row.try_number <= row.max_tries,
        record=record,
    )


def _record(row: Row[Any]) -> RequestRecord | BatchRecord | None:
    """Return the pushed record: plain JSON, or what a custom XCom backend makes of it."""
    model = RequestRecord if row.key == REQUEST_XCOM else BatchRecord
    try:
        return model.model_validate(row.value)
    except ValidationError:
        pass
    try:
        return model.model_validate(deserialize_xcom(row))
    except Exception as error:  # noqa: BLE001 - of any backend; one unreadable XCom must not stop the others
        log.warning("The XCom %s of %s.%s cannot be read: %r", row.key, row.dag_id, row.task_id, error)
        return None
