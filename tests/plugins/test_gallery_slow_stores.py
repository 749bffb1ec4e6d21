"""A store that never answers, and a connection that changes: the rest of Airflow's API is not affected."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import uvicorn

from airflow_provider_odirouter.images.landing import stable_name
from airflow_provider_odirouter.images.preview import thumbnail
from airflow_provider_odirouter.plugins.gallery import edits, files
from airflow_provider_odirouter.plugins.gallery import threads as gallery_threads
from airflow_provider_odirouter.storage.threads import TooSlowError
from tests.dags.conftest import RunDag, edit
from tests.object_store import S3
from tests.plugins.batches import batch, manifest_of
from tests.plugins.conftest import Browser, Visitor, path_of, push

MORE_THAN_THREADS = 45
"""AnyIO shares 40 threads among all routes of the server."""


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
def black_hole() -> Iterator[socket.socket]:
    """A host that takes every connection and answers none; when it is closed, they end."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as hole:
        yield hole


def connection(endpoint: str) -> str:
    # One try, so that a test does not wait for the client's retries.
    limits = {"config_kwargs": {"retries": {"max_attempts": 0}}}
    extra = {"endpoint_url": endpoint, "region_name": "eu-central-1", **limits}
    return json.dumps({"conn_type": "aws", "login": "root", "password": "of-all", "extra": extra})


def address_of(hole: socket.socket) -> str:
    return f"http://127.0.0.1:{hole.getsockname()[1]}"


Ask = Callable[[list[str]], list[httpx.Response]]


@pytest.fixture
def ask(server: str, visitor: Visitor, black_hole: socket.socket) -> Ask:
    """Opens all of these addresses at once, and ends their stores when Airflow's own API has answered."""
    cookies = dict(visitor("edit").client.cookies)
    answered: list[str] = []

    def ask(paths: list[str]) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        with (
            httpx.Client(base_url=server, cookies=cookies, timeout=120, trust_env=False, limits=limits) as client,
            ThreadPoolExecutor(len(paths)) as pool,
        ):

            def get(path: str) -> httpx.Response:
                answer = client.get(path)
                answered.append(path)
                return answer

            asked = [pool.submit(get, f"/odirouter{path}") for path in paths]
            # These calls end only after the gallery's calls hold all the threads that they can get.
            for _ in range(3):
                get("/odirouter/dags/edit/tasks/edit")
            assert get("/api/v2/dags/edit/dagRuns").status_code == 200
            black_hole.close()
            answers = [future.result() for future in asked]
        assert answered[3] == "/api/v2/dags/edit/dagRuns"
        return answers

    return ask


@pytest.mark.parametrize("form", ["small", "whole"])
def test_airflows_api_answers_while_a_store_of_pictures_never_does(
    run_dag: RunDag, ask: Ask, black_hole: socket.socket, pictures: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    run = run_dag(edit(pictures, wait_for_completion=False))
    monkeypatch.setenv(f"AIRFLOW_CONN_HOLE_{form.upper()}", connection(address_of(black_hole)))
    name = stable_name("edit", "edit", run.run.run_id)
    paths = [f"s3://hole_{form}@bucket/{name}-{index}.png" for index in range(MORE_THAN_THREADS)]
    outputs = [{"path": path, "sha256": "0" * 64} for path in paths]
    push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": outputs})
    answers = ask([path_of(run, rest=f"/outputs/{index}/{form}") for index in range(MORE_THAN_THREADS)])

    assert {answer.status_code for answer in answers} <= {502, 503}


def test_airflows_api_answers_while_a_store_of_manifests_never_does(
    run_dag: RunDag, ask: Ask, black_hole: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_dag(batch(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_HOLE_MANIFEST", connection(address_of(black_hole)))
    path = f"s3://hole_manifest@bucket/{manifest_of(run).name}"
    push(run, "return_value", run.xcom("edit") | {"manifest": path})
    opened: list[str] = []

    def record(path: str, **arguments: Any) -> Any:
        opened.append(path)
        return files.open_file(path, **arguments)

    monkeypatch.setattr(edits, "open_file", record)
    rests = ["", "/edits/1", "/edits/1/outputs/0/small"] * (MORE_THAN_THREADS // 3)
    answers = ask([path_of(run, rest=rest) for rest in rests])

    assert {answer.status_code for answer in answers[0::3]} == {200}
    assert {answer.status_code for answer in answers if answer not in answers[0::3]} <= {502, 503}
    assert all("cannot read" in answer.text or "too slow" in answer.text for answer in answers)
    assert len(opened) <= 2


def test_a_corrected_connection_is_used_without_a_restart(
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


@pytest.fixture
def hole_picture(black_hole: socket.socket, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a picture in a store that never answers."""
    conn_id = f"hole_{black_hole.getsockname()[1]}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection(address_of(black_hole)))
    return f"s3://{conn_id}@bucket/cup"


def test_a_store_that_never_answers_does_not_stop_another_stores_pictures(
    run_dag: RunDag, browser: Browser, black_hole: socket.socket, hole_picture: str, pictures: Path, tmp_path: Path
) -> None:
    run = run_dag(edit(pictures, output_path=str(tmp_path)))
    [landed] = run.xcom("edit")["outputs"]

    async def ask_both() -> list[bytes]:
        hanging: list[asyncio.Future[Any]]
        hanging = [asyncio.ensure_future(files.small_picture(f"{hole_picture}-{one}", "0" * 64)) for one in range(6)]
        hanging += [asyncio.ensure_future(files.open_whole(f"{hole_picture}-{one}", "0" * 64)) for one in range(6)]
        await asyncio.sleep(0)  # which lets all of them begin
        small = await files.small_picture(landed["path"], landed["sha256"])
        whole = await files.open_whole(landed["path"], landed["sha256"])
        content = [chunk async for chunk in whole.chunks()]
        assert not any(one.done() for one in hanging)
        black_hole.close()
        await asyncio.gather(*hanging, return_exceptions=True)
        return [small, b"".join(content)]

    small, whole = asyncio.run(ask_both())
    assert small[8:12] == b"WEBP"
    assert whole == Path(landed["path"]).read_bytes()


def test_a_small_picture_is_made_once_for_all_who_ask_for_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, away = tmp_path / "cup.png", tmp_path / "away.png"
    picture.write_bytes((pictures / "coffee.png").read_bytes())
    sha256 = hashlib.sha256(picture.read_bytes()).hexdigest()
    made: list[object] = []

    def count(content: IO[bytes]) -> bytes:
        made.append(content)
        return thumbnail(content)

    monkeypatch.setattr(files, "thumbnail", count)

    async def ask(times: int) -> list[Any]:
        asked = [files.small_picture(str(picture), sha256) for _ in range(times)]
        return await asyncio.gather(*asked, return_exceptions=True)

    picture.rename(away)
    assert all(isinstance(answer, files.DisplayError) for answer in asyncio.run(ask(3)))
    away.rename(picture)  # What has failed is tried again.
    first, *others = asyncio.run(ask(20))
    assert set(others) == {first}
    assert (asyncio.run(ask(1)), len(made)) == ([first], 1)


def test_pictures_are_decoded_one_at_a_time(release: threading.Event) -> None:
    first = gallery_threads.decoder.submit(release.wait)
    second = gallery_threads.decoder.submit(first.done)
    release.set()
    assert second.result()


class TestShares:
    @pytest.fixture(autouse=True)
    def _no_stores_yet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gallery_threads, "_readers", {})
        monkeypatch.setattr(gallery_threads, "_jobs", Counter())
        monkeypatch.setattr(gallery_threads, "MAX_STORES", 2)
        monkeypatch.setattr(gallery_threads, "MAX_JOBS_PER_STORE", 3)

    def test_a_store_has_no_more_than_its_share(self, release: threading.Event) -> None:
        hanging = [gallery_threads.submit_read("slow", release.wait) for _ in range(3)]
        with pytest.raises(TooSlowError, match="too many jobs wait for this store"):
            gallery_threads.submit_read("slow", release.wait)
        assert gallery_threads.submit_read("fast", lambda: "answer").result() == "answer"
        release.set()
        assert [future.result() for future in hanging] == [True] * 3
        assert gallery_threads.submit_read("slow", lambda: "answer").result() == "answer"

    def test_an_idle_store_makes_room_for_another_and_a_busy_one_does_not(self, release: threading.Event) -> None:
        busy = gallery_threads.submit_read("busy", release.wait)
        for store in ("a", "b", "c"):
            future = gallery_threads.submit_read(store, lambda: "answer")
            assert future.result() == "answer"
            while gallery_threads._jobs[store]:  # until its end is counted
                release.wait(0.001)
        assert set(gallery_threads._readers) == {"busy", "c"}
        second = gallery_threads.submit_read("c", release.wait)
        with pytest.raises(TooSlowError, match="too many stores do not answer"):
            gallery_threads.submit_read("d", release.wait)
        release.set()
        assert busy.result()
        assert second.result()


def test_the_stores_of_two_connections_are_two() -> None:
    paths = ["s3://a@bucket/x", "s3://b@bucket/x", "s3://bucket/x", "gs://bucket/x", "/x", "file:///y"]
    assert [files.store_of(path) for path in paths] == ["s3://a", "s3://b", "s3://", "gs://", "", ""]
