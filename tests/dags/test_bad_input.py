"""Everything that users and networks get wrong: what the task says, whether Airflow tries again, what it has cost."""

from __future__ import annotations

import json
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
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.protocol import Action, repeats
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import actions
from tests.dags.conftest import Run, RunDag


def run_edit(run_dag: RunDag, pictures: Path, **arguments: Any) -> Run:
    """Run one edit on the worker; the arguments come as templates, so that nothing is checked earlier."""
    defaults: dict[str, Any] = {
        "prompt": "Blue",
        "images": [str(pictures / "coffee.png")],
        "deferrable": False,
        "poll_interval": 0.1,
    }
    values = defaults | arguments
    with DAG("bad_input", render_template_as_native_obj=True, user_defined_macros={"values": values}) as dag:
        fields = {
            name: f"{{{{ values.{name} }}}}" for name in OdiRouterImageEditOperator.template_fields if name in values
        }
        OdiRouterImageEditOperator(task_id="edit", **(values | fields))
    return run_dag(dag)


@pytest.fixture
def broken_files(tmp_path: Path, pictures: Path) -> dict[str, str]:
    """Files that are no pictures to edit."""
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
        ("text", "is no PNG, JPEG or WebP picture; its content begins with b'I am a text'"),
        ("truncated", "is a broken or truncated picture"),
        ("large", "has more than 10 MiB; make it smaller"),
    ],
)
def test_a_file_that_is_no_picture(
    file: str, message: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path, broken_files: dict[str, str]
) -> None:
    run = run_edit(run_dag, pictures, images=[broken_files[file]])
    assert f"images[0]: '{broken_files[file]}' {message}" in run.error
    assert run.is_final
    assert actions(sandbox) == []


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("coffee-mask-no-alpha.png", "mask: has no alpha channel; its transparent part is what may be edited"),
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
    monkeypatch.setitem(repeats.PATIENCE, Action.SUBMIT, 0.0)
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
    assert "The submit to gpt_image_1_edit went out, but its fate is unknown" in run.error
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


def test_a_status_word_that_nobody_knows(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "airflow_provider_odirouter")
    sandbox.configure(status_words="unknown", run_seconds=60)
    run = run_edit(run_dag, pictures, timeout=1)
    assert isinstance(run.errors[0], RequestTimeoutError)
    assert caplog.text.count("(a word that this provider does not know)") == 1
    assert not sandbox.alive


def test_an_output_path_that_is_a_file(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    run = run_edit(run_dag, pictures, output_path=str(pictures / "coffee.png"))
    assert "cannot be written" in run.error
    assert isinstance(run.errors[0], StorageError)
    assert actions(sandbox) == []
