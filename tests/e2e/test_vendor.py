"""Whatever the vendor does, each task pays for one request, or for one more where only that can help."""

from __future__ import annotations

import time

import httpx
import pytest

from airflow_provider_odirouter.compat import TRIGGERER_CALLS_ON_KILL
from tests.e2e.trial import Trial

# So many find the race that they are about in any run; 40 do on the older Airflows, mostly, and 20 do not.
BURST = 60 if TRIGGERER_CALLS_ON_KILL else 40
POLLS = frozenset({"status", "result"})


@pytest.mark.run("edit")
def test_an_outage_of_forty_seconds_is_waited_out(trial: Trial) -> None:
    trial.wait_until_watched()
    trial.go_down()
    time.sleep(40)
    trial.go_up()

    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


@pytest.mark.run("edit")
def test_twenty_seconds_of_503_are_waited_out(trial: Trial) -> None:
    trial.wait_until_watched()
    trial.sandbox.configure(server_error_seconds=20)
    time.sleep(20)

    trial.let_requests_end()
    trial.wait_until_ended()
    assert trial.witness.answers(503)
    trial.check(submits=1, cancels=0, ends="success", remark=f"{trial.witness.answers(503)} answers 503")


@pytest.mark.run("edit", run_seconds=20, drop_every=3, fault_actions=POLLS)
def test_every_third_connection_may_break(trial: Trial) -> None:
    trial.wait_until_ended()
    assert trial.witness.answers(None)
    trial.check(submits=1, cancels=0, ends="success", remark=f"{trial.witness.answers(None)} broken connections")


@pytest.mark.run("edit_with_three_retries", run_seconds=1, error_type="CONTENT_BLOCKED")
def test_blocked_content_fails_at_once_whatever_the_retries(trial: Trial) -> None:
    trial.check(submits=1, cancels=0, ends="failed")
    assert [instance["try_number"] for instance in trial.instances] == [1]


@pytest.mark.run("edit_with_retry")
def test_a_request_that_another_party_cancels_is_submitted_again_by_the_retry(trial: Trial) -> None:
    trial.wait_until_watched()
    [request] = trial.witness.requests
    url = f"{trial.base_url}/v1/queue/gpt_image_1_edit/requests/{request.request_id}/cancel"
    httpx.put(url, headers={"Authorization": f"Bearer {trial.sandbox.settings.api_key}"}).raise_for_status()

    trial.wait_for(lambda: trial.sandbox.paid == 2, "the second submit")
    trial.let_requests_end()
    trial.check(submits=2, cancels=0, ends="success")


@pytest.mark.run("fifty_edits", run_seconds=0, rate_limit=2)
def test_a_rate_limit_makes_fifty_tasks_slow_but_pays_for_each_once(trial: Trial) -> None:
    trial.wait_until_ended()
    trial.check(submits=50, cancels=0, ends="50 success", remark=f"{trial.witness.answers(429)} answers 429")
    assert len({request.prompt for request in trial.witness.requests}) == 50


@pytest.mark.every_version
@pytest.mark.run(f"burst_of_{BURST}", run_seconds=3)
def test_a_burst_of_short_requests_ends_with_a_success_for_each(trial: Trial) -> None:
    trial.wait_until_ended()
    retried = [instance for instance in trial.instances if instance["try_number"] > 1]
    trial.check(submits=BURST, cancels=0, ends=f"{BURST} success", remark=f"{len(retried)} second tries")
    assert len({request.prompt for request in trial.witness.requests}) == BURST
    # On a machine that stands still for seconds, a worker reports its deferral after the trigger's event, and Airflow
    # fails that task: see FIRST_POLL_DELAY. Without the delay, it failed 23 of 60.
    assert len(retried) < BURST / 4
