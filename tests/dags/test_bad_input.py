"""Everything that users and networks get wrong: what the task says, whether Airflow tries again, what it has cost."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.errors import (
    ConnectionNotFoundError,
    LandingError,
    NotSentError,
    RequestTimeoutError,
    StorageError,
)
from airflow_provider_odirouter.hooks import odirouter as hook_module
from airflow_provider_odirouter.operators.image_edit import EDIT_FIELDS, OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.protocol import Action, retries
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from tests.conftest import actions
from tests.dags.conftest import Outcome, RunDag, run_once
from tests.object_store import S3

URL = "https://example.com/cup.png"


def run_edit(run_dag: Callable[[DAG], Outcome], pictures: Path, **arguments: Any) -> Outcome:
    """Run one edit on the worker."""
    return run_dag(edit(pictures, **arguments))


def edit(pictures: Path, *, native: Any = True, **arguments: Any) -> DAG:
    """A Dag of one edit whose arguments come as templates, so that nothing is checked earlier."""
    defaults: dict[str, Any] = {
        "prompt": "Blue",
        "images": [str(pictures / "coffee.png")],
        "deferrable": False,
        "poll_interval": 0.1,
    }
    values = defaults | arguments
    with DAG("bad_input", render_template_as_native_obj=native, user_defined_macros={"values": values}) as dag:
        fields = {
            name: f"{{{{ values.{name} }}}}" for name in OdiRouterImageEditOperator.template_fields if name in values
        }
        OdiRouterImageEditOperator(task_id="edit", **(values | fields))
    return dag


@pytest.fixture
def run_dag(conn_id: str) -> Callable[[DAG], Outcome]:
    """Runs the task without Airflow's database: test_failures.py shows what Airflow does with its errors."""
    return run_once


@pytest.fixture
def broken_files(tmp_path: Path, pictures: Path) -> dict[str, str]:
    """Files that cannot be edited."""
    (tmp_path / "text.png").write_text("I am a text")
    (tmp_path / "truncated.png").write_bytes((pictures / "coffee.png").read_bytes()[:20_000])
    (tmp_path / "large.png").write_bytes((pictures / "coffee.png").read_bytes() + bytes(11 * 2**20))
    return {name: str(tmp_path / f"{name}.png") for name in ("text", "truncated", "large", "missing")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "prompt: is empty"),
        ({"prompt": "x" * 32_001}, "prompt: has 32,001 characters; at most 32,000"),
        ({"images": []}, "images: holds 0 pictures; the endpoint takes 1 to 16"),
        ({"images": ["https://example.com/a.png"] * 17}, "images: holds 17 pictures; the endpoint takes 1 to 16"),
        (
            {"background": "transparent", "output_format": "jpeg"},
            "background: 'transparent' needs output_format 'png' or 'webp', not 'jpeg'",
        ),
        ({"n": 0}, "n: should be greater than or equal to 1, not 0"),
        ({"size": "512x512"}, "size: should be '1024x1024', '1024x1536', '1536x1024' or 'auto', not '512x512'"),
    ],
)
def test_a_broken_rule(
    arguments: dict[str, Any], message: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    run = run_edit(run_dag, pictures, **arguments)
    assert message in run.error
    assert run.is_final
    assert actions(sandbox) == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("missing", "does not exist, as this worker sees it"),
        ("text", "is not a PNG, JPEG or WebP picture; its content begins with b'I am a text'"),
        ("truncated", "is a broken or truncated picture"),
        ("large", "has more than 10 MiB; make it smaller"),
    ],
)
def test_a_file_that_is_not_a_picture(
    file: str, message: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path, broken_files: dict[str, str]
) -> None:
    run = run_edit(run_dag, pictures, images=[broken_files[file]])
    assert f"images[0]: '{broken_files[file]}' {message}" in run.error
    assert run.is_final
    assert actions(sandbox) == []


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("coffee-mask-no-alpha.png", "mask: has no alpha channel; only its transparent part may be edited"),
        ("coffee-mask-wrong-size.png", "mask: has 300x200 pixels, but images[0] has 600x400"),
    ],
)
def test_a_mask_that_does_not_fit(mask: str, message: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    run = run_edit(run_dag, pictures, mask=str(pictures / mask))
    assert message in run.error
    assert run.is_final
    assert actions(sandbox) == []


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    connection = {"conn_type": "odirouter", "password": "sandbox-key"} | fields
    monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", json.dumps(connection))


def test_a_connection_without_a_key(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, password="")
    run = run_edit(run_dag, pictures)
    assert "it has no API key; put the key into its password field" in run.error
    assert run.is_final


def test_a_connection_with_a_wrong_key(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    sandbox.configure(api_key="the-right-one")
    run = run_edit(run_dag, pictures)
    assert "OdiRouter refuses the API key for the submit of gpt_image_1_edit (401)" in run.error
    assert "sandbox-key" not in run.error
    assert run.is_final
    assert sandbox.paid == 0


def test_an_unknown_connection(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    run = run_edit(run_dag, pictures, odirouter_conn_id="no_such")
    assert "Airflow finds no connection 'no_such'" in run.error
    assert isinstance(run.errors[0], ConnectionNotFoundError)
    assert actions(sandbox) == []


@pytest.mark.parametrize(
    "host", ["http://no-such-host.invalid/model", "http://127.0.0.1:9/model"], ids=["not resolving", "refusing"]
)
def test_a_host_that_cannot_be_reached(
    host: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(retries.MAX_REPEAT_SECONDS, Action.SUBMIT, 0.0)
    connect(monkeypatch, host=host)
    run = run_edit(run_dag, pictures)
    assert "could be opened for the submit of gpt_image_1_edit" in run.error
    assert isinstance(run.errors[0], NotSentError)


@pytest.mark.parametrize(
    "fault",
    [
        {"hang": True, "fault_after_effect": True},
        {"submit_shape": "html"},
        {"submit_shape": "empty"},
        {"drop_next": 1, "drop_mode": "half"},
        {"server_errors": 1, "fault_after_effect": True},
    ],
    ids=["hangs", "answers HTML", "answers nothing", "closes half way", "has an internal error"],
)
def test_a_host_that_leaves_a_submit_without_an_answer(
    fault: dict[str, Any],
    run_dag: RunDag,
    sandbox: Sandbox,
    base_url: str,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect(monkeypatch, host=base_url, extra={"timeout": 1})
    sandbox.configure(**fault)
    run = run_edit(run_dag, pictures)
    assert "The submit to gpt_image_1_edit went out, but it is not known whether it arrived" in run.error
    assert "clear the task to submit again" in run.error
    assert run.is_final
    assert (actions(sandbox), sandbox.paid) == (["submit"], 1)


def test_a_result_without_a_url(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    sandbox.configure(result_shape="no_url")
    run = run_edit(run_dag, pictures)
    assert "The result of gpt_image_1_edit names no file; its keys are metadata, outputs, request_id" in run.error
    assert run.is_final


def test_a_file_url_that_gives_404(run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path) -> None:
    sandbox.configure(file_fault="404")
    run = run_edit(run_dag, pictures, output_path=str(tmp_path))
    assert "was answered with 404" in run.error
    assert isinstance(run.errors[0], LandingError)
    assert actions(sandbox) == ["submit", "status", "result", "file", "result", "file"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_that_gives_endless_data(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_module, "MAX_FILE_BYTES", 2**20)
    sandbox.configure(file_fault="endless")
    run = run_edit(run_dag, pictures, output_path=str(tmp_path))
    assert "has more than 1,048,576 bytes" in run.error
    assert isinstance(run.errors[0], LandingError)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_status_word(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "airflow_provider_odirouter")
    sandbox.configure(status_words="unknown", run_seconds=60)
    run = run_edit(run_dag, pictures, timeout=1)
    assert isinstance(run.errors[0], RequestTimeoutError)
    assert caplog.text.count("(a status that this provider does not know)") == 1
    assert not sandbox.alive


# --- Templates that render to nothing


MISSING = "which is what a template, str() or pandas writes for a missing value"
UNSET: list[Any] = [None, "", "  ", "None", "nan", float("nan")]
both = pytest.mark.parametrize("native", [True, False], ids=["native", "as text"])


def submitted(sandbox: Sandbox) -> dict[str, Any]:
    [submit] = sandbox.submits
    return dict(submit.body)


@both
@pytest.mark.parametrize("value", UNSET, ids=repr)
def test_optional_templates_that_render_to_nothing_are_not_sent(
    value: Any, native: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    optional = dict.fromkeys(set(EDIT_FIELDS) - {"prompt", "images"} | {"storage_conn_id"}, value)
    # The field of a list is a template, too: "native" decides whether the list stays one.
    run = run_edit(run_dag, pictures, native=native, images=f"{pictures}/coffee.png", output_path=tmp_path, **optional)
    assert run.errors == []
    assert set(submitted(sandbox)) == {"prompt", "images"}
    assert len(list(tmp_path.glob("*.png"))) == 1


@both
@pytest.mark.parametrize("field", ["prompt", "images", "output_path", "odirouter_conn_id"])
@pytest.mark.parametrize("value", UNSET, ids=repr)
def test_a_required_template_that_renders_to_nothing_is_named(
    field: str,
    value: Any,
    native: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"images": f"{pictures}/coffee.png", "output_path": f"{tmp_path}/out"} | {field: value}
    dag = edit(pictures, native=native, **arguments)
    # A template, also for None.
    setattr(dag.get_task("edit"), field, f"{{{{ values.{field} }}}}")
    run = run_dag(dag)
    assert run.is_final
    assert re.search(
        rf"  - {field}: (is '?(None|nan)'?, {re.escape(MISSING)}|is empty|is required|must be a )", run.error
    )
    assert actions(sandbox) == []
    assert list(tmp_path.iterdir()) == []


def test_an_output_path_that_the_dag_leaves_out_is_no_error(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    with DAG("no_output") as dag:
        OdiRouterImageEditOperator(
            task_id="edit", prompt="Blue", images=f"{pictures}/coffee.png", deferrable=False, poll_interval=0.1
        )
    assert run_dag(dag).errors == []


@both
def test_a_sensor_refuses_an_output_path_that_renders_to_none(
    native: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with DAG("sensor", render_template_as_native_obj=native) as dag:
        OdiRouterRequestSensor(task_id="wait", request_id="mmsu_1", output_path="{{ None }}", deferrable=False)
    run = run_dag(dag)
    assert run.is_final
    assert re.search(rf"  - output_path: is '?None'?, {re.escape(MISSING)}", run.error)
    assert (actions(sandbox), list(tmp_path.iterdir())) == ([], [])


@both
def test_nested_templates_that_render_to_nothing_are_not_sent(
    native: bool, run_dag: RunDag, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    parameters = {
        "prompt": "Blue",
        "images": [URL],
        "seed": "{{ none }}",
        "style": {"name": "{{ '' }}", "weight": "{{ 0.5 }}", "upscaler": "none", "tags": ["a", "{{ 'b' }}"]},
        "layers": [{"x": "{{ none }}", "y": "{{ 1 }}"}],
        "note": None,
    }
    sandbox.configure(endpoints=("any_model",))
    run = run_dag(queue(parameters, native=native))
    assert run.errors == []
    number = (lambda value: value) if native else str
    assert submitted(sandbox) == {
        "prompt": "Blue",
        "images": [URL],
        "style": {"weight": number(0.5), "upscaler": "none", "tags": ["a", "b"]},
        "layers": [{"y": number(1)}],
        "note": None,
    }
    lines = "parameters.seed, parameters.style.name, parameters.layers[0].x"
    assert f"Not sent, since their templates rendered to nothing: {lines}." in caplog.text


@both
@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"prompt": "{{ none }}"}, "parameters.prompt"),
        ({"prompt": "{{ ' ' }}"}, "parameters.prompt"),
        ({"prompt": "Blue", "images": [URL, "{{ none }}"]}, "parameters.images[1]"),
        ({"prompt": "Blue", "layers": [{"tags": ["{{ 'nan' }}"]}]}, "parameters.layers[0].tags[0]"),
    ],
)
def test_a_nested_template_that_cannot_be_left_out_is_named(
    parameters: dict[str, Any], field: str, native: bool, run_dag: RunDag, sandbox: Sandbox
) -> None:
    sandbox.configure(endpoints=("any_model",))
    run = run_dag(queue(parameters, native=native))
    assert run.is_final
    assert re.search(rf"  - {re.escape(field)}: is ", run.error)
    assert actions(sandbox) == []


def test_a_prompt_that_an_upstream_task_made_of_none_is_not_paid(run_dag: RunDag, sandbox: Sandbox) -> None:
    with DAG(
        "upstream", render_template_as_native_obj=True, user_defined_macros={"made": {"prompt": str(None)}}
    ) as dag:
        OdiRouterQueueOperator(task_id="make", endpoint="any_model", parameters="{{ made }}", deferrable=False)  # type: ignore[arg-type]
    run = run_dag(dag)
    assert f"parameters.prompt: is 'None', {MISSING}" in run.error
    assert actions(sandbox) == []


def queue(parameters: dict[str, Any], *, native: bool) -> DAG:
    with DAG("queue", render_template_as_native_obj=native) as dag:
        OdiRouterQueueOperator(
            task_id="make", endpoint="any_model", parameters=parameters, deferrable=False, poll_interval=0.1
        )
    return dag


# --- All at once


def test_missing_files_bad_rules_and_bad_times_are_named_together(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, broken_files: dict[str, str]
) -> None:
    dag = edit(
        pictures,
        images=[broken_files["missing"], broken_files["text"]],
        mask=broken_files["large"],
        n=99,
        prompt=None,
        storage_conn_id=7,
    )
    setattr(dag.get_task("edit"), "timeout", 0)  # noqa: B010 - a mapped task has none
    run = run_dag(dag)
    fields = ["storage_conn_id", "timeout", "prompt", "n", "images[0]", "images[1]", "mask"]
    assert re.findall(r"^  - ([^:]+): ", run.error, re.MULTILINE) == fields
    assert run.is_final
    assert actions(sandbox) == []


def test_a_store_that_may_answer_later_hides_no_bad_rule(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, s3: S3
) -> None:
    silent = s3.connect(
        endpoint_url="http://127.0.0.1:9", config_kwargs={"connect_timeout": 1, "retries": {"max_attempts": 0}}
    )
    images = [s3.put("cup.png", (pictures / "coffee.png").read_bytes())]
    run = run_edit(run_dag, pictures, images=images, storage_conn_id=silent, n=99)
    assert "n: should be less than or equal to 10, not 99" in run.error
    assert run.is_final
    dag = edit(pictures, images=images, storage_conn_id=silent)
    setattr(dag.get_task("edit"), "poll_interval", 0)  # noqa: B010
    run = run_dag(dag)
    assert "poll_interval: must be a number" in run.error
    assert run.is_final
    assert isinstance(run_edit(run_dag, pictures, images=images, storage_conn_id=silent).errors[0], StorageError)


# --- Relative paths


def test_relative_paths_are_named_in_the_log_with_what_they_mean(
    run_dag: RunDag,
    sandbox: Sandbox,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(pictures)
    run = run_edit(
        run_dag,
        pictures,
        images=["coffee.png", str(pictures / "coffee.png")],
        mask="./coffee-mask.png",
        output_path=os.path.relpath(tmp_path),
    )
    assert run.errors == []
    named = re.findall(r"(\S+) is a relative path: '.*' means '(.*)', below the working directory", caplog.text)
    assert {name: str(Path(path).resolve()) for name, path in named} == {
        "output_path": str(tmp_path),
        "images[0]": str(pictures / "coffee.png"),
        "mask": str(pictures / "coffee-mask.png"),
    }
    assert len(list(tmp_path.glob("*.png"))) == 1


@pytest.mark.parametrize("path", ["file://host/edited", "file:///edited/%ff", " s3://bucket/edited"])
def test_an_output_path_that_no_try_can_use_is_not_retried(
    path: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    run = run_edit(run_dag, pictures, images=f"{pictures}/coffee.png", output_path=path, retries=2)
    assert (run.state, run.is_final, len(run.errors)) == ("failed", True, 1)
    assert f"The output path {path!r} cannot be written: " in run.error
    assert run.error.endswith("Nothing was submitted yet. Correct the path, then clear the task.")
    assert actions(sandbox) == []


def test_an_output_path_that_is_a_file(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    run = run_edit(run_dag, pictures, output_path=str(pictures / "coffee.png"))
    assert "cannot be written" in run.error
    assert isinstance(run.errors[0], StorageError)
    assert actions(sandbox) == []
