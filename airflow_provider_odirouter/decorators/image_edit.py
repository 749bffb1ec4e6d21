"""``@task.odirouter_image_edit``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_odirouter.compat import (
    SET_DURING_EXECUTION,
    AirflowFailException,
    DecoratedOperator,
    TaskDecorator,
    task_decorator_factory,
)
from airflow_provider_odirouter.decorators.function import call_function
from airflow_provider_odirouter.operators.image_edit import EDIT_FIELDS, OdiRouterImageEditOperator
from airflow_provider_odirouter.storage.path_fields import UrlField

if TYPE_CHECKING:
    from airflow.sdk import Context


class _ImageEditDecoratedOperator(DecoratedOperator, OdiRouterImageEditOperator):
    """Calls the function for the edit's parameters, then edits."""

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *OdiRouterImageEditOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}
    op_args = UrlField()
    op_kwargs = UrlField()
    custom_operator_name = "@task.odirouter_image_edit"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Mapping[str, Any]],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **{"prompt": SET_DURING_EXECUTION, "images": SET_DURING_EXECUTION, **kwargs},
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function, then edit."""
        parameters = call_function(self, context)
        if problem := _problem_of(parameters):
            raise AirflowFailException(
                f"The function {self.python_callable.__name__} must return a dictionary of an edit's parameters "
                f"({', '.join(EDIT_FIELDS)}), {problem}. Correct the function, then clear the task. Nothing was sent."
            )
        for name in EDIT_FIELDS:
            given = getattr(self, name)
            setattr(self, name, parameters.get(name, None if given is SET_DURING_EXECUTION else given))
        return OdiRouterImageEditOperator.execute(self, context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, with the parameters in the pushed record: the function is not called again."""
        from airflow_provider_odirouter.xcoms import REQUEST_XCOM, RequestRecord

        ti = context["ti"]
        pushed = ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index, key=REQUEST_XCOM)
        if pushed is not None:
            request = RequestRecord.model_validate(pushed)
            for name, value in {**request.parameters, "images": request.images, "mask": request.mask}.items():
                setattr(self, name, value)
        return super().resume_execution(next_method, next_kwargs, context)


def _problem_of(returned: object) -> str | None:
    if not isinstance(returned, Mapping):
        return f"not {type(returned).__name__}"
    unknown = [repr(name) for name in returned if name not in EDIT_FIELDS]
    return f"and these are none: {', '.join(unknown)}" if unknown else None


def odirouter_image_edit_task(
    python_callable: Callable[..., Mapping[str, Any]] | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Turn a function that returns an edit's parameters into a task that runs the edit and returns its manifest.

    ::

        @task.odirouter_image_edit(output_path="/data/edited")
        def white_background(product: dict) -> dict:
            return {"prompt": f"{product['name']} on white", "images": [product["photo"]]}

    The returned values are not rendered as templates, and win over the decorator's own parameters.

    :param python_callable: The function.
    :param kwargs: Parameters of
        :class:`~airflow_provider_odirouter.operators.image_edit.OdiRouterImageEditOperator`.
    """
    # Airflow would infer it from the function's annotation, but the task returns the manifest.
    kwargs.setdefault("multiple_outputs", False)
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_ImageEditDecoratedOperator, **kwargs
    )
