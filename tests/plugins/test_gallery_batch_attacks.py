"""Attacks through a batch on another Dag's pictures: forged manifests and summaries, and the answer to each."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.plugins.gallery import edits, files
from airflow_provider_odirouter.xcoms import BATCH_XCOM
from tests.conftest import PICTURES
from tests.dags.conftest import Run, RunDag
from tests.plugins.auth import ENTITIES_WITHOUT_XCOM
from tests.plugins.batches import batch, digest, lines_of, manifest_of, write
from tests.plugins.conftest import Browser, Visitor, images_in, path_of, push
from tests.plugins.test_gallery_attacks import EVIL, HTML, SVG, answers

PICTURES_OF_EDIT = [
    f"/edits/1/{rest}"
    for rest in ("images/0/small", "images/0/whole", "mask/0/cover", "outputs/0/small", "outputs/1/whole")
]
ROUTES = ["", "?page=1", "/edits/1", *PICTURES_OF_EDIT]
CANNOT_HAVE_WRITTEN = "name a manifest that the task cannot have written, so it is not opened"


@pytest.fixture
def run(run_dag: RunDag, tmp_path: Path) -> Run:
    """The attacker's own batch."""
    return run_dag(batch(tmp_path))


@pytest.fixture
def secret(run_dag: RunDag, tmp_path: Path) -> Run:
    """Another Dag's batch, in the same folder."""
    return run_dag(batch(tmp_path, dag_id="another_dag"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the gallery opened as manifests, or tried to."""
    paths: list[str] = []

    def record(path: str, **arguments: Any) -> Any:
        paths.append(path)
        return files.open_file(path, **arguments)

    monkeypatch.setattr(edits, "open_file", record)
    return paths


def name_manifest(run: Run, path: str, key: str = "return_value") -> None:
    """Let one of the task's XComs name a manifest; the return value wins, so it is removed for the other one."""
    summary = run.xcom("edit", key)
    if key == BATCH_XCOM:
        push(run, "return_value", None)
    push(run, key, summary | {"manifest": path})
    edits._cache.clear()


class TestAccess:
    def test_only_users_who_may_read_the_dags_xcoms_see_anything(self, run: Run, visitor: Visitor) -> None:
        for user, code in (("edit", 200), (None, 401), ("another_dag", 403), (ENTITIES_WITHOUT_XCOM, 403)):
            assert answers(visitor(user), run, ROUTES) == dict.fromkeys(ROUTES, code)

    def test_a_query_with_another_dag_id_gives_no_access(self, run: Run, visitor: Visitor) -> None:
        routes = [f"{rest}?dag_id={dag_id}" for rest in ROUTES if "?" not in rest for dag_id in ("another_dag", "~")]
        assert answers(visitor("another_dag"), run, routes) == dict.fromkeys(routes, 403)


class TestAddresses:
    def test_only_pictures_with_a_number_in_the_manifest_are_served(self, run: Run, browser: Browser) -> None:
        attacks = [
            "/edits/-1",
            "/edits/0/outputs/0/whole",
            "/edits/4/outputs/0/whole",
            "/edits/99999999999999999999",
            "/edits/1/outputs/2/whole",
            "/edits/1/outputs/-1/whole",
            "/edits/1/mask/1/whole",
            "/edits/2/outputs/0/whole",
            "/edits/3/mask/0/cover",
            "/edits/1/files/0/whole",
            "/edits/..%2F..%2Fetc%2Fpasswd",
            "/edits/1/outputs/..%2F..%2Fetc%2Fpasswd/whole",
            "/edits/1/edits/1",
            "/outputs/0/whole",
        ]
        assert set(answers(browser, run, attacks).values()) <= {404, 422}
        assert answers(browser, run, ["?page=0", "?page=-1", "?page=x"]) == dict.fromkeys(
            ("?page=0", "?page=-1", "?page=x"), 422
        )

    def test_a_path_or_a_number_in_the_query_is_ignored(self, run: Run, browser: Browser) -> None:
        query = "?manifest=/etc/passwd&path=/etc/passwd&number=3&source=/etc/passwd"
        for rest in PICTURES_OF_EDIT:
            assert browser.get(path_of(run, rest=rest + query)).content == browser.get(path_of(run, rest=rest)).content
        assert "Colour 1" in browser.get(path_of(run, rest="/edits/1" + query)).text
        assert browser.get(path_of(run, rest="/outputs/0/whole?number=1")).status_code == 404

    def test_a_task_that_is_not_a_batch_has_no_edits(self, run: Run, browser: Browser, opened: list[str]) -> None:
        for value in (None, "text", {"manifest": str(manifest_of(run))}, {"request_id": "r", "endpoint": "e"}):
            push(run, "return_value", value)
            push(run, BATCH_XCOM, value)
            assert set(answers(browser, run, ROUTES[2:]).values()) == {404}
        assert opened == []


class TestForgedSummaries:
    @pytest.mark.parametrize("key", ["return_value", BATCH_XCOM])
    def test_another_dags_manifest_is_not_opened(
        self, run: Run, secret: Run, browser: Browser, opened: list[str], key: str
    ) -> None:
        name_manifest(run, str(manifest_of(secret)), key)
        assert set(answers(browser, run, ROUTES[2:]).values()) == {404}
        page = browser.page(run)

        assert CANNOT_HAVE_WRITTEN in page
        assert "Colour" not in page
        assert images_in(page) == []
        assert opened == []

    def test_no_other_file_is_opened(
        self, run: Run, secret: Run, browser: Browser, opened: list[str], tmp_path: Path
    ) -> None:
        own = manifest_of(run).name
        for path in (
            "",
            "/etc/passwd",
            "file:///etc/passwd",
            f"{tmp_path}/{own}/../{manifest_of(secret).name}",
            f"{tmp_path}/other/../{own}",
            f"s3://bucket/../{own}",
            f"http://127.0.0.1:1/{own}",
            f"HTTPS://127.0.0.1:1/{own}",
            f"{tmp_path}/{own}/",
            f"{tmp_path}/{own}\n",
            f"{tmp_path}/{own}x",
            f"{tmp_path}/x{own}",
            f"{tmp_path}/{own.upper()}",
            f"s3://bucket/{own}?versionId=1",
            f"s3://bucket/{own}#x",
        ):
            name_manifest(run, path)
            assert answers(browser, run, ["", "/edits/1"]) == {"": 200, "/edits/1": 404}, path
            assert CANNOT_HAVE_WRITTEN in browser.page(run), path
        assert opened == []

    def test_another_instances_manifest_is_not_opened(
        self, run_dag: RunDag, run: Run, browser: Browser, opened: list[str], tmp_path: Path
    ) -> None:
        other = run_dag(batch(tmp_path))
        name_manifest(run, str(manifest_of(other)))
        assert CANNOT_HAVE_WRITTEN in browser.page(run)
        assert opened == []

    def test_a_symbolic_link_in_place_of_the_manifest_is_not_followed(
        self, run: Run, secret: Run, browser: Browser
    ) -> None:
        for target in (manifest_of(secret), Path("/etc/passwd")):
            manifest_of(run).unlink()
            manifest_of(run).symlink_to(target)
            edits._cache.clear()
            page = browser.page(run)
            assert "is a symbolic link, which is not followed." in page
            assert "Colour" not in page
            assert "root:x" not in page
            assert set(answers(browser, run, ROUTES[2:]).values()) == {404}

    def test_a_pipe_or_a_chained_store_is_not_opened_as_the_manifest(
        self, run: Run, browser: Browser, tmp_path: Path
    ) -> None:
        own = manifest_of(run)
        own.unlink()
        os.mkfifo(own)  # without a writer
        assert "The API server finds no file" in browser.page(run)
        for scheme in ("zip::http", "simplecache::file", "nosuch", "github"):
            name_manifest(run, f"{scheme}://127.0.0.1:1/{own.name}")
            assert "The API server cannot read" in browser.page(run)

    def test_a_file_that_is_not_a_manifest_is_not_shown(self, run: Run, browser: Browser) -> None:
        for content in (SVG, HTML, b"root:x:0:0\nalert", (PICTURES / "coffee.png").read_bytes()):
            manifest_of(run).write_bytes(content)
            edits._cache.clear()
            page = browser.page(run)
            assert "Lines that cannot be read: 1" in page
            assert "root:x" not in page
            assert "alert(1)" not in page
            assert answers(browser, run, ["/edits/1"]) == {"/edits/1": 502}

    def test_a_password_in_a_url_is_not_shown(self, run: Run, browser: Browser) -> None:
        name_manifest(run, f"nosuch://AKIA:verysecret@bucket/{manifest_of(run).name}")
        for rest in ("", "/edits/1", "/edits/1/outputs/0/whole"):
            assert "verysecret" not in browser.get(path_of(run, rest=rest)).text

    def test_xcoms_of_any_shape_do_not_break_the_page(self, run: Run, browser: Browser) -> None:
        summary = run.xcom("edit")
        values: tuple[Any, ...] = (
            summary | {"edits": -1, "succeeded": 10**400},
            summary | {"submitted_at": "0001-01-01T00:00:00", "completed_at": "9999-12-31T23:59:59-14:00"},
            summary | {"edits": "many"},
            summary | {"manifest": ["a"]},
            summary | {"manifest": "\0"},
            summary | {"request_id": "r", "outputs": [{"path": "/etc/passwd"}]},
        )
        for value in values:
            push(run, "return_value", value)
            assert browser.get(path_of(run)).status_code == 200, value
        for value in (None, 1, [], {"edits": {}}, {"endpoint": "e", "edits": 10**400, "deadline": "0001-01-01"}):
            push(run, BATCH_XCOM, value)
            assert browser.get(path_of(run)).status_code == 200, value
        name_manifest(run, f"\0/{manifest_of(run).name}")
        assert browser.get(path_of(run)).status_code == 200


class TestForgedManifests:
    def test_another_dags_files_are_not_shown_without_their_digests(
        self, run: Run, secret: Run, browser: Browser
    ) -> None:
        [line, *_] = lines_of(secret)
        outputs = [output | {"sha256": "0" * 64} for output in line["outputs"]]
        bare = [{"path": output["path"]} for output in outputs]
        for lie, code in (
            # As outputs, under the name that the other has given them.
            (line | {"outputs": bare, "sha256": {}}, 404),
            (line | {"outputs": outputs}, 404),
            # As inputs.
            (line | {"edit": {"images": [outputs[0]["path"]], "mask": outputs[0]["path"]}, "sha256": {}}, 404),
            (line | {"edit": {"images": [outputs[0]["path"]]}, "sha256": {outputs[0]["path"]: "0" * 64}}, 404),
        ):
            write(manifest_of(run), [lie])
            kind = "outputs" if "outputs" in lie and lie["edit"] == line["edit"] else "images"
            rests = [f"/edits/1/{kind}/0/{form}" for form in ("small", "whole")]
            assert answers(browser, run, rests) == dict.fromkeys(rests, code)

    def test_only_files_beside_the_manifest_with_the_edits_name_are_outputs(
        self, run: Run, browser: Browser, tmp_path: Path
    ) -> None:
        [line, *_] = lines_of(run)
        (tmp_path / "other").mkdir()
        landed = Path(line["outputs"][0]["path"])
        content = landed.read_bytes()
        for path in (
            tmp_path / "other" / landed.name,
            tmp_path.parent / landed.name,
            tmp_path / f"x{landed.name}",
            tmp_path / "cup-10.png",
            tmp_path / "cup-1",
        ):
            path.write_bytes(content)
            self.expect_not_shown(run, browser, line, str(path), digest(path))
        for lie in (
            f"{tmp_path}/other/../{landed.name}",
            f"{tmp_path}/./{landed.name}",
            f"file://{landed}",
            f"http://127.0.0.1:1{landed}",
            f"https://{landed.name}",
            "/etc/passwd",
            "",
        ):
            self.expect_not_shown(run, browser, line, lie, digest(landed))

    def expect_not_shown(self, run: Run, browser: Browser, line: dict[str, Any], path: str, sha256: str) -> None:
        write(manifest_of(run), [line | {"outputs": [{"path": path, "sha256": sha256}]}])
        pages = [browser.get(path_of(run, rest=rest)).text for rest in ("", "/edits/1")]
        assert not any("outputs" in source for page in pages for source in images_in(page)), path
        assert browser.get(path_of(run, rest="/edits/1/outputs/0/whole")).status_code == 404, path

    def test_a_link_is_not_loaded_and_does_not_widen_the_pages_policy(self, run: Run, browser: Browser) -> None:
        [line, *_] = lines_of(run)
        for link in ("https://evil.example/a.png", "javascript:alert(1)", "//evil.example", "data:text/html,<script>"):
            edit = {"prompt": "x", "images": [link], "mask": link}
            outputs = [{"url": link}, {"path": link, "sha256": "0" * 64}]
            write(manifest_of(run), [line | {"edit": edit, "outputs": outputs}])
            for rest in ("", "/edits/1"):
                answer = browser.get(path_of(run, rest=rest))
                assert images_in(answer.text) == []
                assert "img-src 'self';" in answer.headers["Content-Security-Policy"]
                assert 'href="javascript:' not in answer.text
                assert 'href="data:' not in answer.text
            # The API server itself opens no address.
            rests = [
                f"/edits/1/{rest}" for rest in ("images/0/small", "images/0/whole", "mask/0/whole", "mask/0/cover")
            ]
            assert answers(browser, run, rests) == dict.fromkeys(rests, 404)

    def test_files_in_disguise_are_not_served(self, run: Run, browser: Browser) -> None:
        [line, *_] = lines_of(run)
        path = Path(line["outputs"][0]["path"])
        for content in (SVG, HTML, b"%PDF-1.4", b"root:x:0:0"):
            path.write_bytes(content)
            sha256 = digest(path)
            write(
                manifest_of(run),
                [
                    line
                    | {"outputs": [{"path": str(path), "sha256": sha256, "content_type": "image/png"}]}
                    | {"edit": {"images": [str(path)], "mask": str(path)}, "sha256": {str(path): sha256}}
                ],
            )
            for rest in ("images/0/small", "images/0/whole", "mask/0/cover", "outputs/0/small", "outputs/0/whole"):
                answer = browser.get(path_of(run, rest=f"/edits/1/{rest}"))
                assert answer.status_code == 404
                assert answer.headers["Content-Type"].startswith("text/plain")
                assert "alert" not in answer.text

    def test_texts_of_the_manifest_are_escaped(self, run: Run, browser: Browser) -> None:
        [line, *_] = lines_of(run)
        evil = line | {"name": EVIL, "error": EVIL, "error_type": EVIL, "request_id": EVIL, "outputs": []}
        evil |= {"edit": {"prompt": EVIL, EVIL: EVIL, "images": [EVIL]}, "sha256": {EVIL: EVIL}}
        write(manifest_of(run), [evil])
        push(run, "return_value", run.xcom("edit") | {"endpoint": EVIL})
        push(run, BATCH_XCOM, {"endpoint": EVIL, "edits": 1})
        for rest in ("", "/edits/1"):
            page = browser.get(path_of(run, rest=rest)).text
            assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
            assert "<img src=x" not in page
            assert len(re.findall("<script", page)) == 1
        push(run, "return_value", run.xcom("edit") | {"manifest": f"/{EVIL}"})
        assert "<img src=x" not in browser.page(run)

    def test_pages_and_pictures_have_the_same_headers_as_of_a_single_edit(self, run: Run, browser: Browser) -> None:
        common = {
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "same-origin",
        }
        for rest in ROUTES:
            headers = browser.get(path_of(run, rest=rest)).headers
            policy = re.sub("nonce-[^']+", "nonce-", headers["Content-Security-Policy"])
            expected = common | {"cache-control": "private, no-cache" if rest in PICTURES_OF_EDIT else "no-store"}
            assert {name: headers[name] for name in expected} == expected
            assert policy == (
                "default-src 'none'; style-src 'unsafe-inline'; sandbox"
                if rest in PICTURES_OF_EDIT
                else "default-src 'none'; img-src 'self'; style-src 'nonce-'; script-src 'nonce-'; "
                "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
            )


def test_texts_of_a_failure_are_escaped(run_dag: RunDag, browser: Browser, tmp_path: Path) -> None:
    run = run_dag(batch(tmp_path, failure={"what": EVIL, "vendor": EVIL, "advice": EVIL}))
    assert browser.page(run).count("&lt;script&gt;alert(2)&lt;/script&gt;") == 3
