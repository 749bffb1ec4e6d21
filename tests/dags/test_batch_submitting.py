"""How a batch submits: what stops it, what does not, and how many at once."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import BatchItem
from airflow_provider_odirouter.operators.batch import plan, submitting
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Listener, actions, spent
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

pytestmark = pytest.mark.usefixtures("look_at_once")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"api_key": "another"}, "refuses the API key"),
        ({"balance": 0}, "no balance"),
        ({"endpoints": ("other",)}, "does not know the endpoint"),
    ],
    ids=["key", "balance", "endpoint"],
)
def test_what_would_meet_every_edit_stops_the_rest_and_those_submitted_land(
    trouble: dict[str, Any],
    words: str,
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
) -> None:
    cure = {"api_key": "sandbox-key", "endpoints": ("gpt_image_1_edit",)}
    listeners.append(changing(sandbox, "submit", {}, trouble, cure))
    run = run_dag(batch(FIVE, tmp_path))
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
    sandbox.configure(balance=2)
    listeners.append(changing(sandbox, "status", {"balance": 3}))
    run = run_dag(batch(FIVE, tmp_path, deferrable=True))
    assert (run.state, run.errors) == ("success", [])
    assert submits(sandbox) == ["Red", "Green", "Blue", "White", "Black"]


@anywhere
def test_a_clear_goes_on_where_the_balance_ran_out(
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


def test_one_submit_whose_fate_is_unknown_stops_nothing(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(server_errors=1, fault_actions={"submit"})
    run = run_dag(batch(FIVE, tmp_path))
    assert (run.state, run.errors) == ("success", [])
    assert [line.get("error_type") for line in manifest(tmp_path)] == ["LostSubmitError", None, None, None, None]
    assert "its fate is unknown" in manifest(tmp_path)[0]["error"]


def test_three_in_a_row_stop_the_rest_which_the_retry_submits(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(server_errors=3, fault_actions={"submit"}, fault_after_effect=True)
    run = run_dag(batch(FIVE, tmp_path))
    assert run.error.startswith(
        "2 of 5 edits were not submitted: The submit to gpt_image_1_edit went out, but its fate"
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


def test_if_all_are_lost_none_is_said_to_be_left(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(server_errors=3, fault_actions={"submit"})
    run = run_dag(batch(THREE, tmp_path))
    assert run.is_final
    assert "3 of 3 edits have no pictures: 3 LostSubmitError" in run.error


def test_edits_that_the_service_rejects_do_not_stop_the_others(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit: Any = OdiRouterHook.submit

    def spoil(hook: OdiRouterHook, endpoint: str, parameters: dict[str, Any]) -> Any:
        return submit(hook, endpoint, parameters | ({"n": 99} if parameters["prompt"] in {"Green", "Black"} else {}))

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
    codes = [entry.status_code for entry in sandbox.journal if entry.action == "submit"]
    assert codes.count(429) == 1
    assert sandbox.paid == 5


@anywhere
def test_no_more_are_alive_at_once_than_is_allowed(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    alive = []
    listeners.append(lambda entry: alive.append(len(sandbox.alive)))
    sandbox.configure(run_seconds=0.5)
    run = run_dag(batch(FIVE, tmp_path, max_in_flight=2, max_concurrent_submits=8, deferrable=deferrable))
    assert run.state == "success", run.errors
    assert run.xcom("edit")["succeeded"] == 5
    assert max(alive) == 2
    assert spent(sandbox) == (5, 0)
    first = actions(sandbox).index("status")
    assert actions(sandbox)[:first].count("submit") == 2


def test_a_wave_whose_edits_all_fail_at_the_submit_is_followed_by_the_next(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.configure(server_errors=2, fault_actions={"submit"})
    run = run_dag(batch(FIVE, tmp_path, max_in_flight=1))
    assert (run.state, run.errors) == ("success", [])
    assert run.xcom("edit")["succeeded"] == 3


def test_each_request_is_noted_before_the_next_edit_is_even_read(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []
    read = plan.parameters_of

    def note(item: BatchItem) -> Any:
        noted.append(" ".join(phases(tmp_path)))
        return read(item)

    monkeypatch.setattr(submitting, "parameters_of", note)
    assert run_dag(batch(THREE, tmp_path)).state == "success"
    assert noted == ["planned planned planned", "submitted planned planned", "submitted submitted planned"]


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_are_submitted_at_a_time_than_is_allowed(
    most: int, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit: Any = OdiRouterHook.submit
    under_way, seen, lock = [0], [], threading.Lock()

    def counting(*arguments: Any) -> Any:
        with lock:
            under_way[0] += 1
            seen.append(under_way[0])
        try:
            return submit(*arguments)
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(OdiRouterHook, "submit", counting)
    sandbox.configure(latency_seconds=0.1)
    run = run_dag(batch(prompts(*map(str, range(9))), tmp_path, max_concurrent_submits=most))
    assert run.state == "success"
    assert max(seen) == most


def test_nothing_is_submitted_any_more_when_the_execution_timeout_has_passed_while_deferred(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Airflow does not enforce it there: each wave would be submitted, and cancelled at once."""
    began = []

    class Begun(OdiRouterImageEditBatchOperator):
        """Remembers when it began, as it does in all but ``dag.test()``."""

        def execute(self, context: Any) -> Any:
            began.append(context["ti"].start_date)
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
            # Enough for an Airflow that is not loaded yet.
            execution_timeout=timedelta(seconds=12),
            retries=0,
        )
    )
    assert "2 of 3 edits were not submitted: The task's execution_timeout is over." in run.error
    assert spent(sandbox) == (1, 1)
    assert [line.get("error_type") for line in manifest(tmp_path)] == ["RequestTimeoutError", None, None]


def test_an_edit_whose_picture_has_changed_since_the_check_is_not_submitted_but_by_the_retry(
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
