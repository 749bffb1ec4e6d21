"""The media types that lie beside the objects of a store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.images.landing import land
from airflow_provider_odirouter.models import OutputFile
from airflow_provider_odirouter.storage import files
from airflow_provider_odirouter.storage.files import JSON, JSON_LINES, write_whole
from airflow_provider_odirouter.storage.store_errors import open_store
from tests.conftest import DictStore
from tests.dags.batches import THREE, batch
from tests.dags.conftest import RunDag, airflow_db, fail_after_submit, run_dag
from tests.images.conftest import Paint, paint
from tests.object_store import S3

__all__ = ["DictStore", "airflow_db", "fail_after_submit", "paint", "run_dag"]


@pytest.mark.usefixtures("poll_at_once")
def test_pictures_manifest_and_state_of_a_batch_have_their_types(run_dag: RunDag, s3: S3) -> None:
    assert run_dag(batch(THREE, s3.url("out"), dag_id="in_a_store", storage_conn_id=s3.conn_id)).state == "success"
    types = s3.content_types()

    assert {types[key] for key in types if key.endswith(".png")} == {"image/png"}
    [manifest] = [key for key in types if key.endswith(".jsonl") and ".odirouter" not in key]
    assert types[manifest] == JSON_LINES
    state = {key: type_ for key, type_ in types.items() if ".odirouter" in key}
    assert {type_ for key, type_ in state.items() if key.endswith(".jsonl")} == {JSON_LINES}
    assert {type_ for key, type_ in state.items() if key.endswith(".json")} == {JSON}
    assert len(types) == 3 + 1 + len(state)


@pytest.mark.parametrize(("kind", "type_"), [("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("PNG", "image/png")])
def test_a_landed_picture_has_the_type_of_its_content(s3: S3, paint: Paint, kind: str, type_: str) -> None:
    output = OutputFile(url="https://host/file.png", content_type="image/png", file_name="file.png")

    def download(_: str, file: Any) -> None:
        file.write(paint(kind))

    (landed,) = land([output], output_path=s3.url("out"), name="mine", download=download, storage_conn_id=s3.conn_id)
    assert landed.content_type == type_
    assert list(s3.content_types().values()) == [type_]


def test_a_file_that_is_uploaded_in_parts_has_its_type(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 5 * 2**20)
    for track_lineage in (True, False):
        path = open_store(s3.url(f"large-{track_lineage}.png"), s3.conn_id, is_file=True)
        write_whole(io.BytesIO(bytes(12 * 2**20)), path, content_type="image/png", track_lineage=track_lineage)
    assert set(s3.content_types().values()) == {"image/png"}


@pytest.mark.parametrize("nonsense", ["", None, "image", "a/b\r\nX-Evil: 1", "ü/png", "text/html; charset=utf-8"])
def test_a_type_that_is_none_does_not_keep_a_paid_file_from_landing(s3: S3, nonsense: str | None) -> None:
    write_whole(io.BytesIO(b"paid"), open_store(s3.url("file"), s3.conn_id, is_file=True), content_type=nonsense)
    assert s3.objects() == {"file": b"paid"}
    assert s3.content_types() == {"file": "binary/octet-stream"}


@pytest.mark.parametrize(
    ("protocol", "option"),
    [
        # As the `_open` of s3fs, gcsfs and adlfs take it; other clients may refuse what they do not know.
        ("s3", {"ContentType": "image/png"}),
        ("s3a", {"ContentType": "image/png"}),
        ("gs", {"content_type": "image/png"}),
        ("gcs", {"content_type": "image/png"}),
        ("abfs", {"content_settings": {"content_type": "image/png"}}),
        ("abfss", {"content_settings": {"content_type": "image/png"}}),
        ("sftp", {}),
        ("memory", {}),
    ],
)
def test_each_stores_client_learns_the_type_in_its_own_words(protocol: str, option: dict[str, Any]) -> None:
    assert files._content_type_option(protocol, "image/png") == option


def test_a_local_file_needs_no_type(tmp_path: Path) -> None:
    write_whole(io.BytesIO(b"mine"), open_store(str(tmp_path / "a"), None, is_file=True), content_type="image/png")
    assert (tmp_path / "a").read_bytes() == b"mine"
