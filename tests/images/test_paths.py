"""Paths as users write them down, and the text that means the same path elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_odirouter.images.paths import connection_of, shown, storage_path, url_of
from airflow_provider_odirouter.redaction import without_password


@pytest.mark.parametrize(
    ("path", "storage_conn_id", "url"),
    [
        ("s3://bucket/a b/ü.png", None, "s3://bucket/a b/ü.png"),
        ("s3://bucket/a.png", "mine", "s3://mine@bucket/a.png"),
        ("s3://theirs@bucket/a.png", None, "s3://theirs@bucket/a.png"),
        ("s3://theirs@bucket/a.png", "mine", "s3://theirs@bucket/a.png"),
        ("s3://bucket/a@b.png", "mine", "s3://mine@bucket/a@b.png"),
        ("/data/a.png", "mine", "/data/a.png"),
        ("file:///data/a.png", "mine", "/data/a.png"),
        ("/data/a@b:c#d?e.png", "mine", "/data/a@b:c#d?e.png"),
    ],
)
def test_a_path_means_the_same_in_another_process(path: str, storage_conn_id: str | None, url: str) -> None:
    here = storage_path(path, storage_conn_id)

    assert url_of(here) == url
    elsewhere = storage_path(url)
    assert (elsewhere.protocol or "file", elsewhere.path) == (here.protocol or "file", here.path)
    assert url_of(elsewhere) == url


def test_a_file_in_a_folder_is_reached_by_the_folders_connection() -> None:
    assert url_of(storage_path("s3://bucket/out", "mine") / "a.png") == "s3://mine@bucket/out/a.png"
    assert url_of(storage_path("s3://bucket", "mine") / "a.png") == "s3://mine@bucket/a.png"


def test_a_relative_path_is_this_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert url_of(storage_path("a.png", "mine")) == str(tmp_path / "a.png")
    assert url_of(storage_path("~/a.png", "mine")) == str(tmp_path / "home" / "a.png")


@pytest.mark.parametrize(
    ("path", "conn_id"),
    [
        ("s3://bucket/a", "default"),
        ("s3://@bucket/a", "default"),
        ("s3://named@bucket/a", "named"),
        ("s3://bucket/a@b", "default"),
        ("s3://[bucket/a", "default"),
        ("/data/a", None),
        ("file:///data/a", None),
        ("a@b", None),
        ("FILE:///data/a", None),
    ],
)
def test_the_connection_is_the_urls_or_the_default_of_a_store(path: str, conn_id: str | None) -> None:
    assert connection_of(path, "default") == conn_id


def test_a_password_in_a_url_is_shown_to_nobody() -> None:
    assert shown("s3://key:secret@bucket/a:b@c") == "'s3://key:***@bucket/a:b@c'"
    assert without_password("s3://key:secr@et@bucket/a") == "s3://key:***@bucket/a"
    assert without_password("s3://conn_id@bucket/a") == "s3://conn_id@bucket/a"


def test_a_long_path_is_shown_in_part() -> None:
    assert len(shown("x" * 1000)) < 210
