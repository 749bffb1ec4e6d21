"""Tidying up what finished tasks have left: no more than is asked for, and never a picture or a batch's state."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.lifecycle.cleanup import main
from airflow_provider_odirouter.lifecycle.state import Ended
from airflow_provider_odirouter.lifecycle.state_files import FORGOTTEN
from airflow_provider_odirouter.storage import files
from airflow_provider_odirouter.storage.paths import storage_path
from tests.lifecycle.conftest import INTENT, REQUEST, id_of, note, put
from tests.object_store import S3

pytestmark = pytest.mark.usefixtures("own_context")

DONE = REQUEST.model_copy(update={"done": True}).model_dump_json()
ALIVE = REQUEST.model_dump_json()


def left(output_path: str) -> set[str]:
    return set(files.files_below(storage_path(output_path)))


def test_what_has_ended_is_removed_when_it_is_old(output_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    note(output_path, "done", DONE, days_ago=31)
    note(output_path, "forgotten", json.dumps(FORGOTTEN), days_ago=31)
    note(output_path, "ended", Ended(submits=2).model_dump_json(), days_ago=31)
    young = note(output_path, "young", DONE, days_ago=29)
    assert main([output_path]) == 0
    assert left(output_path) == {young}
    assert "3 notes were removed; 1 are younger; 0 stay" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        ALIVE,
        INTENT.model_dump_json(),
        "",
        "null",
        "[]",
        DONE[:-10],
        json.dumps({**json.loads(DONE), "done": "true"}),
        json.dumps({"version": 2}),
    ],
)
def test_what_a_new_try_may_need_stays_unless_all_shall_go(output_path: str, content: str) -> None:
    old = note(output_path, "task", content, days_ago=400)
    young = note(output_path, "young", content, days_ago=1)
    assert main([output_path]) == 0
    assert left(output_path) == {old, young}
    assert main([output_path, "--all", "--older-than-days", "399"]) == 0
    assert left(output_path) == {young}


def test_pictures_manifests_and_the_state_of_batches_stay(output_path: str) -> None:
    kept = {
        put(output_path, file, DONE)
        for file in (
            "cup-0.png",
            "batch.jsonl",
            f"{id_of(1, 400)}.json",
            ".odirouter/batch/state-000.jsonl",
            ".odirouter/batch/earlier-000.jsonl",
            ".odirouter/batch/owner-0198f000-0001-7000-8000-000000000001.json",
            ".odirouter/notes.json",
        )
    }
    note(output_path, "batch", DONE, days_ago=400)
    assert main([output_path, "--all"]) == 0
    assert left(output_path) == kept


def test_what_a_newer_try_has_noted_of_a_task_decides_for_those_before_it(output_path: str) -> None:
    note(output_path, "done", ALIVE, days_ago=50)
    note(output_path, "done", DONE, days_ago=40)
    note(output_path, "alive", DONE, days_ago=50)
    alive = note(output_path, "alive", ALIVE, days_ago=40)
    note(output_path, "young", ALIVE, days_ago=50)
    young = note(output_path, "young", ALIVE, days_ago=1)
    assert main([output_path]) == 0
    assert left(output_path) == {alive, young}


def test_a_rehearsal_removes_nothing(output_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    old = note(output_path, "done", DONE, days_ago=31)
    assert main([output_path, "--dry-run"]) == 0
    assert left(output_path) == {old}
    assert "1 notes would be removed" in capsys.readouterr().out


def test_empty_folders_go_with_their_notes(tmp_path: Path) -> None:
    note(str(tmp_path), "done", DONE, days_ago=31)
    main([str(tmp_path)])
    assert list((tmp_path / ".odirouter").iterdir()) == []


def test_where_there_is_nothing_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing")]) == 0
    assert not (tmp_path / "missing").exists()
    assert "0 notes were removed" in capsys.readouterr().out


def test_a_connection_can_be_named(s3: S3) -> None:
    note(s3.url("out", conn_id=s3.conn_id), "done", DONE, days_ago=31)
    assert main([s3.url("out"), "--storage-conn-id", s3.conn_id]) == 0
    assert s3.objects() == {}


def test_a_connection_that_airflow_does_not_know_is_an_error_and_no_anonymous_access(
    s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([s3.url("out"), "--storage-conn-id", "unknown"]) == 1
    assert "cannot be cleaned up: the connection 'unknown' cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["0", "-1", "nan", "soon"])
def test_an_impossible_age_is_refused(days: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--older-than-days", days])
    assert "--older-than-days" in capsys.readouterr().err


def test_it_is_a_command(tmp_path: Path) -> None:
    note(str(tmp_path), "done", DONE, days_ago=31)
    command = [sys.executable, "-m", "airflow_provider_odirouter.lifecycle.cleanup", str(tmp_path)]
    ended: Any = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 notes were removed" in ended.stdout
    assert left(str(tmp_path)) == set()
