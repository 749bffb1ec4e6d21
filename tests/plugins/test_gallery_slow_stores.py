"""A store that never answers, and a connection that changes: Airflow's own API goes on beside the gallery."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from airflow_provider_odirouter.images.landing import stable_name
from airflow_provider_odirouter.plugins.gallery import files, manifests
from tests.dags.conftest import RunDag, edit
from tests.object_store import S3
from tests.plugins.batches import batch, manifest_of
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


Ask = Callable[[list[str]], list[httpx.Response]]


@pytest.fixture
def ask(server: str, visitor: Visitor) -> Ask:
    """Asks for all of these at once, and expects Airflow's own API to answer first."""
    cookies = dict(visitor("edit").client.cookies)
    answered: list[str] = []

    def get(path: str) -> httpx.Response:
        with httpx.Client(base_url=server, cookies=cookies, timeout=120, trust_env=False) as client:
            answer = client.get(path)
        answered.append(path)
        return answer

    def ask(paths: list[str]) -> list[httpx.Response]:
        with ThreadPoolExecutor(len(paths)) as pool:
            asked = [pool.submit(get, f"/odirouter{path}") for path in paths]
            # A second call comes when the first ones of the gallery certainly hold what they can hold.
            for _ in range(3):
                get("/odirouter/dags/edit/tasks/edit")
            assert get("/api/v2/dags/edit/dagRuns").status_code == 200
            answers = [future.result() for future in asked]
        assert answered[3] == "/api/v2/dags/edit/dagRuns"
        return answers

    return ask


@pytest.mark.parametrize("form", ["small", "whole"])
def test_a_store_that_never_answers_does_not_keep_airflows_own_api_from_answering(
    run_dag: RunDag, ask: Ask, black_hole: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    run = run_dag(edit(pictures, wait_for_completion=False))
    monkeypatch.setenv(f"AIRFLOW_CONN_HOLE_{form.upper()}", connection(black_hole))
    name = stable_name("edit", "edit", run.run.run_id)
    paths = [f"s3://hole_{form}@bucket/{name}-{index}.png" for index in range(MORE_THAN_THREADS)]
    outputs = [{"path": path, "sha256": "0" * 64} for path in paths]
    push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": outputs})
    answers = ask([path_of(run, rest=f"/outputs/{index}/{form}") for index in range(MORE_THAN_THREADS)])

    assert {answer.status_code for answer in answers} <= {502, 503}


def test_nor_does_the_store_of_a_manifest_which_all_who_ask_wait_for_together(
    run_dag: RunDag, ask: Ask, black_hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_dag(batch(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_HOLE_MANIFEST", connection(black_hole))
    place = f"s3://hole_manifest@bucket/{manifest_of(run).name}"
    push(run, "return_value", run.xcom("edit") | {"manifest": place})
    opened: list[str] = []

    def noting(place: str, **arguments: Any) -> Any:
        opened.append(place)
        return files.open_file(place, **arguments)

    monkeypatch.setattr(manifests, "open_file", noting)
    rests = ["", "/edits/1", "/edits/1/outputs/0/small"] * (MORE_THAN_THREADS // 3)
    answers = ask([path_of(run, rest=rest) for rest in rests])

    assert {answer.status_code for answer in answers[0::3]} == {200}
    assert {answer.status_code for answer in answers if answer not in answers[0::3]} <= {502, 503}
    assert all("cannot read" in answer.text or "too slow" in answer.text for answer in answers)
    assert len(opened) <= 2


def test_a_connection_that_was_corrected_is_used_without_a_new_start(
    run_dag: RunDag, browser: Browser, s3: S3, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_dag(edit(pictures, output_path=s3.url("out"), storage_conn_id=s3.conn_id))
    manifest = run.xcom("edit")
    [output] = manifest["outputs"]
    path = output["path"].replace(f"{s3.conn_id}@", "rotated@")
    push(run, "return_value", manifest | {"outputs": [output | {"path": path}]})

    monkeypatch.setenv("AIRFLOW_CONN_ROTATED", connection("http://127.0.0.1:9"))
    assert browser.get(path_of(run, rest="/outputs/0/whole")).status_code in {502, 503}
    monkeypatch.setenv("AIRFLOW_CONN_ROTATED", connection(s3.endpoint))
    monkeypatch.setattr(files, "now", lambda: 1e9)
    assert browser.get(path_of(run, rest="/outputs/0/whole")).status_code == 200
