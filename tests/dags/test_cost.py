"""What a task costs by the prices of its connection: an estimate before, a sum after, and a run that pays nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import Listener, actions, spent
from tests.dags.batches import FIVE, THREE, batch, changing, landed, manifest, phases, prompts
from tests.dags.conftest import RunDag, anywhere, edit

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

PRICES = {"gpt_image_1_edit": {"auto": 0.1, "high": 0.19}}


@pytest.fixture
def price(conn_id: str, base_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the prices of the connection."""

    def set_prices(prices: Any) -> None:
        connection: dict[str, Any] = {"conn_type": "odirouter", "password": "sandbox-key", "host": base_url}
        connection["extra"] = {"prices": prices}
        monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", json.dumps(connection))

    return set_prices


@anywhere
def test_the_manifest_has_the_price_of_all_submits(
    deferrable: bool,
    run_dag: RunDag,
    price: Any,
    sandbox: Sandbox,
    pictures: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    price(PRICES)
    sandbox.configure(error_type="INFERENCE_FAILURE", fail_first=1)
    run = run_dag(edit(pictures, n=2, quality="high", deferrable=deferrable, output_path=str(tmp_path)))
    assert (run.xcom("edit")["submits"], run.xcom("edit")["cost"]) == (2, 0.76)
    assert "By the prices of the connection, the request costs about 0.38." in caplog.text
    assert "This task has spent, in all its tries: 2 submits, about 0.76." in caplog.text


def test_a_quality_without_a_price_has_no_cost(run_dag: RunDag, price: Any, pictures: Path, tmp_path: Path) -> None:
    price(PRICES)
    run = run_dag(edit(pictures, quality="low", output_path=str(tmp_path)))
    assert (run.state, run.xcom("edit")["cost"]) == ("success", None)


def test_the_limit_says_what_was_paid(
    run_dag: RunDag, price: Any, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    price(PRICES)
    sandbox.configure(error_type="INFERENCE_FAILURE")
    run = run_dag(edit(pictures, max_submits=1, output_path=str(tmp_path)))
    assert "in all its tries: 1 submit, about 0.10." in str(run.errors[1])


@anywhere
def test_a_batch_says_what_it_will_cost_and_what_it_has_cost(
    deferrable: bool,
    run_dag: RunDag,
    price: Any,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    price(PRICES)
    edits = [*prompts("Red"), prompts("Green")[0] | {"quality": "high", "n": 2}]
    run = run_dag(batch(edits, tmp_path, deferrable=deferrable))
    assert (run.xcom("edit")["submits"], run.xcom("edit")["cost"]) == (2, 0.48)
    assert [line["cost"] for line in manifest(tmp_path)] == [0.1, 0.38]
    assert run.xcom("edit", "odirouter_batch")["cost"] == 0.48
    assert "By the prices of the connection, this costs about 0.48." in caplog.text


def test_edits_without_a_price_are_named(
    run_dag: RunDag, price: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    price(PRICES)
    run = run_dag(batch([*prompts("Red"), prompts("Green")[0] | {"quality": "low"}], tmp_path))
    assert run.xcom("edit")["cost"] is None
    assert (
        "this costs about 0.10, without those that have no price there (gpt_image_1_edit: 1 with quality 'low')."
        in caplog.text
    )


def test_without_prices_nothing_is_said_of_money(
    run_dag: RunDag, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_dag(batch(THREE, tmp_path))
    assert run.xcom("edit")["cost"] is None
    assert "By the prices" not in caplog.text


@pytest.mark.parametrize(
    "prices", ["cheap", {"gpt_image_1_edit": "0.1"}, {"gpt_image_1_edit": {"high": None}}], ids=str
)
def test_prices_that_are_no_numbers_end_the_task_before_anything_is_paid(
    prices: Any, run_dag: RunDag, price: Any, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    price(prices)
    run = run_dag(edit(pictures, output_path=str(tmp_path)))
    assert run.is_final
    assert "The connection 'odirouter_default' cannot be used: its prices must" in run.error
    assert not sandbox.journal


def test_the_test_button_tells_of_prices_that_are_no_numbers(price: Any) -> None:
    price({"gpt_image_1_edit": "much"})
    works, message = OdiRouterHook().test_connection()
    assert not works
    assert "its prices must have a number from 0 to 1,000,000 for gpt_image_1_edit, not 'much'." in message


def test_the_test_button_accepts_prices_as_the_form_sends_them(price: Any) -> None:
    price(json.dumps(PRICES))
    assert OdiRouterHook().test_connection()[0]
    assert OdiRouterHook().settings.prices.spending("gpt_image_1_edit", {}) == (1, 0.1)


# --- dry_run


def test_a_dry_run_says_what_a_batch_would_cost_and_pays_nothing(
    run_dag: RunDag, price: Any, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    price(PRICES)
    run = run_dag(batch(FIVE, tmp_path, dry_run=True))
    assert run.state_of("edit") == ["skipped"]
    assert spent(sandbox) == (0, 0)
    assert actions(sandbox) == ["status"], "the key is checked"
    assert run.xcom("edit", "odirouter_dry_run") == {
        "edits": 5,
        "to_submit": 5,
        "cost": 0.5,
        "spent": {"submits": 0, "cost": 0.0},
    }
    assert (
        "Dry run: of 5 edits, 5 would be submitted; nothing was. By the prices of the connection, this costs about "
        "0.50." in caplog.text
    )
    assert not list(tmp_path.rglob("*.json*")), "no state, no manifest"


def test_a_dry_run_reports_the_same_bad_edits_as_a_real_one(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    run = run_dag(batch([*THREE, {"prompt": "White", "images": str(tmp_path / "no.png")}], tmp_path, dry_run=True))
    assert run.is_final
    assert "no.png" in run.error
    assert not sandbox.journal


def test_a_dry_run_finds_a_wrong_key(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(api_key="another")
    run = run_dag(batch(THREE, tmp_path, dry_run=True))
    assert run.is_final
    assert "refuses the API key" in run.error


def test_a_dry_run_says_that_max_submits_is_too_low(
    run_dag: RunDag, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dag(batch(FIVE, tmp_path, dry_run=True, max_submits=3))
    assert "max_submits allows 3 of them. Spent so far: 0 submits." in caplog.text


class DryRetry:
    """Makes the second try a dry run."""

    def __call__(self, context: Any) -> None:
        if context["ti"].try_number == 2:
            context["task"].dry_run = True


def test_a_dry_run_after_an_earlier_try_counts_what_is_left_and_changes_nothing(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE", fail_first=1)
    listeners.append(changing(sandbox, "file", {"file_fault": "html"}))
    run = run_dag(batch(THREE, tmp_path, pre_execute=DryRetry(), on_item_failure="fail"))
    assert run.state_of("edit") == ["skipped"]
    report = run.xcom("edit", "odirouter_dry_run")
    assert (report["edits"], report["to_submit"], report["spent"]["submits"]) == (3, 1, 3)
    assert phases(tmp_path) == ["failed", "landed", "succeeded"]
    assert spent(sandbox) == (3, 0)
    assert len(landed(tmp_path)) == 1


def test_a_dry_run_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dry_run must be True or False"):
        batch(THREE, tmp_path, dry_run="False")
