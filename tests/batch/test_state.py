"""The state of a batch between tries: nothing that was saved is lost, whatever happens to its store."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.batch.state import KEY, BatchStore
from airflow_provider_odirouter.errors import (
    BatchStateError,
    BatchStateMissingError,
    NotOwnerError,
    OdiRouterError,
    StorageError,
)
from airflow_provider_odirouter.lifecycle.ownership import Ownership
from airflow_provider_odirouter.models import BatchItem, LandedOutput, Phase
from airflow_provider_odirouter.storage.files import files_below, write_whole
from airflow_provider_odirouter.storage.state_folder import StateFolder
from tests.batch.conftest import item
from tests.conftest import DictStore
from tests.object_store import S3

Make = Callable[..., BatchStore]
NAME = "dag__task__run"
LIST = "airflow_provider_odirouter.batch.state.files_below"
WRITE = "airflow_provider_odirouter.storage.state_folder.write_whole"
GENERATION = re.compile("(?<=state)-[0-9a-f]{12}(?=-)")
"""In the names of a try's files."""


def ti_id(number: int) -> str:
    """Airflow's id of the task instance in one of its tries."""
    return f"0198f000-{number:04x}-7000-8000-{number:012x}"


def pointer_of(number: int = 1) -> str:
    """The name of a try's pointer."""
    return f"owner-{ti_id(number)}.json"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The store of one try: ``make(max_tries=2)``."""

    def new(
        output_path: str = str(tmp_path), storage_conn_id: str | None = None, max_tries: int = 1, number: int = 1
    ) -> BatchStore:
        return BatchStore(output_path, storage_conn_id, NAME, max_tries=max_tries, ti_id=ti_id(number))

    return new


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the state."""
    return tmp_path / ".odirouter" / NAME


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are written, in order."""
    names: list[str] = []

    def noting(source: Any, path: Any, **arguments: Any) -> None:
        write_whole(source, path, **arguments)
        names.append(GENERATION.sub("", path.name))

    monkeypatch.setattr(WRITE, noting)
    return names


class FullDiskError(OSError):
    """No space left on device."""


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the store fail for good from a certain write on."""

    def fail(number: int) -> None:
        left = [number]

        def failing(source: Any, path: Any, **arguments: Any) -> None:
            if not left[0]:
                raise FullDiskError(28, "No space left on device")
            left[0] -= 1
            write_whole(source, path, **arguments)

        monkeypatch.setattr(WRITE, failing)

    return fail


def begun(batch_store: BatchStore, *items: BatchItem, store: DictStore | None = None) -> BatchStore:
    batch_store.load(store)
    batch_store.begin(BatchItems(items), store)
    return batch_store


def state(folder: Path, number: int) -> Path:
    """One of the valid files of the state."""
    [path] = folder.glob(f"state-*-{number:03}.jsonl")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- What is saved is read


def test_the_state_that_is_saved_is_read(make: Make) -> None:
    output = LandedOutput(path="/out/a.png", content_type="image/png", width=1, height=2, size_bytes=3, sha256="4")
    odd = "a\u2028b\u2029c\x85d\ne\x00f\r“”\U0001f600"
    items = [
        item(1, odd),
        item(2, phase=Phase.SUBMITTING),
        item(3, phase=Phase.SUBMITTED, submitted_at=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)),
        item(
            4, phase=Phase.SUCCEEDED, completed_at=datetime.now(UTC), inference_seconds=1.5, sha256={"/in/4.png": "a"}
        ),
        item(5, phase=Phase.LANDED, outputs=(output, output), metadata={"seed": 7, "words": odd}),
        item(6, phase=Phase.FAILED, error=f"What\n{odd}", error_type="CONTENT_BLOCKED", retry_helps=False),
    ]
    begun(make(), *items)
    batch_store = make()
    assert batch_store.load(None)[:] == items == list(batch_store.items)
    assert batch_store.submitted() == [items[2]]
    assert batch_store.items[4:] == items[4:]
    assert batch_store.item(5) == batch_store.items[-2] == items[4]
    assert not batch_store.was_cleared
    assert batch_store.survives_retry


def test_the_state_that_is_saved_in_a_store_is_read(make: Make, s3: S3) -> None:
    out = s3.url("out", conn_id=s3.conn_id)
    items = [item(number, phase=Phase.SUBMITTED) for number in range(1, 402)]
    batch_store = begun(make(out), *items)
    batch_store.save_now(items[400].model_copy(update={"phase": Phase.SUCCEEDED}))
    pointer, *files = s3.objects()
    assert pointer == f"out/.odirouter/{NAME}/{pointer_of()}"
    assert [GENERATION.sub("", name) for name in files] == [
        f"out/.odirouter/{NAME}/state-00{number}.jsonl" for number in range(3)
    ]
    again = make(s3.url("out"), s3.conn_id)
    assert again.load(None)[:] == list(batch_store.items)
    assert [one.phase for one in again.items[399:]] == [Phase.SUBMITTED, Phase.SUCCEEDED]


def test_a_signal_handler_finds_all_live_requests_while_a_new_try_begins(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [item(number, phase=Phase.SUBMITTED) for number in (1, 2, 3)]
    begun(make(), *items)
    batch_store = make()
    batch_store.load(None)
    seen: list[int] = []
    write = StateFolder.write

    def interrupted(folder: StateFolder, name: str, content: bytes) -> None:
        seen.append(len(batch_store.submitted()))
        write(folder, name, content)

    monkeypatch.setattr(StateFolder, "write", interrupted)
    batch_store.begin(BatchItems(items), None)
    assert seen == [3, 3]  # the edits, then the pointer


def test_a_store_that_is_down_is_not_taken_for_an_empty_one(make: Make, s3: S3) -> None:
    begun(make(s3.url("out", conn_id=s3.conn_id)), item(1))
    closed_port = s3.connect(endpoint_url="http://127.0.0.1:9", config_kwargs={"retries": {"max_attempts": 0}})
    with pytest.raises(StorageError, match="The batch's state cannot be read"):
        make(s3.url("out"), closed_port).load(None)


def test_a_store_without_the_bucket_has_nothing(make: Make, s3: S3) -> None:
    assert make(f"s3://{s3.conn_id}@no-{s3.bucket}/out").load(None)[:] == []


def test_a_first_try_finds_nothing(make: Make, tmp_path: Path, store: DictStore) -> None:
    assert make().load(store)[:] == []
    assert make(f"{tmp_path}/not/there").load(store)[:] == []
    assert list(tmp_path.iterdir()) == []


def test_the_lineage_does_not_see_the_state(make: Make, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("airflow_provider_odirouter.storage.files.note_input", seen.append)
    monkeypatch.setattr("airflow_provider_odirouter.storage.files.note_output", seen.append)
    for out in (None, s3.url("out", conn_id=s3.conn_id)):
        begun(make(out) if out else make(), item(1))
        (make(out) if out else make()).load(None)
    assert seen == []


# --- Files


def test_a_change_writes_only_the_file_of_its_edit(make: Make, folder: Path, writes: list[str]) -> None:
    items = [item(number) for number in range(1, 602)]
    batch_store = begun(make(), *items)
    # The pointer comes last: where it is missing, no try has begun.
    assert writes == [*(f"state-00{number}.jsonl" for number in range(4)), pointer_of()]
    assert [len(lines(path)) for path in sorted(folder.glob("state-*"))] == [201, 201, 201, 2]
    for number, file in ((1, 0), (200, 0), (201, 1), (400, 1), (601, 3)):
        writes.clear()
        batch_store.save_now(items[number - 1].model_copy(update={"phase": Phase.SUBMITTING}))
        assert writes == [f"state-00{file}.jsonl"]
    assert [one.number for one in make().load(None) if one.phase is Phase.SUBMITTING] == [1, 200, 201, 400, 601]


def test_staged_edits_are_written_with_the_next_that_is_saved(make: Make, writes: list[str]) -> None:
    items = [item(number) for number in range(1, 402)]
    batch_store = begun(make(), *items)
    writes.clear()
    for one in (items[0], items[1], items[300]):
        batch_store.stage(one.model_copy(update={"phase": Phase.FAILED}))
    assert writes == []
    batch_store.save_now(items[2].model_copy(update={"phase": Phase.FAILED}))
    assert sorted(writes) == ["state-000.jsonl", "state-001.jsonl"]
    batch_store.save()
    assert len(writes) == 2
    assert [one.number for one in make().load(None) if one.phase is Phase.FAILED] == [1, 2, 3, 301]


def test_fewer_edits_than_before_leave_none_of_the_old_ones(make: Make) -> None:
    begun(make(), *[item(number, phase=Phase.SUBMITTED) for number in range(1, 602)])
    begun(make(), item(1, "another"))
    assert [one.fingerprint for one in make().load(None)] == ["another"]


def test_more_edits_are_remembered_too(make: Make) -> None:
    begun(make(), item(1))
    begun(make(), *[item(number) for number in range(1, 602)])
    assert len(make().load(None)) == 601


# --- Many threads


def test_a_saved_edit_is_in_the_store_and_is_written_in_a_group(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch, writes: list[str]
) -> None:
    items = [item(number) for number in range(1, 501)]
    batch_store = begun(make(), *items)
    writes.clear()
    slow, numbers = threading.Event(), iter(range(1, 501))

    def slowly(*arguments: Any, **keywords: Any) -> None:
        slow.wait(0.01)
        write_whole(*arguments, **keywords)

    monkeypatch.setattr(WRITE, slowly)
    missing: list[int] = []

    def keep() -> None:
        for number in numbers:
            kept = items[number - 1].model_copy(update={"phase": Phase.SUBMITTED, "request_id": f"mmsu_{number}"})
            batch_store.save_now(kept)
            if f'"mmsu_{number}"' not in state(folder, (number - 1) // 200).read_text():
                missing.append(number)

    threads = [threading.Thread(target=keep) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert make().load(None)[:] == list(batch_store.items)
    assert all(one.phase is Phase.SUBMITTED for one in batch_store.items)
    assert len(writes) < 250


def test_a_try_that_is_killed_while_it_begins_changes_nothing_of_the_one_before(
    make: Make, fail_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(make(), item(1, phase=Phase.SUBMITTED), item(2))
    killed = make(number=2)
    killed.load(None)
    fail_at(1)
    with pytest.raises(StorageError):
        killed.begin(BatchItems([item(1, phase=Phase.SUBMITTED), item(2)]), None)
    monkeypatch.undo()
    with pytest.raises(StorageError, match="does not change it"):
        killed.save_now(item(1))
    assert make().load(None)[:] == [item(1, phase=Phase.SUBMITTED), item(2)]


def test_an_edit_that_another_thread_could_not_write_does_not_count_as_written(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_store = begun(make(), item(1), item(2))
    begins, fails = threading.Event(), threading.Event()

    def failing(*arguments: Any, **keywords: Any) -> None:
        begins.set()
        fails.wait()
        raise FullDiskError(28, "No space left on device")

    monkeypatch.setattr(WRITE, failing)
    errors: list[BaseException] = []

    def keep(number: int) -> None:
        try:
            batch_store.save_now(item(number, phase=Phase.SUBMITTING))
        except StorageError as error:
            errors.append(error)

    first, second = (threading.Thread(target=keep, args=(number,)) for number in (1, 2))
    first.start()
    begins.wait()
    second.start()
    fails.set()
    first.join()
    second.join()
    assert len(errors) == 2
    assert not batch_store.survives_retry


# --- A store that fails


@pytest.fixture
def kept(make: Make) -> Iterator[BatchStore]:
    """A batch_store of a batch, of which nothing is lost in the end."""
    batch_store = begun(make(), *[item(number, phase=Phase.SUBMITTED) for number in range(1, 402)])
    before = list(batch_store.items)
    yield batch_store
    assert make().load(None)[:] == before


def test_a_full_disk_leaves_the_files_as_they_were(kept: BatchStore, tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import resource, signal
        from airflow_provider_odirouter.errors import StorageError
        from airflow_provider_odirouter.models import Phase
        from airflow_provider_odirouter.batch.state import BatchStore
        batch_store = BatchStore({str(tmp_path)!r}, None, {NAME!r}, max_tries=1)
        [first, *_] = batch_store.load(None)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            batch_store.save_now(first.model_copy(update={{"phase": Phase.SUCCEEDED}}))
        except StorageError as error:
            print(batch_store.survives_retry, error)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    [message] = [line for line in done.stdout.splitlines() if "state cannot" in line]
    assert message.startswith("False The batch's state cannot be written: ")
    assert re.search(
        r"state-[-\w]+-000.jsonl: File too large. Check the path, its permissions and the free space", message
    )
    assert not list((tmp_path / ".odirouter" / NAME).glob("*.part"))


def test_a_folder_that_vanishes_is_an_error(make: Make, folder: Path) -> None:
    batch_store = begun(make(), item(1))
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StorageError, match=r"cannot be written: .*owner-.*\.json is missing"):
        batch_store.save_now(item(1, phase=Phase.SUBMITTING))
    assert not batch_store.survives_retry
    folder.with_name("elsewhere").rename(folder)
    assert make().load(None)[:] == [item(1)]


def test_a_path_that_cannot_be_written_is_an_error_before_anything_is_paid(make: Make, tmp_path: Path) -> None:
    (tmp_path / ".odirouter").write_text("I am no folder")
    batch_store = make()
    assert batch_store.load(None)[:] == []
    with pytest.raises(StorageError, match="cannot be written"):
        batch_store.begin(BatchItems([item(1)]), None)


def test_a_user_who_may_only_read_gets_an_error(make: Make, s3: S3) -> None:
    out = s3.url("out")
    begun(make(out, s3.conn_id), item(1))
    with s3.checking_rights("s3:GetObject", "s3:ListBucket") as conn_id:
        batch_store = make(out, conn_id)
        [one] = batch_store.load(None)
        with pytest.raises(StorageError, match="cannot be written: s3://"):
            batch_store.save_now(one.model_copy(update={"phase": Phase.SUBMITTING}))
        assert not batch_store.survives_retry
    assert make(out, s3.conn_id).load(None)[:] == [item(1)]


def test_an_edit_that_could_not_be_written_is_written_when_the_store_is_back(make: Make, folder: Path) -> None:
    batch_store = begun(make(), item(1), item(2))
    away = folder.rename(folder.with_name("away"))
    with pytest.raises(StorageError):
        batch_store.save_now(item(1, phase=Phase.SUBMITTED))
    away.rename(folder)
    batch_store.save()
    assert make().load(None)[:] == [item(1, phase=Phase.SUBMITTED), item(2)]


# --- A try whose edits are others


@pytest.mark.parametrize("new_lines", [1, 300], ids=["one line more", "files more"])
@pytest.mark.parametrize("cleared", [False, True], ids=["retried", "cleared"])
def test_a_try_that_cannot_begin_forgets_nothing_of_the_one_before(
    make: Make,
    folder: Path,
    fail_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    new_lines: int,
    cleared: bool,
) -> None:
    earlier = [item(number, f"paid {number}", phase=Phase.LANDED) for number in range(1, 601)]
    begun(make(), *earlier)
    now = [item(number, f"new {number}") for number in range(1, new_lines + 1)]
    now += [one.model_copy(update={"number": one.number + new_lines}) for one in earlier]
    tries = 2 if cleared else 1
    for write in range(12):
        fail_at(write)
        batch_store = make(max_tries=tries, number=write + 2)
        # Whichever write has failed before.
        assert batch_store.load(None)[:] == earlier
        assert batch_store.was_cleared is cleared
        try:
            batch_store.begin(BatchItems(now), None)
        except StorageError:
            monkeypatch.undo()
        else:
            break
    monkeypatch.undo()
    batch_store = make(max_tries=tries)
    assert batch_store.load(None)[:] == now
    assert not batch_store.was_cleared
    batch_store.save_now(now[0].model_copy(update={"phase": Phase.SUBMITTED}))
    assert [one.number for one in make(max_tries=tries).load(None) if one.phase is Phase.SUBMITTED] == [1]
    # And again, from there.
    begun(make(max_tries=tries, number=20), *earlier[:10])
    assert make(max_tries=tries).load(None)[:] == earlier[:10]


def test_an_earlier_trys_files_are_removed_when_those_of_the_new_one_count(make: Make, folder: Path) -> None:
    begun(make(), *[item(number, phase=Phase.SUBMITTED) for number in range(1, 202)])
    before = sorted(folder.glob("state-*"))
    begun(make(number=2), *[item(number, phase=Phase.LANDED) for number in range(1, 202)])
    after = sorted(folder.glob("state-*"))
    assert (len(before), len(after)) == (2, 2)
    assert not set(before) & set(after)


def test_a_store_that_lets_nothing_be_removed_keeps_an_earlier_trys_files(make: Make, s3: S3) -> None:
    out = s3.url("out")
    begun(make(out, s3.conn_id), item(1))
    with s3.checking_rights("s3:GetObject", "s3:ListBucket", "s3:PutObject") as conn_id:
        begun(make(out, conn_id, number=2), item(1, phase=Phase.LANDED))
    assert len(s3.objects()) == 4
    assert make(out, s3.conn_id).load(None)[:] == [item(1, phase=Phase.LANDED)]


def test_a_first_try_that_cannot_begin_leaves_no_state(
    make: Make, fail_at: Callable[[int], None], store: DictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_store = make()
    fail_at(2)
    with pytest.raises(StorageError):
        begun(batch_store, *[item(number) for number in range(1, 602)], store=store)
    monkeypatch.undo()
    assert make().load(store)[:] == []
    begun(make(), item(1), store=store)
    assert make().load(store)[:] == [item(1)]


def test_a_kill_before_a_try_has_begun_leaves_it_cleared(make: Make) -> None:
    begun(make(), item(1, phase=Phase.SUBMITTED), item(2, phase=Phase.FAILED, retry_helps=False))
    killed = make(max_tries=2)
    killed.load(None)
    killed.save_now(item(1))
    again = make(max_tries=2)
    assert again.load(None)[0] == item(1)
    assert again.was_cleared


# --- A state that was edited or deleted


def broken(load: Callable[[], object]) -> str:
    with pytest.raises(BatchStateError) as raised:
        load()
    assert not raised.value.retry_helps
    return str(raised.value)


@pytest.mark.parametrize(
    ("line", "content", "words"),
    [
        (1, b'{"version":2,"edits":201}', "Input should be 1"),
        (1, b"", "Invalid JSON"),
        (1, b"I am a text", "Invalid JSON"),
        (2, b'{"number":1}', "Field required"),
        (2, b"", "Invalid JSON"),
        (57, b'{"number":56,', "Invalid JSON"),
        (57, b'{"number":56,"name":"a","edit":{},"phase":"paid"}', "Input should be 'planned'"),
        (201, b"\xff", "Invalid JSON"),
    ],
)
def test_a_line_that_was_edited_by_hand_is_named(
    make: Make, folder: Path, line: int, content: bytes, words: str
) -> None:
    begun(make(), *[item(number) for number in range(1, 202)])
    path = state(folder, 0)
    found = path.read_bytes().split(b"\n")
    found[line - 1] = content
    path.write_bytes(b"\n".join(found))
    message = broken(lambda: make().load(None))
    assert f"The batch's state cannot be read: {path}, line {line}: " in message
    assert words in message
    assert "repair it and clear the task. Or delete its folder" in message


@pytest.mark.parametrize("size", [0, 1, 60, 500, 10_000])
def test_half_a_file_is_not_taken_for_a_file(make: Make, folder: Path, size: int) -> None:
    begun(make(), *[item(number) for number in range(1, 202)])
    path = state(folder, 0)
    path.write_bytes(path.read_bytes()[:size])
    assert f"{path}, line " in broken(lambda: make().load(None))


@pytest.mark.parametrize("has_pointer", [True, False])
@pytest.mark.parametrize("content", [b"", b"\0" * 4096], ids=["empty", "zeros"])
def test_a_file_that_a_power_cut_has_emptied_is_named(
    content: bytes, has_pointer: bool, make: Make, folder: Path
) -> None:
    begun(make(), *[item(number, phase=Phase.SUBMITTED) for number in range(1, 202)])
    path = state(folder, 0)
    path.write_bytes(content)
    if not has_pointer:
        (folder / pointer_of()).unlink()
    assert f"The batch's state cannot be read: {path}, line 1: " in broken(lambda: make().load(None))


def test_a_batchs_state_survives_the_death_of_the_machine(
    make: Make, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(GENERATION.sub("", Path(f"/proc/self/fd/{descriptor}").readlink().name))

    monkeypatch.setattr(os, "fsync", noting)
    batch_store = begun(make(), item(1))
    assert synced == [".odirouter", tmp_path.name, ".state-000.jsonl.part", NAME, f".{pointer_of()}.part", NAME]
    synced.clear()
    batch_store.save_now(item(1, phase=Phase.SUBMITTED))
    assert synced == [".state-000.jsonl.part", NAME]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "change",
    [lambda found: found[:-1], lambda found: [*found, found[-1]], lambda found: found[:1] + found[:0:-1]],
    ids=["a line less", "a line more", "another order"],
)
def test_lines_that_are_missing_are_an_error(make: Make, folder: Path, number: int, change: Any) -> None:
    begun(make(), *[item(number) for number in range(1, 403)])
    path = state(folder, number)
    path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())) + b"\n")
    message = broken(lambda: make().load(None))
    assert f"{state(folder, 0)} and those beside it should hold 402 edits, in order." in message


def missing(load: Callable[[], object]) -> str:
    with pytest.raises(BatchStateMissingError) as raised:
        load()
    assert raised.value.retry_helps
    return str(raised.value)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_file_that_is_missing_is_an_error(number: int, make: Make, folder: Path) -> None:
    begun(make(), *[item(number) for number in range(1, 602)])
    path = state(folder, number)
    path.unlink()
    assert f"{path} is missing." in missing(lambda: make().load(None))


@pytest.mark.parametrize("left", [slice(None), slice(1), slice(1, None)], ids=["all", "the first", "the others"])
def test_edits_whose_pointer_is_missing_are_not_submitted_again(left: slice, make: Make, folder: Path) -> None:
    begun(make(), *[item(number, phase=Phase.SUBMITTED) for number in range(1, 451)])
    kept = sorted(folder.glob("state-*"))[left]
    for path in folder.iterdir():
        if path not in kept:
            path.unlink()
    assert f"{folder}/owner-*.json is missing." in missing(lambda: make().load(None))


def test_a_pointer_that_was_edited_by_hand_is_named(make: Make, folder: Path) -> None:
    begun(make(), item(1, phase=Phase.SUBMITTED))
    for content in ("", "\0" * 200, "{}", '{"version": 2}', "I am a text"):
        (folder / pointer_of()).write_text(content)
        assert f"{folder}/{pointer_of()}: " in broken(lambda: make().load(None))


def test_a_disk_that_workers_may_not_share_is_named_as_the_cause(make: Make, tmp_path: Path) -> None:
    message = missing(make(str(tmp_path)).load_after_deferral)
    assert f"This worker ({platform.node()}) may not see the disk of the worker that has written it." in message
    assert "Put output_path on a disk that all workers share, or into a store: a retry" in message


def test_a_store_that_all_workers_see_is_not_blamed(make: Make, s3: S3) -> None:
    message = missing(make(s3.url("out"), s3.conn_id).load_after_deferral)
    assert "disk" not in message
    assert "a retry that finds the state continues with it" in message


def test_a_state_that_airflow_knows_must_be_there(make: Make, folder: Path, tmp_path: Path, store: DictStore) -> None:
    begun(make(), item(1), store=store)
    away = folder.rename(tmp_path / "away")
    assert f"{folder}/owner-*.json is missing." in missing(lambda: make().load(store))
    # Cleared: the user may have deleted it, as the error says.
    assert make(max_tries=2).load(store)[:] == []
    assert make().load(None)[:] == []
    away.rename(folder)
    assert make().load(store)[:] == [item(1)]


def test_an_output_path_that_differs_from_try_to_try_is_an_error(make: Make, tmp_path: Path, store: DictStore) -> None:
    begun(make(), item(1), store=store)
    with pytest.raises(BatchStateError, match="Make output_path the same in every try"):
        make(f"{tmp_path}/other").load(store)
    # Cleared: the user may have another one in mind.
    assert make(f"{tmp_path}/other", max_tries=2).load(store)[:] == []


def test_after_a_wait_there_must_be_a_state(make: Make) -> None:
    assert "is missing" in missing(make().load_after_deferral)


# --- Only the owner writes


def test_a_try_continues_after_a_wait_with_the_state_that_it_has_saved(make: Make) -> None:
    batch_store = begun(make(), item(1), item(2))
    batch_store.save_now(item(2, phase=Phase.SUBMITTED))
    again = make()
    assert again.load_after_deferral()[:] == [item(1), item(2, phase=Phase.SUBMITTED)]
    again.save_now(item(2, phase=Phase.SUCCEEDED))
    assert make().load(None)[:] == [item(1), item(2, phase=Phase.SUCCEEDED)]


def test_a_late_pointer_of_an_older_try_counts_for_no_one(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = make(number=2)
    saved = [item(1, phase=Phase.SUBMITTED), item(2)]

    def freeze_at_the_pointer(source: Any, path: Any, **keywords: Any) -> None:
        if path.name == pointer_of(1):
            monkeypatch.undo()
            begun(newer, item(1), item(2)).save_now(saved[0])
        write_whole(source, path, **keywords)

    monkeypatch.setattr(WRITE, freeze_at_the_pointer)
    begun(make(number=1), item(1), item(2))
    assert ti_id(1) in (folder / pointer_of(1)).read_text()
    # While the newer try is deferred, it may be cleared, or a listener may read its state.
    cleared = make(number=3, max_tries=2)
    assert (cleared.load(None)[:], cleared.was_cleared) == (saved, True)
    assert BatchStore(str(folder.parents[1]), None, NAME, max_tries=1).load(None)[:] == saved
    resumed = make(number=2)
    assert resumed.load_after_deferral()[:] == saved
    resumed.save_now(item(2, phase=Phase.SUBMITTED))
    assert make(number=3).load(None)[:] == [saved[0], item(2, phase=Phase.SUBMITTED)]
    begun(make(number=3), *saved)
    assert [path.name for path in folder.glob("owner-*")] == [pointer_of(3)]


def test_a_pointer_that_a_newer_try_removes_while_it_is_read_is_not_taken_for_none(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = begun(make(number=1), item(1))

    def take_over(folder: Any) -> list[str]:
        names = files_below(folder)
        monkeypatch.setattr(LIST, files_below)
        begun(make(number=2), item(1))
        return names

    monkeypatch.setattr(LIST, take_over)
    assert make(number=3).load(None)[:] == [item(1)]
    monkeypatch.setattr(LIST, take_over)
    with pytest.raises(NotOwnerError):
        frozen.check_owner()


def test_a_pointer_that_is_listed_and_never_there_is_an_error(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIST, lambda folder: [pointer_of(1)])
    assert f"{folder}/{pointer_of(1)} is missing." in missing(lambda: make().load(None))


def test_a_resumed_try_takes_no_other_trys_files_for_its_own(make: Make, folder: Path) -> None:
    begun(make(number=1), item(1))
    files = {path: path.read_bytes() for path in folder.iterdir()}
    assert f"{folder}/{pointer_of(2)} is missing." in missing(make(number=2).load_after_deferral)
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_a_try_whose_pointer_was_deleted_writes_nothing(make: Make, folder: Path) -> None:
    begun(make(number=1), item(1))
    batch_store = begun(make(number=2), item(1))
    begun(make(number=1), item(1))
    (folder / pointer_of(2)).unlink()
    with pytest.raises(StorageError, match=f"{pointer_of(2)} is missing"):
        batch_store.save_now(item(1, phase=Phase.SUBMITTED))


def test_a_resumed_try_loses_to_a_newer_one_that_could_not_remove_its_files(make: Make, s3: S3) -> None:
    out = s3.url("out")
    begun(make(out, s3.conn_id, number=1), item(1))
    with s3.checking_rights("s3:GetObject", "s3:ListBucket", "s3:PutObject") as conn_id:
        begun(make(out, conn_id, number=2), item(1, phase=Phase.SUBMITTED))
    assert len(s3.objects()) == 4
    with pytest.raises(NotOwnerError):
        make(out, s3.conn_id, number=1).load_after_deferral()
    assert make(out, s3.conn_id, number=3).load(None)[:] == [item(1, phase=Phase.SUBMITTED)]


def test_a_try_that_begins_twice_does_not_replace_its_valid_files_one_by_one(
    make: Make, folder: Path, fail_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [item(number, phase=Phase.SUBMITTED) for number in range(1, 402)]
    begun(make(), *first)
    for write in range(4):
        fail_at(write)
        with pytest.raises(StorageError):
            begun(make(), *[item(number, phase=Phase.LANDED) for number in range(1, 402)])
        monkeypatch.undo()
        assert make().load_after_deferral()[:] == make().load(None)[:] == first


def test_a_try_that_wakes_when_another_has_taken_over_writes_nothing(make: Make, folder: Path) -> None:
    frozen = begun(make(), item(1), item(2))
    begun(make(number=2), item(1, phase=Phase.SUBMITTED), item(2))
    files = {path: path.read_bytes() for path in folder.iterdir()}
    save = partial(frozen.save_now, item(2, phase=Phase.SUBMITTED))
    for write in (save, frozen.check_owner, make().load_after_deferral):
        with pytest.raises(NotOwnerError, match=f"as {folder}/{pointer_of(2)} says"):
            write()
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_a_write_that_was_under_way_when_its_try_froze_overwrites_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = begun(make(), item(1), item(2))

    def freeze_first(*arguments: Any, **keywords: Any) -> None:
        monkeypatch.undo()
        begun(make(number=2), item(1, phase=Phase.SUBMITTED), item(2))
        write_whole(*arguments, **keywords)

    monkeypatch.setattr(WRITE, freeze_first)
    frozen.save_now(item(2, phase=Phase.SUBMITTING))
    assert make().load(None)[:] == [item(1, phase=Phase.SUBMITTED), item(2)]


def test_a_try_that_takes_over_late_does_not_keep_the_newer_one_from_its_work(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = make(number=2)

    def freeze_at_the_pointer(source: Any, path: Any, **keywords: Any) -> None:
        if path.name == pointer_of(1):
            monkeypatch.undo()
            begun(newer, item(1), item(2))
        write_whole(source, path, **keywords)

    monkeypatch.setattr(WRITE, freeze_at_the_pointer)
    frozen = begun(make(number=1), item(1), item(2))
    newer.save_now(item(1, phase=Phase.SUBMITTED))
    assert make().load(None)[:] == [item(1, phase=Phase.SUBMITTED), item(2)]
    with pytest.raises(NotOwnerError):
        frozen.save_now(item(2, phase=Phase.SUBMITTING))


def test_a_process_that_no_longer_acts_for_its_task_writes_nothing(make: Make, folder: Path) -> None:
    ownership = Ownership(None, patience=1.0)
    batch_store = BatchStore(str(folder.parents[1]), None, NAME, max_tries=1, ti_id=ti_id(1), ownership=ownership)
    begun(batch_store, item(1))
    files = {path: path.read_bytes() for path in folder.iterdir()}
    ownership.lose("its supervisor is dead")
    for write in (
        lambda: batch_store.save_now(item(1, phase=Phase.SUBMITTED)),
        lambda: batch_store.begin(BatchItems([item(1, "b")]), None),
    ):
        with pytest.raises(NotOwnerError, match="its supervisor is dead"):
            write()
    assert make().load(None)[:] == [item(1)]
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_airflow_notes_only_a_state_that_is_written(make: Make, tmp_path: Path, store: DictStore) -> None:
    (tmp_path / ".odirouter").write_text("I am no folder")
    with pytest.raises(StorageError):
        begun(make(), item(1), store=store)
    assert store.get(KEY) is None


def test_a_task_that_was_cleared_is_known_by_its_tries(make: Make) -> None:
    begun(make(), item(1))
    for max_tries, cleared in ((1, False), (2, True)):
        batch_store = make(max_tries=max_tries)
        assert batch_store.load(None)[:] == [item(1)]
        assert batch_store.was_cleared is cleared
    begun(make(max_tries=2), item(1))
    batch_store = make(max_tries=2)
    batch_store.load(None)
    assert not batch_store.was_cleared


def test_no_password_of_a_url_is_in_an_error(make: Make) -> None:
    with pytest.raises(OdiRouterError) as raised:
        make("nosuch://me:hidden-word@bucket/out").load(None)
    assert "hidden-word" not in str(raised.value)
