"""``@task.odirouter_image_edit_batch``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_odirouter.batch.checks import edits_problem
from airflow_provider_odirouter.compat import (
    SET_DURING_EXECUTION,
    AirflowFailException,
    DecoratedOperator,
    TaskDecorator,
    task_decorator_factory,
)
from airflow_provider_odirouter.decorators.function import call_function
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.storage.path_fields import PathLike, UrlField

if TYPE_CHECKING:
    from airflow.sdk import Context

READ_AGAIN = "A retry calls the function again, and submits what is missing then."
CLEAR = "Clear the task: it calls the function again, and submits what is missing then."


class _ImageEditBatchDecoratedOperator(DecoratedOperator, OdiRouterImageEditBatchOperator):
    """Calls the function for the edits, then makes them."""

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *OdiRouterImageEditBatchOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **OdiRouterImageEditBatchOperator.template_fields_renderers,
    }
    op_args = UrlField()
    op_kwargs = UrlField()
    custom_operator_name = "@task.odirouter_image_edit_batch"
    _context: Context | None = None
    """Of a task that resumes after a deferral."""

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **{**kwargs, "edits": SET_DURING_EXECUTION},
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function, then make the edits."""
        self.edits = call_function(self, context)
        if problem := edits_problem(self.edits, self.rules.list_name):
            raise AirflowFailException(
                f"What the function {self.python_callable.__name__} returns {problem.message}. Nothing was sent."
            )
        return OdiRouterImageEditBatchOperator.execute(self, context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral."""
        self._context = context
        return super().resume_execution(next_method, next_kwargs, context)

    def list_again(self) -> Any:
        """
        Call the function again, if an edit must be submitted after a deferral whose URLs the state does not hold whole.

        :raises StorageError: If that fails: what is paid must be landed all the same.
        """
        if self.edits is SET_DURING_EXECUTION and self._context is not None:
            from airflow_provider_odirouter.errors import StorageError

            try:
                self.edits = call_function(self, self._context)
            except Exception as error:
                name = self.python_callable.__name__
                what = f"The function {name} cannot be called again for the URLs of the edits: {error}"
                raise StorageError(what, advice=READ_AGAIN, last_advice=CLEAR) from error
        return self.edits


def odirouter_image_edit_batch_task(
    python_callable: Callable[..., Sequence[Mapping[str, Any]] | PathLike] | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Turn a function that returns edits into a task that makes them, as one batch, and returns the batch's summary.

    ::

        @task.odirouter_image_edit_batch(output_path="/data/edited")
        def white_background(products: list[dict]) -> list[dict]:
            return [{"prompt": f"{one['name']} on white", "images": one["photo"]} for one in products]

    The function returns a list of dictionaries, or the path of a file that lists them. Returned values are not rendered
    as templates.

    :param python_callable: The function.
    :param kwargs: Parameters of
        :class:`~airflow_provider_odirouter.operators.image_edit_batch.OdiRouterImageEditBatchOperator`, without
        ``edits``.
    """
    # Airflow would infer it from the function's annotation, but the task returns the summary.
    kwargs.setdefault("multiple_outputs", False)
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_ImageEditBatchDecoratedOperator, **kwargs
    )
