"""The sandbox without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

KEY = {"authorization": "Bearer sandbox-key"}


async def test_one_transport_serves_both_clients(sandbox: Sandbox, wait: Callable[[float], None]) -> None:
    transport = sandbox.transport()
    base = "https://odirouter.ai/model"
    with httpx.Client(transport=transport, base_url=base, headers=KEY) as client:
        submission = client.post("/v1/queue/gpt_image_2", json={"prompt": "x"}).json()  # noqa: ASYNC212
    assert submission["status_url"].startswith("https://odirouter.ai/model/")
    wait(10)
    async with httpx.AsyncClient(transport=transport, headers=KEY) as aclient:
        assert (await aclient.get(submission["status_url"])).json()["status"] == "COMPLETED"
        result = (await aclient.get(submission["response_url"])).json()
        file = await aclient.get(result["outputs"][0]["url"])
    assert len(file.content) == result["outputs"][0]["file_size"]


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"drop_next": 1, "drop_mode": "before"}, httpx.ReadError),
        ({"drop_next": 1, "drop_mode": "after"}, httpx.RemoteProtocolError),
        ({"drop_next": 1, "drop_mode": "half"}, httpx.RemoteProtocolError),
        ({"hang": True}, httpx.ReadTimeout),
    ],
)
async def test_connections_break_for_the_async_client_too(
    faults: dict[str, object], error: type[Exception], sandbox: Sandbox
) -> None:
    sandbox.configure(**faults)
    async with httpx.AsyncClient(transport=sandbox.transport(), headers=KEY) as client:
        with pytest.raises(error):
            await client.get("http://sandbox.test/model/v1/queue/gpt_image_1/requests/mmsu_x/status")
