"""Control over HTTP, and the settings."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from pydantic import ValidationError

from airflow_provider_odirouter.sandbox import Sandbox, SandboxSettings

Edit = Callable[..., httpx.Response]


def test_settings_are_read_and_changed(anonymous: httpx.Client, sandbox: Sandbox) -> None:
    assert anonymous.get("/sandbox/settings").json()["run_seconds"] == 8
    answer = anonymous.patch("/sandbox/settings", json={"run_seconds": [2, 6], "fault_actions": ["status"]})
    assert (answer.status_code, answer.json()["run_seconds"]) == (200, [2, 6])
    assert (sandbox.settings.run_seconds, sandbox.settings.queue_seconds) == ((2, 6), 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"nonsense": 1}', "Extra inputs are not permitted"),
        ('{"run_seconds": [6, 2]}', "ends before it begins"),
        ('{"run_seconds": -1, "hang": true}', "greater than or equal to 0"),
        ('{"fail_first": 1}', "fail_first needs an error_type"),
        ("[1]", "not a JSON object"),
        ("{", "not a JSON object"),
    ],
)
def test_bad_settings_are_refused_with_the_reason_and_change_nothing(
    content: str, reason: str, anonymous: httpx.Client, sandbox: Sandbox
) -> None:
    before = sandbox.settings
    answer = anonymous.patch("/sandbox/settings", content=content)
    assert answer.status_code == 422
    assert reason in answer.text
    assert sandbox.settings == before


def test_the_journal_is_read_and_cleared(edit: Edit, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    edit()
    (entry,) = anonymous.get("/sandbox/journal").json()
    assert (entry["action"], entry["status_code"], entry["body"]["prompt"]) == ("submit", 200, "A blue cup")
    assert entry["user_agent"].startswith("python-httpx")
    assert anonymous.delete("/sandbox/journal").status_code == 204
    assert sandbox.journal == []
    assert sandbox.paid == 1


def test_requests_are_listed_until_a_reset(edit: Edit, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    request_id = edit().json()["request_id"]
    (request,) = anonymous.get("/sandbox/requests").json()
    assert (request["request_id"], request["state"]) == (request_id, "IN_QUEUE")
    assert anonymous.post("/sandbox/reset").status_code == 204
    assert sandbox.requests == []


def test_a_control_call_with_a_wrong_method_is_refused(anonymous: httpx.Client) -> None:
    assert anonymous.post("/sandbox/settings").status_code == 405
    assert anonymous.get("/sandbox/reset").status_code == 405


def test_control_calls_do_not_fail_and_are_not_recorded(anonymous: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(hang=True, fault_actions=["submit", "status", "result", "cancel", "file", "other"])
    assert anonymous.get("/sandbox/settings").status_code == 200
    assert sandbox.journal == []


def test_settings_can_be_an_object_or_names() -> None:
    settings = SandboxSettings(run_seconds=1, queue_seconds="2 - 2.5", latency_seconds="1e-3")
    sandbox = Sandbox(settings, run_seconds=3)
    assert sandbox.settings == settings.model_copy(update={"run_seconds": 3})
    assert (sandbox.settings.queue_seconds, sandbox.settings.latency_seconds) == ((2, 2.5), 0.001)
    with pytest.raises(ValidationError):
        sandbox.configure(api_key="")


def test_every_setting_is_described() -> None:
    assert all(field.description for field in SandboxSettings.model_fields.values())
