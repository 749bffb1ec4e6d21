"""Values that are checked when a Dag is parsed, and values that are known only when the task runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter.batch.checks import check_literals
from airflow_provider_odirouter.errors import InvalidParametersError
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.templating import has_template, templated_fields
from tests.batch.conftest import IMAGE_EDIT

COFFEE = {"prompt": "Blue", "images": "coffee.png"}


@pytest.fixture
def upstream() -> Any:
    """An upstream task's output."""
    with DAG("parsed"):

        @task
        def make() -> None: ...

        return make()


def make(edits: Any, **arguments: Any) -> OdiRouterImageEditBatchOperator:
    return OdiRouterImageEditBatchOperator(task_id="edit", edits=edits, **({"output_path": "/out"} | arguments))


def problems(edits: Any, **arguments: Any) -> list[str]:
    with pytest.raises(InvalidParametersError) as raised:
        make(edits, **arguments)
    return [str(problem) for problem in raised.value.problems]


# --- Checked


def test_every_broken_rule_of_a_literal_list_is_named() -> None:
    edits = [
        COFFEE,
        {"prompt": "Blue"},
        COFFEE | {"n": 99, "quality": "best"},
        "coffee.png",
        COFFEE | {"name": "a/b"},
        COFFEE | {"picture": "coffee.png"},
    ]
    found = problems(edits)
    assert [problem.partition(": ")[0] for problem in found] == [
        "edits[1], images",
        "edits[2], n",
        "edits[2], quality",
        "edits[3]",
        "edits[4], name",
        "edits[5], picture",
    ]
    assert found == problems(tuple(edits))


def test_an_empty_list_is_no_error_of_the_dag() -> None:
    check_literals([], None, IMAGE_EDIT)
    check_literals((), None, IMAGE_EDIT)


def test_too_many_edits_are_refused_without_a_check_of_each() -> None:
    assert problems([COFFEE | {"quallity": "high"}] * 200_000) == [
        "edits: holds 200,000 edits; at most 10,000 in one batch, so split the list",
    ]


def test_an_unknown_default_is_named_once() -> None:
    edits = [COFFEE | {"prompt": f"Blue {number}"} for number in range(50)]
    assert problems(edits, defaults={"quallity": "high"}) == ["defaults, quallity: is not a parameter of this endpoint"]


def test_defaults_apply_where_an_edit_sets_nothing() -> None:
    make([{"images": "coffee.png"}, {"images": None}, {"images": ""}], defaults=COFFEE)
    assert problems([{"n": 1}], defaults={"prompt": "Blue"}) == ["edits[0], images: is required"]


# --- Not checked at parse


def test_templates_are_not_checked_but_the_literals_beside_them_are(upstream: Any) -> None:
    make(
        [
            upstream,
            "{{ params.edit }}",
            {"prompt": "{{ params.prompt }}", "images": upstream},
            {"prompt": upstream, "images": ["a.png", upstream["b"], "{% raw %}{% endraw %}"]},
            COFFEE | {"n": "{{ params.n }}", "name": "{{ ds }}/{{ params.name }}"},
            COFFEE | {"name": upstream},
            COFFEE | {"images": {"outputs": upstream["outputs"]}},
            COFFEE | {"images": [{"outputs": [{"path": upstream["path"]}]}]},
        ]
    )
    assert problems([COFFEE | {"prompt": upstream, "n": 0}, upstream, {"images": upstream}]) == [
        "edits[0], n: should be greater than or equal to 1, not 0",
        "edits[2], prompt: is required",
    ]


def test_a_rule_between_two_fields_is_checked_when_both_are_known(upstream: Any) -> None:
    make([COFFEE | {"output_compression": 50, "output_format": "{{ params.format }}"}])
    make([COFFEE | {"output_compression": 50}], defaults={"output_format": upstream})
    [problem] = problems([COFFEE | {"output_compression": 50}])
    assert problem.startswith("edits[0], output_compression: works only with")


@pytest.mark.parametrize("edits", ["{{ params.edits }}", "/no/such/list.jsonl", Path("/no/such/list.csv"), "LIST.CSV"])
def test_a_path_is_not_opened_when_a_dag_is_parsed(edits: Any) -> None:
    assert make(edits).edits == str(edits)


@pytest.mark.parametrize("defaults", [None, {"n": "{{ params.n }}"}])
def test_an_upstream_list_is_not_checked(upstream: Any, defaults: dict[str, Any] | None) -> None:
    assert make(upstream, defaults=defaults).edits is upstream


def test_defaults_with_templates_are_not_checked(upstream: Any) -> None:
    make([{"images": "coffee.png"}], defaults={"prompt": upstream})
    assert problems([{"images": "coffee.png"}], defaults={"prompt": upstream, "n": 99}) == [
        "defaults, n: should be less than or equal to 10, not 99"
    ]


def test_unknown_defaults_may_set_what_an_edit_does_not_set() -> None:
    unknown = "{{ params.defaults }}"
    check_literals([{"images": "coffee.png"}, {"prompt": "Blue"}, {}, {"output_compression": 50}], unknown, IMAGE_EDIT)
    with pytest.raises(InvalidParametersError) as raised:
        check_literals([{"n": 99}, {"picture": "coffee.png"}], unknown, IMAGE_EDIT)
    assert [problem.field for problem in raised.value.problems] == ["edits[0], n", "edits[1], picture"]


def test_a_mapped_task_is_checked_on_the_worker_only() -> None:
    wrong: list[dict[str, Any]] = [{"prompt": "Blue"}]
    with DAG("mapped") as dag:
        OdiRouterImageEditBatchOperator.partial(task_id="edit", output_path="/out").expand(edits=[wrong, wrong])
    mapped: Any = dag.get_task("edit")
    assert mapped.is_mapped
    assert isinstance(mapped.unmap({"edits": wrong}), OdiRouterImageEditBatchOperator)


def test_templates_and_upstream_outputs_are_found_in_values(upstream: Any) -> None:
    assert has_template(upstream)
    assert has_template(["a", ("b", "{{ c }}")])
    assert not has_template({"a": upstream})
    values = {"a": upstream, "b": {"c": ["{{ d }}"]}, "e": {"f": 1}, "g": [{"h": "i"}], "j": [{"k": upstream}]}
    assert templated_fields(values) == {"a", "b", "j"}


def test_checking_a_literal_list_loads_no_heavy_modules() -> None:
    program = """
import sys
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
OdiRouterImageEditBatchOperator(task_id="edit", edits=[{"prompt": "Blue", "images": "a.png"}], output_path="/out")
ours = "airflow_provider_odirouter"
heavy = ["PIL", "aiohttp", *(f"{ours}.{name}" for name in ("hooks", "images", "lifecycle", "protocol", "triggers"))]
batch = [f"{ours}.batch.{name}" for name in ("input", "report", "resume", "run", "state", "submit", "validate")]
print("loaded:", [name for name in heavy + batch if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"
