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


def test_a_file_needs_no_key(url: str, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    answer = anonymous.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert Image.open(BytesIO(answer.content)).size == (40, 30)
    assert "/model/" not in url
    assert (sandbox.journal[-1].action, sandbox.journal[-1].authorization_sent) == ("file", False)


def test_head_returns_the_length_of_a_file(url: str, anonymous: httpx.Client) -> None:
    answer = anonymous.head(url)
    assert (answer.content, answer.headers["content-length"]) == (b"", anonymous.get(url).headers["content-length"])
    assert anonymous.post(url).status_code == 405


def test_a_forged_url_is_forbidden(url: str, anonymous: httpx.Client) -> None:
    forged = (url.replace("0.png", "1.png"), url.replace("expires=", "expires=9"), url.partition("?")[0])
    assert [anonymous.get(address).status_code for address in forged] == [403, 403, 403]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_url_expires_and_a_new_result_has_a_new_one(
    status: int, finished: Finished, wait: Wait, client: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.configure(file_expiry_seconds=60, file_expired_status=status)
    result = finished()
    url = result["outputs"][0]["url"]
    wait(60)
    assert anonymous.get(url).status_code == 200
    wait(1)
    assert anonymous.get(url).status_code == status
    fresh = client.get(f"{EDIT}/requests/{result['request_id']}/response").json()["outputs"][0]["url"]
    assert anonymous.get(fresh).status_code == 200


def test_a_reset_removes_files(url: str, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.reset()
    assert anonymous.get(url).status_code == 404


def test_files_of_many_requests_are_made_again_when_needed(
    url: str, anonymous: httpx.Client, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_odirouter.sandbox.studio._MAX_KEPT", 1)
    before = anonymous.get(url).content
    finished()
    assert anonymous.get(url).content == before


def test_pictures_are_made_once_and_only_when_asked_for(
    edit: Callable[..., httpx.Response],
    finished: Finished,
    anonymous: httpx.Client,
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
        anonymous.get(output["url"])
    assert made == [0, 1]


def test_a_file_can_be_missing_or_html(url: str, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(file_fault="404")
    assert anonymous.get(url).status_code == 404
    sandbox.configure(file_fault="html")
    assert anonymous.get(url).headers["content-type"] == "text/html"


def test_a_file_can_be_truncated(url: str, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(file_fault="truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        anonymous.get(url)


def test_a_file_can_lack_its_last_byte_or_all(url: str, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    whole = anonymous.get(url).content
    sandbox.configure(file_fault="cut", file_content_type="application/octet-stream")
    cut = anonymous.get(url)
    assert (cut.content, cut.headers["content-type"]) == (whole[:-1], "application/octet-stream")
    sandbox.configure(file_fault="empty")
    assert anonymous.get(url).content == b""


@pytest.mark.parametrize(
    ("file_format", "begin"),
    [("svg", b"<svg"), ("avif", b"\0\0\0 ftypavif"), ("tiff", b"II*"), ("bmp", b"BM"), ("mp4", b"\0\0\0\x18ftyp")],
)
def test_a_file_can_have_another_models_format(
    finished: Finished, anonymous: httpx.Client, sandbox: Sandbox, file_format: str, begin: bytes
) -> None:
    sandbox.configure(file_format=file_format)
    [output] = finished()["outputs"]
    file = anonymous.get(output["url"])
    assert file.content.startswith(begin)
    assert file.headers["content-type"] == output["content_type"]


def test_a_file_can_be_endless(url: str, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(file_fault="endless")
    with anonymous.stream("GET", url) as answer:
        received = 0
        for chunk in answer.iter_bytes():
            received += len(chunk)
            if received > 1_000_000:
                break
    assert "content-length" not in answer.headers


def test_a_file_can_be_slow(url: str, sandbox: Sandbox) -> None:
    slept: list[float] = []
    sandbox.configure(file_fault="slow", slow_seconds=4)
    with httpx.Client(transport=sandbox.transport(slept.append)) as client:
        assert client.get(url).status_code == 200
    assert slept == [4]


def test_faults_apply_to_files_only_if_configured(url: str, anonymous: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.configure(server_errors=1)
    assert anonymous.get(url).status_code == 200
    sandbox.configure(fault_actions=["file"])
    assert [anonymous.get(url).status_code for _ in range(2)] == [503, 200]
