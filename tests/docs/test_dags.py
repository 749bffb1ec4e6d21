"""Each Dag of the documentation is run to its end against the sandbox, and each test in it passes."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from PIL import Image

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.sandbox import Sandbox
from dev import doc_example
from tests.conftest import PICTURES
from tests.dags.conftest import RunDag, airflow_db, run_dag, serialize
from tests.dags.test_assets import events_of
from tests.dags.test_example_dags import load
from tests.docs.blocks import Block, all_blocks
from tests.object_store import S3, variable_of

__all__ = ["airflow_db", "run_dag"]

DAGS = [block for block in all_blocks() if block.is_dag]
FRAGMENTS = [block for block in all_blocks() if block.is_fragment]

PARSED_ONLY = {
    "edit_review_publish": "a person answers: tests/e2e/test_review.py",
    "review_in_parts": "the same",
    "edit_in_gcs_and_azure": "the clients of these stores are not installed",
    "publish_product_photo": "it needs an event: see below",
}
"""Dags that are not run, and why."""
PAY_NOTHING = {"account_works", "fetch_request", "remove_old_notes", "what_would_it_cost"}


@pytest.fixture(scope="session")
def small_pictures() -> dict[str, bytes]:
    """The photographs that the pages name, small: to land and to check large ones is what other tests are about."""

    def encode(name: str, kind: str = "png", mode: str = "RGB") -> bytes:
        with Image.open(PICTURES / name) as picture:
            small = picture.convert(mode).resize((96, 64))
        file = io.BytesIO()
        small.save(file, kind)
        return file.getvalue()

    return {
        "cup.jpg": encode("coffee.png", "jpeg"),
        "cup.png": encode("coffee.png"),
        "cup-mask.png": encode("coffee-mask.png", mode="RGBA"),
        "hat.png": encode("chelsea.png"),
    }


@dataclass(frozen=True)
class World:
    """What stands for the folders and for the bucket ``shop`` of a page's reader."""

    folder: Path
    bucket: str = "shop"

    def put_in(self, text: str) -> str:
        """Let the paths and URLs of a block be those of this test: another user may have no right to make ``/data``."""
        places = {
            "/data/": f"{self.folder}/data/",
            "/tmp/odirouter/": f"{self.folder}/data/photos/",
            "//shop/": f"//{self.bucket}/",
            "@shop/": f"@{self.bucket}/",
        }
        for there, here in places.items():
            text = text.replace(there, here)
        return text


def files_of(block: Block, pictures: Mapping[str, bytes], world: World) -> dict[str, bytes]:
    """What the store or the disk of a page's reader has: photographs, and the lists that the same page shows."""
    files = {f"photos/{name}": data for name, data in pictures.items()}
    days = [f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}" for days in (0, 1)]
    for one in all_blocks():
        if one.page == block.page and one.language in {"jsonl", "csv"}:
            lists = {f"edits/{name}.{one.language}": world.put_in(one.text).encode() for name in ("edits", *days)}
            files = lists | files  # the first list of the page counts
    return files


@pytest.fixture
def world(
    request: pytest.FixtureRequest, tmp_path: Path, small_pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> World:
    block: Block = request.node.callspec.params["block"]
    store = S3(request.getfixturevalue("s3_endpoint")) if "s3://" in block.text else None
    world = World(tmp_path, store.bucket if store else "shop")
    for name, content in files_of(block, small_pictures, world).items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        if store:
            store.put(name, content)
    if store:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", os.environ[variable_of(store.conn_id)])
    if "odirouter_http" in block.text:
        origin = str(request.getfixturevalue("base_url")).removesuffix("/model")
        connection = {"conn_type": "http", "host": origin, "extra": {"Authorization": "Bearer sandbox-key"}}
        monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_HTTP", json.dumps(connection))
    return world


def load_block(block: Block, world: World) -> DAG:
    """Import the block as Airflow imports a Dag file."""
    file = world.folder / f"{Path(block.page).stem.replace('-', '_')}_{block.line}.py"
    file.write_text(world.put_in(block.text))
    return load(file)


def dags_with(text: str) -> pytest.MarkDecorator:
    """Parametrize a test with the Dags that have a text: exactly one."""
    [block] = [block for block in DAGS if text in block.text]
    return pytest.mark.parametrize("block", [block], ids=str)


@pytest.mark.every_version
@pytest.mark.usefixtures("poll_at_once", "airflow_db")
@pytest.mark.parametrize("block", DAGS, ids=str)
def test_a_dag_runs(block: Block, run_dag: RunDag, sandbox: Sandbox, world: World) -> None:
    dag = load_block(block, world)
    if dag.dag_id in PARSED_ONLY:
        serialize(dag)
        return
    conf = {}
    if "request_id" in dag.params:  # It fetches what is paid already.
        paid = OdiRouterHook().submit("gpt_image_1_edit", {"prompt": "A", "images": ["https://cdn.example.com/a.png"]})
        conf["request_id"] = paid.request_id
    before = sandbox.paid
    run = run_dag(dag, **conf)
    assert run.state == "success", run.errors
    assert not sandbox.alive
    assert (sandbox.paid == before) == (dag.dag_id in PAY_NOTHING)


@pytest.mark.usefixtures("poll_at_once", "airflow_db")
@dags_with('schedule=[Asset("product_photo")]')
def test_a_dag_that_an_asset_starts_reads_its_event(block: Block, run_dag: RunDag, world: World) -> None:
    [producer] = [one for one in DAGS if one.page == block.page and 'DAG("make_product_photo")' in one.text]
    made = run_dag(load_block(producer, world))
    publish: Any = load_block(block, world).get_task("publish")
    paths = publish.python_callable(triggering_asset_events={"product_photo": events_of(made)})
    assert paths == [output["path"] for output in made.xcom("edit")["outputs"]]


@pytest.mark.usefixtures("poll_at_once", "airflow_db")
@dags_with('DAG("edit_in_s3")')
def test_the_rights_of_the_policy_suffice(
    block: Block, run_dag: RunDag, world: World, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [policy] = [one for one in all_blocks() if one.page == block.page and "s3:GetObject" in one.text]
    [statement] = json.loads(policy.text)["Statement"]
    limited = replace(block, text=block.text.replace("aws_default", "aws_limited"))
    with S3(s3_endpoint).checking_rights(*statement["Action"]) as conn_id:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_LIMITED", os.environ[variable_of(conn_id)])
        run = run_dag(load_block(limited, world))
    assert run.state == "success", run.errors


def test_each_test_is_the_one_that_test_pytest_plugin_runs() -> None:
    [shown] = {re.sub("  #.*", "", block.text) for block in all_blocks() if block.is_test}
    assert shown in doc_example.PAGE.read_text()


@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
def test_a_part_of_a_dag_can_be_parsed(block: Block, conn_id: str, world: World) -> None:
    with DAG("fragment") as dag:
        exec(compile(world.put_in(block.text), str(block), "exec"), prelude())
    assert dag.tasks


def prelude() -> dict[str, Any]:
    """The names that a part of a Dag may use."""
    from airflow.sdk import Asset, AssetAlias, task

    from airflow_provider_odirouter.operators.batch import OdiRouterBatchOperator
    from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
    from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
    from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
    from airflow_provider_odirouter.operators.review import OdiRouterReviewOperator, review_chunks
    from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor

    @task
    def photographs() -> list[dict[str, str]]:
        return []

    @task
    def publish(approved: object) -> None: ...

    edit = OdiRouterImageEditBatchOperator(task_id="made_before", edits=photographs(), output_path="/data/edited")
    names = (
        Asset, AssetAlias, DAG, OdiRouterBatchOperator, OdiRouterHook, OdiRouterImageEditBatchOperator,
        OdiRouterImageEditOperator, OdiRouterQueueOperator, OdiRouterRequestSensor, OdiRouterReviewOperator,
        review_chunks,
    )  # fmt: skip
    known = {one.__name__: one for one in names}
    return {**known, "task": task, "photographs": photographs, "publish": publish, "edit": edit, "__name__": "fragment"}
