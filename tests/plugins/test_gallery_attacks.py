"""Nobody sees what he may not: attacks on every route of the gallery, and what each gets."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from airflow_provider_odirouter.images.landing import stable_name
from airflow_provider_odirouter.records import REQUEST_XCOM
from airflow_provider_odirouter.sandbox import Sandbox
from tests.dags.conftest import Run, RunDag, edit
from tests.plugins.auth import ENTITIES_WITHOUT_XCOM
from tests.plugins.conftest import Browser, Visitor, images_in, path_of, push

pytestmark = pytest.mark.xdist_group("api server")

ROUTES = ["", "/images/0/small", "/images/0/whole", "/mask/0/cover", "/outputs/0/small", "/outputs/0/whole"]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<html><script>alert(1)</script></html>"


@pytest.fixture
def run(run_dag: RunDag, pictures: Path, tmp_path: Path) -> Run:
    """An edit that has landed."""
    return run_dag(edit(pictures, mask=str(pictures / "coffee-mask.png"), output_path=str(tmp_path)))


def answers(browser: Browser, run: Run, rests: list[str]) -> dict[str, int]:
    """The status code of each route."""
    return {rest: browser.get(path_of(run, rest=rest)).status_code for rest in rests}


class TestWhoMayLook:
    def test_only_who_may_read_the_dags_xcoms(self, run: Run, visitor: Visitor) -> None:
        assert answers(visitor("edit"), run, ROUTES) == dict.fromkeys(ROUTES, 200)
        assert answers(visitor(None), run, ROUTES) == dict.fromkeys(ROUTES, 401)
        assert answers(visitor("another_dag"), run, ROUTES) == dict.fromkeys(ROUTES, 403)
        assert answers(visitor(ENTITIES_WITHOUT_XCOM), run, ROUTES) == dict.fromkeys(ROUTES, 403)

    def test_a_query_that_names_ones_own_dag_opens_no_other(self, run: Run, visitor: Visitor) -> None:
        routes = [f"{rest}?dag_id={dag_id}" for rest in ROUTES for dag_id in ("another_dag", "~")]
        assert answers(visitor("another_dag"), run, routes) == dict.fromkeys(routes, 403)

    def test_a_token_that_airflow_has_not_made_opens_nothing(self, run: Run, visitor: Visitor) -> None:
        for token in ("x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJlZGl0In0."):
            assert visitor(None).get(path_of(run), Authorization=f"Bearer {token}").status_code in {401, 403}

    def test_the_page_of_a_task_asks_as_well(self, visitor: Visitor, run: Run) -> None:
        codes = [visitor(user).get("/dags/edit/tasks/edit").status_code for user in (None, "another_dag", "edit")]
        assert codes == [401, 403, 307]

    def test_no_route_is_without_a_dag_and_none_without_the_check(self, airflow_app: Any) -> None:
        from airflow_provider_odirouter.plugins.gallery.app import app

        assert len(app.routes) == 9
        for route in app.routes:
            assert isinstance(route, APIRoute)
            assert route.path.startswith("/dags/{dag_id}/")
            assert route.methods == {"GET"}
            checks = [dependency.call for dependency in route.dependant.dependencies]
            assert any("requires_access_dag" in getattr(check, "__qualname__", "") for check in checks)


class TestWhatMayBeAskedFor:
    def test_only_what_the_manifest_numbers(self, run: Run, browser: Browser) -> None:
        attacks = [
            "/outputs/1/whole",
            "/outputs/-1/whole",
            "/images/1/whole",
            "/mask/1/whole",
            "/outputs/7/whole?url=https://example.com/a.png",
            "/outputs/..%2F..%2Fetc%2Fpasswd/whole",
            "/outputs/0%00/whole",
            "/../../../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/files/0/whole",
            "/outputs/file:%2F%2F%2Fetc%2Fpasswd/whole",
            "/outputs/s3:%2F%2Fbucket%2Fkey.png/whole",
            "/outputs/99999999999999999999/whole",
        ]
        assert set(answers(browser, run, attacks).values()) <= {404, 422}

    def test_a_path_in_the_query_is_not_looked_at(self, run: Run, browser: Browser) -> None:
        asked = browser.get(path_of(run, rest="/outputs/0/whole?path=/etc/passwd&place=/etc/passwd"))
        [output] = run.xcom("edit")["outputs"]
        assert asked.content == Path(output["path"]).read_bytes()

    def test_no_instance_that_is_not_there(self, run: Run, browser: Browser) -> None:
        for map_index in ("5", "-2", "99999999999999999999999"):
            path = path_of(run, map_index=map_index, rest="/outputs/0/whole")
            assert browser.get(path).status_code in {404, 422}
        assert browser.get(path_of(run, map_index=5)).status_code == 404


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def outputs(*paths: str, **fields: Any) -> dict[str, Any]:
    return {"request_id": "mmsu_1", "endpoint": "e", "outputs": [{"path": path, **fields} for path in paths]}


@pytest.fixture
def lost_backend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An XCom backend whose store is gone; the value says for which keys it was asked."""
    from airflow.sdk.bases.xcom import BaseXCom

    from airflow_provider_odirouter.plugins.gallery import instances

    asked: list[str] = []

    class Backend(BaseXCom):
        @staticmethod
        def deserialize_value(result: Any) -> Any:
            asked.append(result.key)
            raise OSError("the object is gone")

    monkeypatch.setattr(instances, "XCom", Backend)
    return asked


class TestManifestsThatWereTamperedWith:
    def test_another_dags_output_is_not_shown(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        secret = run_dag(edit(pictures, dag_id="another_dag", output_path=str(tmp_path)))
        [output] = secret.xcom("edit")["outputs"]
        run = run_dag(edit(pictures, output_path=str(tmp_path)))
        push(run, "return_value", outputs(output["path"]))

        assert browser.get(path_of(run, rest="/outputs/0/whole")).status_code == 404
        assert output["path"] not in browser.get(path_of(run)).text

    def test_another_dags_output_is_not_shown_as_an_input_either(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        secret = run_dag(edit(pictures, dag_id="another_dag", output_path=str(tmp_path)))
        [output] = secret.xcom("edit")["outputs"]
        run = run_dag(edit(pictures, output_path=str(tmp_path)))
        record = run.xcom("edit", REQUEST_XCOM) | {"images": [output["path"]]}
        for digests in ({}, {output["path"]: digest(b"a guess")}):
            push(run, REQUEST_XCOM, record | {"sha256": digests})
            codes = answers(browser, run, ["/images/0/small", "/images/0/whole"])
            assert set(codes.values()) == {410 if digests else 404}

    def test_a_password_in_a_url_is_not_shown(self, run: Run, browser: Browser) -> None:
        place = "s3://AKIA:verysecret@bucket/a.png"
        record = {"request_id": "r", "endpoint": "e", "images": [place], "sha256": {place: digest(b"")}}
        push(run, REQUEST_XCOM, record)

        assert "verysecret" not in browser.page(run)

    def test_no_other_file_is_opened(self, run: Run, browser: Browser, pictures: Path, tmp_path: Path) -> None:
        (tmp_path / "secret.png").write_bytes((pictures / "coffee.png").read_bytes())
        name = stable_name("edit", "edit", run.run.run_id)
        for path in (
            "/etc/passwd",
            "file:///etc/passwd",
            f"{tmp_path}/{name}/../../secret.png",
            f"{tmp_path}/{name}-0.png/../secret.png",
            f"http://127.0.0.1:1/{name}-0.png",
            "s3://bucket/secret.png",
            f"{tmp_path}/secret.png",
        ):
            push(run, "return_value", outputs(path))
            assert answers(browser, run, ["", "/outputs/0/whole"]) == {"": 200, "/outputs/0/whole": 404}, path

    def test_a_link_that_is_no_web_address_is_no_link(self, run: Run, browser: Browser) -> None:
        for link in ("javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "//evil", "ftp://a/b"):
            push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": [{"url": link}]})
            assert f'="{link}' not in browser.page(run)

    def test_a_link_cannot_widen_the_pages_policy(self, run: Run, browser: Browser) -> None:
        link = "https://evil.example;script-src *;x/a.png"
        push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": [{"url": link}]})

        assert "evil" not in browser.get(path_of(run)).headers["Content-Security-Policy"]

    def test_nonsense_is_no_error(self, run: Run, browser: Browser) -> None:
        values: tuple[Any, ...] = (None, 1, "text", [], {}, {"outputs": 1}, {"request_id": [], "endpoint": {}})
        for value in values:
            push(run, "return_value", value)
            push(run, REQUEST_XCOM, value)
            assert answers(browser, run, ["", "/outputs/0/whole"]) == {"": 200, "/outputs/0/whole": 404}, value

    def test_texts_that_cannot_be_understood_are_no_error(self, run: Run, browser: Browser) -> None:
        record = {"request_id": "r", "endpoint": "e", "submitted_at": "0001-01-01T00:00:00+14:00"}
        push(run, REQUEST_XCOM, record | {"images": ["http://[bad/a.png", "https://h\u2100.example/a"]})
        assert browser.get(path_of(run)).status_code == 200
        assert browser.get(path_of(run, map_index="all", rest="?page=9223372036854775807")).status_code == 422

    def test_what_another_task_returns_is_handed_to_no_backend(
        self, run_dag: RunDag, visitor: Visitor, lost_backend: list[str]
    ) -> None:
        from airflow.sdk import DAG, task

        with DAG("foreign") as dag:

            @task
            def other() -> str:
                return "s3://bucket/large"

            other()
        assert "edits no pictures" in visitor("foreign").page(run_dag(dag), "other")
        assert lost_backend == []

    def test_ours_that_a_backend_has_lost_is_no_error_of_the_page(
        self, run: Run, browser: Browser, lost_backend: list[str]
    ) -> None:
        push(run, "return_value", "s3://bucket/manifest.json")
        assert "Input 1" in browser.page(run)
        assert lost_backend == ["return_value"]

    def test_a_version_cannot_add_headers(self, run: Run, browser: Browser, tmp_path: Path) -> None:
        [output] = run.xcom("edit")["outputs"]
        push(run, "return_value", outputs(output["path"], sha256='"\r\nSet-Cookie: a=b'))
        answer = browser.get(path_of(run, rest="/outputs/0/small"), **{"If-None-Match": '"x"'})

        assert answer.status_code == 410
        assert "Set-Cookie" not in answer.headers


class TestFilesInDisguise:
    def test_what_is_no_picture_is_not_served(self, run: Run, browser: Browser) -> None:
        [output] = run.xcom("edit")["outputs"]
        for content in (SVG, HTML, b"%PDF-1.4", b"GIF89a", b"root:x:0:0"):
            Path(output["path"]).write_bytes(content)
            push(run, "return_value", outputs(output["path"], sha256=digest(content)))
            for form in ("small", "whole"):
                answer = browser.get(path_of(run, rest=f"/outputs/0/{form}"))
                assert answer.status_code == 415
                assert answer.headers["Content-Type"].startswith("text/plain")
                assert "alert" not in answer.text

    def test_a_secret_file_named_as_input_is_not_served(self, run: Run, browser: Browser, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("root:x:0:0")
        os.mkfifo(tmp_path / "pipe")  # which nobody writes to
        images = [
            str(tmp_path / "secret"),
            str(tmp_path / "pipe"),
            str(tmp_path),
            "/dev/zero",
            "zip::http://127.0.0.1:1/a",
        ]
        digests = {image: digest(b"root:x:0:0") for image in images}
        push(run, REQUEST_XCOM, {"request_id": "r", "endpoint": "e", "images": images, "sha256": digests})

        for index in range(len(images)):
            for form in ("small", "whole"):
                answer = browser.get(path_of(run, rest=f"/images/{index}/{form}"))
                assert answer.status_code in {404, 413, 415, 502}
                assert "root:" not in answer.text

    def test_a_picture_that_is_a_page_too_is_a_picture_only(self, run: Run, browser: Browser, pictures: Path) -> None:
        [output] = run.xcom("edit")["outputs"]
        content = (pictures / "coffee.png").read_bytes() + HTML
        Path(output["path"]).write_bytes(content)
        push(run, "return_value", outputs(output["path"], sha256=digest(content)))
        answer = browser.get(path_of(run, rest="/outputs/0/whole"))

        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

    def test_a_decompression_bomb_is_not_decoded(self, run: Run, browser: Browser) -> None:
        from PIL import Image

        [output] = run.xcom("edit")["outputs"]
        Image.new("1", (8_000, 8_000)).save(output["path"])
        push(run, "return_value", outputs(output["path"], sha256=digest(Path(output["path"]).read_bytes())))
        answer = browser.get(path_of(run, rest="/outputs/0/small"))

        assert answer.status_code == 415
        assert "too many to be shown" in answer.text


EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'"


class TestScripts:
    def scripts_in(self, page: str) -> list[str]:
        return re.findall(r"<script([^>]*)>", page)

    def test_texts_of_users_and_vendor_are_texts(
        self, run_dag: RunDag, browser: Browser, sandbox: Sandbox, pictures: Path, tmp_path: Path
    ) -> None:
        picture = tmp_path / "a\"'><img src=x onerror=alert(1)>.png"
        picture.write_bytes((pictures / "coffee.png").read_bytes())
        sandbox.configure(error_type="INFERENCE_FAILURE", error_message=EVIL)
        run = run_dag(edit(pictures, prompt=EVIL, user=EVIL, images=[str(picture)], retries=0))
        page = browser.page(run)

        assert page.count("&lt;script&gt;alert(2)&lt;/script&gt;") >= 2
        assert "<img src=x" not in page
        assert len(self.scripts_in(page)) == 1

    def test_a_page_runs_its_own_script_alone(self, run: Run, browser: Browser) -> None:
        answers = [browser.get(path_of(run)) for _ in range(2)]
        nonces = []
        for answer in answers:
            [attributes] = self.scripts_in(answer.text)
            [nonce] = re.findall(r'nonce="([^"]+)"', attributes)
            nonces.append(nonce)
            policy = answer.headers["Content-Security-Policy"]
            assert f"script-src 'nonce-{nonce}';" in policy
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'self'" in policy
        assert nonces[0] != nonces[1]

    def test_a_page_loads_nothing_from_other_hosts(self, run: Run, browser: Browser) -> None:
        answer = browser.get(path_of(run))

        assert not re.search(r"""(src|href|url\()\s*=?\s*["']?(https?:)?//""", answer.text)
        assert all(source.startswith("/dags/") for source in images_in(answer.text))
        assert "img-src 'self';" in answer.headers["Content-Security-Policy"]

    def test_pages_pictures_and_errors_have_just_these_headers(self, run: Run, browser: Browser) -> None:
        def headers(rest: str) -> dict[str, str]:
            names = ("cache-control", "referrer-policy", "x-content-type-options", "cross-origin-resource-policy")
            return {name: browser.get(path_of(run, rest=rest)).headers.get(name, "") for name in names}

        common = {
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "same-origin",
        }
        assert headers("") == common | {"cache-control": "no-store"}
        for rest in ROUTES[1:]:
            assert headers(rest) == common | {"cache-control": "private, no-cache"}
            policy = browser.get(path_of(run, rest=rest)).headers["Content-Security-Policy"]
            assert policy == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        policy = re.sub("nonce-[^']+", "nonce-", browser.get(path_of(run)).headers["Content-Security-Policy"])
        assert policy == (
            "default-src 'none'; img-src 'self'; style-src 'nonce-'; script-src 'nonce-'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        )
        [output] = run.xcom("edit")["outputs"]
        Path(output["path"]).unlink()
        assert headers("/outputs/0/whole") == common | {"cache-control": ""}

    def test_the_key_is_nowhere(self, run: Run, browser: Browser) -> None:
        key = json.loads(os.environ["AIRFLOW_CONN_ODIROUTER_DEFAULT"])["password"]
        assert key not in browser.page(run)


@pytest.mark.parametrize("run_id", ["manual__2026-01-01T00:00:00+00:00", "a+b:c.d~e"])
def test_odd_run_ids_are_found_as_they_are_and_as_a_url_spells_them(
    run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path, run_id: str
) -> None:
    from airflow.utils.session import create_session
    from sqlalchemy import text

    run = run_dag(edit(pictures, wait_for_completion=False))
    with create_session() as session:
        session.execute(text("PRAGMA foreign_keys=OFF"))
        for table in ("dag_run", "task_instance", "xcom"):
            session.execute(
                text(f"UPDATE {table} SET run_id = :new WHERE run_id = :old"), {"new": run_id, "old": run.run.run_id}
            )
    raw = f"/dags/edit/runs/{run_id}/tasks/edit/-1"
    run.run.run_id = run_id

    for path in (raw, path_of(run)):
        page = browser.get(path)
        assert page.status_code == 200
        assert browser.get(images_in(page.text)[0]).status_code == 200
