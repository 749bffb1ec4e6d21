"""What the operators and the sensor have in common as Airflow tasks. Light: it is loaded when a Dag is parsed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_provider_odirouter.errors import InvalidParametersError, Problem, StorageError
from airflow_provider_odirouter.parameter_checks import Check, is_unset, unset_problem
from airflow_provider_odirouter.storage.path_fields import PathField
from airflow_provider_odirouter.templating import has_template
from airflow_provider_odirouter.text_paths import relative_remark

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
    from airflow_provider_odirouter.lifecycle.guard import RequestGuard
    from airflow_provider_odirouter.lifecycle.ownership import Ownership
    from airflow_provider_odirouter.lifecycle.polling import Wait
    from airflow_provider_odirouter.triggers.request import WaitingTrigger

log = logging.getLogger(__name__)

SAFETY_MARGIN = timedelta(minutes=5)
"""
How long after the trigger's own deadline Airflow ends a deferral that did not end itself: time for a final poll and a
cancel at a service that hangs. Airflow then calls no ``on_kill``.
"""


class OptionalField:
    """An attribute that becomes ``None`` if it is set to what counts as unset, such as a template's ``"None"``."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else getattr(instance, self._name)

    def __set__(self, instance: object, value: object) -> None:
        setattr(instance, self._name, None if is_unset(value) else value)


class OdiRouterTask:
    """A task with a hook, which resumes after any deferral; stands before Airflow's own class among the bases."""

    checks: ClassVar[Mapping[str, Check]] = {}
    """The check of each of the task's own parameters, by its name."""

    template_fields: Sequence[str]
    endpoint: str
    odirouter_conn_id: str
    poll_interval: float
    timeout: float
    cancel_on_kill: bool
    cancel_on_timeout: bool
    defer: Callable[..., NoReturn]
    output_path = PathField()
    _given_output_path: object = None
    """As the Dag has it. It may be left out, but must not render to ``None``: the outputs would be lost."""
    storage_conn_id = OptionalField()
    _hook: OdiRouterHook | None = None
    _ownership: Ownership | None = None

    def check_parameters(self, *, rendered: bool) -> None:
        """
        Check all of the task's own parameters, see :meth:`checking_parameters`.

        :param rendered: Whether the templates are rendered.
        """
        with self.checking_parameters(rendered=rendered):
            pass

    @contextmanager
    def checking_parameters(self, *, rendered: bool) -> Iterator[Sequence[Problem]]:
        """
        Check all of the task's own parameters: when the Dag is parsed, and again before anything is paid.

        The block checks the input; one error names all problems. It receives those of the task's own parameters.

        :param rendered: Whether the templates are rendered.
        :raises ValueError: If only the task's own parameters cannot be used, while the Dag is parsed.
        :raises InvalidParametersError: If values cannot be used: a retry would not help.
        """
        own = self._own_problems(rendered=rendered)
        try:
            yield own
        except InvalidParametersError as error:
            if not own:
                raise
            raise InvalidParametersError(error.endpoint, [*own, *error.problems]) from None
        except StorageError:
            # Of an input that may be readable later: the parameters will be the same.
            if not own:
                raise
        if own and rendered:
            raise InvalidParametersError(type(self).__name__, own)
        if own:
            raise ValueError("; ".join(f"{problem.field} {problem.message}" for problem in own))
        if rendered and self.output_path and (remark := relative_remark("output_path", self.output_path)):
            log.warning(remark)

    def _own_problems(self, *, rendered: bool) -> list[Problem]:
        problems: list[Problem] = []
        for name, check in self.checks.items():
            value = getattr(self, name)
            is_unknown = not rendered and name in self.template_fields and has_template(value)
            if not is_unknown and (problem := check(value)):
                problems.append(Problem(name, problem))
        if self.output_path is None and self._given_output_path is not None:
            problems.append(Problem("output_path", str(unset_problem(None))))
        return problems

    @property
    def hook(self) -> OdiRouterHook:
        """The hook, made when it is first needed."""
        from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

        if self._hook is None:
            self._hook = OdiRouterHook(self.odirouter_conn_id)
        return self._hook

    def take_ownership(self, context: Context) -> Ownership:
        """
        Act for the task from now on, as its owner: before each call, the hook checks that the process still is.

        :raises NotOwnerError: If it is not the owner.
        """
        from airflow_provider_odirouter.lifecycle.ownership import Ownership
        from airflow_provider_odirouter.metrics import Metrics

        if self._ownership is None:
            self._ownership = Ownership.of(context["ti"], patience=self.timeout)
            self.hook.before_call = self._ownership.check
            self.hook.metrics = Metrics.of(context["ti"])
            self._ownership.begin()
        return self._ownership

    def make_wait(self, request_id: str, deadline: datetime, *, submitted_at: float | None = None) -> Wait:
        """
        Return the wait for a request, with the task's own parameters.

        :param submitted_at: Epoch seconds; ``None``: unknown, or another task has submitted the request.
        """
        from airflow_provider_odirouter.lifecycle.polling import Wait

        return Wait(
            endpoint=self.endpoint,
            request_id=request_id,
            poll_interval=self.poll_interval,
            deadline=deadline.timestamp(),
            cancel_on_timeout=self.cancel_on_timeout,
            submitted_at=submitted_at,
        )

    def defer_for(self, wait: Wait) -> None:
        """Defer until a request has ended."""
        from airflow_provider_odirouter.triggers.request import OdiRouterRequestTrigger

        self.defer_to(
            OdiRouterRequestTrigger.for_wait(
                wait, odirouter_conn_id=self.odirouter_conn_id, cancel_on_kill=self.cancel_on_kill
            )
        )

    def defer_to(self, trigger: WaitingTrigger) -> None:
        """
        Defer until the trigger's event; Airflow ends the deferral a while after the trigger's own deadline.

        The trigger and its event carry what ``execute_complete`` needs: ``dag.test()`` drops the kwargs of a deferral
        (Airflow 3.3).
        """
        left = timedelta(seconds=trigger.deadline - datetime.now(UTC).timestamp())
        self.defer(trigger=trigger, method_name="execute_complete", timeout=left + SAFETY_MARGIN)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, also if the trigger did not end it: Airflow alone would fail the task then."""
        from airflow_provider_odirouter.compat import TRIGGER_FAIL_REPR

        if next_method == TRIGGER_FAIL_REPR:
            next_method = "execute_without_trigger"
        return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]


class OdiRouterSubmittingTask(OdiRouterTask):
    """A task that submits requests. It handles them when it is killed on a worker; while deferred, its trigger does."""

    _guard: RequestGuard | None = None
    _is_killed = False
    """Whether the task was killed, perhaps before it has a guard, such as while templates are rendered."""
    _finished_request: str | None = None
    """The request whose end the task knows: from then on, there is nothing to cancel."""

    def on_kill(self) -> None:
        """Handle the live requests, and submit nothing more. Airflow calls this from a signal handler."""
        self._is_killed = True
        if self._finished_request:
            log.warning(
                "The task is killed. Request %s is finished: there is nothing to cancel.", self._finished_request
            )
        elif self._guard:
            self._guard.on_kill()

    def guard_requests(self, context: Context, survives_retry: Callable[[], bool]) -> RequestGuard:
        """
        Guard the task's requests from now on, and handle a kill that came earlier.

        :param survives_retry: Returns whether a new try will know the requests.
        """
        from airflow_provider_odirouter.lifecycle.failures import will_be_retried
        from airflow_provider_odirouter.lifecycle.guard import RequestGuard

        guard = self._guard = RequestGuard(
            self.hook,
            self.endpoint,
            context["ti"],
            self.take_ownership(context),
            survives_retry=survives_retry,
            cancel_on_kill=self.cancel_on_kill,
            cancel_on_timeout=self.cancel_on_timeout,
            will_be_retried=will_be_retried(context),
        )
        self.hook.before_submit = guard.check_submit
        if self._is_killed:
            guard.on_kill()
        return guard
