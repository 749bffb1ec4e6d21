"""What goes wrong, what it costs, and whether Airflow tries again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter import xcoms
from airflow_provider_odirouter.errors import LandingError, StorageError
from airflow_provider_odirouter.images import landing
from airflow_provider_odirouter.lifecycle import polling, wait
from airflow_provider_odirouter.lifecycle.state import Intent, Submitted
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.protocol import Action, retries
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Clock, Listener, actions
from tests.dags.conftest import RunDag, edit, end_execution_timeout, kill_task


def test_broken_rules_cost_nothing_and_are_not_retried(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    run = run_dag(edit(pictures, prompt="{{ '' }}", n="{{ 0 }}", size="{{ '512x512' }}"))
    assert run.state == "failed"
    assert run.is_final
    for field in ("prompt: is empty", "n: should be", "size: should be"):
        assert run.error.count(f"- {field}") == 1
    assert actions(sandbox) == []


def test_a_missing_picture_costs_nothing_and_is_not_retried(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    run = run_dag(edit(pictures, images=[str(pictures / "coffee.png"), "/no/such.png"]))
    assert "images[1]: '/no/such.png' does not exist" in run.error
    assert run.is_final
    assert actions(sandbox) == []


def test_an_output_path_that_cannot_be_written_costs_nothing(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    run = run_dag(edit(pictures, output_path=str(pictures / "coffee.png" / "sub"), retries=0))
    assert isinstance(run.errors[0], StorageError)
    assert actions(sandbox) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"api_key": "another"}, "refuses the API key"),
        ({"balance": 0}, "no balance"),
        ({"endpoints": ("other",)}, "does not know the endpoint"),
        ({"error_type": "CONTENT_BLOCKED"}, "CONTENT_BLOCKED"),
        ({"error_type": "REQUEST_INVALID"}, "REQUEST_INVALID"),
        ({"result_shape": "none"}, "names no file"),
    ],
)
def test_an_error_that_a_retry_cannot_cure_fails_for_good(
    settings: dict[str, Any],
    words: str,
    run_dag: RunDag,
    sandbox: Sandbox,
    pictures: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sandbox.configure(**settings)
    run = run_dag(edit(pictures))
    assert run.state == "failed"
    assert words in run.error
    assert run.is_final
    assert actions(sandbox).count("submit") == 1
    assert "sandbox-key" not in capfd.readouterr().out


def test_a_failed_inference_is_submitted_again_by_the_retry(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE", error_message="GPU on fire", fail_first=1)
    run = run_dag(edit(pictures))
    assert run.state == "success"
    assert "failed with INFERENCE_FAILURE. OdiRouter says: “GPU on fire" in run.error
    assert sandbox.paid == 2


def test_a_submit_whose_answer_is_lost_is_paid_once_and_not_retried(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    sandbox.configure(drop_next=1, fault_actions={"submit"}, drop_mode="after")
    run = run_dag(edit(pictures))
    assert run.state == "failed"
    assert "it is not known whether it arrived" in run.error
    assert (sandbox.paid, actions(sandbox)) == (1, ["submit"])


def test_transient_errors_of_polls_do_not_fail_the_request(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    sandbox.configure(server_errors=3, fault_actions={"status"})
    run = run_dag(edit(pictures))
    assert run.state == "success"
    assert actions(sandbox) == ["submit", "status", "status", "status", "status", "result"]


@pytest.mark.parametrize("cancels", [True, False])
def test_the_deadline_cancels_unless_cancel_on_timeout_is_false(
    cancels: bool, run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    sandbox.configure(run_seconds=60)
    run = run_dag(edit(pictures, timeout=1, cancel_on_timeout=cancels, retries=0))
    assert run.state == "failed"
    assert "did not end before its deadline" in run.error
    assert ("It was cancelled; to submit a new request, clear the task." in run.error) is cancels
    assert len(sandbox.alive) == (not cancels)


def test_a_shorter_execution_timeout_counts_as_the_deadline(run_dag: RunDag, sandbox: Sandbox, pictures: Path) -> None:
    sandbox.configure(run_seconds=60)
    run = run_dag(edit(pictures, deferrable=True, execution_timeout=timedelta(seconds=3), retries=0))
    assert "did not end before its deadline" in run.error
    first, *polls, last = actions(sandbox)
    assert (first, set(polls), last) == ("submit", {"status"}, "cancel")
    assert not sandbox.alive


def test_airflows_own_timeout_on_the_worker_cancels_the_request(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path
) -> None:
    """Airflow raises during a poll that hangs, before the operator can check its own deadline."""
    listeners.append(end_execution_timeout(sandbox, "status"))
    sandbox.configure(run_seconds=60, hang=True, fault_actions={"status"})
    run = run_dag(edit(pictures, execution_timeout=timedelta(hours=1), retries=0))
    assert type(run.errors[0]).__name__ == "AirflowTaskTimeout"
    assert actions(sandbox).count("cancel") == 1
    assert not sandbox.alive


def test_a_request_that_cannot_be_polled_is_cancelled_before_the_task_fails(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_FAILED_POLLS", 3)
    sandbox.configure(run_seconds=60, server_errors=None, fault_actions={"status"})
    run = run_dag(edit(pictures, retries=0))
    assert "cannot be read, and it may still run" in run.error
    assert actions(sandbox) == ["submit", "status", "status", "status", "cancel"]
    assert not sandbox.alive


def test_a_request_that_another_client_cancelled_is_submitted_again(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    sandbox.configure(error_type="CANCELED", fail_first=1)
    run = run_dag(edit(pictures))
    assert run.state == "success"
    assert "was cancelled, but not by this task" in run.error
    assert sandbox.paid == 2


def test_new_links_are_fetched_once_if_the_links_have_expired(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path, tmp_path: Path
) -> None:
    sandbox.configure(file_expiry_seconds=0)

    def last_longer(entry: JournalEntry) -> None:
        if entry.action == "file":
            sandbox.configure(file_expiry_seconds=60)

    listeners.append(last_longer)
    run = run_dag(edit(pictures, output_path=str(tmp_path)))
    assert run.state == "success", run.error
    assert actions(sandbox) == ["submit", "status", "result", "file", "result", "file"]
    assert [entry.status_code for entry in sandbox.journal if entry.action == "file"] == [403, 200]


def test_a_broken_download_leaves_no_incomplete_file(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    sandbox.configure(file_fault="html")
    run = run_dag(edit(pictures, output_path=str(tmp_path), retries=0))
    assert isinstance(run.errors[0], LandingError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["submit", "status"])
def test_a_task_killed_while_it_runs_cancels_its_request(
    moment: str, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path
) -> None:
    """Airflow calls ``on_kill`` from a signal handler, and the interrupted call then continues."""
    sandbox.configure(run_seconds=60)
    dag = edit(pictures, retries=0)

    def kill(entry: JournalEntry) -> None:
        if entry.action == moment:
            listeners.clear()
            kill_task()

    listeners.append(kill)
    run = run_dag(dag)
    assert run.state == "failed"
    assert actions(sandbox).count("submit") == actions(sandbox).count("cancel") == 1
    assert not sandbox.alive


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("moment", ["result", "file"])
@pytest.mark.usefixtures("poll_at_once")
def test_a_kill_after_the_end_of_the_request_says_that_it_is_finished(
    moment: str,
    deferrable: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    pictures: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def kill(entry: JournalEntry) -> None:
        if entry.action == moment:
            listeners.clear()
            kill_task()

    listeners.append(kill)
    run = run_dag(edit(pictures, retries=0, output_path=str(tmp_path), deferrable=deferrable))
    request_id = run.xcom("edit", "request_id")
    assert f"The task is killed. Request {request_id} is finished: there is nothing to cancel." in caplog.text
    assert "may be running" not in caplog.text
    assert "cancel" not in actions(sandbox)


def test_a_kill_after_the_submits_answer_names_the_request_it_cancels(
    run_dag: RunDag,
    sandbox: Sandbox,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox.configure(run_seconds=60)
    submitted = Intent.submitted

    def kill_first(*arguments: Any) -> Submitted:
        kill_task()
        return submitted(*arguments)

    monkeypatch.setattr(Intent, "submitted", kill_first)
    assert run_dag(edit(pictures, retries=0)).error == "The task was killed."
    [request] = sandbox.requests
    assert "The task is killed. Its submit is under way" in caplog.text
    assert f"Cancelled: request {request.request_id}." in caplog.text
    assert not sandbox.alive


def test_a_task_killed_before_its_submit_costs_nothing(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "probe", lambda *_: kill_task())
    run = run_dag(edit(pictures, retries=0, output_path=str(tmp_path)))
    assert run.error == "The task was killed."
    assert actions(sandbox) == []


def test_a_task_killed_before_its_operator_begins_costs_nothing(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path
) -> None:
    run = run_dag(edit(pictures, retries=0, pre_execute=lambda _: kill_task()))
    assert run.error == "The task was killed."
    assert actions(sandbox) == []


def test_a_task_killed_just_before_it_defers_cancels_its_request(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60)
    end_of_execution = wait.end_of_execution

    def kill_first(*arguments: Any) -> Any:
        kill_task()
        return end_of_execution(*arguments)

    monkeypatch.setattr(wait, "end_of_execution", kill_first)
    run = run_dag(edit(pictures, retries=0, deferrable=True))
    assert run.error == "The task was killed."
    assert actions(sandbox) == ["submit", "cancel"]


def test_an_error_after_the_submit_cancels_it_even_if_a_kill_would_not(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no XCom today")

    monkeypatch.setattr(xcoms, "push_request", fail)
    sandbox.configure(run_seconds=60)
    run = run_dag(edit(pictures, retries=0, cancel_on_kill=False))
    assert run.error == "no XCom today"
    assert actions(sandbox) == ["submit", "cancel"]


def test_a_request_that_cannot_be_cancelled_is_an_error_in_the_log(
    run_dag: RunDag,
    sandbox: Sandbox,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(retries.MAX_REPEAT_SECONDS, Action.CANCEL, 0.0)
    sandbox.configure(run_seconds=60, server_errors=None, fault_actions={"cancel"})
    run = run_dag(edit(pictures, timeout=1, retries=0))
    assert "It could not be cancelled" in run.error
    assert "To cancel it by hand: odirouter-request cancel gpt_image_1_edit" in run.error

    monkeypatch.setattr(xcoms, "push_request", lambda *_: 1 / 0)
    run_dag(edit(pictures, retries=0))
    assert "may still be running without a task, and may be paid" in caplog.text


def test_a_killed_task_keeps_its_request_if_cancel_on_kill_is_false(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], clock: Clock, pictures: Path
) -> None:
    sandbox.configure(run_seconds=60)
    dag = edit(pictures, cancel_on_kill=False, retries=0)

    def kill(entry: JournalEntry) -> None:
        if entry.action == "status":
            kill_task()
            clock.skip(60)

    listeners.append(kill)
    assert run_dag(dag).error == "The task was killed."
    assert "cancel" not in actions(sandbox)


def test_parameters_of_other_endpoints_are_sent_as_they_are(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    with DAG("queue") as dag:
        OdiRouterQueueOperator(
            task_id="make",
            endpoint="nano_banana_2",
            parameters={"prompt": "{{ dag.dag_id }}", "seed": 7, "nested": {"a": [1, None]}},
            deferrable=False,
            output_path=str(tmp_path),
        )
    run = run_dag(dag)
    assert run.state == "success", run.error
    assert sandbox.journal[0].body == {"prompt": "queue", "seed": 7, "nested": {"a": [1, None]}}
    assert run.xcom("make")["endpoint"] == "nano_banana_2"
