"""Paths as users write them, and the text that means the same path in another process."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_provider_odirouter.redaction import without_password
from airflow_provider_odirouter.storage.paths import (
    PathError,
    connection_of,
    portable_path,
    quote_path,
    scheme_of,
    storage_path,
)
from airflow_provider_odirouter.text_paths import as_text

pytestmark = pytest.mark.every_version


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

    assert portable_path(here) == url
    elsewhere = storage_path(url)
    assert (elsewhere.protocol or "file", elsewhere.path) == (here.protocol or "file", here.path)
    assert portable_path(elsewhere) == url


def test_a_file_in_a_folder_has_the_folders_connection() -> None:
    assert portable_path(storage_path("s3://bucket/out", "mine") / "a.png") == "s3://mine@bucket/out/a.png"
    assert portable_path(storage_path("s3://bucket", "mine") / "a.png") == "s3://mine@bucket/a.png"


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert portable_path(storage_path("a.png", "mine")) == str(tmp_path / "a.png")
    assert portable_path(storage_path("~/a.png", "mine")) == str(tmp_path / "home" / "a.png")


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


def test_a_password_in_a_url_is_hidden() -> None:
    assert quote_path("s3://key:secret@bucket/a:b@c") == "'s3://key:***@bucket/a:b@c'"
    assert without_password("s3://key:secr@et@bucket/a") == "s3://key:***@bucket/a"
    assert without_password("s3://conn_id@bucket/a") == "s3://conn_id@bucket/a"


def test_a_long_path_is_shortened() -> None:
    assert len(quote_path("x" * 1000)) < 210


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///data/a%20b.png", "/data/a b.png"),
        ("file:///data/%C3%BC%23%3F%25.png", "/data/ü#?%.png"),
        ("file:///data/100%.png", "/data/100%.png"),
        ("file:///data/a?b#c.png", "/data/a?b#c.png"),
        ("file:///data/a.png?", "/data/a.png?"),
        ("file://localhost/data/a.png", "/data/a.png"),
        ("FILE://LocalHost/data/a.png", "/data/a.png"),
        ("file:/data/a%20b.png", "/data/a b.png"),
        ("local:///data/a%20b.png", "/data/a b.png"),
        ("/data/a%20b.png", "/data/a%20b.png"),
        ("/data/a://b.png", "/data/a:/b.png"),
    ],
)
def test_a_file_url_is_decoded_and_a_plain_path_is_not(url: str, path: str) -> None:
    assert portable_path(storage_path(url)) == path
    assert portable_path(storage_path(portable_path(storage_path(url)))) == path


def test_airflows_object_of_a_local_file_is_not_decoded() -> None:
    for text in ("/data/a%20b.png", "file:///data/a%20b.png"):
        assert portable_path(storage_path(as_text(ObjectStoragePath(text)))) == "/data/a%20b.png"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file://data/a.png", "names another host"),
        ("file://nas/data/a.png", "names another host"),
        ("file:///data/%FF.png", "not UTF-8"),
        (" s3://bucket/a.png", "begins with a blank"),
    ],
)
def test_a_url_that_is_no_file_of_this_machine_is_refused(url: str, why: str) -> None:
    with pytest.raises(PathError, match=why):
        storage_path(url)


def test_the_scheme_of_a_url_may_be_in_capitals_and_a_plain_path_has_none() -> None:
    assert str(storage_path("S3://bucket/a.png", "mine")) == str(storage_path("s3://bucket/a.png", "mine"))
    assert [scheme_of(path) for path in ("S3://b/a", "/data/a://b", "a:b")] == ["s3", "", ""]
