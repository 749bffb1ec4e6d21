"""Paths as texts: Airflow's and Python's, alone and nested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from upath import UPath

from airflow_provider_odirouter.storage.paths import storage_path
from airflow_provider_odirouter.text_paths import as_text, is_path, is_relative

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
def test_a_path_becomes_text_wherever_it_is_nested(value: Any, text: Any) -> None:
    assert as_text(value) == text


def test_a_percent_sign_is_the_same_file_whatever_kind_of_path_it_was() -> None:
    # A plain path is taken as it is, and the URL of a file is decoded.
    assert as_text(UPath("/data/a%20b.png")) == as_text(Path("/data/a%20b.png")) == "/data/a%20b.png"
    assert storage_path(as_text(UPath("file:///data/a%20b.png"))).path == "/data/a%20b.png"
    assert storage_path(as_text(ObjectStoragePath("file:///data") / "a%20b.png")).path == "/data/a%20b.png"


@pytest.mark.parametrize(
    "path", ["/a", "~/a", "file:/a", "FILE:///a", "data:image/png;base64,AAAA", "DATA:,a", "s3://b/a"]
)
def test_what_is_not_relative(path: str) -> None:
    assert not is_relative(path)
    assert is_relative("a.png")


def test_a_store_keeps_its_connection_id() -> None:
    assert as_text(ObjectStoragePath("s3://shop@bucket/cups") / "cup.png") == "s3://shop@bucket/cups/cup.png"
    assert as_text(ObjectStoragePath("s3://bucket/cup.png", conn_id="shop")) == "s3://shop@bucket/cup.png"


@pytest.mark.parametrize("value", [None, "", "s3://bucket/cup.png", b"cup", 1, 1.5, True, frozenset({"a"}), object()])
def test_other_values_are_returned_unchanged(value: object) -> None:
    assert as_text(value) is value
    assert not is_path(value)
