"""Passwords and signatures in the URLs of input pictures: they are sent, and neither shown nor kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.xcom import XComModel
from airflow.sdk import DAG, task
from airflow.utils.session import create_session

from airflow_provider_odirouter.batch.pipeline import Pipeline
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.xcoms import REQUEST_XCOM
from tests.conftest import Listener
from tests.dags.batches import batch, changing, landed, manifest, submits
from tests.dags.conftest import Run, RunDag, edit

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

SIGNED = [
    "https://cdn.example.com/1.png?X-Amz-Credential=s3cretA&X-Amz-Signature=s3cretB",
    "https://user:s3cretC@cdn.example.com/2.png",
    "https://cdn.example.com/3.png?sig=s3cretD%3D",
    "https://s3cretE@cdn.example.com/4.png#s3cretF",
]
OTHER = "https://cdn.example.com/other.png?sig=s3cretD%3D"
EDITS = [{"prompt": str(number), "images": url} for number, url in enumerate(SIGNED, start=1)]


def kept(run: Run, folder: Path, log: str) -> str:
    """All that is shown or kept of a run: XComs, rendered fields, files, errors, the log."""
    with create_session() as session:
        ids = {"dag_id": run.run.dag_id, "run_id": run.run.run_id}
        xcoms = [row.value for row in session.query(XComModel).filter_by(**ids)]
        fields = [row.rendered_fields for row in session.query(RenderedTaskInstanceFields).filter_by(**ids)]
    assert xcoms
    assert fields
    files = [path.read_text() for path in folder.rglob("*") if path.suffix in {".json", ".jsonl"}]
    return "\n".join([json.dumps([xcoms, fields]), log, *files, *map(str, run.errors)])


def sent(sandbox: Sandbox) -> list[list[str]]:
    return [request.parameters["images"] for request in sandbox.requests]


@pytest.fixture
def fail_after_submits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first try fail right after its submits."""
    report = Pipeline._report

    def failing(pipeline: Pipeline) -> None:
        if pipeline._options.try_number == 1 and len(pipeline._waits) == 2:
            raise OSError("no memory today")
        report(pipeline)

    monkeypatch.setattr(Pipeline, "_report", failing)


@pytest.mark.parametrize("deferrable", [True, False])
def test_an_edit_sends_its_urls_whole_and_keeps_them_shortened(
    deferrable: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    pictures: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mask = "https://cdn.example.com/mask.png?token=s3cretM"
    run = run_dag(edit(pictures, images=SIGNED, mask=mask, output_path=str(tmp_path), deferrable=deferrable))
    assert run.state == "success", run.errors
    assert sent(sandbox) == [SIGNED]
    assert sandbox.requests[0].parameters["mask"] == mask
    assert "s3cret" not in kept(run, tmp_path, caplog.text)
    record = run.xcom("edit", REQUEST_XCOM)
    assert record["images"] == [
        "https://cdn.example.com/1.png?***",
        "https://***@cdn.example.com/2.png",
        "https://cdn.example.com/3.png?***",
        "https://***@cdn.example.com/4.png#***",
    ]
    assert record["mask"] == "https://cdn.example.com/mask.png?***"


PARAMETERS = {
    "prompt": "Blue",
    # Each secret only once: Airflow hides one that it knows wherever it stands.
    "negative_prompt": "Like https://cdn.example.com/5.png?sig=s3cretG and, again,\nhttps://s3cretH@cdn.example.com/6.png.",
    "image_url": "{{ dag_run.conf.get('url', 'https://cdn.example.com/0.png?sig=s3cret0') }}",
    "references": [{"source": {"url": "https://cdn.example.com/7.png?a=1&sig=s3cretI"}}],
    "workflow": 'load {"image": "https://cdn.example.com/8.png?sig=s3cretJ"}',
    "graph": {"nodes": {"load": {"inputs": {"url": "https://cdn.example.com/9.png#s3cretK"}}}},
}


def make(tmp_path: Path, parameters: Any, deferrable: bool = False) -> DAG:
    """A Dag of one request to an endpoint whose parameters are not known to the provider."""
    with DAG("make", render_template_as_native_obj=True) as dag:
        OdiRouterQueueOperator(
            task_id="edit",
            endpoint="gpt_image_1",
            parameters=parameters,
            output_path=str(tmp_path),
            deferrable=deferrable,
            poll_interval=0.1,
        )
    return dag


@pytest.mark.parametrize("deferrable", [True, False])
def test_parameters_of_any_endpoint_are_sent_whole_and_their_urls_kept_shortened(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_dag(make(tmp_path, PARAMETERS, deferrable))
    assert run.state == "success", run.errors
    whole = PARAMETERS | {"image_url": "https://cdn.example.com/0.png?sig=s3cret0"}
    assert sandbox.requests[0].parameters == whole
    text = kept(run, tmp_path, caplog.text)
    assert re.findall(".{0,150}s3cret.{0,9}", text) == []
    assert "https://cdn.example.com/0.png?***" in text
    assert "Like https://cdn.example.com/5.png?*** and, again,\\nhttps://***@cdn.example.com/6.png." in text


def test_parameters_that_are_one_template_are_shown_shortened_too(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = "{{ {'prompt': 'Blue', 'image_url': 'https://cdn.example.com/0.png?' ~ 'sig=s3cretL'} }}"
    run = run_dag(make(tmp_path, template))
    assert run.state == "success", run.errors
    assert sandbox.requests[0].parameters["image_url"] == "https://cdn.example.com/0.png?sig=s3cretL"
    assert "s3cret" not in kept(run, tmp_path, caplog.text)


def test_parameters_that_are_refused_are_shown_shortened_too(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_dag(make(tmp_path, {"image_url": "https://cdn.example.com/0.png?sig=s3cretP", "seed": "{{ 2 ** 64 }}"}))
    assert "parameters.seed" in run.error
    with create_session() as session:
        rendered = session.query(RenderedTaskInstanceFields).filter_by(dag_id="make").all()
    assert rendered
    assert "s3cret" not in json.dumps([row.rendered_fields for row in rendered]) + caplog.text + run.error


def test_the_urls_that_a_decorated_function_receives_are_shown_shortened(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    urls = ["https://cdn.example.com/1.png?sig=s3cretN", "https://cdn.example.com/2.png?sig=s3cretO"]
    with DAG("decorated") as dag:

        @task.odirouter_image_edit(deferrable=False, poll_interval=0.1)
        def edit(first: str, product: dict[str, str]) -> dict[str, Any]:
            return {"prompt": "Blue", "images": [first, product["photo"]]}

        edit(urls[0], product={"photo": urls[1]})
    run = run_dag(dag)
    assert run.state == "success", run.errors
    assert sent(sandbox) == [urls]
    assert "s3cret" not in kept(run, tmp_path, caplog.text)


def test_the_vendors_words_about_a_url_are_kept_without_its_secrets(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    sandbox.configure(error_type="REQUEST_INVALID", error_message=f"cannot fetch {SIGNED[0]}: 403")
    single = run_dag(edit(pictures, images=SIGNED[0], retries=0))
    many = run_dag(batch(EDITS, tmp_path, retries=0))
    assert "cannot fetch https://cdn.example.com/1.png?*** 403" in single.xcom("edit", "odirouter_failure")["vendor"]
    assert all("cannot fetch https://cdn.example.com/1.png?***" in line["error"] for line in manifest(tmp_path))
    assert "s3cret" not in json.dumps([manifest(tmp_path), many.xcom("edit", "odirouter_failure")])


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_batch_submits_whole_urls_and_keeps_them_shortened(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_dag(batch(EDITS, tmp_path, deferrable=deferrable, max_in_flight=1))
    assert run.state == "success", run.errors
    assert sent(sandbox) == [[url] for url in SIGNED]
    assert next(line["edit"]["images"] for line in manifest(tmp_path)) == ["https://cdn.example.com/1.png?***"]
    assert "s3cret" not in kept(run, tmp_path, caplog.text)


@pytest.mark.usefixtures("fail_after_submits")
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_retry_knows_the_edits_again_and_submits_the_others_whole(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(run_seconds=1)
    run = run_dag(batch(EDITS, tmp_path, deferrable=deferrable, max_in_flight=2))
    assert (run.state, run.error) == ("success", "no memory today")
    assert sent(sandbox) == [[url] for url in SIGNED]
    assert "This try continues 2 of 4 edits" in caplog.text
    assert "s3cret" not in kept(run, tmp_path, caplog.text)


def run_out_of_balance(sandbox: Sandbox, listeners: list[Listener]) -> None:
    """Let a batch defer before all edits are submitted: the other two are when it resumes."""
    sandbox.configure(balance=2, run_seconds=1)
    listeners.append(changing(sandbox, "submit", {}, {}, {"balance": 100}))


def change_the_list(file: Path, edits: list[Any]) -> Callable[[JournalEntry], None]:
    def change(entry: JournalEntry) -> None:
        if entry.action == "status":
            file.write_text("\n".join(map(json.dumps, edits)))

    return change


def test_a_list_that_changes_during_the_wait_stops_the_submits_and_loses_nothing(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    file, out = tmp_path / "edits.jsonl", tmp_path / "out"
    file.write_text("\n".join(map(json.dumps, EDITS)))
    listeners.append(change_the_list(file, [*EDITS[:2], EDITS[2] | {"images": OTHER}]))
    run_out_of_balance(sandbox, listeners)
    run = run_dag(batch(str(file), out, deferrable=True))

    assert "2 of 4 edits were not submitted: The list of edits has changed since the batch began" in run.error
    assert "it no longer holds edit 3" in run.error
    assert "A retry submits those" in run.error
    assert run.state == "success"
    assert sent(sandbox) == [[SIGNED[0]], [SIGNED[1]], [OTHER]]
    assert sandbox.paid == 3
    assert len(landed(out)) == 3


def test_a_list_that_is_signed_anew_during_the_wait_is_submitted_as_it_is_then(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    file, out = tmp_path / "edits.jsonl", tmp_path / "out"
    file.write_text("\n".join(map(json.dumps, EDITS)))
    anew = [f"{url}-anew" for url in SIGNED]
    listeners.append(change_the_list(file, [one | {"images": url} for one, url in zip(EDITS, anew, strict=True)]))
    run_out_of_balance(sandbox, listeners)
    run = run_dag(batch(str(file), out, deferrable=True))

    assert (run.state, run.errors, sandbox.paid) == ("success", [], 4)
    assert sent(sandbox) == [[SIGNED[0]], ["https://user:s3cretC@cdn.example.com/2.png"], [anew[2]], [anew[3]]]


def test_a_list_that_cannot_be_read_after_the_wait_says_why(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    file, out = tmp_path / "edits.jsonl", tmp_path / "out"
    file.write_text("\n".join(map(json.dumps, EDITS)))
    listeners.append(change_the_list(file, ["no edit"]))
    run_out_of_balance(sandbox, listeners)
    run = run_dag(batch(str(file), out, deferrable=True, retries=0))

    assert "The list of edits cannot be read again: line 1: must be a JSON object" in run.error
    assert sandbox.paid == 2
    assert len(landed(out)) == 2


def test_an_edit_without_a_secret_needs_no_list_after_the_wait(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    file, out = tmp_path / "edits.jsonl", tmp_path / "out"
    plain = [{"prompt": str(number), "images": f"https://cdn.example.com/{number}.png"} for number in range(3)]
    file.write_text("\n".join(map(json.dumps, plain)))
    listeners.append(change_the_list(file, []))
    run_out_of_balance(sandbox, listeners)
    assert run_dag(batch(str(file), out, deferrable=True)).state == "success"
    assert submits(sandbox) == ["0", "1", "2"]


def test_a_local_picture_beside_a_signed_url_is_found_again(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    edits = [{"prompt": str(number), "images": [str(pictures / "small.png"), SIGNED[0]]} for number in range(3)]
    run = run_dag(batch(edits, tmp_path, deferrable=True, max_in_flight=1))
    assert run.state == "success", run.errors
    assert [images[1] for images in sent(sandbox)] == [SIGNED[0]] * 3
