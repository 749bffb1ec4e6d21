"""The edits of a batch go their own ways, side by side."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.batch import pipeline, progress, report, validate
from airflow_provider_odirouter.batch.state import BatchStore
from airflow_provider_odirouter.batch.submit import BatchSubmitter
from airflow_provider_odirouter.compat import TaskDeferred
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import BatchItem
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.xcoms import BatchRecord
from tests.conftest import Clock, Kill, KilledError, Listener, actions, join_jobs, spent
from tests.dags.batches import FIVE, THREE, batch, changing, landed, manifest, phases, prompts
from tests.dags.conftest import run_once

pytestmark = pytest.mark.usefixtures("conn_id")


def test_the_next_edit_takes_a_free_slot_while_a_slow_request_runs_on(
    sandbox: Sandbox, listeners: list[Listener], clock: Clock, tmp_path: Path
) -> None:
    seen: list[int] = []
    sandbox.configure(run_seconds=60)
    listeners.append(changing(sandbox, "submit", {"run_seconds": 0}))

    def note(entry: JournalEntry) -> None:
        if entry.action == "status" and len(landed(tmp_path)) == 4:
            clock.skip(60)
        if entry.action == "result" and entry.request_id == sandbox.requests[0].request_id:
            seen.append(len(landed(tmp_path)))

    listeners.append(note)
    run = run_once(batch(FIVE, tmp_path, max_in_flight=2))
    assert (run.state, run.errors) == ("success", [])
    assert seen == [4]
    assert spent(sandbox) == (5, 0)


def test_after_the_last_submit_no_landing_begins_before_the_task_defers(
    sandbox: Sandbox, listeners: list[Listener], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download: Any = OdiRouterHook.download
    submit: Any = OdiRouterHook.submit
    has_begun, all_submitted = threading.Event(), threading.Event()

    def late(*arguments: Any) -> None:
        has_begun.set()
        assert all_submitted.wait(60)
        download(*arguments)

    def last_after_the_first_landing(*arguments: Any, **options: Any) -> Any:
        assert sandbox.paid < 4 or has_begun.wait(60)
        return submit(*arguments, **options)

    def watch(entry: JournalEntry) -> None:
        if entry.action == "status" and sandbox.paid == 5:
            all_submitted.set()

    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    monkeypatch.setattr(OdiRouterHook, "download", late)
    monkeypatch.setattr(OdiRouterHook, "submit", last_after_the_first_landing)
    listeners += [changing(sandbox, "submit", {}, {}, {}, {"run_seconds": 60}), watch]
    with pytest.raises(TaskDeferred) as deferred:
        run_once(batch(FIVE, tmp_path, deferrable=True))
    trigger: Any = deferred.value.trigger
    assert sandbox.requests[4].request_id in trigger.pending()
    assert len(landed(tmp_path)) == 1
    assert phases(tmp_path).count("landed") == 1
    assert actions(sandbox).count("result") == 1
    assert len(trigger.pending()) == phases(tmp_path).count("submitted")


def test_the_timeout_of_an_edit_counts_from_its_own_submit(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(run_seconds=1)
    run = run_once(batch(prompts(*map(str, range(7))), tmp_path, max_in_flight=1, timeout=5))
    assert (run.state, run.errors) == ("success", [])
    assert sandbox.requests[6].submitted_at - sandbox.requests[0].submitted_at > 5
    assert [line.get("error") for line in manifest(tmp_path)] == [None] * 7


def test_the_counts_move_while_it_runs(
    sandbox: Sandbox, listeners: list[Listener], clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[BatchRecord] = []

    def end_after_the_count(entry: JournalEntry) -> None:
        if entry.action == "status" and (records[-1].landed if records else 0) == sandbox.paid - 1:
            clock.skip(60)

    publish = report.publish

    def note(context: Any, store: BatchStore, record: BatchRecord, **options: Any) -> None:
        records.append(record)
        publish(context, store, record, **options)

    monkeypatch.setattr(report, "publish", note)
    monkeypatch.setattr(pipeline, "SAVE_SECONDS", 0.0)
    sandbox.configure(run_seconds=60)
    listeners.append(end_after_the_count)
    assert run_once(batch(FIVE, tmp_path, max_in_flight=1)).state == "success"
    counts = [record.landed for record in records]
    assert counts == sorted(counts)
    assert {1, 2, 3, 4, 5} <= set(counts)
    assert all(record.deferred_at is None for record in records)


def test_an_airflow_that_takes_no_counts_for_a_while_ends_nothing(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish = report.publish

    def fail_while_it_runs(context: Any, store: BatchStore, record: BatchRecord, **options: Any) -> None:
        if record.manifest is None:
            raise OSError("Airflow does not answer")
        publish(context, store, record, **options)

    monkeypatch.setattr(report, "publish", fail_while_it_runs)
    monkeypatch.setattr(pipeline, "SAVE_SECONDS", 0.0)
    run = run_once(batch(THREE, tmp_path, retries=0))
    assert (run.state, run.errors) == ("success", [])
    assert "could not be pushed as an XCom; the batch goes on: Airflow does not answer" in caplog.text


def test_a_store_that_hangs_stops_no_polls(
    sandbox: Sandbox, listeners: list[Listener], clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = BatchStore.save
    polled = threading.Event()

    def slow(store: BatchStore) -> None:
        # Only a request whose id is saved is polled: until then, the store must not hang.
        if sandbox.paid == 3 and "status" in actions(sandbox):
            assert polled.wait(60), "no polls while the store hangs"
        save(store)

    def count(_: JournalEntry) -> None:
        if sandbox.paid == 3 and actions(sandbox)[actions(sandbox).index("submit") :].count("status") > 20:
            polled.set()
            clock.skip(60)

    monkeypatch.setattr(BatchStore, "save", slow)
    monkeypatch.setattr(pipeline, "SAVE_SECONDS", 0.0)
    sandbox.configure(run_seconds=60)
    listeners.append(count)
    run = run_once(batch(THREE, tmp_path, max_concurrent_submits=3, poll_interval=0.02))
    assert (run.state, run.errors) == ("success", [])


def test_it_keeps_as_many_requests_alive_as_the_service_allows(
    sandbox: Sandbox, listeners: list[Listener], clock: Clock, tmp_path: Path
) -> None:
    alive: list[int] = []
    refusals: list[JournalEntry] = []

    def end_all_once_four_run(entry: JournalEntry) -> None:
        alive.append(len(sandbox.alive))
        refusals.extend([entry] if entry.status_code == 429 else [])
        if alive[-1] == 4 and refusals:
            clock.skip(3)

    listeners.append(end_all_once_four_run)
    sandbox.configure(run_seconds=3, max_alive=4, retry_after_form="absent")
    run = run_once(batch(prompts(*map(str, range(16))), tmp_path, max_concurrent_submits=8))
    assert (run.state, run.errors) == ("success", [])
    assert sandbox.paid == 16
    assert max(alive) == 4
    refused = [entry for entry in sandbox.submits if entry.status_code == 429]
    assert 1 <= len(refused) < 16


def test_a_refused_edit_is_not_saved_as_one_that_may_have_been_submitted(
    sandbox: Sandbox, listeners: list[Listener], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []

    def note(entry: JournalEntry) -> None:
        if entry.action == "status" and any(one.status_code == 429 for one in sandbox.journal):
            saved.append(" ".join(phases(tmp_path)))

    monkeypatch.setattr(pipeline, "SAVE_SECONDS", 0.0)
    sandbox.configure(run_seconds=2, max_alive=1, retry_after_form="absent")
    listeners.append(note)
    assert run_once(batch(THREE[:2], tmp_path, poll_interval=0.05)).state == "success"
    assert "submitted planned" in saved


@pytest.mark.parametrize("action", ["submit", "status", "result", "file"])
def test_whatever_interrupts_it_no_thread_submits_or_lands_later(
    action: str, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path, kill: Kill
) -> None:
    """The signal may come while edits are submitted, waited for and landed at once."""

    def interrupt(entry: JournalEntry) -> None:
        if entry.action == action and actions(sandbox).count(action) == 3:
            kill()

    sandbox.configure(run_seconds=0.2)
    listeners.append(interrupt)
    run = run_once(batch(prompts(*map(str, range(30))), tmp_path, max_in_flight=6, max_concurrent_submits=3, retries=0))
    assert [type(error) for error in run.errors] == [KilledError]
    submits = actions(sandbox).count("submit")
    assert submits < 30
    assert not sandbox.alive
    join_jobs()
    assert actions(sandbox).count("submit") == submits


def test_what_is_about_to_be_submitted_when_the_task_fails_is_not_sent(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, wait = validate.parameters_of, BatchSubmitter.wait_for_answers
    has_failed = threading.Event()

    def read_late(*arguments: Any, **options: Any) -> Any:
        assert has_failed.wait(60)
        return read(*arguments, **options)

    def fail(_: pipeline.Pipeline) -> None:
        raise OSError("no memory today")

    def wait_for_answers(submitter: BatchSubmitter) -> None:
        has_failed.set()
        wait(submitter)

    monkeypatch.setattr(validate, "parameters_of", read_late)
    monkeypatch.setattr(pipeline.Pipeline, "_report", fail)
    monkeypatch.setattr(BatchSubmitter, "wait_for_answers", wait_for_answers)
    run = run_once(batch(THREE, tmp_path, max_concurrent_submits=3))
    assert run.error == "no memory today"
    assert actions(sandbox) == []
    assert phases(tmp_path) == ["planned"] * 3


def test_the_log_tells_the_begin_the_failures_and_the_end(
    sandbox: Sandbox, listeners: list[Listener], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sandbox.configure(error_type="CONTENT_BLOCKED", error_message="No cups", fail_first=2)
    run = run_once(batch([edit | {"name": edit["prompt"].lower()} for edit in FIVE], tmp_path, max_in_flight=1))
    assert run.state == "success"
    ours = [(one.levelname, one.getMessage()) for one in caplog.records if ".batch.progress" in one.name]
    path = next(tmp_path.glob("*.jsonl"))
    assert ours[0] == (
        "INFO",
        (
            "The batch has 5 edits, of which 5 are to be submitted. Requests alive at once: at most 1. Each has 60 min "
            "after its submit. "
            f"The manifest will be {path}."
        ),
    )
    first = next(text for level, text in ours if level == "WARNING")
    assert first.startswith("Edit 1 (red) has failed: ")
    assert "No cups" in first
    assert ours[-4:] == [
        ("INFO", "3/5 landed, 2 failed"),
        ("WARNING", "2 edits have failed with CONTENT_BLOCKED; the first is edit 1 (red)."),
        (
            "INFO",
            f"3 of 5 edits have landed. The manifest is {path}. This task has spent, in all its tries: 5 submits.",
        ),
        (
            "WARNING",
            "2 edits have no pictures: 1 (red): CONTENT_BLOCKED, 2 (green): CONTENT_BLOCKED. The manifest says why.",
        ),
    ]


def test_the_log_says_at_once_that_submits_stop(
    sandbox: Sandbox, listeners: list[Listener], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def note(entry: JournalEntry) -> None:
        if entry.action == "result":
            seen.append("No more edits are submitted" in caplog.text)

    seen: list[bool] = []
    sandbox.configure(balance=2, run_seconds=1)
    listeners.append(note)
    run = run_once(batch(FIVE, tmp_path))
    assert "3 of 5 edits were not submitted" in run.error
    assert seen == [True, True]
    assert caplog.text.count("No more edits are submitted") == 1


def test_the_line_of_the_log_counts_all_edits() -> None:
    now = [0.0]
    items = [
        *(_item(number, "landed") for number in range(1, 5)),
        _item(5, "failed", error="no"),
        *(_item(number, "submitted") for number in range(6, 9)),
        _item(9, "succeeded"),
        *(_item(number, "planned") for number in range(10, 21)),
    ]
    counting = progress.BatchProgress(items[:0], clock=lambda: now[0])
    now[0] = 60.0
    assert counting.line(items) == "4/20 landed, 1 failed, 3 running, 1 to land, 11 to submit; about 3 min left"


def _item(number: int, phase: str, **fields: Any) -> BatchItem:
    return BatchItem.model_validate({"number": number, "name": "n", "edit": {}, "phase": phase} | fields)
