"""The outputs of a batch land, whatever fails meanwhile, and nothing is paid twice for it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import failures
from airflow_provider_odirouter.protocol import Action, retries
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.storage import files, threads
from tests.conftest import ConfigureAt, Listener, actions, spent
from tests.dags.batches import FIVE, THREE, batch, landed, manifest, phases, prompts, submits
from tests.dags.conftest import RunDag, anywhere, clear

pytestmark = pytest.mark.usefixtures("poll_at_once")


@anywhere
def test_an_output_path_that_vanishes_during_the_landing_loses_nothing(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    output, away = tmp_path / "out", tmp_path / "away"

    def vanish(entry: JournalEntry) -> None:
        if entry.action == "file":
            listeners.clear()
            output.rename(away)

    def come_back(_: object) -> None:
        away.rename(output)

    listeners.append(vanish)
    sandbox.configure(run_seconds=1)
    run = run_dag(batch(FIVE, output, max_concurrent_submits=5, deferrable=deferrable, on_retry_callback=come_back))
    assert "StorageError" in type(run.errors[0]).__name__
    assert str(output) in run.error
    assert run.state == "success"
    assert spent(sandbox) == (5, 0)
    assert len(landed(output)) == 5


def test_an_output_path_that_vanishes_during_the_submits_leaves_no_unknown_request(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    output, away = tmp_path / "out", tmp_path / "away"

    def vanish(entry: JournalEntry) -> None:
        if entry.action == "submit" and sandbox.paid == 3:
            output.rename(away)

    listeners.append(vanish)
    sandbox.configure(run_seconds=60)
    run = run_dag(batch(FIVE, output, retries=0))
    assert "The batch's state cannot be written" in run.error
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


def test_after_a_store_was_away_only_cancelled_requests_are_paid_again(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    output, away = tmp_path / "out", tmp_path / "away"

    def vanish(entry: JournalEntry) -> None:
        if entry.action == "submit" and sandbox.paid == 2 and not away.exists():
            output.rename(away)

    def come_back(_: object) -> None:
        away.rename(output)
        listeners.clear()
        sandbox.configure(run_seconds=0)

    listeners.append(vanish)
    sandbox.configure(run_seconds=60)
    run = run_dag(batch(THREE, output, on_retry_callback=come_back))
    assert run.state == "success"
    assert spent(sandbox) == (5, 2)
    assert [request.error_type for request in sandbox.requests] == ["CANCELED"] * 2 + [None] * 3


def test_a_disk_that_fills_up_while_requests_run_pays_for_none_of_them_twice(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = files._write_local, threading.Event()

    def write_unless_full(source: Any, path: Path, **arguments: Any) -> None:
        if sandbox.paid == 2:
            full.set()
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(source, path, **arguments)

    def free(_: object) -> None:
        monkeypatch.setattr(files, "_write_local", write)
        sandbox.configure(run_seconds=0)

    monkeypatch.setattr(files, "_write_local", write_unless_full)
    sandbox.configure(run_seconds=60)
    run = run_dag(batch(THREE, tmp_path, on_retry_callback=free))
    assert run.state == "success"
    assert "No space left on device" in run.error
    # The disk knows the first request, and only the intent of the second one: no retry could wait for that.
    assert [request.error_type for request in sandbox.requests] == ["CANCELED"] * 2 + [None] * 3
    assert sorted(submits(sandbox)) == ["Blue", "Green", "Green", "Red", "Red"]
    assert len(landed(tmp_path)) == 3


@pytest.mark.parametrize("retries", [0, 1])
def test_a_disk_that_fills_up_fails_the_task_until_it_has_free_space(
    retries: int, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = files._write_local, []

    def write_to_a_full_disk(source: Any, path: Path, **arguments: Any) -> None:
        if path.suffix == ".png":
            written.append(path)
            if 2 < len(written) <= 5:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(source, path, **arguments)

    monkeypatch.setattr(files, "_write_local", write_to_a_full_disk)
    run = run_dag(batch(FIVE, tmp_path, retries=retries))
    assert run.state == "success"
    assert spent(sandbox) == (5, 0)
    if retries:
        assert "3 of 5 edits have no pictures: 3 StorageError" in run.error
        assert "No space left on device" in run.error
        assert "A retry downloads the outputs again, and pays nothing" in run.error
        assert len(landed(tmp_path)) == 5
        assert actions(sandbox).count("result") == 8
    else:
        assert run.errors == []
        assert phases(tmp_path).count("succeeded") == 3
        assert "Clear the task: it then downloads the outputs again" in next(
            line["error"] for line in manifest(tmp_path) if "error" in line
        )


def test_expired_links_are_fetched_again(
    run_dag: RunDag, sandbox: Sandbox, configure_at: ConfigureAt, tmp_path: Path
) -> None:
    sandbox.configure(file_expiry_seconds=0)
    configure_at("file", file_expiry_seconds=60)
    run = run_dag(batch(THREE, tmp_path))
    assert (run.state, run.errors) == ("success", [])
    assert len(landed(tmp_path)) == 3


def test_a_broken_picture_keeps_no_other_edit_from_landing_and_is_fetched_again(
    run_dag: RunDag, sandbox: Sandbox, configure_at: ConfigureAt, tmp_path: Path
) -> None:
    seen: list[int] = []

    def count(_: object) -> None:
        seen.append(len(landed(tmp_path)))

    sandbox.configure(file_fault="html")
    configure_at("file", file_fault="none")
    run = run_dag(batch(FIVE, tmp_path, on_retry_callback=count))
    assert run.state == "success"
    assert "have no pictures" in run.error
    assert 1 <= seen[0] < 5
    assert spent(sandbox) == (5, 0)
    for name in landed(tmp_path):
        with Image.open(tmp_path / name) as image:
            image.load()


def test_a_cleared_task_submits_again_edits_whose_outputs_no_try_could_land(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_again(context: Any) -> None:
        sandbox.configure(file_fault="none")
        clear(context)

    monkeypatch.setattr(failures, "will_be_retried", lambda *_: False)
    sandbox.configure(file_fault="html")
    run = run_dag(batch(THREE, tmp_path, dag_id="cleared", on_retry_callback=start_again))
    assert "If you clear the task, it submits a new request, and pays for it" in run.error
    assert run.state == "success"
    assert spent(sandbox) == (6, 0)


def test_a_result_that_is_missing_for_good_keeps_no_other_edit_from_landing(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(retries.MAX_REPEAT_SECONDS, Action.RESULT, 0.0)
    fetch: Any = OdiRouterHook.get_result

    def fetch_but_one(hook: OdiRouterHook, endpoint: str, request_id: str) -> Any:
        missing = request_id == sandbox.requests[0].request_id
        return fetch(hook, endpoint, "missing" if missing else request_id)

    monkeypatch.setattr(OdiRouterHook, "get_result", fetch_but_one)
    run = run_dag(batch(THREE, tmp_path))
    assert run.state == "success"
    assert "1 of 3 edits have no pictures: 1 RequestNotFoundError" in run.error
    kinds = [line.get("error_type") for line in manifest(tmp_path)]
    assert kinds == ["RequestNotFoundError", None, None]
    assert phases(tmp_path) == ["failed", "landed", "landed"]
    assert spent(sandbox) == (3, 0)


def test_a_result_without_a_file_is_not_paid_again_by_the_retry(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(result_shape="none")
    run = run_dag(batch(THREE, tmp_path))
    assert run.is_final
    assert "3 of 3 edits have no pictures: 3 NoOutputError" in run.error
    assert spent(sandbox) == (3, 0)


def test_only_a_few_pictures_land_at_a_time(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download: Any = OdiRouterHook.download
    under_way, seen, lock = [0], [], threading.Lock()
    all_ended = threading.Event()

    def wait_for_all(_: JournalEntry) -> None:
        if sandbox.paid == 12 and not sandbox.alive:
            all_ended.set()

    def counting(*arguments: Any) -> None:
        assert all_ended.wait(60)
        with lock:
            under_way[0] += 1
            seen.append(under_way[0])
        try:
            download(*arguments)
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(OdiRouterHook, "download", counting)
    listeners.append(wait_for_all)
    sandbox.configure(run_seconds=1, latency_seconds=0.3)
    run = run_dag(batch(prompts(*map(str, range(12))), tmp_path, max_concurrent_submits=12))
    assert run.state == "success"
    assert 1 < max(seen) <= threads.MAX_WORKERS


def test_landed_files_are_whole_and_leave_no_half_files(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    run_dag(batch(FIVE, tmp_path))
    assert not [path.name for path in tmp_path.rglob("*.part")]
    for line in manifest(tmp_path):
        [output] = line["outputs"]
        with Image.open(output["path"]) as image:
            assert image.size == (output["width"], output["height"])


def test_a_manifest_that_cannot_be_written_is_written_by_the_retry(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files._write_local
    failed: list[Path] = []

    def fail_once(source: Any, path: Path, **arguments: Any) -> None:
        if path.suffix == ".jsonl" and not path.name.startswith("state") and not failed:
            failed.append(path)
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        write(source, path, **arguments)

    monkeypatch.setattr(files, "_write_local", fail_once)
    run = run_dag(batch(THREE, tmp_path))
    assert "The batch's manifest cannot be written" in run.error
    assert run.state == "success"
    assert spent(sandbox) == (3, 0)
    assert actions(sandbox).count("result") == 3


def test_a_state_that_cannot_be_written_submits_nothing(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / ".odirouter").touch()
    run = run_dag(batch(THREE, tmp_path, retries=0))
    assert "The batch's state cannot be written" in run.error
    assert actions(sandbox) == []
