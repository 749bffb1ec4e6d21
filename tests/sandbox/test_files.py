"""Result files."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_provider_odirouter.sandbox import Sandbox, pictures

EDIT = "/v1/queue/gpt_image_1_edit"
Finished = Callable[..., dict[str, Any]]
Wait = Callable[[float], None]


@pytest.fixture
def url(finished: Finished) -> str:
    return str(finished()["outputs"][0]["url"])


def test_a_file_needs_no_key(url: str, anybody: httpx.Client, sandbox: Sandbox) -> None:
    answer = anybody.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert Image.open(BytesIO(answer.content)).size == (40, 30)
    assert "/model/" not in url
    assert (sandbox.journal[-1].action, sandbox.journal[-1].authorization_sent) == ("file", False)


def test_a_files_length_can_be_asked_for(url: str, anybody: httpx.Client) -> None:
    answer = anybody.head(url)
    assert (answer.content, answer.headers["content-length"]) == (b"", anybody.get(url).headers["content-length"])
    assert anybody.post(url).status_code == 405


def test_a_forged_url_is_forbidden(url: str, anybody: httpx.Client) -> None:
    forged = (url.replace("0.png", "1.png"), url.replace("expires=", "expires=9"), url.partition("?")[0])
    assert [anybody.get(address).status_code for address in forged] == [403, 403, 403]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_url_expires_and_the_result_has_a_fresh_one(
    status: int, finished: Finished, wait: Wait, client: httpx.Client, anybody: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.configure(file_expiry_seconds=60, file_gone_status=status)
    result = finished()
    url = result["outputs"][0]["url"]
    wait(60)
    assert anybody.get(url).status_code == 200
    wait(1)
    assert anybody.get(url).status_code == status
    fresh = client.get(f"{EDIT}/requests/{result['request_id']}/response").json()["outputs"][0]["url"]
    assert anybody.get(fresh).status_code == 200


def test_files_are_forgotten_with_their_request(url: str, anybody: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.reset()
    assert anybody.get(url).status_code == 404


def test_files_of_many_requests_are_made_again_when_needed(
    url: str, anybody: httpx.Client, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_odirouter.sandbox.studio._KEPT", 1)
    before = anybody.get(url).content
    finished()
    assert anybody.get(url).content == before


def test_pictures_are_made_once_and_only_when_asked_for(
    edit: Callable[..., httpx.Response],
    finished: Finished,
    anybody: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    def count(*inputs: Any, **options: Any) -> Any:
        made.append(options["number"])
        return pictures.edit(*inputs, **options)

    monkeypatch.setattr("airflow_provider_odirouter.sandbox.studio.edit", count)
    edit()
    result = finished(n=2)
    for output in result["outputs"]:
        anybody.get(output["url"])
    assert made == [0, 1]


def test_a_file_may_be_missing_or_a_page(url: str, anybody: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(file_fault="404")
    assert anybody.get(url).status_code == 404
    sandbox.configure(file_fault="html")
    assert anybody.get(url).headers["content-type"] == "text/html"


def test_a_file_may_end_half_way(url: str, anybody: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(file_fault="truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        anybody.get(url)


def test_a_file_may_never_end(url: str, anybody: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(file_fault="endless")
    with anybody.stream("GET", url) as answer:
        received = 0
        for chunk in answer.iter_bytes():
            received += len(chunk)
            if received > 1_000_000:
                break
    assert "content-length" not in answer.headers


def test_a_file_may_trickle(url: str, sandbox: Sandbox) -> None:
    slept: list[float] = []
    sandbox.configure(file_fault="slow", slow_seconds=4)
    with httpx.Client(transport=sandbox.transport(slept.append)) as client:
        assert client.get(url).status_code == 200
    assert slept == [4]


def test_faults_strike_files_only_when_told_to(url: str, anybody: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(server_errors=1)
    assert anybody.get(url).status_code == 200
    sandbox.configure(fault_actions=["file"])
    assert [anybody.get(url).status_code for _ in range(2)] == [503, 200]
