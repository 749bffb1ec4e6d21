"""Bringing the pictures of a batch home: what stands in the way, and that nothing is paid twice for it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.images import files, threads
from airflow_provider_odirouter.operators import steps
from airflow_provider_odirouter.protocol import Action, repeats
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import ConfigureAt, Listener, actions, spent
from tests.dags.batches import FIVE, THREE, batch, landed, manifest, phases, prompts
from tests.dags.conftest import RunDag, anywhere, clear

pytestmark = pytest.mark.usefixtures("look_at_once")


@anywhere
def test_an_output_path_that_vanishes_half_way_loses_nothing(
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
    run = run_dag(batch(FIVE, output, deferrable=deferrable, on_retry_callback=come_back))
    assert "StorageError" in type(run.errors[0]).__name__
    assert str(output) in run.error
    assert run.state == "success"
    assert spent(sandbox) == (5, 0)
    assert len(landed(output)) == 5


def test_an_output_path_that_vanishes_while_it_submits_leaves_no_request_that_nobody_knows(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    output, away = tmp_path / "out", tmp_path / "away"

    def vanish(entry: JournalEntry) -> None:
        if entry.action == "submit" and sandbox.paid == 3:
            output.rename(away)

    listeners.append(vanish)
    sandbox.configure(run_seconds=60)
    run = run_dag(batch(FIVE, output, retries=0))
    assert "What is to be remembered of the batch cannot be written" in run.error
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


def test_a_store_that_comes_back_too_late_for_a_request_is_paid_anew_only_for_what_was_cancelled(
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


@pytest.mark.parametrize("retries", [0, 1])
def test_a_disk_that_fills_up_fails_the_task_until_there_is_room(
    retries: int, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = files._write_local, []

    def write_with_little_room(source: Any, path: Path) -> None:
        if path.suffix == ".png":
            written.append(path)
            if 2 < len(written) <= 5:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(source, path)

    monkeypatch.setattr(files, "_write_local", write_with_little_room)
    run = run_dag(batch(FIVE, tmp_path, retries=retries))
    assert run.state == "success"
    assert spent(sandbox) == (5, 0)
    if retries:
        assert "3 of 5 edits have no pictures: 3 StorageError" in run.error
        assert "No space left on device" in run.error
        assert "A retry fetches the pictures again, and pays nothing" in run.error
        assert len(landed(tmp_path)) == 5
        assert actions(sandbox).count("result") == 8
    else:
        assert run.errors == []
        assert phases(tmp_path).count("succeeded") == 3
        assert "so does clearing the task" in next(line["error"] for line in manifest(tmp_path) if "error" in line)


def test_expired_links_are_fetched_afresh(
    run_dag: RunDag, sandbox: Sandbox, configure_at: ConfigureAt, tmp_path: Path
) -> None:
    sandbox.configure(file_expiry_seconds=0)
    configure_at("file", file_expiry_seconds=60)
    run = run_dag(batch(THREE, tmp_path))
    assert (run.state, run.errors) == ("success", [])
    assert len(landed(tmp_path)) == 3


def test_a_broken_picture_keeps_no_other_from_landing_and_is_fetched_again(
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


def test_pictures_that_no_try_could_bring_home_leave_a_cleared_task_a_fresh_start(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_afresh(context: Any) -> None:
        sandbox.configure(file_fault="none")
        clear(context)

    monkeypatch.setattr(steps, "is_tried_again", lambda *_: False)
    sandbox.configure(file_fault="html")
    run = run_dag(batch(THREE, tmp_path, dag_id="cleared", on_retry_callback=start_afresh))
    assert "Clearing the task submits a new request, and pays for it" in run.error
    assert run.state == "success"
    assert spent(sandbox) == (6, 0)


def test_results_that_are_gone_for_good_are_told_and_keep_no_other_from_landing(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(repeats.PATIENCE, Action.RESULT, 0.0)
    fetch: Any = OdiRouterHook.get_result

    def fetch_but_one(hook: OdiRouterHook, endpoint: str, request_id: str) -> Any:
        gone = request_id == sandbox.requests[1].request_id
        return fetch(hook, endpoint, "gone" if gone else request_id)

    monkeypatch.setattr(OdiRouterHook, "get_result", fetch_but_one)
    run = run_dag(batch(THREE, tmp_path))
    assert run.state == "success"
    assert "1 of 3 edits have no pictures: 1 RequestNotFoundError" in run.error
    kinds = [line.get("error_type") for line in manifest(tmp_path)]
    assert kinds == [None, "RequestNotFoundError", None]
    assert phases(tmp_path) == ["landed", "failed", "landed"]
    assert spent(sandbox) == (3, 0)


def test_a_result_without_a_file_is_not_paid_anew_by_the_retry(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(result_shape="none")
    run = run_dag(batch(THREE, tmp_path))
    assert run.is_final
    assert "3 of 3 edits have no pictures: 3 NoOutputError" in run.error
    assert spent(sandbox) == (3, 0)


def test_only_a_few_pictures_land_at_a_time(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download: Any = OdiRouterHook.download
    under_way, seen, lock = [0], [], threading.Lock()

    def counting(*arguments: Any) -> None:
        with lock:
            under_way[0] += 1
            seen.append(under_way[0])
        try:
            download(*arguments)
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(OdiRouterHook, "download", counting)
    sandbox.configure(latency_seconds=0.05)
    run = run_dag(batch(prompts(*map(str, range(12))), tmp_path, max_concurrent_submits=12))
    assert run.state == "success"
    assert 1 < max(seen) <= threads.WORKERS


def test_what_has_landed_is_whole_and_leaves_no_half_files(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
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

    def fail_once(source: Any, path: Path) -> None:
        if path.suffix == ".jsonl" and not path.name.startswith("state") and not failed:
            failed.append(path)
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        write(source, path)

    monkeypatch.setattr(files, "_write_local", fail_once)
    run = run_dag(batch(THREE, tmp_path))
    assert "The batch's manifest cannot be written" in run.error
    assert run.state == "success"
    assert spent(sandbox) == (3, 0)
    assert actions(sandbox).count("result") == 3


def test_a_state_that_cannot_be_written_submits_nothing(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / ".odirouter").touch()
    run = run_dag(batch(THREE, tmp_path, retries=0))
    assert "What is to be remembered of the batch cannot be written" in run.error
    assert actions(sandbox) == []
