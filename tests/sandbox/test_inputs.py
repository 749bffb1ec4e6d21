"""Inputs that a submit names by URL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

PICTURES = Path(__file__).parent.parent / "pictures"
EDIT = "/v1/queue/gpt_image_1_edit"
Edit = Callable[..., httpx.Response]
Wait = Callable[[float], None]


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """A web server with the test pictures, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("location", "/coffee.png")
                self.end_headers()
                return
            path = PICTURES / self.path[1:]
            data = b"\0" * 11_000_000 if self.path == "/big" else path.read_bytes() if path.is_file() else None
            self.send_response(404 if data is None else 200)
            self.end_headers()
            if data:
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def ended(edit: Edit, wait: Wait, client: httpx.Client) -> Callable[..., dict[str, Any]]:
    """Submits an edit, waits, and returns its last status."""

    def run(**parameters: Any) -> dict[str, Any]:
        submission = edit(**parameters).json()
        wait(10)
        body = client.get(f"{EDIT}/requests/{submission['request_id']}/status").json()
        assert isinstance(body, dict)
        return body

    return run


def test_a_url_on_loopback_is_fetched(web: str, finished: Callable[..., dict[str, Any]]) -> None:
    mask = f"{web}/coffee-mask.png".replace("127.0.0.1", "localhost")
    output = finished(images=[f"{web}/coffee.png"], mask=mask)["outputs"][0]
    assert (output["width"], output["height"]) == (600, 400)


def test_a_url_is_fetched_when_the_request_runs(edit: Edit, wait: Wait, client: httpx.Client) -> None:
    status = edit(images=["http://127.0.0.1:1/a.png"]).json()["status_url"]
    assert client.get(status).json()["status"] == "IN_QUEUE"
    wait(2)
    assert client.get(status).json()["status"] == "IN_PROGRESS"
    wait(8)
    assert client.get(status).json()["error_type"] == "REQUEST_INVALID"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing.png", "answered 404"),
        ("README.md", "is not a whole PNG, JPEG or WebP picture"),
        ("big", "has more than 10485760 bytes"),
        ("moved", "answered 302"),
    ],
)
def test_a_url_that_cannot_be_used_fails_the_request(
    path: str, reason: str, web: str, ended: Callable[..., dict[str, Any]]
) -> None:
    status = ended(images=[f"{web}/{path}"])
    assert (status["status"], status["error_type"]) == ("COMPLETED", "REQUEST_INVALID")
    assert reason in status["error"]


def test_a_url_that_takes_too_long_fails_the_request(
    web: str, ended: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(0, 1000, 6))
    monkeypatch.setattr("airflow_provider_odirouter.sandbox.inputs.time.monotonic", lambda: next(ticks))
    assert "took longer than 5 seconds" in ended(images=[f"{web}/coffee.png"])["error"]


def test_a_fetched_mask_must_have_the_size_of_its_picture(web: str, ended: Callable[..., dict[str, Any]]) -> None:
    status = ended(images=[f"{web}/coffee.png"], mask=f"{web}/coffee-mask-wrong-size.png")
    assert status["error"] == "mask: is 300x200, the image is 600x400"


def test_a_url_on_another_machine_gets_a_stand_in(
    finished: Callable[..., dict[str, Any]], anonymous: httpx.Client, pictured: Callable[..., str]
) -> None:
    urls = ["https://example.com/a.png?size=1", "https://example.com/b.png"]
    contents = [anonymous.get(finished(images=[url])["outputs"][0]["url"]).content for url in urls]
    assert contents[0] != contents[1]
    masked = finished(images=urls, mask=pictured("png", "RGBA"))["outputs"][0]
    assert (masked["width"], masked["height"]) == (1024, 1024)


def test_a_url_on_another_machine_is_fetched_if_configured(
    web: str, finished: Callable[..., dict[str, Any]], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_odirouter.sandbox.inputs.is_loopback", lambda _: False)
    assert finished(images=[f"{web}/coffee.png"])["outputs"][0]["width"] == 1024
    sandbox.configure(fetch_any_host=True)
    assert finished(images=[f"{web}/moved"])["outputs"][0]["width"] == 600


def test_a_result_can_be_the_input_of_the_next_request(
    finished: Callable[..., dict[str, Any]], encoded: Callable[[str], str], wait: Wait
) -> None:
    url = finished(images=[encoded("chelsea.png")])["outputs"][0]["url"]
    assert finished(images=[url])["outputs"][0]["width"] == 451
    wait(3600)
    assert finished(images=[url])["outputs"][0]["width"] == 1024


def test_a_request_that_is_set_to_fail_fetches_nothing(
    web: str, ended: Callable[..., dict[str, Any]], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_odirouter.sandbox.studio.fetch", None)
    sandbox.configure(error_type="INFERENCE_FAILURE")
    assert ended(images=[f"{web}/coffee.png"])["error_type"] == "INFERENCE_FAILURE"
