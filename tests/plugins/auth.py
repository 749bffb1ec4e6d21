"""Airflow's own auth manager with one rule of ours: who may read which Dag."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

ENTITIES_WITHOUT_XCOM = "everything_but_xcoms"


class PerDagAuthManager(SimpleAuthManager):
    """A user may read the Dag of the same name; the user `everything_but_xcoms` all of every Dag but its XComs."""

    def is_authorized_dag(
        self,
        *,
        method: Any,
        user: SimpleAuthManagerUser,
        access_entity: DagAccessEntity | None = None,
        details: DagDetails | None = None,
    ) -> bool:
        if user.username == ENTITIES_WITHOUT_XCOM:
            return access_entity is not DagAccessEntity.XCOM
        return details is not None and details.id == user.username
