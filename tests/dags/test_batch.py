"""Batches in a real Airflow, against the sandbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.sdk import Asset, ObjectStoragePath

from airflow_provider_odirouter.batch import progress
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import Clock, Listener, actions, spent
from tests.dags.batches import FIVE, PICTURE, THREE, batch, manifest, prompts
from tests.dags.conftest import RunDag, anywhere
from tests.dags.test_assets import events_of

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


@anywhere
def test_all_edits_are_submitted_and_land(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    photographs = [str(pictures / name) for name in ("coffee.png", "chelsea.png", "rocket.jpg")]
    edits = [{"images": photograph, "prompt": f"Blue {number}"} for number, photograph in enumerate(photographs)]
    run = run_dag(batch(edits, tmp_path, defaults={"output_format": "webp"}, deferrable=deferrable))

    assert run.state == "success", run.error
    summary = run.xcom("edit")
    assert (summary["edits"], summary["succeeded"], summary["failed"], summary["outputs"]) == (3, 3, 0, 3)
    lines = manifest(tmp_path)
    assert str(tmp_path / Path(summary["manifest"]).name) == summary["manifest"]
    assert [line["edit"]["prompt"] for line in lines] == ["Blue 0", "Blue 1", "Blue 2"]
    assert {line["request_id"] for line in lines} == {request.request_id for request in sandbox.requests}
    for line in lines:
        [output] = line["outputs"]
        assert Path(output["path"]).stat().st_size == output["size_bytes"]
        assert output["content_type"] == "image/webp"
    assert spent(sandbox) == (3, 0)
    assert actions(sandbox).count("submit") == 3


def test_pictures_may_be_paths_that_are_no_text(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    coffee, mask = pictures / "coffee.png", ObjectStoragePath(f"file://{pictures}/coffee-mask.png")
    edits = [
        {"images": coffee, "prompt": "Red"},
        {"images": [ObjectStoragePath(f"file://{coffee}")], "prompt": "Green", "mask": mask},
        {"prompt": "Blue"},
    ]
    run = run_dag(batch(edits, tmp_path, defaults={"images": (coffee, mask)}))

    assert run.state == "success", run.error
    assert [line["edit"]["images"] for line in manifest(tmp_path)] == [[str(coffee)]] * 2 + [
        [str(coffee), str(pictures / "coffee-mask.png")]
    ]
    assert "mask" in sandbox.requests[1].parameters


def test_the_summary_has_the_first_and_the_last_time_and_counts_pictures(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    run = run_dag(batch([edit | {"n": 2} for edit in THREE], tmp_path))
    summary, lines = run.xcom("edit"), manifest(tmp_path)
    assert (summary["succeeded"], summary["outputs"]) == (3, 6)
    assert summary["submitted_at"] == min(line["submitted_at"] for line in lines)
    assert summary["completed_at"] == max(line["completed_at"] for line in lines)
    record = run.xcom("edit", "odirouter_batch")
    assert (record["edits"], record["landed"], record["manifest"]) == (3, 3, summary["manifest"])
    assert "waiting" not in record


def test_an_asset_event_has_the_summary(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    run = run_dag(batch(THREE, tmp_path, outlets=[Asset("s3://shelf/cups")]))
    [event] = events_of(run)
    assert event.extra == run.xcom("edit")


def test_openlineage_gets_the_list_and_the_manifest(run_dag: RunDag, tmp_path: Path) -> None:
    listing = tmp_path / "edits.jsonl"
    listing.write_text("\n".join(map(json.dumps, THREE)))
    lineages = []

    class WithLineage(OdiRouterImageEditBatchOperator):
        def execute(self, context: object) -> object:  # type: ignore[override]
            summary = super().execute(context)  # type: ignore[arg-type]
            lineages.append(self.get_openlineage_facets_on_complete(context))
            return summary

    run = run_dag(batch(str(listing), tmp_path / "out", WithLineage))
    [lineage] = lineages
    assert [(one.namespace, one.name) for one in lineage.inputs] == [("file", str(listing))]
    assert [(one.namespace, one.name) for one in lineage.outputs] == [("file", run.xcom("edit")["manifest"])]


def test_the_log_shows_the_progress_and_not_each_poll(
    run_dag: RunDag,
    sandbox: Sandbox,
    clock: Clock,
    listeners: list[Listener],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def end_all(_: object) -> None:
        """After many polls and one line: however busy the machine is."""
        if actions(sandbox).count("status") > 50 and "0/5 landed, 0 failed, 5 running" in caplog.text:
            clock.skip(60)

    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.5)
    sandbox.configure(run_seconds=60)
    listeners.append(end_all)
    run_dag(batch(FIVE, tmp_path, poll_interval=0.02))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("airflow_provider_odirouter")]
    assert "5/5 landed, 0 failed" in ours
    assert actions(sandbox).count("status") > 50
    assert len([line for line in ours if not line.startswith("0/5 landed")]) < 30  # however long that took


def test_the_same_edit_may_be_meant_twice(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    edits = [edit | {"name": name} for edit, name in zip(prompts("Red", "Red"), ("one", "two"), strict=True)]
    assert run_dag(batch(edits, tmp_path)).state == "success"
    assert [Path(line["outputs"][0]["path"]).stem for line in manifest(tmp_path)] == ["one-0", "two-0"]
    assert spent(sandbox) == (2, 0)
    assert {line["edit"]["images"][0] for line in manifest(tmp_path)} == {PICTURE}
