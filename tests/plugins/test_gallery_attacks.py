"""Attacks on every route of the gallery, and the answer to each."""

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
from airflow_provider_odirouter.plugins.gallery.files import MAX_BYTES, NOT_FOUND
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.xcoms import REQUEST_XCOM
from tests.dags.conftest import Run, RunDag, edit
from tests.plugins.auth import ENTITIES_WITHOUT_XCOM
from tests.plugins.conftest import Browser, Visitor, images_in, path_of, push

pytestmark = pytest.mark.every_version

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


class TestAccess:
    def test_only_users_who_may_read_the_dags_xcoms_see_anything(self, run: Run, visitor: Visitor) -> None:
        assert answers(visitor("edit"), run, ROUTES) == dict.fromkeys(ROUTES, 200)
        assert answers(visitor(None), run, ROUTES) == dict.fromkeys(ROUTES, 401)
        assert answers(visitor("another_dag"), run, ROUTES) == dict.fromkeys(ROUTES, 403)
        assert answers(visitor(ENTITIES_WITHOUT_XCOM), run, ROUTES) == dict.fromkeys(ROUTES, 403)

    def test_a_query_with_another_dag_id_gives_no_access(self, run: Run, visitor: Visitor) -> None:
        routes = [f"{rest}?dag_id={dag_id}" for rest in ROUTES for dag_id in ("another_dag", "~")]
        assert answers(visitor("another_dag"), run, routes) == dict.fromkeys(routes, 403)

    def test_a_forged_token_gives_no_access(self, run: Run, visitor: Visitor) -> None:
        for token in ("x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJlZGl0In0."):
            assert visitor(None).get(path_of(run), Authorization=f"Bearer {token}").status_code in {401, 403}

    def test_the_page_of_a_task_checks_access_too(self, visitor: Visitor, run: Run) -> None:
        codes = [visitor(user).get("/dags/edit/tasks/edit").status_code for user in (None, "another_dag", "edit")]
        assert codes == [401, 403, 307]

    def test_each_route_has_a_dag_and_checks_access(self, airflow_app: Any) -> None:
        from airflow_provider_odirouter.plugins.gallery.app import app

        assert len(app.routes) == 9
        for route in app.routes:
            assert isinstance(route, APIRoute)
            assert route.path.startswith("/dags/{dag_id}/")
            assert route.methods == {"GET"}
            checks = [dependency.call for dependency in route.dependant.dependencies]
            assert any("requires_access_dag" in getattr(check, "__qualname__", "") for check in checks)


class TestAddresses:
    def test_only_pictures_with_a_number_in_the_manifest_are_served(self, run: Run, browser: Browser) -> None:
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

    def test_a_path_in_the_query_is_ignored(self, run: Run, browser: Browser) -> None:
        asked = browser.get(path_of(run, rest="/outputs/0/whole?path=/etc/passwd&source=/etc/passwd"))
        [output] = run.xcom("edit")["outputs"]
        assert asked.content == Path(output["path"]).read_bytes()

    def test_a_missing_instance_has_no_pictures(self, run: Run, browser: Browser) -> None:
        for map_index in ("5", "-2", "99999999999999999999999"):
            path = path_of(run, map_index=map_index, rest="/outputs/0/whole")
            assert browser.get(path).status_code in {404, 422}
        assert browser.get(path_of(run, map_index=5)).status_code == 404


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def outputs(*paths: str, **fields: Any) -> dict[str, Any]:
    return {"request_id": "mmsu_1", "endpoint": "e", "outputs": [{"path": path, **fields} for path in paths]}


@pytest.fixture
def broken_backend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An XCom backend whose store is lost; the value lists the keys that it was asked for."""
    from airflow.sdk.bases.xcom import BaseXCom

    asked: list[str] = []

    class Backend(BaseXCom):
        @staticmethod
        def deserialize_value(result: Any) -> Any:
            asked.append(result.key)
            raise OSError("the object is lost")

    monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom", Backend)
    return asked


class TestForgedXComs:
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
            assert set(codes.values()) == {404}

    def test_a_password_in_a_url_is_not_shown(self, run: Run, browser: Browser) -> None:
        path = "s3://AKIA:verysecret@bucket/a.png"
        record = {"request_id": "r", "endpoint": "e", "images": [path], "sha256": {path: digest(b"")}}
        push(run, REQUEST_XCOM, record)

        assert "verysecret" not in browser.page(run)

    def test_no_other_file_is_opened(self, run: Run, browser: Browser, pictures: Path, tmp_path: Path) -> None:
        content = (pictures / "coffee.png").read_bytes()
        name = stable_name("edit", "edit", run.run.run_id)
        (tmp_path / "other").mkdir()
        for secret in ("secret.png", f"{name}-secret.png"):
            (tmp_path / secret).write_bytes(content)
        for path in (
            "/etc/passwd",
            "file:///etc/passwd",
            f"{tmp_path}/{name}/../../secret.png",
            f"{tmp_path}/{name}-0.png/../secret.png",
            f"http://127.0.0.1:1/{name}-0.png",
            "s3://bucket/secret.png",
            f"{tmp_path}/secret.png",
            f"{tmp_path}/other/../{name}-secret.png",
        ):
            # Not even with the right digest.
            push(run, "return_value", outputs(path, sha256=digest(content)))
            assert answers(browser, run, ["", "/outputs/0/whole"]) == {"": 200, "/outputs/0/whole": 404}, path

    def test_only_an_http_url_becomes_a_link(self, run: Run, browser: Browser) -> None:
        for link in ("javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "//evil", "ftp://a/b"):
            push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": [{"url": link}]})
            assert f'="{link}' not in browser.page(run)

    def test_a_link_cannot_widen_the_pages_policy(self, run: Run, browser: Browser) -> None:
        link = "https://evil.example;script-src *;x/a.png"
        push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": [{"url": link}]})

        assert "evil" not in browser.get(path_of(run)).headers["Content-Security-Policy"]

    def test_xcoms_of_any_shape_do_not_break_the_page(self, run: Run, browser: Browser) -> None:
        newer = {"version": 2, "request_id": "r", "endpoint": "e"}
        values: tuple[Any, ...] = (None, 1, "text", [], {}, {"outputs": 1}, {"request_id": [], "endpoint": {}}, newer)
        for value in values:
            push(run, "return_value", value)
            push(run, REQUEST_XCOM, value)
            assert answers(browser, run, ["", "/outputs/0/whole"]) == {"": 200, "/outputs/0/whole": 404}, value

    def test_unreadable_times_urls_and_page_numbers_do_not_break_the_page(self, run: Run, browser: Browser) -> None:
        record = {"request_id": "r", "endpoint": "e", "submitted_at": "0001-01-01T00:00:00+14:00"}
        push(run, REQUEST_XCOM, record | {"images": ["http://[bad/a.png", "https://h\u2100.example/a"]})
        assert browser.get(path_of(run)).status_code == 200
        assert browser.get(path_of(run, map_index="all", rest="?page=9223372036854775807")).status_code == 422

    def test_another_providers_return_value_is_not_read_from_the_xcom_backend(
        self, run_dag: RunDag, visitor: Visitor, broken_backend: list[str]
    ) -> None:
        from airflow.sdk import DAG, task

        with DAG("foreign") as dag:

            @task
            def other() -> str:
                return "s3://bucket/large"

            other()
        assert "does not edit pictures" in visitor("foreign").page(run_dag(dag), "other")
        assert broken_backend == []

    def test_an_xcom_that_the_backend_has_lost_does_not_break_the_page(
        self, run: Run, browser: Browser, broken_backend: list[str]
    ) -> None:
        push(run, "return_value", "s3://bucket/manifest.json")
        assert "Input 1" in browser.page(run)
        assert broken_backend == ["return_value"]

    def test_airflow_makes_no_object_of_an_xcom_without_a_custom_backend(
        self, run: Run, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.sdk.bases.xcom import BaseXCom

        asked: list[Any] = []
        monkeypatch.setattr(BaseXCom, "deserialize_value", asked.append)
        push(run, "return_value", {"__classname__": "builtins.str", "__version__": 1, "__data__": "x"})
        assert "Input 1" in browser.page(run)
        assert asked == []

    def test_a_forged_digest_cannot_add_headers(self, run: Run, browser: Browser, tmp_path: Path) -> None:
        [output] = run.xcom("edit")["outputs"]
        push(run, "return_value", outputs(output["path"], sha256='"\r\nSet-Cookie: a=b'))
        answer = browser.get(path_of(run, rest="/outputs/0/small"), **{"If-None-Match": '"x"'})

        assert answer.status_code == 404
        assert "Set-Cookie" not in answer.headers


class TestFilesInDisguise:
    def test_a_file_that_is_not_a_picture_is_not_served(self, run: Run, browser: Browser) -> None:
        [output] = run.xcom("edit")["outputs"]
        for content in (SVG, HTML, b"%PDF-1.4", b"GIF89a", b"root:x:0:0"):
            Path(output["path"]).write_bytes(content)
            push(run, "return_value", outputs(output["path"], sha256=digest(content)))
            for form in ("small", "whole"):
                answer = browser.get(path_of(run, rest=f"/outputs/0/{form}"))
                assert (answer.status_code, answer.text) == (404, f"{output['path']}: {NOT_FOUND}")
                assert answer.headers["Content-Type"].startswith("text/plain")
                assert "alert" not in answer.text

    @pytest.mark.parametrize(
        ("content", "claim"),
        [
            (SVG, "image/svg+xml"),
            (HTML, "text/html"),
            (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", "image/avif"),
            (b"\0\0\0\x18ftypisom\0\0\2\0isommp42", "video/mp4"),
        ],
    )
    def test_an_output_of_another_kind_is_only_a_download(
        self, run: Run, browser: Browser, content: bytes, claim: str
    ) -> None:
        [output] = run.xcom("edit")["outputs"]
        Path(output["path"]).write_bytes(content)
        push(run, "return_value", outputs(output["path"], sha256=digest(content), content_type=claim))
        answer = browser.get(path_of(run, rest="/outputs/0/whole?download=true"))

        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment; filename*=utf-8''")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert browser.get(path_of(run, rest="/outputs/0/whole")).status_code == 404
        page = browser.page(run)
        assert ('id="output-1-download"' in page, 'id="output-1-open"' in page) == (True, False)
        assert f"the manifest calls this file {claim}: download it." in page

    def test_a_download_of_another_kind_must_be_the_recorded_output(
        self, run: Run, browser: Browser, tmp_path: Path
    ) -> None:
        [output] = run.xcom("edit")["outputs"]
        Path(output["path"]).write_bytes(SVG)
        (tmp_path / "secret").write_bytes(SVG)
        rests = ["/outputs/0/whole?download=true", "/images/0/whole?download=true"]
        images = {"images": [str(tmp_path / "secret")], "sha256": {str(tmp_path / "secret"): digest(SVG)}}
        push(run, REQUEST_XCOM, {"request_id": "r", "endpoint": "e", **images})
        for forged in (outputs(output["path"], sha256="0" * 64), outputs(str(tmp_path / "secret"), sha256=digest(SVG))):
            push(run, "return_value", forged)
            assert answers(browser, run, rests) == dict.fromkeys(rests, 404)

    def test_the_note_of_an_output_without_a_file_is_shown_as_text(self, run: Run, browser: Browser) -> None:
        note = "<b>Not kept</b>: https://cdn.example.com/a.png?sig=s3cretX"
        push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": [{"note": note}]})
        page = browser.page(run)
        assert "Output 1: &lt;b&gt;Not kept&lt;/b&gt;: https://cdn.example.com/a.png?***" in page
        assert "None here" not in page
        assert "s3cretX" not in page

    def test_one_answer_does_not_tell_which_files_exist(
        self, run: Run, browser: Browser, tmp_path: Path, pictures: Path
    ) -> None:
        (tmp_path / "text").write_text("text")
        (tmp_path / "empty").touch()
        (tmp_path / "cut.png").write_bytes((pictures / "coffee.png").read_bytes()[:20])
        with (tmp_path / "huge").open("wb") as huge:
            huge.truncate(MAX_BYTES + 1)  # sparse
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        names = ["text", "empty", "cut.png", "huge", "loop", "coffee.png", "missing", "text/below", "x" * 300]
        (tmp_path / "coffee.png").write_bytes((pictures / "coffee.png").read_bytes())
        images = [str(tmp_path / name) for name in names] + [str(tmp_path), "file://host/a.png"]
        known = {name: digest((tmp_path / name).read_bytes()) for name in ("text", "cut.png")}
        digests = {image: known.get(Path(image).name, "0" * 64) for image in images}
        push(run, REQUEST_XCOM, {"request_id": "r", "endpoint": "e", "images": images, "sha256": digests})

        for index, image in enumerate(images):
            for form in ("small", "whole"):
                answer = browser.get(path_of(run, rest=f"/images/{index}/{form}"))
                assert (answer.status_code, answer.text) == (404, f"{image}: {NOT_FOUND}"), image

    def test_a_file_is_what_its_bytes_say_whatever_the_manifest_calls_it(self, run: Run, browser: Browser) -> None:
        [output] = run.xcom("edit")["outputs"]
        for claim in ("text/html", "application/octet-stream", "IMAGE/PNG", "image/svg+xml", "", None):
            push(run, "return_value", outputs(output["path"], sha256=output["sha256"], content_type=claim))
            whole = browser.get(path_of(run, rest="/outputs/0/whole"))
            assert (whole.status_code, whole.headers["Content-Type"]) == (200, "image/png")
            assert images_in(browser.page(run)) != []
            assert browser.get(path_of(run, rest="/outputs/0/small")).status_code == 200
            is_doubted = bool(claim) and claim != "IMAGE/PNG"
            assert ("the manifest calls this file" in browser.page(run)) is is_doubted

    def test_a_secret_file_named_as_input_is_not_served(self, run: Run, browser: Browser, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("root:x:0:0")
        os.mkfifo(tmp_path / "pipe")  # without a writer
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
                assert answer.status_code in {404, 502}
                assert "root:" not in answer.text

    def test_a_picture_that_contains_html_is_served_as_a_picture(
        self, run: Run, browser: Browser, pictures: Path
    ) -> None:
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

        assert answer.status_code == 413
        assert "too many to be shown" in answer.text


EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'"


class TestScripts:
    def scripts_in(self, page: str) -> list[str]:
        return re.findall(r"<script([^>]*)>", page)

    def test_texts_of_users_and_vendor_are_escaped(
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

    def test_a_page_runs_only_its_own_script(self, run: Run, browser: Browser) -> None:
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

    def test_pages_pictures_and_errors_have_exactly_these_headers(self, run: Run, browser: Browser) -> None:
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

    def test_the_api_key_is_not_on_the_page(self, run: Run, browser: Browser) -> None:
        key = json.loads(os.environ["AIRFLOW_CONN_ODIROUTER_DEFAULT"])["password"]
        assert key not in browser.page(run)


@pytest.mark.parametrize("run_id", ["manual__2026-01-01T00:00:00+00:00", "a+b:c.d~e"])
def test_unusual_run_ids_are_found_raw_and_quoted(
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
