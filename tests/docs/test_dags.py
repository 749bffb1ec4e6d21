"""Each Dag of the documentation is run to its end against the sandbox, and each test in it passes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from PIL import Image

from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import PICTURES
from tests.dags.conftest import RunDag, airflow_db, run_dag, serialize
from tests.dags.test_example_dags import load
from tests.docs.blocks import Block, all_blocks
from tests.object_store import S3

__all__ = ["airflow_db", "run_dag"]

DAGS = [block for block in all_blocks() if block.is_dag]
FRAGMENTS = [block for block in all_blocks() if block.is_fragment]


@dataclass(frozen=True)
class Expected:
    """How a Dag ends that does not simply succeed."""

    state: str = "success"
    submits: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the sandbox."""


PARSED_ONLY = {
    "edit_review_publish": "a person answers: tests/e2e/test_review.py",
    "review_in_parts": "the same",
    "edit_in_gcs_and_azure": "the clients of these stores are not installed",
}
"""Dags that cannot run here, and why."""
EXPECTED = {
    "what_would_it_cost": Expected(submits=0),
}


@pytest.fixture(scope="session")
def small_pictures() -> dict[str, bytes]:
    """The photographs that the pages name, small: to land and to check large ones is what other tests are about."""

    def encode(name: str, kind: str = "png", mode: str = "RGB") -> bytes:
        with Image.open(PICTURES / name) as picture:
            small = picture.convert(mode).resize((96, 64))
        file = io.BytesIO()
        small.save(file, kind)
        return file.getvalue()

    cup, other = encode("coffee.png"), encode("chelsea.png")
    names = {"cup": cup, "coffee": cup, "hat": other, "shoe": other, "cat": other}
    return {f"{name}.png": data for name, data in names.items()} | {
        "cup-mask.png": encode("coffee-mask.png", mode="RGBA"),
        "rocket.jpg": encode("rocket.jpg", "jpeg"),
    }


def files_of(block: Block, pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the store or the disk of a page's reader has: photographs, and the lists that the same page shows."""
    files = {f"photos/{name}": data for name, data in pictures.items()}
    for list_of_edits in all_blocks():
        if list_of_edits.page == block.page and list_of_edits.language in {"jsonl", "csv"}:
            for day in (datetime.now(UTC), datetime.now(UTC) - timedelta(days=1)):
                files.setdefault(f"edits/{day:%Y-%m-%d}.{list_of_edits.language}", list_of_edits.text.encode())
            files.setdefault(f"edits/edits.{list_of_edits.language}", list_of_edits.text.encode())
    return files


@dataclass(frozen=True)
class World:
    """What stands for the folder ``/data`` and for the bucket ``shop`` of a page's reader."""

    folder: Path
    bucket: str = "shop"

    def put_in(self, text: str) -> str:
        """Let the paths and URLs of a block be those of this test: another user may have no right to make ``/data``."""
        return (
            text.replace("/data/", f"{self.folder}/data/")
            .replace("//shop/", f"//{self.bucket}/")
            .replace("@shop/", f"@{self.bucket}/")
        )


@pytest.fixture
def world(
    request: pytest.FixtureRequest, tmp_path: Path, small_pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> World:
    block: Block = request.node.callspec.params["block"]
    store = S3(request.getfixturevalue("s3_endpoint")) if "s3://" in block.text else None
    world = World(tmp_path, store.bucket if store else "shop")
    for name, content in files_of(block, small_pictures).items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(world.put_in(content.decode()).encode() if name.startswith("edits/") else content)
        if store:
            store.put(name, file.read_bytes())
    if store:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", os.environ[f"AIRFLOW_CONN_{store.conn_id.upper()}"])
    return world


def load_block(block: Block, world: World) -> DAG:
    """Import the block as Airflow imports a Dag file."""
    file = world.folder / f"{Path(block.page).stem.replace('-', '_')}_{block.line}.py"
    file.write_text(world.put_in(block.text))
    return load(file)


@pytest.mark.usefixtures("poll_at_once", "airflow_db")
@pytest.mark.parametrize("block", DAGS, ids=str)
def test_a_dag_runs(
    block: Block, request: pytest.FixtureRequest, run_dag: RunDag, sandbox: Sandbox, world: World
) -> None:
    dag = load_block(block, world)
    if dag.dag_id in PARSED_ONLY:
        serialize(dag)
        return
    expected = EXPECTED.get(dag.dag_id, Expected())
    sandbox.configure(**expected.settings)
    run = run_dag(dag)
    assert run.state == expected.state, run.errors
    assert not sandbox.alive
    assert expected.submits in {None, len(sandbox.submits)}


@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
def test_a_part_of_a_dag_can_be_parsed(block: Block, conn_id: str, world: World) -> None:
    with DAG("fragment") as dag:
        exec(compile(world.put_in(block.text), str(block), "exec"), prelude())
    assert dag.tasks


def prelude() -> dict[str, Any]:
    """The names that a part of a Dag may use."""
    from airflow.sdk import Asset, AssetAlias, task

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
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
        photographs, publish, review_chunks,
    )  # fmt: skip
    known = {getattr(one, "__name__", ""): one for one in names}
    return known | {"task": task, "photographs": photographs, "publish": publish, "edit": edit, "__name__": "fragment"}
