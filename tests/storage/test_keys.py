"""Keys of a store: each is the one that the user wrote, or is refused; the decoys are what Airflow would open."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from airflow_provider_odirouter.errors import StorageError
from airflow_provider_odirouter.images.inputs import read_inputs
from airflow_provider_odirouter.images.landing import probe
from airflow_provider_odirouter.storage.files import read, write_whole
from airflow_provider_odirouter.storage.paths import PathError
from airflow_provider_odirouter.storage.store_errors import open_store
from tests.batch.conftest import read_edits
from tests.object_store import S3

pytestmark = pytest.mark.every_version

DECOYS = ["cup.png", "a/b.png", "b.png", "a b.png", "a", "caf\u00e9.png", "cup.png#x", "cup.png?a=b"]
KEPT = [
    "cup#1.png",
    "what?.png",
    "cup.png?width=5",
    "a%20b.png",
    "a//b.png",
    "/cup.png",
    "cup.png ",
    "cup.png\u00a0",
    "cafe\u0301.png",
    "*.png",
    "[c]up.png",
    "a\\b.png",
    "x@y.png",
    "a:b.png",
    "cup.png;v=1",
    "...",
]
CHANGED = [
    "cup.png?",
    "cup.png#",
    "cup.png?#x",
    "cup.png?a=b#",
    "cup.png?versionId=1",
    "cup.png\n",
    "cu\tp.png",
    "a/../cup.png",
    "./cup.png",
    "a/./b.png",
    "a/.",
    "..",
]


@pytest.fixture
def with_decoys(s3: S3) -> S3:
    for key in DECOYS:
        s3.put(key, b"another object")
    return s3


@pytest.mark.parametrize("key", KEPT)
def test_a_strange_key_is_read_and_written_as_it_is(with_decoys: S3, key: str) -> None:
    url = with_decoys.url(key, conn_id=with_decoys.conn_id)
    write_whole(io.BytesIO(b"mine"), open_store(url, None, is_file=True))

    assert with_decoys.objects()[key] == b"mine"
    assert read(open_store(url, None, is_file=True), 100) == b"mine"
    assert list(with_decoys.objects().values()).count(b"mine") == 1


@pytest.mark.parametrize("key", CHANGED)
def test_a_key_that_airflow_would_change_is_refused(with_decoys: S3, key: str) -> None:
    for url in (with_decoys.url(key, conn_id=with_decoys.conn_id), with_decoys.url(key).replace("s3:", "S3:")):
        with pytest.raises(PathError, match=r"another object.*give it a name that has no"):
            open_store(url, with_decoys.conn_id)


def test_a_chain_of_stores_in_a_key_is_refused(with_decoys: S3) -> None:
    # Airflow before 3.2 keeps such a key.
    url = with_decoys.url("a::b.png", conn_id=with_decoys.conn_id)
    try:
        path = open_store(url, None)
    except PathError:
        return
    assert path.path.endswith("/a::b.png")


def test_every_place_that_takes_a_url_says_which_object_airflow_would_open(with_decoys: S3) -> None:
    changed = with_decoys.url("cup.png?")
    instead = f"Airflow would open {with_decoys.url('cup.png')} instead, another object; give it a name"
    for name, inputs in (
        ("images[0]", read_inputs([changed], None, storage_conn_id=with_decoys.conn_id)),
        ("mask", read_inputs(["https://host/a.png"], changed, storage_conn_id=with_decoys.conn_id)),
    ):
        [problem] = inputs.problems
        assert problem.field == name
        assert problem.message.startswith(f"{changed!r} cannot be read: {instead}")
    with pytest.raises(StorageError) as output_error:
        probe(changed, with_decoys.conn_id)
    assert str(output_error.value).startswith(f"The output path {changed!r} cannot be written: {instead}")
    listed = with_decoys.url("edits?#.jsonl")
    [list_problem] = read_edits(listed, storage_conn_id=with_decoys.conn_id).problems
    assert f"{listed!r} cannot be read: Airflow would open {with_decoys.url('edits#.jsonl')} instead" in str(
        list_problem.message
    )
    assert set(with_decoys.objects()) == set(DECOYS)


def test_an_object_with_a_slash_at_its_end_is_not_the_one_without(with_decoys: S3) -> None:
    url = with_decoys.url("cup.png/")
    [problem] = read_inputs([url], None, storage_conn_id=with_decoys.conn_id).problems
    assert problem.message == f"{url!r} is a folder, not a file"
    with_decoys.put("edits.csv", b"prompt")
    [list_problem] = read_edits(with_decoys.url("edits.csv/"), storage_conn_id=with_decoys.conn_id).problems
    assert "Is a directory" in list_problem.message


def test_another_host_in_a_file_url_is_named_as_the_mistake() -> None:
    [problem] = read_inputs(["file://data/cup.png"], None).problems
    assert problem.message.startswith(
        "'file://data/cup.png' cannot be read: it names another host; a file of this machine is file:///folder/cup.png"
    )


@pytest.mark.parametrize("name", ["cup.png?", "cup.png#", "a\nb.png", "a::b.png", "a%20b.png", "x:", "what?.png"])
def test_a_strange_local_name_is_kept_or_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    for decoy in ("cup.png", "ab.png", "a b.png", "a", "x"):
        (tmp_path / decoy).write_bytes(b"another file")
    (tmp_path / name).write_bytes(b"mine")
    assert read(open_store(str(tmp_path / name), None, is_file=True), 100) == b"mine"

    folder = tmp_path / "folders" / name
    try:
        path = open_store(str(folder), None)
    except PathError:  # Airflow before 3.2
        return
    probe(str(folder))
    write_whole(io.BytesIO(b"mine"), path / "out.png")
    assert (folder / "out.png").read_bytes() == b"mine"
    assert [file.name for file in (tmp_path / "folders").iterdir()] == [name]
