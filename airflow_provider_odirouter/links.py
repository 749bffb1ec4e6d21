"""The operators' extra link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class OdiRouterRequestLink(BaseOperatorLink):
    """
    Where the request lives at OdiRouter: its status, which asks for the API key.

    The operators push it as an XCom before they wait, since Airflow publishes a link only when a task ends.
    """

    name = "OdiRouter request"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return what the operator has pushed; empty, if there was no request."""
        from airflow.sdk.execution_time.xcom import XCom

        return str(XCom.get_value(ti_key=ti_key, key=self.xcom_key) or "")
