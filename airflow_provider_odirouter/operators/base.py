"""What the operators and the sensor share as Airflow's tasks. Kept light: Dags are parsed with it."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_odirouter.places import AsText

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
    from airflow_provider_odirouter.lifecycle.ownership import Ownership
    from airflow_provider_odirouter.operators.custody import Custody, Lasting


Place: TypeAlias = "str | PathLike[str] | ObjectStoragePath"
"""A path, or a URL of any store."""


class OdiRouterTask:
    """A task with a hook that goes on after any deferral; stands before Airflow's own class among the bases."""

    odirouter_conn_id: str
    timeout: float
    output_path = AsText()
    _hook: OdiRouterHook | None = None
    _ownership: Ownership | None = None

    @property
    def hook(self) -> OdiRouterHook:
        """The hook, made when it is first needed."""
        from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

        if self._hook is None:
            self._hook = OdiRouterHook(self.odirouter_conn_id)
        return self._hook

    def take_ownership(self, context: Context) -> Ownership:
        """
        Act for the task from now on, as long as this process is its owner: each call of the hook asks that first.

        :raises NotOwnerError: If it is not.
        """
        from airflow_provider_odirouter.lifecycle.ownership import Ownership

        if self._ownership is None:
            self._ownership = Ownership.of(context["ti"], patience=self.timeout)
            self.hook.before_call = self._ownership.check
            self._ownership.begin()
        return self._ownership

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral, also after one that its trigger did not end: Airflow itself would only fail then."""
        from airflow_provider_odirouter.compat import TRIGGER_FAIL_REPR

        if next_method == TRIGGER_FAIL_REPR:
            next_method = "execute_without_trigger"
        return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]


class OdiRouterSubmittingTask(OdiRouterTask):
    """A task that submits, and sees to its requests when it is killed on a worker; a trigger does it while deferred."""

    cancel_on_kill: bool
    cancel_on_timeout: bool
    _custody: Custody | None = None
    _is_killed = False

    def on_kill(self) -> None:
        """See to what runs, and submit nothing more. Airflow calls it from a signal handler, and then goes on."""
        self._is_killed = True
        if self._custody:
            self._custody.on_kill()

    def take_custody(self, context: Context, endpoint: str, memory: Lasting) -> Custody:
        """
        Answer for the task's requests from now on, and for a kill that came before: while templates were rendered, say.

        :param memory: What a new try will know.
        """
        from airflow_provider_odirouter.operators import steps
        from airflow_provider_odirouter.operators.custody import Custody

        custody = self._custody = Custody(
            self.hook,
            endpoint,
            context["ti"],
            memory,
            self.take_ownership(context),
            cancel_on_kill=self.cancel_on_kill,
            cancel_on_timeout=self.cancel_on_timeout,
            tried_again=steps.is_tried_again(context),
        )
        if self._is_killed:
            custody.on_kill()
        return custody


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
