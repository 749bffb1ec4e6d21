"""What a new try of a batch does about what an earlier one has left: nothing is paid twice, nothing paid is lost."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.operators.batch import finishing
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.protocol import Action, repeats
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Clock, ConfigureAt, Listener, actions, spent
from tests.dags.batches import FIVE, THREE, batch, changing, manifest, phases, prompts, submits
from tests.dags.conftest import Fail, RunDag, anywhere, clear, kill_in_second_try

pytestmark = pytest.mark.usefixtures("look_at_once")


@pytest.fixture
def fail_after_submits(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Lets XCom fail, right after the submits, in these tries."""
    publish = finishing.publish

    def make(*tries: int) -> None:
        def failing(context: Any, *arguments: Any, **keywords: Any) -> None:
            if context["ti"].try_number in tries:
                raise OSError("no XCom today")
            publish(context, *arguments, **keywords)

        monkeypatch.setattr(finishing, "publish", failing)

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
    assert (run.state, run.error) == ("success", "no XCom today")
    assert "3 requests are left alone: a new try goes on with it." in caplog.text
    assert "This try goes on with 3 of 3 edits, and does not pay for them again." in caplog.text
    assert spent(sandbox) == (3, 0)


def test_the_last_try_cancels_what_nobody_will_wait_for(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_after_submits: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submits(1, 2)
    assert run_dag(batch(THREE, tmp_path)).state == "failed"
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive
    assert phases(tmp_path) == ["planned"] * 3


def test_a_last_try_that_is_killed_before_its_operator_begins_cancels_what_the_one_before_has_left(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_after_submits: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submits(1)
    run = run_dag(batch(THREE, tmp_path, pre_execute=kill_in_second_try))
    assert [str(error) for error in run.errors] == ["no XCom today", "The task was killed."]
    assert spent(sandbox) == (3, 3)
    assert not sandbox.alive


def test_a_retry_submits_anew_what_has_failed_in_passing_meanwhile(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_after_submits: Fail
) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE", fail_first=1)
    fail_after_submits(1)
    run = run_dag(batch(THREE, tmp_path))
    assert (run.state, run.error) == ("success", "no XCom today")
    assert submits(sandbox) == ["Red", "Green", "Blue", "Red"]
    assert run.xcom("edit")["succeeded"] == 3


@anywhere
def test_a_clear_cancels_what_is_alive_and_submits_afresh(
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
    assert actions(sandbox)[:9] == ["submit"] * 3 + ["cancel"] * 3 + ["submit"] * 3
    assert spent(sandbox) == (6, 3)


def test_a_clear_takes_what_has_just_ended(
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
        monkeypatch.setitem(repeats.PATIENCE, Action.CANCEL, 0.0)
        sandbox.configure(server_errors=None, fault_actions={"cancel"})

    changes: list[Callable[[Any], object]] = [change, lambda _: sandbox.configure(server_errors=0, run_seconds=0)]
    sandbox.configure(run_seconds=60)
    fail_after_submits(1)
    dag = batch(THREE, tmp_path, dag_id="cleared", on_retry_callback=lambda context: changes.pop(0)(context))
    run = run_dag(dag)
    assert [type(error).__name__ for error in run.errors] == ["OSError", "ServiceError"]
    assert run.state == "success"
    assert actions(sandbox)[:12] == ["submit"] * 3 + ["cancel"] * 6 + ["submit"] * 3
    assert not sandbox.alive


def test_a_clear_submits_what_was_refused_or_lost_and_never_what_has_succeeded(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    lost = {"error_type": None, "server_errors": 1, "fault_actions": {"submit"}}
    sandbox.configure(error_type="CONTENT_BLOCKED")
    listeners.append(changing(sandbox, "submit", lost, {}, {"error_type": "INFERENCE_FAILURE"}, {"error_type": None}))
    dag = batch(
        prompts("refused", "lost", "well", "failed", "well, too"),
        tmp_path,
        dag_id="cleared",
        on_item_failure="fail",
        on_retry_callback=clear,
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert submits(sandbox) == ["refused", "well", "failed", "well, too", "refused", "lost", "failed"]
    assert [line["number"] for line in manifest(tmp_path)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cancels", [True, False])
def test_a_retry_whose_input_has_changed_cancels_what_is_not_wanted_any_more(
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
    Lets a worker die in the so manyth call of a method.

    What a dead worker leaves is what lies on the disk at that moment: the retry finds that, and nothing that the error
    does to this process, which lives.
    """

    def make(method: str, number: int, *, after: bool) -> Callable[[Any], None]:
        real, calls, lock, dead = getattr(OdiRouterHook, method), [], threading.Lock(), threading.Event()

        def dying(*arguments: Any) -> Any:
            with lock:
                calls.append(arguments)
                call = len(calls)
            if call < number:
                return real(*arguments)
            if call == number:
                if after:
                    real(*arguments)
                shutil.copytree(tmp_path / "out", tmp_path / "left")
                dead.set()
            dead.wait(20)  # its other threads go no farther
            raise SystemExit(137)

        def find_what_is_left(_: Any) -> None:
            monkeypatch.setattr(OdiRouterHook, method, real)
            shutil.rmtree(tmp_path / "out")
            (tmp_path / "left").rename(tmp_path / "out")

        monkeypatch.setattr(OdiRouterHook, method, dying)
        return find_what_is_left

    return make


@pytest.mark.parametrize("after", [False, True], ids=["before the submit", "before its answer is noted"])
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
        assert "An earlier try died during 1 submits. Those requests may be running and may be paid" in caplog.text
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
    run = run_dag(batch(FIVE, tmp_path / "out", on_retry_callback=on_retry))
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
