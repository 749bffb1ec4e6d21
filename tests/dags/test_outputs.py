"""Whatever a model makes, and in whatever shape the service answers: what is paid lands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.errors import LandingError
from airflow_provider_odirouter.lifecycle.finish import makes_pictures
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.protocol import retries
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import actions
from tests.dags.conftest import RunDag

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


def order(output_path: Path | None) -> DAG:
    with DAG("order") as dag:
        OdiRouterQueueOperator(
            task_id="order",
            endpoint="kling-v1-image",
            parameters={"prompt": "A blue cup"},
            output_path=str(output_path) if output_path else None,
            deferrable=False,
        )
    return dag


@pytest.mark.parametrize("shape", ["output", "images", "image", "b64_json", "data_url", "relative"])
def test_every_shape_of_a_result_lands(shape: str, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(result_shape=shape)
    run = run_dag(order(tmp_path))
    assert run.state == "success", run.error
    [output] = run.xcom("order")["outputs"]
    assert output["content_type"] == "image/png"
    assert len(Path(output["path"]).read_bytes()) == output["size_bytes"]
    assert not any(entry.authorization_sent for entry in sandbox.journal if entry.action == "file")


@pytest.mark.parametrize(
    ("file_format", "content_type"),
    [
        ("svg", "image/svg+xml"),
        ("avif", "image/avif"),
        ("tiff", "image/tiff"),
        ("bmp", "image/bmp"),
        ("mp4", "video/mp4"),
    ],
)
@pytest.mark.parametrize("announced", [None, "application/octet-stream", "IMAGE/PNG"])
def test_the_files_of_other_models_land_as_they_are(
    file_format: str, content_type: str, announced: str | None, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(file_format=file_format, file_content_type=announced)
    run = run_dag(order(tmp_path))
    assert run.state == "success", run.error
    [output] = run.xcom("order")["outputs"]
    assert output["content_type"] == content_type
    assert (output["width"], output["height"]) == (1024, 1024)
    assert output["path"].endswith(f".{file_format}")


@pytest.mark.parametrize("announced", ["application/octet-stream", "text/html", "IMAGE/PNG"])
@pytest.mark.parametrize(
    ("fault", "words"), [("html", "is an HTML page"), ("cut", "broken or truncated"), ("empty", "is empty (0 bytes)")]
)
def test_what_is_no_whole_picture_does_not_land(
    fault: str, words: str, announced: str, run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    sandbox.configure(file_fault=fault, file_content_type=announced)
    with DAG("edit") as dag:
        OdiRouterImageEditOperator(
            task_id="edit",
            prompt="Hot chocolate",
            images=str(pictures / "coffee.png"),
            output_path=str(tmp_path),
            deferrable=False,
        )
    run = run_dag(dag)
    assert words in run.error
    assert isinstance(run.errors[0], LandingError)
    assert [path for path in tmp_path.iterdir() if path.suffix] == []


@pytest.mark.parametrize("shape", ["data_url", "b64_json"])
def test_a_file_in_the_result_itself_never_goes_into_an_xcom(
    shape: str, run_dag: RunDag, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(result_shape=shape)
    run = run_dag(order(None))
    assert run.state == "success", run.error
    manifest = run.xcom("order")
    assert len(json.dumps(manifest)) < 2000
    [output] = manifest["outputs"]
    assert (output["content_type"], output["width"], "url" in output, "path" in output) == (
        "image/png",
        1024,
        False,
        False,
    )
    assert "The result holds this file itself, not a link to it" in output["note"]
    assert "Set output_path" in output["note"]
    assert output["note"] in caplog.text


def test_a_link_has_no_note(run_dag: RunDag, sandbox: Sandbox) -> None:
    run = run_dag(order(None))
    [output] = run.xcom("order")["outputs"]
    assert output["url"].startswith("http")
    assert "note" not in output
    assert sandbox.paid == 1


def test_a_relative_link_is_whole_in_the_manifest(run_dag: RunDag, sandbox: Sandbox, base_url: str) -> None:
    sandbox.configure(result_shape="relative")
    run = run_dag(order(None))
    [output] = run.xcom("order")["outputs"]
    assert output["url"].startswith(f"{base_url.removesuffix('/model')}/files/")


def test_a_result_that_is_not_there_yet_is_fetched_again(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)
    sandbox.configure(result_pending=2)
    run = run_dag(order(tmp_path))
    assert run.state == "success", run.error
    assert actions(sandbox) == ["submit", "status", "result", "result", "result", "file"]
    assert sandbox.paid == 1


@pytest.mark.parametrize(
    ("endpoint", "makes"),
    [
        ("gpt_image_1_edit", True),
        ("gpt_image_2", True),
        ("nano_banana_2", True),
        ("free-nano-banana-2", True),
        ("kling-v1-image", True),
        ("kling-v1-image_to_video", False),
        ("image2video", False),
        ("mesh_from_image", False),
        ("caption-image", False),
        ("veo-3", False),
    ],
)
def test_an_endpoints_name_says_whether_it_makes_pictures(endpoint: str, makes: bool) -> None:
    assert makes_pictures(endpoint) is makes
