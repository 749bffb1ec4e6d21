"""What the operators and the sensor share as Airflow's tasks. Kept light: Dags are parsed with it."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_odirouter.places import AsText

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook


Place: TypeAlias = "str | PathLike[str] | ObjectStoragePath"
"""A path, or a URL of any store."""


class OdiRouterTask:
    """A task with a hook that goes on after any deferral; stands before Airflow's own class among the bases."""

    odirouter_conn_id: str
    output_path = AsText()
    _hook: OdiRouterHook | None = None

    @property
    def hook(self) -> OdiRouterHook:
        """The hook, made when it is first needed."""
        from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

        if self._hook is None:
            self._hook = OdiRouterHook(self.odirouter_conn_id)
        return self._hook

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral, also after one that its trigger did not end: Airflow itself would only fail then."""
        from airflow_provider_odirouter.compat import TRIGGER_FAIL_REPR

        if next_method == TRIGGER_FAIL_REPR:
            next_method = "execute_without_trigger"
        return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]


def check_seconds(name: str, seconds: object) -> None:
    """
    Check a parameter that is a time.

    :raises ValueError: If it is no number of seconds, or not more than 0.
    """
    if not isinstance(seconds, int | float) or seconds <= 0:
        raise ValueError(f"{name} must be a number, more than 0 seconds, not {seconds!r}")


def check_count(name: str, count: object) -> None:
    """
    Check a parameter that counts.

    :raises ValueError: If it is no whole number, or less than 1.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, not {count!r}")
