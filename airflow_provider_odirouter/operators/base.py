"""What the operators and the sensor share as Airflow's tasks. Kept light: Dags are parsed with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from airflow_provider_odirouter.json_values import text_problem
from airflow_provider_odirouter.operators.literals import is_open
from airflow_provider_odirouter.places import AsText

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
    from airflow_provider_odirouter.lifecycle.ownership import Ownership
    from airflow_provider_odirouter.operators.custody import Custody, Lasting


Place: TypeAlias = "str | PathLike[str] | ObjectStoragePath"
"""A path, or a URL of any store."""


MAX_SECONDS = 366 * 24 * 3600
"""For any time that a user gives: what is much longer is beyond what clocks and databases can hold."""


Check: TypeAlias = "Callable[[object], str | None]"
"""Tells what is wrong with a value."""


class OdiRouterTask:
    """A task with a hook that goes on after any deferral; stands before Airflow's own class among the bases."""

    checks: ClassVar[Mapping[str, Check]] = {}
    """What tells of each of the task's own parameters what is wrong with it."""

    template_fields: Sequence[str]
    odirouter_conn_id: str
    timeout: float
    output_path = AsText()
    _hook: OdiRouterHook | None = None
    _ownership: Ownership | None = None

    def check_own(self, *, rendered: bool) -> None:
        """
        Check the task's own parameters, all of them together: when the Dag is parsed, and before anything is paid.

        :param rendered: Whether no value is a template any more.
        :raises ValueError: If some cannot be used.
        :raises InvalidParametersError: If they are rendered: a retry would not help.
        """
        from airflow_provider_odirouter.errors import InvalidParametersError, Problem

        problems: list[Problem] = []
        for name, check in self.checks.items():
            value = getattr(self, name)
            is_unknown = not rendered and name in self.template_fields and is_open(value)
            if not is_unknown and (problem := check(value)):
                problems.append(Problem(name, problem))
        if problems and rendered:
            raise InvalidParametersError(type(self).__name__, problems)
        if problems:
            raise ValueError("; ".join(f"{problem.field} {problem.message}" for problem in problems))

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
        self.hook.before_submit = custody.refuse_if_killed
        if self._is_killed:
            custody.on_kill()
        return custody


def seconds_problem(seconds: object) -> str | None:
    """Return what is wrong with a parameter that is a time."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds > 0:
        return f"must be a number, more than 0 seconds, not {_shown(seconds)}"
    if seconds > MAX_SECONDS:
        return f"must be at most {MAX_SECONDS:,} seconds (a year), not {_shown(seconds)}"
    return None


def flag_problem(flag: object) -> str | None:
    """Return what is wrong with a parameter that is a switch: the text ``"False"`` would count as true."""
    return None if isinstance(flag, bool) else f"must be True or False, not {_shown(flag)}"


def name_problem(name: object) -> str | None:
    """Return what is wrong with a parameter that names something: an endpoint, a connection, a request."""
    if not isinstance(name, str):
        return f"must be a text, not {_shown(name)}"
    return text_problem(name) if name.strip() else "is empty"


def path_problem(path: object) -> str | None:
    """Return what is wrong with where something lies."""
    if not isinstance(path, str):
        return f"must be a path or the URL of a store, not {_shown(path)}"
    return text_problem(path) if path.strip() else "is empty"


def or_none(check: Check) -> Check:
    """Return a check of a parameter that may be left out."""
    return lambda value: None if value is None else check(value)


def store_problem(conn_id: object) -> str | None:
    """Return what is wrong with the connection of a store: a template that renders to nothing names none."""
    return None if conn_id is None or (isinstance(conn_id, str) and not conn_id) else name_problem(conn_id)


def one_of(*words: str) -> Check:
    """Return a check of a parameter that is one of some words."""
    return lambda value: (
        None
        if isinstance(value, str) and value in words
        else f"must be {' or '.join(map(repr, words))}, not {_shown(value)}"
    )


def check_count(name: str, count: object) -> None:
    """
    Check a parameter that counts.

    :raises ValueError: If it is no whole number, or less than 1.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, not {count!r}")


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, a class of the user's own
        return f"this {type(value).__name__}"
