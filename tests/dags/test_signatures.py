"""The signatures that an IDE shows: every parameter is named, documented, and stated alike in both operators."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from typing import Any, Literal, get_args, get_origin

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.models import ImageEdit
from airflow_provider_odirouter.operators import batch, image_edit, image_edit_batch, queue
from airflow_provider_odirouter.operators.batch import OdiRouterBatchOperator
from airflow_provider_odirouter.operators.image_edit import EDIT_FIELDS, OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor

TASKS = [
    OdiRouterQueueOperator,
    OdiRouterImageEditOperator,
    OdiRouterBatchOperator,
    OdiRouterImageEditBatchOperator,
    OdiRouterRequestSensor,
]


def parameters_of(task: type) -> dict[str, inspect.Parameter]:
    """The parameters of a task, without Airflow's own, which are in ``**kwargs``."""
    signature = inspect.signature(task.__init__)  # type: ignore[misc]
    return {name: one for name, one in signature.parameters.items() if one.kind is one.KEYWORD_ONLY}


def docs_of(task: type) -> dict[str, str]:
    """The documentation of each parameter."""
    found = re.findall(r"^:param (\w+): (.*?)(?=^:|\Z)", inspect.getdoc(task) or "", re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def choices_of(module: Any, annotation: str) -> set[Any]:
    """The literals of an annotation, which must also allow a template's text."""
    kinds = get_args(eval(annotation, vars(module)))
    assert str in kinds
    return {choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)}


@pytest.mark.parametrize("task", TASKS)
def test_the_signature_names_and_the_docstring_explains_every_parameter(task: Any) -> None:
    parameters = parameters_of(task)
    assert set(task.template_fields) <= set(parameters)
    assert set(docs_of(task)) == set(parameters)


def test_both_operators_state_their_common_parameters_alike() -> None:
    queue_parameters, edit_parameters = parameters_of(OdiRouterQueueOperator), parameters_of(OdiRouterImageEditOperator)
    queue_docs, edit_docs = docs_of(OdiRouterQueueOperator), docs_of(OdiRouterImageEditOperator)
    common = [name for name in queue_parameters if name not in {"endpoint", "parameters", "file_parameters"}]
    assert [*EDIT_FIELDS, *common] == list(edit_parameters)
    for name in common:
        assert edit_parameters[name] == queue_parameters[name], name
        assert edit_docs[name] == queue_docs[name]


def test_each_common_parameter_reaches_the_queue_operator() -> None:
    given: dict[str, Any] = {
        "odirouter_conn_id": "other",
        "output_path": "/out",
        "storage_conn_id": "store",
        "deferrable": False,
        "wait_for_completion": False,
        "poll_interval": 7.0,
        "timeout": 70.0,
        "cancel_on_kill": False,
        "cancel_on_timeout": False,
        "durable": False,
        "on_lost_submit": "fail",
    }
    defaults = {name: one.default for name, one in parameters_of(OdiRouterImageEditOperator).items()}
    task = OdiRouterImageEditOperator(task_id="edit", prompt="Blue", images="a.png", **given)
    assert set(given) == set(defaults) - set(EDIT_FIELDS) - {"max_submits"}
    assert not [name for name, value in given.items() if defaults[name] == value]
    assert {name: getattr(task, name) for name in given} == given
    limited = OdiRouterImageEditOperator(task_id="edit", prompt="Blue", images="a.png", max_submits=5)
    assert limited.max_submits == 5  # it needs what durable remembers


def test_both_batches_state_their_common_parameters_alike() -> None:
    any_parameters = parameters_of(OdiRouterBatchOperator)
    edit_parameters = parameters_of(OdiRouterImageEditBatchOperator)
    any_docs, edit_docs = docs_of(OdiRouterBatchOperator), docs_of(OdiRouterImageEditBatchOperator)
    common = [name for name in any_parameters if name not in {"endpoint", "items", "file_parameters"}]
    assert {"edits", *common} == set(edit_parameters)
    for name in common:
        assert edit_parameters[name] == any_parameters[name], name
        assert edit_docs[name] == any_docs[name]


def test_each_common_parameter_reaches_the_base_of_the_batch() -> None:
    given: dict[str, Any] = {
        "output_path": "/out",
        "defaults": {"prompt": "Blue"},
        "storage_conn_id": "store",
        "odirouter_conn_id": "other",
        "max_concurrent_submits": 3,
        "max_in_flight": 4,
        "if_exists": "overwrite",
        "on_empty": "succeed",
        "on_item_failure": "fail",
        "deferrable": False,
        "poll_interval": 7.0,
        "timeout": 70.0,
        "cancel_on_kill": False,
        "cancel_on_timeout": False,
        "on_lost_submit": "fail",
        "max_submits": 5,
        "dry_run": True,
    }
    defaults = {name: one.default for name, one in parameters_of(OdiRouterImageEditBatchOperator).items()}
    task = OdiRouterImageEditBatchOperator(task_id="edit", edits="a.csv", **given)
    assert set(given) == set(defaults) - {"edits"}
    assert not [name for name, value in given.items() if defaults[name] == value]
    assert {name: getattr(task, name) for name in given} == given


def test_default_args_of_the_dag_set_common_parameters() -> None:
    with DAG("defaults", default_args={"output_path": "/out", "poll_interval": 7, "execution_timeout": timedelta(1)}):
        task = OdiRouterImageEditOperator(task_id="edit", prompt="Blue", images="a.png")
    assert (task.output_path, task.poll_interval, task.execution_timeout) == ("/out", 7, timedelta(1))


def test_the_choices_are_those_of_the_model() -> None:
    parameters = parameters_of(OdiRouterImageEditOperator)
    fields = {
        name: {
            choice for kind in get_args(field.annotation) if get_origin(kind) is Literal for choice in get_args(kind)
        }
        for name, field in ImageEdit.model_fields.items()
    }
    with_choices = [name for name, choices in fields.items() if choices]
    assert len(with_choices) == 6
    for name in with_choices:
        assert choices_of(image_edit, parameters[name].annotation) == fields[name], name


@pytest.mark.parametrize(
    ("module", "task", "name"),
    [
        (queue, OdiRouterQueueOperator, "on_lost_submit"),
        (batch, OdiRouterBatchOperator, "on_lost_submit"),
        (batch, OdiRouterBatchOperator, "on_item_failure"),
        (batch, OdiRouterBatchOperator, "if_exists"),
        (batch, OdiRouterBatchOperator, "on_empty"),
        (image_edit_batch, OdiRouterImageEditBatchOperator, "on_lost_submit"),
        (image_edit_batch, OdiRouterImageEditBatchOperator, "on_item_failure"),
        (image_edit_batch, OdiRouterImageEditBatchOperator, "if_exists"),
        (image_edit_batch, OdiRouterImageEditBatchOperator, "on_empty"),
    ],
)
def test_the_choices_are_those_of_the_check(module: Any, task: Any, name: str) -> None:
    choices = choices_of(module, parameters_of(task)[name].annotation)
    assert len(choices) >= 2
    assert all(task.checks[name](choice) is None for choice in choices)
    assert all(repr(choice) in task.checks[name]("other") for choice in choices)
