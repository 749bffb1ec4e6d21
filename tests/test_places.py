"""Paths as texts: Airflow's, Python's, and those in the middle of something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_provider_odirouter.places import as_text, is_path

STORED = ObjectStoragePath("file:///data") / "cup.png"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Path("/data") / "cup.png", "/data/cup.png"),
        (STORED, "file:///data/cup.png"),
        ([Path("a"), "b"], ["a", "b"]),
        ((STORED, Path("a")), ("file:///data/cup.png", "a")),
        ({"images": [STORED], "n": 1}, {"images": ["file:///data/cup.png"], "n": 1}),
        ([{"mask": Path("a")}, {"prompt": "Blue"}], [{"mask": "a"}, {"prompt": "Blue"}]),
    ],
)
def test_a_path_becomes_text_wherever_it_is(value: Any, text: Any) -> None:
    assert as_text(value) == text


def test_a_store_keeps_its_connection() -> None:
    assert as_text(ObjectStoragePath("s3://shop@bucket/cups") / "cup.png") == "s3://shop@bucket/cups/cup.png"
    assert as_text(ObjectStoragePath("s3://bucket/cup.png", conn_id="shop")) == "s3://shop@bucket/cup.png"


@pytest.mark.parametrize("value", [None, "", "s3://bucket/cup.png", b"cup", 1, 1.5, True, frozenset({"a"}), object()])
def test_everything_else_stays_as_it_is(value: object) -> None:
    assert as_text(value) is value
    assert not is_path(value)
