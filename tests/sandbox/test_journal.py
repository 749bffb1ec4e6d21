"""The sandbox's record of the calls."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx
import pytest

from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox, journal

EDIT = "/v1/queue/gpt_image_1_edit"


def test_every_call_is_recorded(
    edit: Callable[..., httpx.Response],
    client: httpx.Client,
    anonymous: httpx.Client,
    sandbox: Sandbox,
    wait: Callable[[float], None],
    now: list[float],
) -> None:
    start = now[0]
    request_id = edit({"user-agent": "me/1"}).json()["request_id"]
    wait(10)
    client.get(f"{EDIT}/requests/{request_id}/status", params={"logs": 1})
    result = client.get(f"{EDIT}/requests/{request_id}/response").json()
    client.put(f"{EDIT}/requests/{request_id}/cancel")
    anonymous.get(result["outputs"][0]["url"])
    anonymous.get("/model/v1/nothing", headers={"authorization": "Bearer wrong"})
    entries = sandbox.journal
    assert [(entry.action, entry.status_code) for entry in entries] == [
        ("submit", 200),
        ("status", 200),
        ("result", 200),
        ("cancel", 400),
        ("file", 200),
        ("other", 401),
    ]
    assert [entry.authorized for entry in entries] == [True] * 4 + [False] * 2
    assert [entry.authorization_sent for entry in entries] == [True] * 4 + [False, True]
    assert {entry.request_id for entry in entries[:5]} == {request_id}
    assert {entry.endpoint for entry in entries[:4]} == {"gpt_image_1_edit"}
    assert (entries[1].at, entries[1].method, entries[1].query) == (start + 10, "GET", "logs=1")
    assert entries[1].path == f"/model{EDIT}/requests/{request_id}/status"
    assert entries[0].user_agent == "me/1"


def test_submits_and_cancels_are_those_calls_also_without_success(
    edit: Callable[..., httpx.Response], client: httpx.Client, sandbox: Sandbox
) -> None:
    request_id = edit().json()["request_id"]
    edit(size="huge")
    client.put(f"{EDIT}/requests/{request_id}/cancel")
    client.put(f"{EDIT}/requests/unknown/cancel")
    client.get(f"{EDIT}/requests/{request_id}/status")

    assert [(entry.status_code, entry.request_id) for entry in sandbox.submits] == [(200, request_id), (422, None)]
    assert [(entry.status_code, entry.request_id) for entry in sandbox.cancels] == [
        (202, request_id),
        (404, "unknown"),
    ]
    assert (sandbox.paid, sandbox.alive) == (1, [])


def test_the_key_is_masked(client: httpx.Client, sandbox: Sandbox) -> None:
    client.get("/", headers={"x-copy": "key=sandbox-key"})
    assert "sandbox-key" not in str(sandbox.journal)


def test_pictures_in_a_submit_are_abbreviated(
    edit: Callable[..., httpx.Response], encoded: Callable[[str], str], sandbox: Sandbox
) -> None:
    edit(images=[encoded("coffee.png"), "https://example.com/a.png"], n=2, prompt="words " * 100)
    body = {
        "prompt": "words " * 100,
        "images": ["iVBORw0KGgoAAAAN… (622276 characters)", "https://example.com/a.png"],
        "n": 2,
    }
    assert sandbox.journal[0].body == sandbox.requests[0].parameters == body
    edit(images=["data:image/png;base64," + "A" * 500])
    assert sandbox.journal[1].body["images"] == ["data:image/png;b… (522 characters)"]


def test_the_journal_keeps_the_latest_calls_only() -> None:
    kept = journal.Journal()
    entry = JournalEntry(0, "other", "GET", "/", "", {}, False, False, None, None, 200)
    for _ in range(100_001):
        kept.write(entry)
    assert len(kept.read()) == 100_000


def test_the_journal_can_be_read_during_calls(sandbox: Sandbox, client: httpx.Client) -> None:
    writers = [threading.Thread(target=lambda: [client.get("/") for _ in range(50)]) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert all(entry.action == "other" for entry in sandbox.journal)
    assert len(sandbox.journal) == 100


def test_on_call_receives_each_entry() -> None:
    received: list[JournalEntry] = []
    sandbox = Sandbox(on_call=received.append)
    with httpx.Client(transport=sandbox.transport()) as client:
        client.get("http://sandbox.test/model")
    assert received == sandbox.journal


def test_a_call_with_a_broken_body_is_recorded(client: httpx.Client, sandbox: Sandbox) -> None:
    client.post(EDIT, content=b"no json")
    assert sandbox.journal[0].body is None


@pytest.mark.parametrize("value", ["short", "A sentence of many words. " * 20, 7, None])
def test_only_pictures_are_abbreviated(value: object) -> None:
    assert journal.abbreviate({"key": [value]}) == {"key": [value]}
