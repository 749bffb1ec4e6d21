"""The manifest of a batch: one line per edit, however many there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.batch.report import MAX_MEMORY_BYTES, write_manifest
from tests.batch.conftest import item
from tests.object_store import S3


@pytest.mark.parametrize("in_store", [False, True], ids=["folder", "S3"])
def test_a_manifest_that_is_larger_than_the_memory_for_it_is_whole(in_store: bool, tmp_path: Path, s3: S3) -> None:
    count = 2_000
    items = BatchItems(item(number, "x" * 600) for number in range(1, count + 1))
    output_path, conn_id = (s3.url("out"), s3.conn_id) if in_store else (str(tmp_path), None)
    write_manifest(items, output_path=output_path, storage_conn_id=conn_id, name="mine")
    content = s3.objects()["out/mine.jsonl"] if in_store else (tmp_path / "mine.jsonl").read_bytes()
    assert len(content) > MAX_MEMORY_BYTES
    assert [json.loads(line)["number"] for line in content.splitlines()] == list(range(1, count + 1))
