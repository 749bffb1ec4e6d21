"""What a task has spent in all its tries, and the limit that it sets itself: no submit is forgotten, none is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.execution_time import task_runner

from airflow_provider_odirouter.compat import AirflowFailException
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.queue import NOT_REMEMBERED
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import ConfigureAt, Listener, spent
from tests.dags.batches import FIVE, THREE, Again, batch, changing, manifest, prompts, submits
from tests.dags.conftest import HAS_STORE, Fail, RunDag, anywhere, clear
from tests.dags.conftest import edit as edit_of

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

FAILS: dict[str, Any] = {"error_type": "INFERENCE_FAILURE"}
IN_AIRFLOW, BESIDE = "in Airflow's store", "beside the outputs"


@pytest.fixture(params=[IN_AIRFLOW, BESIDE] if HAS_STORE else [BESIDE])
def edit(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, pictures: Path, tmp_path: Path
) -> Callable[..., DAG]:
    """Makes a Dag of one edit, which remembers its submits in one place or the other."""
    if request.param == BESIDE and HAS_STORE:
        get_template_context = task_runner.RuntimeTaskInstance.get_template_context

        def without_store(ti: Any) -> Any:
            context: Any = get_template_context(ti)
            context.pop("task_state_store", None)
            return context

        monkeypatch.setattr(task_runner.RuntimeTaskInstance, "get_template_context", without_store)
    return lambda **arguments: edit_of(pictures, output_path=str(tmp_path / "out"), **arguments)


@pytest.fixture
def die_in_first_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the worker die after its first submit has arrived, before its answer."""
    submit: Any = OdiRouterHook.submit

    def die(*arguments: Any, **keywords: Any) -> None:
        monkeypatch.setattr(OdiRouterHook, "submit", submit)
        submit(*arguments, **keywords)
        raise SystemExit(137)

    monkeypatch.setattr(OdiRouterHook, "submit", die)


class AgainOne(OdiRouterImageEditOperator):
    """Lets Airflow try again after every error, so that a user's clear can come before that."""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowFailException as error:
            raise RuntimeError(str(error)) from error


def clear_once(context: Any) -> None:
    """Clear the task after its first try; each clear allows one more."""
    if context["ti"].try_number == 1:
        clear(context)


# --- One edit


@anywhere
def test_the_manifest_counts_the_submits_of_all_tries(
    deferrable: bool, edit: Callable[..., DAG], run_dag: RunDag, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(**FAILS, fail_first=2)
    run = run_dag(edit(retries=2, deferrable=deferrable))
    assert (run.state, spent(sandbox)) == ("success", (3, 0))
    assert run.xcom("edit")["submits"] == 3
    assert run.xcom("edit", "odirouter_request")["submits"] == 3
    assert "This task has spent, in all its tries: 3 submits." in caplog.text


def test_a_try_that_resumes_a_request_counts_no_submit(
    edit: Callable[..., DAG], run_dag: RunDag, sandbox: Sandbox, fail_after_submit: Fail
) -> None:
    fail_after_submit(1, 2)
    run = run_dag(edit(retries=2, max_submits=1))
    assert (run.state, spent(sandbox)) == ("success", (1, 0))
    assert run.xcom("edit")["submits"] == 1


@anywhere
def test_the_try_that_would_submit_once_more_fails_for_good_and_says_what_was_spent(
    deferrable: bool, edit: Callable[..., DAG], run_dag: RunDag, sandbox: Sandbox
) -> None:
    sandbox.configure(**FAILS)
    run = run_dag(edit(retries=5, max_submits=2, deferrable=deferrable))
    assert (run.state, spent(sandbox)) == ("failed", (2, 0))
    assert [type(error).__name__ for error in run.errors][2:] == ["AirflowFailException"]
    assert str(run.errors[2]) == (
        "max_submits is 2, and this task has spent, in all its tries: 2 submits. To submit more, raise max_submits, "
        "and clear the task."
    )
    assert run.xcom("edit", "odirouter_failure")["what"].startswith("max_submits is 2")


@pytest.mark.usefixtures("die_in_first_submit")
def test_a_submit_during_which_the_worker_died_counts(
    edit: Callable[..., DAG], run_dag: RunDag, sandbox: Sandbox
) -> None:
    run = run_dag(edit(max_submits=1))
    assert (run.state, spent(sandbox)) == ("failed", (1, 0))
    assert "max_submits is 1, and this task has spent, in all its tries: 1 submit." in str(run.errors[1])


@pytest.mark.usefixtures("die_in_first_submit")
def test_the_submit_after_a_lost_one_is_the_second(edit: Callable[..., DAG], run_dag: RunDag, sandbox: Sandbox) -> None:
    run = run_dag(edit(max_submits=2))
    assert (run.state, spent(sandbox)) == ("success", (2, 0))
    assert run.xcom("edit")["submits"] == 2


def test_a_lost_submit_counts_after_a_clear(edit: Callable[..., DAG], run_dag: RunDag, sandbox: Sandbox) -> None:
    fault: dict[str, Any] = {"server_errors": 1, "fault_actions": {"submit"}, "fault_after_effect": True}
    sandbox.configure(**fault)
    run = run_dag(edit(operator=AgainOne, dag_id="lost", on_retry_callback=clear_once, max_submits=1))
    assert (run.state, sandbox.paid) == ("failed", 1)
    assert "it is not known whether it arrived" in str(run.errors[0])
    assert "max_submits is 1" in str(run.errors[1])


@pytest.mark.parametrize("trouble", [{"balance": 0}, {"api_key": "another"}, {"endpoints": ("other",)}], ids=str)
def test_a_submit_that_certainly_created_no_request_does_not_count(
    trouble: dict[str, Any],
    edit: Callable[..., DAG],
    run_dag: RunDag,
    sandbox: Sandbox,
    configure_at: ConfigureAt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airflow_provider_odirouter.protocol.retries.FIRST_PAUSE", 0.0)
    sandbox.configure(**trouble)
    configure_at("submit", balance=None, api_key="sandbox-key", endpoints=("gpt_image_1_edit",))
    run = run_dag(edit(operator=AgainOne, max_submits=1))
    assert (run.state, sandbox.paid) == ("success", 1)
    assert run.xcom("edit")["submits"] == 1


def test_a_cleared_task_that_may_not_submit_waits_for_its_live_request(
    edit: Callable[..., DAG], run_dag: RunDag, sandbox: Sandbox, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=1)
    fail_after_submit(1)
    run = run_dag(edit(dag_id="live", on_retry_callback=clear, max_submits=1))
    assert (run.state, spent(sandbox)) == ("success", (1, 0))


def test_a_cleared_task_that_may_submit_counts_what_it_has_cancelled(
    edit: Callable[..., DAG],
    run_dag: RunDag,
    sandbox: Sandbox,
    configure_at: ConfigureAt,
    fail_after_submit: Fail,
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("cancel", run_seconds=0)
    fail_after_submit(1)
    run = run_dag(edit(dag_id="live", on_retry_callback=clear, max_submits=2))
    assert (run.state, spent(sandbox)) == ("success", (2, 1))
    assert run.xcom("edit")["submits"] == 2


def test_a_task_that_only_submits_counts_too(edit: Callable[..., DAG], run_dag: RunDag, sandbox: Sandbox) -> None:
    run = run_dag(edit(wait_for_completion=False, max_submits=1))
    assert (run.state, run.xcom("edit")["submits"]) == ("success", 1)


def test_what_nothing_remembers_is_not_counted(pictures: Path, run_dag: RunDag) -> None:
    run = run_dag(edit_of(pictures, durable=False))
    assert (run.state, run.xcom("edit")["submits"]) == ("success", None)


def test_a_limit_that_nothing_remembers_is_refused_when_the_dag_is_parsed(pictures: Path) -> None:
    with pytest.raises(ValueError, match="max_submits needs a place where the submits of earlier tries are remembered"):
        edit_of(pictures, durable=False, max_submits=1)


def test_a_limit_that_nothing_remembers_is_refused_before_anything_is_paid(
    pictures: Path, run_dag: RunDag, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_template_context = task_runner.RuntimeTaskInstance.get_template_context

    def without_store(ti: Any) -> Any:
        context: Any = get_template_context(ti)
        context.pop("task_state_store", None)
        return context

    monkeypatch.setattr(task_runner.RuntimeTaskInstance, "get_template_context", without_store)
    run = run_dag(edit_of(pictures, max_submits=1))
    assert run.is_final
    assert NOT_REMEMBERED in run.error
    assert not sandbox.journal


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True])
def test_a_limit_that_is_no_count_is_refused_when_the_dag_is_parsed(limit: Any, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_submits must be a whole number, at least 1"):
        edit_of(pictures, max_submits=limit)
    with pytest.raises(ValueError, match="max_submits must be a whole number, at least 1"):
        batch(THREE, tmp_path, max_submits=limit)


# --- A batch


@anywhere
@pytest.mark.parametrize("at_a_time", [1, 8])
def test_a_batch_stops_before_the_next_submit_and_lands_what_is_paid(
    at_a_time: int, deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(run_seconds=0.5)
    run = run_dag(batch(FIVE, tmp_path, max_submits=3, max_concurrent_submits=at_a_time, deferrable=deferrable))
    assert run.is_final
    assert run.error == (
        "2 of 5 edits were not submitted: max_submits is 3, and this task has spent, in all its tries: 3 submits. To "
        "submit more, raise max_submits, and clear the task. Clearing the task submits those, and pays for no other."
    )
    assert spent(sandbox) == (3, 0)
    assert ["outputs" in line for line in manifest(tmp_path)].count(True) == 3
    assert run.xcom("edit", "odirouter_batch")["submits"] == 3


def test_a_batch_that_needs_all_its_submits_succeeds(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    run = run_dag(batch(THREE, tmp_path, max_submits=3, max_concurrent_submits=8))
    assert (run.state, spent(sandbox)) == ("success", (3, 0))
    assert run.xcom("edit")["submits"] == 3
    assert [line["submits"] for line in manifest(tmp_path)] == [1, 1, 1]


@anywhere
def test_a_batch_counts_the_submits_of_all_tries(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.configure(**FAILS, fail_first=3)
    run = run_dag(batch(THREE, tmp_path, deferrable=deferrable))
    assert (run.state, spent(sandbox)) == ("success", (6, 0))
    assert run.xcom("edit")["submits"] == 6
    assert [line["submits"] for line in manifest(tmp_path)] == [2, 2, 2]
    assert "This task has spent, in all its tries: 6 submits." in caplog.text


def test_a_retry_of_a_batch_submits_no_more_than_is_left(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(**FAILS, fail_first=3)
    run = run_dag(batch(THREE, tmp_path, max_submits=5))
    assert (run.state, spent(sandbox)) == ("failed", (5, 0))
    assert "1 of 3 edits were not submitted: max_submits is 5" in str(run.errors[1])
    assert sum("outputs" in line for line in manifest(tmp_path)) == 2


def test_edits_that_left_the_list_still_count(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(**FAILS, fail_first=3)
    edits = prompts("Try {{ ti.try_number }}", "Green", "Blue")
    run = run_dag(batch(edits, tmp_path, retries=2))
    assert (run.state, run.xcom("edit")["submits"], spent(sandbox)) == ("success", 6, (6, 0))
    assert sum(line["submits"] for line in manifest(tmp_path)) == 5


@pytest.mark.usefixtures("die_in_first_submit")
def test_a_submit_of_a_batch_during_which_the_worker_died_counts(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    run = run_dag(batch(THREE, tmp_path, max_submits=3))
    assert (run.state, spent(sandbox)) == ("failed", (3, 0))
    assert "1 of 3 edits were not submitted: max_submits is 3" in str(run.errors[1])


def test_a_lost_submit_of_a_batch_counts(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    fault: dict[str, Any] = {"server_errors": 1, "fault_actions": {"submit"}, "fault_after_effect": True}
    sandbox.configure(**fault)
    run = run_dag(batch(THREE, tmp_path, max_submits=2))
    assert (run.state, sandbox.paid) == ("failed", 2)
    assert "1 of 3 edits were not submitted: max_submits is 2" in run.error
    assert [line.get("submits") for line in manifest(tmp_path)] == [1, 1, None]


def test_submits_of_a_batch_that_are_refused_do_not_count(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(balance=0)
    listeners.append(changing(sandbox, "submit", {"balance": None}))
    run = run_dag(batch(THREE, tmp_path, Again, max_submits=3))
    assert (run.state, sandbox.paid) == ("success", 3)
    assert run.xcom("edit")["submits"] == 3


def test_a_cleared_batch_cancels_no_live_request_that_it_may_not_submit_again(
    run_dag: RunDag,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox.configure(run_seconds=2)
    fail_when_three_wait(monkeypatch)
    run = run_dag(batch(THREE, tmp_path, dag_id="live", on_retry_callback=clear, max_submits=5))
    assert (run.state, spent(sandbox)) == ("success", (3, 0))
    assert "this try waits for the 3 requests that may be running, although the task was cleared" in caplog.text


def test_a_cleared_batch_with_enough_submits_left_cancels_and_counts_all(
    run_dag: RunDag, sandbox: Sandbox, configure_at: ConfigureAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("cancel", run_seconds=0)
    fail_when_three_wait(monkeypatch)
    run = run_dag(batch(THREE, tmp_path, dag_id="live", on_retry_callback=clear, max_submits=6))
    assert (run.state, spent(sandbox)) == ("success", (6, 3))
    assert run.xcom("edit")["submits"] == 6
    assert submits(sandbox) == ["Red", "Green", "Blue"] * 2


def test_at_the_limit_a_retry_still_lands_what_is_paid(
    run_dag: RunDag, sandbox: Sandbox, configure_at: ConfigureAt, tmp_path: Path
) -> None:
    sandbox.configure(file_fault="html")
    configure_at("file", file_fault="none")
    run = run_dag(batch(THREE, tmp_path, max_submits=2))
    assert (run.state, spent(sandbox)) == ("failed", (2, 0))
    assert "A retry submits nothing more, but lands what is paid." in str(run.errors[0])
    assert type(run.errors[1]).__name__ == "AirflowFailException"
    assert sum("outputs" in line for line in manifest(tmp_path)) == 2


def fail_when_three_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first try fail as soon as it waits for three requests."""
    from airflow_provider_odirouter.batch.pipeline import Pipeline

    report = Pipeline._report

    def failing(pipeline: Pipeline) -> None:
        if pipeline._options.try_number == 1 and len(pipeline._waits) == 3:
            raise OSError("no memory today")
        report(pipeline)

    monkeypatch.setattr(Pipeline, "_report", failing)
