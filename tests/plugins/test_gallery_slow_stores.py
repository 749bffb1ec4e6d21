"""A store that never answers, and a connection that changes: Airflow's own API goes on beside the gallery."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from airflow_provider_odirouter.images.landing import stable_name
from tests.dags.conftest import RunDag, edit
from tests.object_store import S3
from tests.plugins.conftest import Browser, Visitor, path_of, push

pytestmark = pytest.mark.xdist_group("api server")

MORE_THAN_THREADS = 45
"""AnyIO lends 40 threads to all routes of the server together."""


@pytest.fixture
def server(airflow_app: Any) -> Iterator[str]:
    """The API server on a real socket, with one event loop for all calls."""
    config = uvicorn.Config(airflow_app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A host that takes every connection, and never answers."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(500)
        yield f"http://127.0.0.1:{hole.getsockname()[1]}"


def connection(endpoint: str) -> str:
    # One try, so that a test does not wait for a client's patience.
    patience = {"config_kwargs": {"retries": {"max_attempts": 0}, "read_timeout": 5, "connect_timeout": 5}}
    extra = {"endpoint_url": endpoint, "region_name": "eu-central-1", **patience}
    return json.dumps({"conn_type": "aws", "login": "root", "password": "of-all", "extra": extra})


@pytest.mark.parametrize("form", ["small", "whole"])
def test_a_store_that_never_answers_does_not_keep_airflows_own_api_from_answering(
    run_dag: RunDag,
    visitor: Visitor,
    server: str,
    black_hole: str,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    run = run_dag(edit(pictures, wait_for_completion=False))
    monkeypatch.setenv(f"AIRFLOW_CONN_HOLE_{form.upper()}", connection(black_hole))
    name = stable_name("edit", "edit", run.run.run_id)
    paths = [f"s3://hole_{form}@bucket/{name}-{index}.png" for index in range(MORE_THAN_THREADS)]
    outputs = [{"path": path, "sha256": "0" * 64} for path in paths]
    push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": outputs})
    answered: list[str] = []

    def ask(index: int) -> int:
        with httpx.Client(base_url=server, cookies=cookies, timeout=120, trust_env=False) as client:
            code = client.get("/odirouter" + path_of(run, rest=f"/outputs/{index}/{form}")).status_code
        answered.append("picture")
        return code

    cookies = dict(visitor("edit").client.cookies)
    with ThreadPoolExecutor(MORE_THAN_THREADS) as pool:
        asked = [pool.submit(ask, index) for index in range(MORE_THAN_THREADS)]
        with httpx.Client(base_url=server, cookies=cookies, timeout=120, trust_env=False) as client:
            # A second call comes when the first ones of the pictures certainly hold what they can hold.
            for _ in range(3):
                client.get(f"/odirouter{path_of(run)}")
            assert client.get("/api/v2/dags/edit/dagRuns").status_code == 200
        answered.append("airflow")
        codes = {future.result() for future in asked}

    assert answered[0] == "airflow"
    assert codes <= {502, 503}


def test_a_connection_that_was_corrected_is_used_without_a_new_start(
    run_dag: RunDag, browser: Browser, s3: S3, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_odirouter.plugins.gallery import pictures as gallery

    run = run_dag(edit(pictures, output_path=s3.url("out"), storage_conn_id=s3.conn_id))
    manifest = run.xcom("edit")
    [output] = manifest["outputs"]
    path = output["path"].replace(f"{s3.conn_id}@", "rotated@")
    push(run, "return_value", manifest | {"outputs": [output | {"path": path}]})

    monkeypatch.setenv("AIRFLOW_CONN_ROTATED", connection("http://127.0.0.1:9"))
    assert browser.get(path_of(run, rest="/outputs/0/whole")).status_code in {502, 503}
    monkeypatch.setenv("AIRFLOW_CONN_ROTATED", connection(s3.endpoint))
    monkeypatch.setattr(gallery, "now", lambda: 1e9, raising=False)
    assert browser.get(path_of(run, rest="/outputs/0/whole")).status_code == 200
