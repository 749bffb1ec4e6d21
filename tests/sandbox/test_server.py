"""The sandbox on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from airflow_provider_odirouter.sandbox import Sandbox, SandboxServer

KEY = {"authorization": "Bearer sandbox-key"}
UNKNOWN = "/v1/queue/gpt_image_1_edit/requests/mmsu_x/status"
MODEL = "/v1/queue/nano_banana_2"


@pytest.fixture
def here() -> Sandbox:
    return Sandbox(queue_seconds=0, run_seconds=0)


@pytest.fixture
def server(here: Sandbox) -> Iterator[SandboxServer]:
    with here.serve() as server:
        yield server


@pytest.fixture
def http(server: SandboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, headers=KEY, timeout=5, trust_env=False) as http:
        yield http


@pytest.fixture
def file_url(http: httpx.Client) -> str:
    submission = http.post(MODEL, json={"size": "320x240"}).json()
    return str(http.get(submission["response_url"]).json()["outputs"][0]["url"])


def test_a_request_goes_from_submit_to_file(
    http: httpx.Client, server: SandboxServer, encoded: Callable[[str], str]
) -> None:
    body = {"prompt": "A blue cup", "images": [encoded("coffee.png")] * 4, "mask": encoded("coffee-mask.png")}
    submission = http.post("/v1/queue/gpt_image_1_edit", json=body).json()
    assert submission["status_url"].startswith(f"{server.base_url}/v1/queue/gpt_image_1_edit/requests/mmsu_")
    assert http.get(submission["status_url"]).json()["status"] == "COMPLETED"
    (output,) = http.get(submission["response_url"]).json()["outputs"]
    file = httpx.get(output["url"], trust_env=False)
    assert file.headers["content-type"] == "image/png"
    assert file.headers["content-length"] == str(len(file.content)) == str(output["file_size"])
    assert httpx.head(output["url"], trust_env=False).headers["content-length"] == str(output["file_size"])
    assert http.put(submission["cancel_url"]).json() == {"status": "ALREADY_COMPLETED"}


@pytest.mark.parametrize(
    ("mode", "error", "paid"),
    [
        ("before", httpx.ReadError, 0),
        ("after", httpx.RemoteProtocolError, 1),
        ("half", httpx.RemoteProtocolError, 1),
    ],
)
def test_a_connection_breaks_as_it_does_in_process(
    mode: str, error: type[Exception], paid: int, http: httpx.Client, here: Sandbox
) -> None:
    here.configure(drop_next=1, drop_mode=mode)
    with pytest.raises(error):
        http.post(MODEL, json={})
    assert here.paid == paid
    assert http.get(UNKNOWN).status_code == 404
    assert [entry.status_code for entry in here.journal] == [None, 404]


def test_a_call_hangs_until_the_caller_disconnects(http: httpx.Client, here: Sandbox, server: SandboxServer) -> None:
    idle = len(asyncio.all_tasks(server._loop))
    here.configure(hang=True)
    with pytest.raises(httpx.ReadTimeout):
        http.get(UNKNOWN, timeout=0.05)
    until = time.monotonic() + 30
    while len(asyncio.all_tasks(server._loop)) > idle and time.monotonic() < until:
        time.sleep(0.001)
    assert len(asyncio.all_tasks(server._loop)) == idle
    here.configure(hang=False)
    assert http.get(UNKNOWN).status_code == 404


def test_the_server_stops_while_calls_hang(here: Sandbox) -> None:
    here.configure(hang=True)
    with here.serve() as server:
        caller = socket.create_connection(("127.0.0.1", server.port))
        caller.sendall(f"GET /model{UNKNOWN} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while not here.journal:
            time.sleep(0.001)
    assert caller.recv(1) == b""
    caller.close()


def test_a_hanging_call_does_not_delay_others(here: Sandbox, server: SandboxServer) -> None:
    async def poll() -> list[int]:
        async with httpx.AsyncClient(base_url=server.base_url, headers=KEY, trust_env=False) as client:
            here.configure(hang=True, fault_actions=["result"])
            hanging = asyncio.create_task(client.get(UNKNOWN.replace("status", "response")))
            codes = [(await client.get(UNKNOWN)).status_code for _ in range(3)]
            hanging.cancel()
            return codes

    assert asyncio.run(poll()) == [404] * 3


def test_latency_is_real(http: httpx.Client, here: Sandbox) -> None:
    here.configure(latency_seconds=0.1)
    start = time.monotonic()
    http.get(UNKNOWN)
    assert time.monotonic() - start >= 0.1


def test_an_endless_file_stops_when_the_caller_disconnects(file_url: str, http: httpx.Client, here: Sandbox) -> None:
    here.configure(file_fault="endless")
    received = 0
    with httpx.stream("GET", file_url, trust_env=False) as answer:
        for chunk in answer.iter_bytes():
            received += len(chunk)
            if received > 20_000_000:
                break
    assert http.get(UNKNOWN).status_code == 404


def test_a_truncated_file_breaks_off(file_url: str, here: Sandbox) -> None:
    here.configure(file_fault="truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        httpx.get(file_url, trust_env=False)


def test_a_slow_file_arrives_in_the_end(file_url: str, here: Sandbox) -> None:
    whole = httpx.get(file_url, trust_env=False).content
    here.configure(file_fault="slow", slow_seconds=0.2)
    start = time.monotonic()
    assert httpx.get(file_url, trust_env=False).content == whole
    assert time.monotonic() - start >= 0.2


def test_control_works_over_the_socket(server: SandboxServer, here: Sandbox) -> None:
    answer = httpx.patch(f"{server.origin}/sandbox/settings", json={"balance": 3}, trust_env=False)
    assert answer.json()["balance"] == here.balance == 3


def test_submits_from_many_threads_are_paid_once_each(http: httpx.Client, here: Sandbox) -> None:
    here.configure(balance=50)
    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(lambda _: http.post(MODEL, json={}).status_code, range(60)))
    assert (codes.count(200), codes.count(402), here.paid, here.balance) == (50, 10, 50, 0)


def test_a_busy_port_is_an_error(server: SandboxServer) -> None:
    with pytest.raises(OSError, match="in use"), Sandbox().serve(port=server.port):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", ""])
def test_it_serves_on_loopback_only(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        Sandbox().serve(host)


def test_it_serves_on_ipv6_too() -> None:
    with Sandbox().serve("::1") as server:
        assert server.base_url == f"http://[::1]:{server.port}/model"
        assert httpx.get(f"{server.base_url}{UNKNOWN}", trust_env=False).status_code == 401


def test_the_server_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with Sandbox().serve() as server:
        httpx.get(server.base_url, trust_env=False)
        assert threading.active_count() > before
    assert threading.active_count() == before
