from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from airflow.sdk import DAG, ObjectStoragePath, task
from PIL import Image

from airflow_provider_odirouter.lifecycle.polling import FIRST_POLL_DELAY
from airflow_provider_odirouter.lifecycle.wait import wait_for
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.triggers import request
from tests.conftest import actions
from tests.dags.conftest import RunDag, edit

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


@pytest.mark.parametrize("deferrable", [True, False], ids=["in the triggerer", "on the worker"])
def test_an_edit_lands_its_pictures_wherever_it_waits(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=1)
    with DAG("edit") as dag:
        OdiRouterImageEditOperator(
            task_id="edit",
            prompt="Hot chocolate",
            images=[str(pictures / "coffee.png")],
            mask=f"file://{pictures / 'coffee-mask.png'}",
            n=2,
            output_format="webp",
            deferrable=deferrable,
            poll_interval=0.5,
            output_path=str(tmp_path / "out"),
        )
    run = run_dag(dag)

    assert run.state == "success", run.error
    manifest = run.xcom("edit")
    [request] = sandbox.requests
    assert (manifest["request_id"], manifest["endpoint"]) == (request.request_id, "gpt_image_1_edit")
    assert manifest["submitted_at"] < manifest["completed_at"]
    assert manifest["inference_seconds"] == pytest.approx(1, abs=0.5)
    assert len(manifest["outputs"]) == 2
    for output in manifest["outputs"]:
        data = Path(output["path"]).read_bytes()
        with Image.open(output["path"]) as image:
            assert (image.format, *image.size) == ("WEBP", output["width"], output["height"])
        assert (output["size_bytes"], output["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert "url" not in output

    [submit] = sandbox.submits
    assert set(submit.body) == {"prompt", "images", "mask", "n", "output_format"}
    assert actions(sandbox)[-3:] == ["result", "file", "file"]
    assert not any(entry.authorization_sent for entry in sandbox.journal if entry.action == "file")


def test_airflows_own_paths_are_accepted(run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path) -> None:
    """Such as an upstream task returns; Airflow itself takes some of them for an output that is to be resolved."""
    shelf, root = ObjectStoragePath(f"file://{pictures}"), ObjectStoragePath(f"file://{tmp_path}")

    @task
    def pick() -> ObjectStoragePath:
        return shelf / "coffee.png"

    @task
    def folder() -> ObjectStoragePath:
        return root / "edited"

    with DAG("own_paths") as dag:
        picked: Any = pick()
        OdiRouterImageEditOperator(
            task_id="edit",
            prompt="Hot chocolate",
            images=[picked, shelf / "chelsea.png"],
            mask=shelf / "coffee-mask.png",
            output_path=root / "drawn",
            deferrable=False,
        )
        OdiRouterImageEditOperator(
            task_id="again", prompt="Tea", images=picked, output_path=cast("Any", folder()), deferrable=False
        )
    run = run_dag(dag)

    assert run.state == "success", run.errors
    bodies = sorted((request.parameters for request in sandbox.requests), key=lambda body: str(body["prompt"]))
    assert [(body["prompt"], len(body["images"]), "mask" in body) for body in bodies] == [
        ("Hot chocolate", 2, True),
        ("Tea", 1, False),
    ]
    assert [len(list((tmp_path / folder).glob("*.png"))) for folder in ("drawn", "edited")] == [1, 1]


def test_request_id_and_link_are_there_before_the_wait(
    run_dag: RunDag, sandbox: Sandbox, base_url: str, pictures: Path
) -> None:
    with DAG("submit_only") as dag:
        OdiRouterImageEditOperator(
            task_id="submit", prompt="Blue", images=str(pictures / "coffee.png"), wait_for_completion=False
        )
    run = run_dag(dag)

    assert actions(sandbox) == ["submit"]
    [request] = sandbox.requests
    assert run.xcom("submit", "request_id") == request.request_id
    address = f"{base_url}/v1/queue/gpt_image_1_edit/requests/{request.request_id}/status"
    assert run.xcom("submit", "request_url") == address
    run_id = quote(run.run.run_id, safe="")
    link = f"odirouter/dags/submit_only/runs/{run_id}/tasks/submit/-1"
    assert run.xcom("submit", "_link_OdiRouterRequestLink") == link
    manifest = run.xcom("submit")
    assert (manifest["request_id"], manifest["outputs"]) == (request.request_id, [])


def test_dag_test_polls_a_deferred_task_at_once_and_a_triggerer_later(
    run_dag: RunDag, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []

    async def noting(*arguments: Any, first_poll_delay: float, **options: Any) -> Any:
        delays.append(first_poll_delay)
        return await wait_for(*arguments, first_poll_delay=first_poll_delay, **options)

    monkeypatch.setattr(request, "FIRST_POLL_DELAY", FIRST_POLL_DELAY)
    monkeypatch.setattr(request, "wait_for", noting)
    assert run_dag(edit(pictures, deferrable=True)).state == "success"
    assert delays == [0.0]
    assert request.first_poll_delay() == 7.0


def test_mapped_edits_get_their_own_requests_and_files(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    with DAG("mapped") as dag:
        OdiRouterImageEditOperator.partial(
            task_id="edit",
            images=[str(pictures / "chelsea.png")],
            deferrable=False,
            output_path=str(tmp_path),
        ).expand(prompt=["Red", "Green", "{{ dag.dag_id }}"])
    run = run_dag(dag)

    assert run.state_of("edit") == ["success"] * 3, run.error
    manifests = [run.xcom("edit", map_index=index) for index in range(3)]
    assert [run.xcom("edit", "request_id", index) for index in range(3)] == [one["request_id"] for one in manifests]
    assert len({one["outputs"][0]["path"] for one in manifests}) == len(list(tmp_path.glob("*.png"))) == 3
    prompts = {entry.body["prompt"] for entry in sandbox.submits}
    assert prompts == {"Red", "Green", "mapped"}


def test_templates_are_rendered_before_they_are_checked(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    with DAG("texts", params={"n": 3, "picture": "", "mask": None}) as dag:
        OdiRouterImageEditOperator(
            task_id="edit",
            prompt="{{ dag.dag_id }}",
            images=["{{ params.picture }}"],
            n="{{ params.n }}",
            size="{{ '1024x1024' }}",
            mask="{{ params.mask or '' }}",
            deferrable=False,
        )
    run = run_dag(dag, picture=str(pictures / "coffee.png"))

    assert run.state == "success", run.error
    [submit] = sandbox.submits
    assert (submit.body["prompt"], submit.body["n"], submit.body["size"]) == ("texts", 3, "1024x1024")
    assert "mask" not in submit.body


def test_native_templates_may_leave_a_field_unset(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    params = {"pictures": [str(pictures / "coffee.png"), str(pictures / "rocket.jpg")], "mask": None, "prompt": "2024"}
    with DAG("native", params=params, render_template_as_native_obj=True) as dag:
        OdiRouterImageEditOperator(
            task_id="edit",
            prompt="{{ params.prompt }}",
            images="{{ params.pictures }}",
            mask="{{ params.mask }}",
            output_compression="{{ 80 }}",
            output_format="{{ 'jpeg' }}",
            deferrable=False,
        )
    run = run_dag(dag)

    assert run.state == "success", run.error
    [submit] = sandbox.submits
    assert set(submit.body) == {"prompt", "images", "output_compression", "output_format"}
    assert (submit.body["prompt"], len(submit.body["images"]), submit.body["output_compression"]) == ("2024", 2, 80)


def test_urls_are_sent_unchanged(run_dag: RunDag, sandbox: Sandbox) -> None:
    with DAG("urls") as dag:
        OdiRouterImageEditOperator(
            task_id="edit", prompt="Blue", images=["https://example.com/cup.png"], deferrable=False
        )
    assert run_dag(dag).state == "success"
    assert sandbox.journal[0].body["images"] == ["https://example.com/cup.png"]


def test_without_an_output_path_the_manifest_has_links_and_the_log_warns(
    run_dag: RunDag, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DAG("links") as dag:
        OdiRouterImageEditOperator(
            task_id="edit", prompt="Blue", images=[str(pictures / "coffee.png")], deferrable=False
        )
    [output] = run_dag(dag).xcom("edit")["outputs"]
    assert output["url"].startswith("http://127.0.0.1:")
    assert "path" not in output
    assert "expire" in caplog.text
