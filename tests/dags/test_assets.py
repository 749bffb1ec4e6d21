"""The events of a task's assets, and their ``extra``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias, task
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.lineage import describe_assets
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from tests.conftest import actions
from tests.dags.conftest import Fail, Run, RunDag, anywhere, edit, needs_store
from tests.object_store import S3

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

SHELF = Asset(name="shelf", uri="s3://shelf/pictures")
ALIAS = AssetAlias("edited")


@dataclass(frozen=True)
class Event:
    """An asset event, as Airflow keeps it."""

    uri: str
    extra: dict[str, Any]
    task_id: str | None
    map_index: int | None
    aliases: tuple[str, ...]


def events_of(run: Run) -> list[Event]:
    """What a run's tasks have emitted, in order."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(AssetEvent).filter_by(source_dag_id=run.run.dag_id, source_run_id=run.run.run_id)
        return [
            Event(
                uri=row.asset.uri,
                extra=row.extra,
                task_id=row.source_task_id,
                map_index=row.source_map_index,
                aliases=tuple(alias.name for alias in row.source_aliases),
            )
            for row in rows.order_by(AssetEvent.id)
        ]


@anywhere
def test_an_asset_event_has_what_the_task_made(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    run = run_dag(edit(pictures, n=2, outlets=[SHELF], output_path=str(tmp_path), deferrable=deferrable))
    assert run.state == "success", run.errors
    [event] = events_of(run)
    manifest = run.xcom("edit")
    assert event.uri == SHELF.uri
    assert event.extra == {
        "request_id": manifest["request_id"],
        "endpoint": "gpt_image_1_edit",
        "outputs": manifest["outputs"],
        "inference_seconds": manifest["inference_seconds"],
    }
    assert [set(output) for output in event.extra["outputs"]] == [
        {"path", "content_type", "width", "height", "size_bytes", "sha256"}
    ] * 2


def test_each_mapped_instance_has_its_own_event(run_dag: RunDag, pictures: Path, tmp_path: Path) -> None:
    with DAG("mapped_assets") as dag:
        OdiRouterImageEditOperator.partial(
            task_id="edit", images=[str(pictures / "coffee.png")], output_path=str(tmp_path), outlets=[SHELF, ALIAS]
        ).expand(prompt=["Red", "Green"])
    run = run_dag(dag)
    assert run.state_of("edit") == ["success"] * 2, run.errors
    for uri in (SHELF.uri, tmp_path.as_uri()):
        extras = {event.map_index: event.extra["outputs"] for event in events_of(run) if event.uri == uri}
        assert extras == {index: run.xcom("edit", map_index=index)["outputs"] for index in range(2)}


def test_the_event_of_a_task_that_only_submits_names_the_request_and_no_outputs(
    run_dag: RunDag, pictures: Path, tmp_path: Path
) -> None:
    run = run_dag(
        edit(pictures, outlets=[SHELF, ALIAS], output_path=str(tmp_path), wait_for_completion=False, deferrable=True)
    )
    assert run.state == "success", run.errors
    [event] = events_of(run)
    assert (event.uri, event.extra["outputs"]) == (SHELF.uri, [])
    assert event.extra["request_id"] == run.xcom("edit", "request_id")


@anywhere
def test_the_event_of_a_sensor_has_what_it_has_landed(
    deferrable: bool, run_dag: RunDag, pictures: Path, tmp_path: Path
) -> None:
    with DAG("submit_then_tell") as dag:
        submit = OdiRouterImageEditOperator(
            task_id="submit", prompt="Blue", images=[str(pictures / "coffee.png")], wait_for_completion=False
        )
        output: Any = submit.output
        OdiRouterRequestSensor(
            task_id="wait",
            request_id=output["request_id"],
            output_path=str(tmp_path),
            deferrable=deferrable,
            poke_interval=0.1,
            outlets=[SHELF, ALIAS],
        )
    run = run_dag(dag)
    assert run.state == "success", run.errors
    assert [event.uri for event in events_of(run)] == [SHELF.uri, tmp_path.as_uri()]
    for event in events_of(run):
        assert event.task_id == "wait"
        assert event.extra["outputs"] == run.xcom("wait")["outputs"]


@anywhere
def test_the_event_of_a_decorated_function_has_what_the_edit_made(
    deferrable: bool, run_dag: RunDag, pictures: Path
) -> None:
    with DAG("decorated_assets") as dag:

        @task.odirouter_image_edit(outlets=[SHELF], deferrable=deferrable)
        def edit_photo() -> dict[str, Any]:
            return {"prompt": "Blue", "images": [str(pictures / "coffee.png")]}

        edit_photo()
    run = run_dag(dag)
    assert run.state == "success", run.errors
    [event] = events_of(run)
    assert event.extra["outputs"] == run.xcom("edit_photo")["outputs"]
    assert "url" in event.extra["outputs"][0]


@anywhere
def test_the_users_own_extra_of_an_event_wins(deferrable: bool, run_dag: RunDag, pictures: Path) -> None:
    def note(context: Any) -> None:
        context["outlet_events"][SHELF].extra = {"campaign": "spring", "endpoint": "ours"}

    run = run_dag(edit(pictures, outlets=[SHELF], pre_execute=note, deferrable=deferrable))
    assert run.state == "success", run.errors
    [event] = events_of(run)
    assert event.extra["request_id"] == run.xcom("edit", "request_id")
    assert (event.extra["campaign"], event.extra["endpoint"]) == ("spring", "ours")


@needs_store
def test_a_retry_that_takes_an_earlier_result_emits_one_event(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path, fail_after_submit: Fail
) -> None:
    fail_after_submit(1)
    run = run_dag(edit(pictures, outlets=[SHELF], output_path=str(tmp_path)))
    assert (run.state, run.error) == ("success", "no XCom today")
    assert actions(sandbox).count("submit") == 1
    [event] = events_of(run)
    assert event.extra["outputs"] == run.xcom("edit")["outputs"]


def test_a_task_that_fails_emits_nothing(run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path) -> None:
    sandbox.configure(error_type="CONTENT_BLOCKED")
    run = run_dag(edit(pictures, outlets=[SHELF, ALIAS], output_path=str(tmp_path)))
    assert run.state == "failed"
    assert events_of(run) == []


def test_the_event_of_an_asset_of_another_dag_has_it_too(run_dag: RunDag, pictures: Path) -> None:
    run_dag(edit(pictures, outlets=[SHELF], dag_id="defines"))
    run = run_dag(edit(pictures, outlets=[Asset.ref(name=SHELF.name)], dag_id="refers"))
    assert run.state == "success", run.errors
    [event] = events_of(run)
    assert (event.uri, event.extra["outputs"]) == (SHELF.uri, run.xcom("edit")["outputs"])


def test_an_unknown_asset_does_not_fail_a_paid_task(
    run_dag: RunDag, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_dag(edit(pictures, outlets=[Asset.ref(name="nowhere"), SHELF], retries=0))
    assert run.state == "success", run.errors
    [event] = events_of(run)
    assert event.extra["request_id"] == run.xcom("edit", "request_id")
    assert "The outputs are missing in the asset event of AssetNameRef(name='nowhere')" in caplog.text


def test_an_alias_stands_for_the_folder_of_the_outputs(run_dag: RunDag, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spring #1?"
    run = run_dag(edit(pictures, outlets=[ALIAS], output_path=f"{folder}/{{{{ dag.dag_id }}}}/"))
    assert run.state == "success", run.errors
    [event] = events_of(run)
    assert (event.uri, event.aliases) == ((folder / "edit").as_uri(), ("edited",))
    assert event.extra["outputs"] == run.xcom("edit")["outputs"]


def test_an_alias_gets_its_event_beside_another_asset_of_the_same_folder(
    run_dag: RunDag, pictures: Path, tmp_path: Path
) -> None:
    named = Asset(name="named", uri=tmp_path.as_uri())
    run = run_dag(edit(pictures, outlets=[named, ALIAS], output_path=str(tmp_path)))
    assert run.state == "success", run.errors
    assert [event.aliases for event in events_of(run)] == [(), ("edited",)]


def test_an_alias_stands_for_a_folder_in_a_store(run_dag: RunDag, pictures: Path, s3: S3) -> None:
    run = run_dag(edit(pictures, outlets=[ALIAS], output_path=s3.url("edited", conn_id=s3.conn_id)))
    assert run.state == "success", run.errors
    [event] = events_of(run)
    assert event.uri == s3.url("edited")
    assert [output["path"] for output in event.extra["outputs"]] == [
        s3.url(key, conn_id=s3.conn_id) for key in s3.objects() if key.endswith(".png")
    ]


def test_an_alias_is_left_alone_when_nothing_has_landed(run_dag: RunDag, pictures: Path) -> None:
    run = run_dag(edit(pictures, outlets=[ALIAS]))
    assert run.state == "success", run.errors
    assert events_of(run) == []


def test_an_alias_to_which_the_user_has_added_an_asset_is_left_alone(
    run_dag: RunDag, pictures: Path, tmp_path: Path
) -> None:
    def say(context: Any) -> None:
        context["outlet_events"][ALIAS].add(SHELF, extra={"campaign": "spring"})

    run = run_dag(edit(pictures, outlets=[ALIAS], output_path=str(tmp_path), pre_execute=say))
    assert run.state == "success", run.errors
    [event] = events_of(run)
    assert (event.uri, event.extra) == (SHELF.uri, {"campaign": "spring"})


MANIFEST = {"request_id": "mmsu_1", "endpoint": "e", "outputs": [{"path": "p"}], "inference_seconds": 1.0}


@pytest.mark.parametrize(
    ("output_path", "uri"),
    [
        ("s3://aws_default@bucket/edited/", "s3://bucket/edited"),
        ("s3://bucket", "s3://bucket/"),
        ("gcs://bucket/edited 2026+1:00/ä", "gs://bucket/edited%202026+1:00/%C3%A4"),
        ("abfs://azure@container/edited#1", "abfs://container/edited%231"),
        ("file:///data/edited", "file:///data/edited"),
    ],
)
def test_the_uri_of_a_folder_names_no_connection(output_path: str, uri: str) -> None:
    events = OutletEventAccessors()
    context: Any = {"outlet_events": events}
    describe_assets(context, [ALIAS], MANIFEST, folder=output_path)
    [event] = events[ALIAS].asset_alias_events
    assert (event.dest_asset_key.name, event.dest_asset_key.uri) == (uri, uri)


def test_a_folder_that_cannot_be_an_asset_does_not_fail_a_paid_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = OutletEventAccessors()
    context: Any = {"outlet_events": events}
    describe_assets(context, [ALIAS], MANIFEST, folder=f"s3://bucket/{'ä' * 500}")
    assert events[ALIAS].asset_alias_events == []
    assert "cannot exceed 1500 characters" in caplog.text
