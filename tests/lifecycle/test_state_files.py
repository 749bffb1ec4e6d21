"""Notes beside the outputs: whole or not at all, by the newest try alone, in any store."""

from __future__ import annotations

import json
import os
import shutil
import stat
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import NotOwnerError, StorageError
from airflow_provider_odirouter.lifecycle import state_files
from airflow_provider_odirouter.lifecycle.state import ABSENT, KEY, Ended, RequestStore, Submitted, Unreadable
from airflow_provider_odirouter.lifecycle.state_files import NotesOfBoth
from airflow_provider_odirouter.models import Spending
from airflow_provider_odirouter.storage import files, state_folder
from airflow_provider_odirouter.storage.paths import storage_path
from tests.conftest import DictStore
from tests.lifecycle.conftest import INTENT, NAME, REQUEST, Try
from tests.object_store import S3

pytestmark = pytest.mark.every_version

ENDED = Ended(submits=REQUEST.submits, cost=REQUEST.cost)


def notes_in(output_path: str) -> dict[str, Any]:
    """All notes, by their files' names."""
    folder = storage_path(output_path) / ".odirouter" / NAME
    return {
        name: json.loads(files.read(folder / name, 10_000, track_lineage=False)) for name in files.files_below(folder)
    }


def test_a_first_try_finds_nothing_and_makes_nothing(a_try: Try, output_path: str) -> None:
    assert a_try(1).get(KEY, ABSENT) is ABSENT
    assert a_try(1, has_begun=False).get(KEY, ABSENT) is ABSENT
    assert a_try(2).get(KEY) is None
    assert notes_in(output_path) == {}


def test_a_new_try_reads_what_the_one_before_it_has_noted(a_try: Try) -> None:
    RequestStore(a_try(1)).note(INTENT)
    RequestStore(a_try(1)).note(REQUEST)
    assert RequestStore(a_try(2)).recall() == REQUEST
    RequestStore(a_try(1)).done()
    done = RequestStore(a_try(2)).recall()
    assert isinstance(done, Submitted)
    assert done.done


def test_a_try_that_goes_on_after_a_deferral_reads_its_own_note(a_try: Try) -> None:
    RequestStore(a_try(1)).note(REQUEST)
    assert RequestStore(a_try(1)).recall() == REQUEST


def test_each_try_has_a_file_of_its_own_and_removes_those_before_it(a_try: Try, output_path: str) -> None:
    for number in (1, 2, 3):
        a_try(number).set(KEY, {"try": number})
        assert list(notes_in(output_path).values()) == [{"try": number}]


@pytest.mark.parametrize(
    "act", [lambda notes: notes.get(KEY), lambda notes: notes.set(KEY, 1), lambda notes: notes.delete(KEY)]
)
def test_a_try_that_finds_a_newer_ones_note_is_the_owner_no_more(
    act: Callable[[Any], object], a_try: Try, output_path: str
) -> None:
    a_try(1).set(KEY, {"try": 1})
    a_try(2).set(KEY, {"try": 2})
    with pytest.raises(NotOwnerError, match=r"A newer try of this task has begun.*\.odirouter"):
        act(a_try(1))
    assert list(notes_in(output_path).values()) == [{"try": 2}]


def test_a_try_that_is_the_owner_no_more_still_says_that_its_request_is_remembered(a_try: Try) -> None:
    request_store = RequestStore(a_try(1))
    a_try(2).set(KEY, {"try": 2})
    with pytest.raises(NotOwnerError):
        request_store.note(REQUEST)
    assert request_store.survives_retry


def test_a_run_made_again_after_its_deletion_knows_nothing_of_the_deleted_run(a_try: Try, output_path: str) -> None:
    a_try(0).set(KEY, REQUEST.model_dump(mode="json"))
    assert RequestStore(a_try(1)).recall() is None
    RequestStore(a_try(1)).note(INTENT)
    assert list(notes_in(output_path).values()) == [INTENT.model_dump(mode="json")]


def test_what_is_forgotten_leaves_only_what_was_spent(a_try: Try, output_path: str) -> None:
    RequestStore(a_try(1)).note(REQUEST)
    RequestStore(a_try(2)).forget()
    RequestStore(a_try(2)).forget()
    assert RequestStore(a_try(3)).recall() == ENDED
    assert list(notes_in(output_path).values()) == [ENDED.model_dump(mode="json")]


def test_where_nothing_was_spent_nothing_is_left_behind(a_try: Try, output_path: str, tmp_path: Path) -> None:
    RequestStore(a_try(1)).note(INTENT)
    RequestStore(a_try(1)).forget(Spending())
    RequestStore(a_try(2)).forget()
    assert RequestStore(a_try(3)).recall() is None
    assert notes_in(output_path) == {}
    assert not list(tmp_path.glob("out/.odirouter/*"))


def test_where_nothing_can_be_removed_the_newest_note_counts_all_the_same(
    a_try: Try, output_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(state_files, "remove", refuse)
    RequestStore(a_try(1)).note(INTENT)
    RequestStore(a_try(2)).note(REQUEST)
    assert len(notes_in(output_path)) == 2
    assert RequestStore(a_try(3)).recall() == REQUEST
    RequestStore(a_try(3)).forget(Spending())
    assert len(notes_in(output_path)) == 3
    assert RequestStore(a_try(4)).recall() is None
    RequestStore(a_try(4)).note(INTENT)
    assert RequestStore(a_try(5)).recall() == INTENT


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 300, b'{"version": 1, "max_tries": 1, "fing', b"\xff\xfe", b"null", b"[]", b"mmsu_1"]
)
def test_half_a_file_is_not_taken_for_none(a_try: Try, output_path: str, content: bytes) -> None:
    RequestStore(a_try(1)).note(REQUEST)
    folder = storage_path(output_path) / ".odirouter" / NAME
    [name] = files.files_below(folder)
    with (folder / name).open("wb") as file:
        file.write(content)
    noted = RequestStore(a_try(2)).recall()
    assert isinstance(noted, Unreadable)
    assert noted.path == f"{output_path}/.odirouter/{NAME}/{name}"
    assert noted.max_tries == (1 if b"max_tries" in content else None)


def test_what_lies_beside_the_notes_is_left_alone(a_try: Try, tmp_path: Path) -> None:
    folder = tmp_path / "out" / ".odirouter" / NAME
    folder.mkdir(parents=True)
    for name in (
        "state-000.jsonl",
        "owner-0198f000-0001-7000-8000-000000000001.json",
        "zzz.json",
        "FFFFFFFF-ffff-7fff-bfff-ffffffffffff.json",
        ".x.part",
    ):
        (folder / name).write_text("not a note")
    notes = a_try(2, path=str(tmp_path / "out"))
    assert notes.get(KEY) is None
    notes.set(KEY, 1)
    notes.delete(KEY)
    assert len(list(folder.iterdir())) == 5


def test_a_note_is_there_whole_or_not_at_all(a_try: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "out")
    RequestStore(a_try(1, path=out)).note(INTENT)

    def break_off(source: Any, target: Any, *_: object) -> None:
        target.write(source.read(20))
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", break_off)
        request_store = RequestStore(a_try(1, path=out))
        with pytest.raises(StorageError, match=r"cannot be written: .*No space left on device"):
            request_store.note(REQUEST)
        assert not request_store.survives_retry
    assert RequestStore(a_try(2, path=out)).recall() == INTENT


def test_a_note_survives_the_death_of_the_machine(a_try: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", noting)
    RequestStore(a_try(1, path=str(tmp_path / "out"))).note(INTENT)
    [note] = (tmp_path / "out" / ".odirouter" / NAME).iterdir()
    assert synced == [".odirouter", "out", tmp_path.name, f".{note.name}.part", NAME]


def test_a_store_that_does_not_answer_is_no_empty_one(
    a_try: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: object) -> list[str]:
        raise ConnectionError("no answer")

    monkeypatch.setattr(state_files, "files_below", fail)
    with pytest.raises(StorageError, match="no answer"):
        RequestStore(a_try(2)).recall()


def test_the_password_in_an_output_path_is_not_told(a_try: Try) -> None:
    notes = a_try(2, path="nosuch://user:secret@host/out")
    with pytest.raises(StorageError) as raised:
        notes.get(KEY)
    assert "secret" not in str(raised.value)
    assert "secret" not in notes.path


def test_an_edit_costs_few_calls_to_a_store(a_try: Try, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """On S3, each call is one to pay for."""
    from aiobotocore.client import AioBaseClient  # type: ignore[import-untyped]

    calls: list[str] = []
    make = AioBaseClient._make_api_call

    async def counting(client: Any, operation: str, *arguments: Any) -> Any:
        calls.append(operation)
        return await make(client, operation, *arguments)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", counting)
    url = s3.url("out", conn_id=s3.conn_id)
    first = RequestStore(a_try(1, path=url, has_begun=False))
    assert first.recall() is None
    first.note(INTENT)
    first.note(REQUEST)
    resumed = RequestStore(a_try(1, path=url))
    resumed.done()
    assert len(calls) <= 10, calls
    assert resumed.survives_retry
    assert calls.count("PutObject") == 3


# --- After an upgrade to an Airflow with a store of its own


def test_what_an_older_airflow_has_noted_is_found_where_airflows_store_has_nothing(
    a_try: Try, store: DictStore, output_path: str
) -> None:
    RequestStore(a_try(1)).note(REQUEST)
    request_store = RequestStore(NotesOfBoth(store, a_try(2)))
    assert request_store.recall() == REQUEST
    request_store.note(REQUEST)
    assert notes_in(output_path) == {}
    assert RequestStore(NotesOfBoth(store, a_try(2))).recall() == REQUEST
    request_store.forget()
    assert RequestStore(NotesOfBoth(store, a_try(3))).recall() == ENDED


def test_airflows_store_counts_where_it_has_something(a_try: Try, store: DictStore, output_path: str) -> None:
    RequestStore(a_try(1)).note(INTENT)
    RequestStore(store).note(REQUEST)
    assert RequestStore(NotesOfBoth(store, a_try(2))).recall() == REQUEST


def test_a_broken_note_of_an_older_airflow_is_named_by_its_file(a_try: Try, store: DictStore, output_path: str) -> None:
    a_try(1).set(KEY, {"version": 3})
    noted = RequestStore(NotesOfBoth(store, a_try(2))).recall()
    assert isinstance(noted, Unreadable)
    assert noted.path.startswith(f"{output_path}/.odirouter/{NAME}/")


def test_a_broken_note_in_airflows_store_is_not_passed_over_for_an_older_one(a_try: Try, store: DictStore) -> None:
    RequestStore(a_try(1)).note(REQUEST)
    store.values[KEY] = "null"
    noted = RequestStore(NotesOfBoth(store, a_try(2))).recall()
    assert isinstance(noted, Unreadable)
    assert noted.path == "key 'odirouter_request' of Airflow's task state store"


def test_a_first_try_asks_no_other_store_than_airflows(
    a_try: Try, store: DictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_files, "files_below", None)
    request_store = RequestStore(NotesOfBoth(store, a_try(1)))
    assert request_store.recall() is None
    request_store.note(REQUEST)
    request_store.done()
    request_store.forget()


class Failing(DictStore):
    """Airflow's server fails at these keys; its client does not say why."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.keys = keys

    def get(self, key: str, default: Any = None) -> Any:
        if not self.keys or key in self.keys:
            raise RuntimeError("500: Internal Server Error")
        return default


def test_a_server_that_fails_at_one_key_alone_has_a_broken_note_there() -> None:
    noted = RequestStore(NotesOfBoth(Failing(KEY), None)).recall()
    assert isinstance(noted, Unreadable)
    assert "500: Internal Server Error" in noted.why


def test_a_server_that_fails_at_every_key_says_nothing_of_the_note() -> None:
    with pytest.raises(RuntimeError, match="500"):
        RequestStore(NotesOfBoth(Failing(), None)).recall()


def test_notes_are_readable_by_those_who_may_read_the_pictures(a_try: Try, tmp_path: Path) -> None:
    a_try(1, path=str(tmp_path / "out")).set(KEY, 1)
    [note] = (tmp_path / "out").glob(".odirouter/*/*.json")
    (tmp_path / "picture").touch()
    assert stat.S_IMODE(note.stat().st_mode) == stat.S_IMODE((tmp_path / "picture").stat().st_mode)


def test_the_error_of_a_store_shows_none_of_its_secrets(a_try: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("https://shop:a-hidden-word@store/out does not answer")

    notes = a_try(1)
    monkeypatch.setattr(state_folder, "open_store", fail)
    with pytest.raises(StorageError) as raised:
        notes.set(KEY, {})
    assert "a-hidden-word" not in "".join(traceback.format_exception(raised.value))


def test_a_transient_error_of_airflows_store_is_no_broken_note() -> None:
    class Troubled(DictStore):
        """Fails once, in the way of a value that is not JSON."""

        troubles = 1

        def get(self, key: str, default: Any = None) -> Any:
            if self.troubles and key == KEY:
                self.troubles -= 1
                raise OSError("500 for a moment")
            return super().get(key, default)

    store = Troubled()
    store.set(KEY, REQUEST.model_dump(mode="json"))
    assert RequestStore(NotesOfBoth(store, None)).recall() == REQUEST
