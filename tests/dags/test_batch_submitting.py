"""The submits of a batch: errors that stop them, errors that do not, and how many run at once."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.batch import validate
from airflow_provider_odirouter.batch.rules import EndpointRules
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import BatchItem
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Clock, Listener, spent
from tests.dags.batches import (
    FIVE,
    THREE,
    Again,
    FinalError,
    batch,
    changing,
    landed,
    manifest,
    phases,
    prompts,
    submits,
)
from tests.dags.conftest import RunDag, anywhere, clear

pytestmark = pytest.mark.usefixtures("poll_at_once")


@pytest.mark.usefixtures("poll_late")
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"api_key": "another"}, "refuses the API key"),
        ({"balance": 0}, "no balance"),
        ({"endpoints": ("other",)}, "does not know the endpoint"),
    ],
    ids=["key", "balance", "endpoint"],
)
def test_an_error_that_meets_every_edit_stops_the_rest_and_the_submitted_land(
    trouble: dict[str, Any],
    words: str,
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
) -> None:
    cure = {"api_key": "sandbox-key", "endpoints": ("gpt_image_1_edit",)}
    listeners.append(changing(sandbox, "submit", {}, trouble, cure))
    run = run_dag(batch(FIVE, tmp_path, poll_interval=1))
    assert run.state == "failed"
    assert run.is_final
    assert words in run.error
    assert "3 of 5 edits were not submitted" in run.error
    assert "Clearing the task submits those, and pays for no other." in run.error
    assert sandbox.paid == 2
    assert len(landed(tmp_path)) == 2
    assert phases(tmp_path) == ["landed"] * 2 + ["planned"] * 3
    assert ["request_id" in line for line in manifest(tmp_path)] == [True] * 2 + [False] * 3


def test_a_batch_that_was_deferred_submits_the_rest_when_the_trouble_is_over(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(balance=2, run_seconds=1)
    listeners.append(changing(sandbox, "submit", {}, {}, {"balance": 3}))
    run = run_dag(batch(FIVE, tmp_path, deferrable=True))
    assert (run.state, run.errors) == ("success", [])
    assert submits(sandbox) == ["Red", "Green", "Blue", "White", "Black"]


@anywhere
def test_a_cleared_task_continues_where_the_balance_ran_out(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    def top_up(context: Any) -> None:
        sandbox.configure(balance=100)
        clear(context)

    sandbox.configure(balance=2)
    run = run_dag(batch(FIVE, tmp_path, Again, dag_id="topped_up", on_retry_callback=top_up, deferrable=deferrable))
    assert isinstance(run.errors[0], FinalError)
    assert "3 of 5 edits were not submitted" in run.error
    assert "Top up the OdiRouter account" in run.error
    assert run.state == "success"
    assert submits(sandbox) == ["Red", "Green", "Blue", "White", "Black"]
    assert run.xcom("edit")["succeeded"] == 5


def test_one_submit_without_an_answer_stops_nothing(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(server_errors=1, fault_actions={"submit"})
    run = run_dag(batch(FIVE, tmp_path))
    assert (run.state, run.errors) == ("success", [])
    assert [line.get("error_type") for line in manifest(tmp_path)] == ["LostSubmitError", None, None, None, None]
    assert "it is not known whether it arrived" in manifest(tmp_path)[0]["error"]


def test_three_lost_submits_in_a_row_stop_the_rest_which_the_retry_submits(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(server_errors=3, fault_actions={"submit"}, fault_after_effect=True)
    run = run_dag(batch(FIVE, tmp_path))
    assert run.error.startswith(
        "2 of 5 edits were not submitted: The submit to gpt_image_1_edit went out, but it is not known"
    )
    assert run.error.endswith("A retry submits those, and pays for no other.")
    assert run.state == "success"
    assert submits(sandbox) == ["Red", "Green", "Blue", "White", "Black"]
    assert [line.get("error_type") for line in manifest(tmp_path)] == ["LostSubmitError"] * 3 + [None] * 2


def test_submits_that_are_lost_now_and_then_do_not_stop_the_rest(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(server_errors=2, fault_actions={"submit"})
    listeners.append(changing(sandbox, "submit", {}, {}, {"server_errors": 1}))
    run = run_dag(batch(FIVE, tmp_path))
    assert (run.state, run.errors) == ("success", [])
    assert [line.get("error_type") for line in manifest(tmp_path)] == [
        "LostSubmitError",
        "LostSubmitError",
        None,
        "LostSubmitError",
        None,
    ]


def test_if_all_submits_are_lost_the_error_names_no_remaining_edits(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(server_errors=3, fault_actions={"submit"})
    run = run_dag(batch(THREE, tmp_path))
    assert run.is_final
    assert "3 of 3 edits have no pictures: 3 LostSubmitError" in run.error


def test_edits_that_the_service_rejects_do_not_stop_the_others(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit: Any = OdiRouterHook.submit

    def spoil(hook: OdiRouterHook, endpoint: str, parameters: dict[str, Any], **options: Any) -> Any:
        spoiled = {"n": 99} if parameters["prompt"] in {"Green", "Black"} else {}
        return submit(hook, endpoint, parameters | spoiled, **options)

    monkeypatch.setattr(OdiRouterHook, "submit", spoil)
    run = run_dag(batch(FIVE, tmp_path, deferrable=True))
    assert (run.state, run.errors) == ("success", [])
    kinds = [line.get("error_type") for line in manifest(tmp_path)]
    assert kinds == [None, "RejectedError", None, None, "RejectedError"]
    assert phases(tmp_path) == ["landed", "failed", "landed", "landed", "failed"]


def test_a_rate_limit_is_waited_out(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    def lift(entry: JournalEntry) -> None:
        if entry.action == "submit" and entry.status_code == 429:
            sandbox.configure(rate_limit=None)

    sandbox.configure(rate_limit=3)
    listeners.append(lift)
    began = time.monotonic()
    run = run_dag(batch(FIVE, tmp_path))
    assert (run.state, run.errors) == ("success", [])
    assert time.monotonic() - began > 1
    codes = [entry.status_code for entry in sandbox.submits]
    assert codes.count(429) == 1
    assert sandbox.paid == 5


@anywhere
def test_no_more_requests_are_alive_at_once_than_is_allowed(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], clock: Clock, tmp_path: Path
) -> None:
    alive = []

    def end_two_at_once(entry: JournalEntry) -> None:
        alive.append(len(sandbox.alive))
        if alive[-1] >= 2:
            clock.skip(3)

    listeners.append(end_two_at_once)
    sandbox.configure(run_seconds=3)
    run = run_dag(batch(FIVE, tmp_path, max_in_flight=2, max_concurrent_submits=8, deferrable=deferrable))
    assert run.state == "success", run.errors
    assert run.xcom("edit")["succeeded"] == 5
    assert max(alive) == 2
    assert spent(sandbox) == (5, 0)


def test_edits_that_fail_at_the_submit_make_place_for_the_next(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(server_errors=2, fault_actions={"submit"})
    run = run_dag(batch(FIVE, tmp_path, max_in_flight=1))
    assert (run.state, run.errors) == ("success", [])
    assert run.xcom("edit")["succeeded"] == 3


def test_each_request_is_saved_before_the_next_edit_is_read(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    read = validate.parameters_of

    def note(item: BatchItem, rules: EndpointRules) -> Any:
        saved.append(" ".join(phases(tmp_path)))
        return read(item, rules)

    monkeypatch.setattr(validate, "parameters_of", note)
    assert run_dag(batch(THREE, tmp_path)).state == "success"
    assert [(one.count("planned"), one.count("submitting")) for one in saved] == [(3, 0), (2, 0), (1, 0)]


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_are_submitted_at_a_time_than_is_allowed(
    most: int, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit: Any = OdiRouterHook.submit
    under_way, seen, lock = [0], [], threading.Lock()

    def counting(*arguments: Any, **options: Any) -> Any:
        with lock:
            under_way[0] += 1
            seen.append(under_way[0])
        try:
            return submit(*arguments, **options)
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(OdiRouterHook, "submit", counting)
    sandbox.configure(latency_seconds=0.1)
    run = run_dag(batch(prompts(*map(str, range(9))), tmp_path, max_concurrent_submits=most))
    assert run.state == "success"
    assert max(seen) == most


def test_nothing_is_submitted_after_the_execution_timeout_passed_in_a_deferral(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Airflow does not enforce it there: each edit would be submitted, and cancelled at once."""
    began = []

    class Begun(OdiRouterImageEditBatchOperator):
        """
        Began a minute ago, but for the seconds that the submit takes.

        It keeps its start date after the deferral, as everywhere but in ``dag.test()``.
        """

        def execute(self, context: Any) -> Any:
            began.append(datetime.now(UTC) - timedelta(seconds=56))
            context["ti"].start_date = began[0]
            return super().execute(context)

        def execute_complete(self, context: Any, event: Any) -> Any:
            context["ti"].start_date = began[0]
            return super().execute_complete(context, event)

    sandbox.configure(run_seconds=60)
    run = run_dag(
        batch(
            THREE,
            tmp_path,
            Begun,
            deferrable=True,
            max_in_flight=1,
            execution_timeout=timedelta(minutes=1),
            retries=0,
        )
    )
    assert "2 of 3 edits were not submitted: The task's execution_timeout has passed." in run.error
    assert spent(sandbox) == (1, 1)
    assert [line.get("error_type") for line in manifest(tmp_path)] == ["RequestTimeoutError", None, None]


def test_an_edit_whose_picture_changed_after_the_check_waits_for_the_retry(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], pictures: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    for path in (one, two):
        path.write_bytes((pictures / "chelsea.png").read_bytes())

    def change(entry: JournalEntry) -> None:
        if entry.action == "submit":
            two.write_bytes((pictures / "coffee.png").read_bytes())

    listeners.append(change)
    edits = [{"images": str(path), "prompt": path.stem} for path in (one, two)]
    run = run_dag(batch(edits, tmp_path / "out", on_item_failure="fail"))
    assert "have changed since they were checked, and are not submitted" in run.error
    assert run.state == "success"
    assert submits(sandbox) == ["one", "two"]
