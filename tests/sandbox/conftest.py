from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_provider_odirouter.sandbox import Sandbox

PICTURES = Path(__file__).parent.parent / "pictures"
KEY = {"authorization": "Bearer sandbox-key"}
EDIT = "/v1/queue/gpt_image_1_edit"


@pytest.fixture
def _paint_once() -> None:
    """Paint as ever: here, this is what is tested."""


@pytest.fixture
def now() -> list[float]:
    """The sandbox's clock: a list whose only number is the time."""
    return [1_800_000_000.0]


@pytest.fixture
def wait(now: list[float]) -> Callable[[float], None]:
    def pass_time(seconds: float) -> None:
        now[0] += seconds

    return pass_time


@pytest.fixture
def sandbox(now: list[float]) -> Sandbox:
    return Sandbox(clock=lambda: now[0], queue_seconds=2, run_seconds=8)


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """A client with the right key."""
    with httpx.Client(transport=sandbox.transport(), base_url="http://sandbox.test/model", headers=KEY) as client:
        yield client


@pytest.fixture
def anonymous(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """A client without a key, as files are fetched."""
    with httpx.Client(transport=sandbox.transport(), base_url="http://sandbox.test") as client:
        yield client


@pytest.fixture
def encoded() -> Callable[[str], str]:
    """Reads a test picture as base64."""
    return lambda name: base64.b64encode((PICTURES / name).read_bytes()).decode()


@pytest.fixture
def pictured() -> Callable[..., str]:
    """Writes a picture of one colour as base64."""

    def write(file_format: str = "png", mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> str:
        buffer = BytesIO()
        Image.new(mode, size).save(buffer, file_format, **options)
        return base64.b64encode(buffer.getvalue()).decode()

    return write


@pytest.fixture
def edit(client: httpx.Client, pictured: Callable[..., str]) -> Callable[..., httpx.Response]:
    """Submits a small edit."""

    def submit(headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
        body = {"prompt": "A blue cup", "images": [pictured()], **parameters}
        return client.post(EDIT, json=body, headers=headers)

    return submit


@pytest.fixture
def finished(
    edit: Callable[..., httpx.Response], wait: Callable[[float], None], client: httpx.Client
) -> Callable[..., dict[str, Any]]:
    """Submits a small edit, waits until it has ended, and returns its result."""

    def run(headers: dict[str, str] | None = None, **parameters: Any) -> dict[str, Any]:
        submission = edit(headers, **parameters).json()
        wait(10)
        body = client.get(f"{EDIT}/requests/{submission['request_id']}/response").json()
        assert isinstance(body, dict)
        return body

    return run
