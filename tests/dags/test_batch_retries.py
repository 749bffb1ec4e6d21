"""A new try of a batch pays nothing twice, and loses nothing that an earlier try has paid."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.batch.pipeline import Pipeline
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.protocol import Action, retries
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Clock, ConfigureAt, Listener, actions, join_jobs, spent
from tests.dags.batches import FIVE, THREE, batch, changing, manifest, phases, prompts, submits
from tests.dags.conftest import Fail, RunDag, anywhere, clear, kill_in_second_try

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]


@pytest.fixture
def fail_after_submits(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Lets these tries fail as soon as they wait for three requests."""
    report = Pipeline._report

    def make(*tries: int) -> None:
        def failing(pipeline: Pipeline) -> None:
            if pipeline._options.try_number in tries and len(pipeline._waits) == 3:
                raise OSError("no memory today")
            report(pipeline)

        monkeypatch.setattr(Pipeline, "_report", failing)

    return make


class WithoutStore(OdiRouterImageEditBatchOperator):
    """Runs in an Airflow before 3.3."""

    def execute(self, context: Any) -> Any:
        return super().execute({name: value for name, value in context.items() if name != "task_state_store"})  # type: ignore[arg-type]


@anywhere
@pytest.mark.parametrize("operator", [OdiRouterImageEditBatchOperator, WithoutStore])
def test_a_retry_waits_for_the_requests_of_a_try_that_failed_after_its_submits(
    operator: type[OdiRouterImageEditBatchOperator],
    deferrable: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    tmp_path: Path,
    fail_after_submits: Fail,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox.configure(run_seconds=2)
    fail_after_submits(1)
    run = run_dag(batch(THREE, tmp_path, operator, deferrable=deferrable))
    assert (run.state, run.error) == ("success", "no memory today")
    assert "3 requests are not cancelled: the next try keeps waiting." in caplog.text
    assert "This try continues 3 of 3 edits, and does not pay for them again." in caplog.text
    assert spent(sandbox) == (3, 0)


def test_the_last_try_cancels_requests_for_which_no_try_will_wait(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_after_submits: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submits(1, 2)
    assert run_dag(batch(THREE, tmp_path)).state == "failed"
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive
    assert phases(tmp_path) == ["planned"] * 3


def test_a_last_try_killed_before_execute_cancels_the_requests_of_the_earlier_try(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_after_submits: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submits(1)
    run = run_dag(batch(THREE, tmp_path, pre_execute=kill_in_second_try))
    assert [str(error) for error in run.errors] == ["no memory today", "The task was killed."]
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


def test_a_retry_submits_again_a_request_that_has_failed_meanwhile(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_after_submits: Fail
) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE", fail_first=1, run_seconds=1)
    fail_after_submits(1)
    run = run_dag(batch(THREE, tmp_path))
    assert (run.state, run.error) == ("success", "no memory today")
    assert submits(sandbox) == ["Red", "Green", "Blue", "Red"]
    assert run.xcom("edit")["succeeded"] == 3


@anywhere
def test_a_cleared_task_cancels_live_requests_and_submits_again(
    deferrable: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    configure_at: ConfigureAt,
    tmp_path: Path,
    fail_after_submits: Fail,
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("cancel", run_seconds=0)
    fail_after_submits(1)
    run = run_dag(batch(THREE, tmp_path, dag_id="cleared", on_retry_callback=clear, deferrable=deferrable))
    assert run.state == "success"
    paid = [action for action in actions(sandbox) if action in {"submit", "cancel"}]
    assert paid == ["submit"] * 3 + ["cancel"] * 3 + ["submit"] * 3
    assert spent(sandbox) == (6, 3)


def test_a_cleared_task_takes_requests_that_have_just_ended(
    run_dag: RunDag, sandbox: Sandbox, clock: Clock, tmp_path: Path, fail_after_submits: Fail
) -> None:
    def change(context: Any) -> None:
        clear(context)
        clock.skip(60)

    sandbox.configure(run_seconds=60)
    fail_after_submits(1)
    run = run_dag(batch(THREE, tmp_path, dag_id="cleared", on_retry_callback=change))
    assert run.state == "success"
    assert spent(sandbox) == (3, 3)


def test_a_cleared_task_whose_requests_cannot_be_cancelled_submits_nothing(
    run_dag: RunDag,
    sandbox: Sandbox,
    tmp_path: Path,
    fail_after_submits: Fail,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def change(context: Any) -> None:
        clear(context)
        monkeypatch.setitem(retries.MAX_REPEAT_SECONDS, Action.CANCEL, 0.0)
        sandbox.configure(server_errors=None, fault_actions={"cancel"})

    changes: list[Callable[[Any], object]] = [change, lambda _: sandbox.configure(server_errors=0, run_seconds=0)]
    sandbox.configure(run_seconds=60)
    fail_after_submits(1)
    dag = batch(THREE, tmp_path, dag_id="cleared", on_retry_callback=lambda context: changes.pop(0)(context))
    run = run_dag(dag)
    assert [type(error).__name__ for error in run.errors] == ["OSError", "ServiceError"]
    assert run.state == "success"
    paid = [action for action in actions(sandbox) if action in {"submit", "cancel"}]
    assert paid == ["submit"] * 3 + ["cancel"] * 6 + ["submit"] * 3
    assert not sandbox.alive


def test_a_cleared_task_submits_refused_and_lost_edits_but_no_success(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    lost = {"error_type": None, "server_errors": 1, "fault_actions": {"submit"}}
    sandbox.configure(error_type="CONTENT_BLOCKED")
    listeners.append(changing(sandbox, "submit", lost, {}, {"error_type": "INFERENCE_FAILURE"}, {"error_type": None}))
    dag = batch(
        prompts("refused", "lost", "good", "failed", "good, too"),
        tmp_path,
        dag_id="cleared",
        on_item_failure="fail",
        on_retry_callback=clear,
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert submits(sandbox) == ["refused", "good", "failed", "good, too", "refused", "lost", "failed"]
    assert [line["number"] for line in manifest(tmp_path)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cancels", [True, False])
def test_a_retry_with_other_edits_cancels_requests_that_it_does_not_need(
    cancels: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    clock: Clock,
    listeners: list[Listener],
    tmp_path: Path,
    fail_after_submits: Fail,
) -> None:
    def end_all(entry: JournalEntry) -> None:
        if entry.action == "submit" and sandbox.paid == 4:
            clock.skip(60)

    sandbox.configure(run_seconds=60)
    listeners.append(end_all)
    fail_after_submits(1)
    run = run_dag(batch(prompts("Red", "Try {{ ti.try_number }}", "Blue"), tmp_path, cancel_on_kill=cancels))
    assert run.state == "success"
    assert submits(sandbox) == ["Red", "Try 1", "Blue", "Try 2"]
    assert [request.error_type for request in sandbox.requests] == [None, "CANCELED" if cancels else None, None, None]
    assert [line["edit"]["prompt"] for line in manifest(tmp_path)] == ["Red", "Try 2", "Blue"]


Die = Callable[..., Callable[[Any], None]]


@pytest.fixture
def die(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Die:
    """
    Lets a worker die in a certain call of a method, counted from 1.

    The retry finds the files as they were at that moment: what this process writes after the error does not count.
    """

    def make(method: str, number: int, *, after: bool) -> Callable[[Any], None]:
        real, calls, lock, dead = getattr(OdiRouterHook, method), [], threading.Lock(), threading.Event()

        def dying(*arguments: Any, **options: Any) -> Any:
            with lock:
                calls.append(arguments)
                call = len(calls)
            if call < number:
                return real(*arguments, **options)
            if call == number:
                if after:
                    real(*arguments, **options)
                # Other threads write meanwhile.
                shutil.copytree(tmp_path / "out", tmp_path / "left", ignore=shutil.ignore_patterns("*.part"))
                dead.set()
            dead.wait(20)  # its other threads stop here
            raise SystemExit(137)

        def find_what_is_left(_: Any) -> None:
            monkeypatch.setattr(OdiRouterHook, method, real)
            join_jobs()  # which live on here
            shutil.rmtree(tmp_path / "out")
            (tmp_path / "left").rename(tmp_path / "out")

        monkeypatch.setattr(OdiRouterHook, method, dying)
        return find_what_is_left

    return make


@pytest.mark.parametrize("after", [False, True], ids=["before the submit", "before its answer is saved"])
@pytest.mark.parametrize("on_lost_submit", ["submit", "fail"])
def test_a_worker_that_dies_during_a_submit_leaves_its_intent(
    on_lost_submit: str,
    after: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    tmp_path: Path,
    die: Die,
    caplog: pytest.LogCaptureFixture,
) -> None:
    on_retry = die("submit", 2, after=after)
    dag = batch(THREE, tmp_path / "out", on_lost_submit=on_lost_submit, on_retry_callback=on_retry)
    run = run_dag(dag)
    assert isinstance(run.errors[0], SystemExit)
    assert run.state == "success"
    lost = ["Green"] if after else []
    if on_lost_submit == "submit":
        assert submits(sandbox) == ["Red", *lost, "Green", "Blue"]
        assert (
            "An earlier try died while it submitted. Submits without an answer: 1. Their requests may be running"
            in caplog.text
        )
    else:
        assert submits(sandbox) == ["Red", *lost, "Blue"]
        assert [line.get("error_type") for line in manifest(tmp_path / "out")] == [None, "LostSubmitError", None]


def test_no_more_submits_can_be_lost_than_are_made_at_a_time(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, die: Die
) -> None:
    sandbox.configure(latency_seconds=0.2)
    on_retry = die("submit", 7, after=True)
    edits = prompts(*map(str, range(20)))
    left: list[str] = []

    def retry(context: Any) -> None:
        on_retry(context)
        left.extend(phases(tmp_path / "out"))

    run = run_dag(batch(edits, tmp_path / "out", max_concurrent_submits=3, on_retry_callback=retry))
    assert run.state == "success"
    assert 1 <= left.count("submitting") <= 3
    assert len(submits(sandbox)) <= 23
    assert run.xcom("edit")["succeeded"] == 20


def test_a_worker_that_dies_while_pictures_land_pays_for_none_of_them_again(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, die: Die
) -> None:
    on_retry = die("download", 3, after=True)
    sandbox.configure(run_seconds=1)
    run = run_dag(batch(FIVE, tmp_path / "out", max_concurrent_submits=5, on_retry_callback=on_retry))
    assert run.state == "success"
    assert spent(sandbox) == (5, 0)
    assert run.xcom("edit")["outputs"] == 5


def test_each_mapped_batch_keeps_its_own_state(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    with DAG("mapped_batch") as dag:
        OdiRouterImageEditBatchOperator.partial(
            task_id="edit", output_path=str(tmp_path), deferrable=False, poll_interval=0.1
        ).expand(edits=[THREE, THREE])
    run = run_dag(dag)
    assert run.state_of("edit") == ["success"] * 2
    assert spent(sandbox) == (6, 0)
    assert len({run.xcom("edit", map_index=index)["manifest"] for index in range(2)}) == 2
    assert len(list(tmp_path.glob("*.png"))) == 6
