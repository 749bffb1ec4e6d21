"""The pages of a batch: its counts while it runs, a grid of its edits, and a page of each edit."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG
from airflow.utils.session import create_session

from airflow_provider_odirouter.plugins.gallery import edits, files, views
from tests.dags.conftest import Run, RunDag
from tests.object_store import S3
from tests.plugins.batches import (
    IMAGE,
    OdiRouterImageEditBatchOperator,
    batch,
    digest,
    lines_of,
    manifest_of,
    write,
)
from tests.plugins.conftest import Browser, Visitor, images_in, path_of, push


@pytest.fixture
def run(run_dag: RunDag, tmp_path: Path) -> Run:
    """A batch of three edits, of which the second was refused."""
    return run_dag(batch(tmp_path))


def set_state(run: Run, state: str) -> None:
    with create_session() as session:
        session.query(TaskInstance).filter_by(dag_id="edit", run_id=run.run.run_id).update({"state": state})


def edit_page(browser: Browser, run: Run, number: int) -> str:
    answer = browser.get(path_of(run, rest=f"/edits/{number}"))
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def links_in(page: str) -> dict[str, str]:
    """The addresses of a page's links, by their id."""
    found = re.findall(r'<a id="([^"]*)" href="([^"]*)"', page)
    return {name: unescape(link).removeprefix("/odirouter") for name, link in found}


def texts_in(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub("<[^>]*>", " ", page)))


class TestWaitingBatch:
    def test_the_page_shows_counts_and_the_deadline_and_refreshes_itself(
        self, run_dag: RunDag, browser: Browser, tmp_path: Path
    ) -> None:
        run = run_dag(batch(tmp_path, edits=1_200, ends=False))
        set_state(run, "deferred")
        page = browser.page(run)

        assert "1,200 edits: 1 landed, 1 failed, 1,198 waiting" in texts_in(page)
        assert "waits for OdiRouter" in page
        assert "Submitted 2026-05-01 12:00:00 UTC Deadline 2026-05-01 12:15:00 UTC" in texts_in(page)
        assert '<main id="page" data-refresh>' in page
        assert images_in(page) == []

    def test_edits_are_shown_while_others_run(self, run_dag: RunDag, browser: Browser, tmp_path: Path) -> None:
        run = run_dag(batch(tmp_path, edits=5, ends=False, has_state=True))
        set_state(run, "deferred")
        page = browser.page(run)
        text = texts_in(page)

        assert "Deferred since 2026-05-01 12:01:00 UTC" in text
        for words in (
            "1. cup-1 +1 succeeded",
            "2. number-2 failed: CONTENT_BLOCKED",
            "3. cup-3 waits for OdiRouter",
            "4. number-4 has succeeded, to land",
            "5. cup-5 to be submitted",
        ):
            assert words in text
        small = path_of(run, rest="/edits/1/outputs/0/small")
        assert small in images_in(page)
        assert browser.get(small).headers["content-type"] == "image/webp"
        edit = texts_in(browser.get(path_of(run, rest="/edits/3")).text)
        assert "waits for OdiRouter" in edit
        assert "has no outputs" not in edit

    def test_a_state_that_this_machine_does_not_have_is_no_error_of_the_page(
        self, run_dag: RunDag, browser: Browser, tmp_path: Path
    ) -> None:
        run = run_dag(batch(tmp_path, edits=5, ends=False, has_state=True))
        set_state(run, "running")
        for path in tmp_path.glob(".odirouter/*/state-*"):
            path.unlink()
        text = texts_in(browser.page(run))
        assert "The edits of this batch are not known here yet." in text
        assert "5 edits: 1 landed, 1 failed, 3 waiting" in text

    @pytest.mark.parametrize("part", [".odirouter", ".odirouter/{name}", ".odirouter/{name}/{file}"])
    def test_a_state_that_is_a_link_is_not_opened(
        self, part: str, run_dag: RunDag, browser: Browser, tmp_path: Path
    ) -> None:
        run = run_dag(batch(tmp_path, edits=5, ends=False, has_state=True))
        set_state(run, "running")
        [file] = tmp_path.glob(".odirouter/*/state-*")
        path = tmp_path / part.format(name=file.parent.name, file=file.name)
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        page = browser.page(run)
        assert "is a link to another folder or file" in texts_in(page)
        assert images_in(page) == []

    def test_the_page_of_a_failed_batch_without_a_manifest_says_so(
        self, run_dag: RunDag, browser: Browser, tmp_path: Path
    ) -> None:
        run = run_dag(batch(tmp_path, ends=False))
        set_state(run, "failed")
        page = browser.page(run)

        # The task does not wait any more, so the deadline means nothing.
        assert "3 edits: 1 landed, 1 failed Submitted" in texts_in(page)
        assert "Deadline" not in page
        assert "The task has written no manifest" in page
        assert "data-refresh" not in page
        assert browser.get(path_of(run, rest="/edits/1")).status_code == 404


class TestGrid:
    def test_each_edit_has_a_card_with_its_first_output(self, run: Run, browser: Browser) -> None:
        page = browser.page(run)
        text = texts_in(page)

        assert "3 edits: 2 landed, 1 failed" in text
        assert "waiting" not in text
        assert "Submitted 2026-05-01 12:00:00 UTC Completed 2026-05-01 12:03:00 UTC" in text
        assert "Spent in all tries 4 submits, about 0.50" in text
        assert "data-refresh" not in page
        assert "1. cup-1 +1 succeeded" in text
        assert "2. number-2 failed: CONTENT_BLOCKED" in text
        assert "3. cup-3 succeeded" in text
        outputs = [path_of(run, rest=f"/edits/{number}/outputs/0/small") for number in (1, 3)]
        assert [source for source in images_in(page) if "outputs" in source] == outputs
        assert [links_in(page)[f"card-{number}"] for number in (1, 2, 3)] == [
            path_of(run, rest=f"/edits/{number}") for number in (1, 2, 3)
        ]
        assert str(manifest_of(run)) in page

    def test_the_page_of_a_failed_batch_shows_the_reason_and_its_edits(
        self, run_dag: RunDag, browser: Browser, tmp_path: Path
    ) -> None:
        failure = {"what": "1 of 3 edits has no pictures.", "vendor": "No balance.", "advice": "Top up."}
        run = run_dag(batch(tmp_path, failure=failure))
        page = browser.page(run)

        assert run.state == "failed"
        assert "3 edits: 2 landed, 1 failed Submitted" in texts_in(page)
        assert "What happened 1 of 3 edits has no pictures. OdiRouter says: No balance. Top up." in texts_in(page)
        assert "1. cup-1 +1 succeeded" in texts_in(page)
        assert "data-refresh" not in page
        for source in images_in(page):
            assert browser.get(source).status_code == 200
        assert "1. cup-1" in edit_page(browser, run, 1)

    def test_a_batch_that_does_not_push_its_return_value_has_a_grid_too(
        self, run_dag: RunDag, browser: Browser, tmp_path: Path
    ) -> None:
        page = browser.page(run_dag(batch(tmp_path, do_xcom_push=False)))

        assert "1. cup-1 +1 succeeded" in texts_in(page)

    def test_the_pictures_of_the_grid_can_be_decoded_and_have_texts(self, run: Run, browser: Browser) -> None:
        page = browser.page(run)

        for source in images_in(page):
            answer = browser.get(source)
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/webp")
        alts = re.findall(r'<img [^>]*alt="([^"]*)"', page)
        assert alts == ["Output 1 of: Colour 1", "Input 1: coffee.png", "Output 1 of: Colour 3"]

    @pytest.mark.parametrize("map_index", ["{MAP_INDEX}", "all", "-1"])
    def test_the_page_is_found_without_a_map_index(self, run: Run, browser: Browser, map_index: str) -> None:
        assert "1. cup-1" in texts_in(browser.page(run, map_index=map_index))

    def test_many_cards_are_split_into_pages(
        self, run_dag: RunDag, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(views, "CARDS_PER_PAGE", 5)
        run = run_dag(batch(tmp_path, edits=12))
        for map_index in ("-1", "{MAP_INDEX}"):
            pages = [
                browser.get(path_of(run, map_index=map_index, rest=f"?page={number}")).text for number in (1, 2, 3, 99)
            ]
            assert [page.count("<li>") for page in pages] == [5, 5, 2, 2]
            assert ['rel="prev"' in page for page in pages] == [False, True, True, True]
            assert ['rel="next"' in page for page in pages] == [True, True, False, False]
            assert "11. cup-11" in texts_in(pages[2])
            assert "Page 3 of 3" in pages[2]
        assert links_in(pages[1])["next"] == path_of(run, rest="?page=3")
        assert links_in(edit_page(browser, run, 10))["up"] == path_of(run, rest="?page=2")
        assert links_in(edit_page(browser, run, 11))["up"] == path_of(run, rest="?page=3")

    def test_the_gallery_works_below_a_prefix(self, run: Run, visitor: Visitor) -> None:
        page = visitor("edit", prefix="/team-a").page(run)

        assert images_in(page)[0] == f"/team-a/odirouter{path_of(run, rest='/edits/1/outputs/0/small')}"

    def test_each_batch_of_a_mapped_task_has_a_card_with_its_counts(
        self, run_dag: RunDag, browser: Browser, tmp_path: Path
    ) -> None:
        with DAG("edit") as dag:
            OdiRouterImageEditBatchOperator.partial(task_id="edit", folder=str(tmp_path)).expand(edits=[2, 3])
        run = run_dag(dag)
        page = browser.page(run, map_index="{MAP_INDEX}")

        assert "2 instances in run" in page
        assert "2 edits: 1 landed, 1 failed [0] succeeded" in texts_in(page)
        assert "3 edits: 2 landed, 1 failed [1] succeeded" in texts_in(page)
        assert images_in(page) == []
        assert links_in(page)["card-2"] == path_of(run, map_index=1)
        one = browser.page(run, map_index=1)
        assert links_in(one)["up"] == path_of(run, map_index="all")
        assert images_in(one)[0] == path_of(run, map_index=1, rest="/edits/1/outputs/0/small")
        assert browser.get(images_in(one)[0]).status_code == 200


class TestEditPage:
    def test_the_page_shows_inputs_beside_outputs_and_all_parameters(self, run: Run, browser: Browser) -> None:
        page = edit_page(browser, run, 1)

        for title in ("Input 1", "Mask", "Output 1", "Output 2", "The part that may be edited"):
            assert title in page
        for text in ("1. cup-1", "Colour 1", "mmsu_1", "gpt_image_1_edit", "1024x1024", "96 × 64", "8.2 s"):
            assert text in page
        assert "succeeded" in page
        assert "<dt>Try</dt>" not in page
        assert "data-refresh" not in page
        sources = images_in(page)
        assert sources == [
            path_of(run, rest=f"/edits/1/{rest}")
            for rest in ("images/0/small", "mask/0/cover", "mask/0/small", "outputs/0/small", "outputs/1/small")
        ]
        for source in sources:
            assert browser.get(source).headers["Content-Type"] == "image/webp"

    def test_whole_pictures_are_the_files_that_landed(self, run: Run, browser: Browser) -> None:
        for index, output in enumerate(lines_of(run)[0]["outputs"]):
            answer = browser.get(path_of(run, rest=f"/edits/1/outputs/{index}/whole?download=true"))
            assert answer.content == Path(output["path"]).read_bytes()
            name = Path(output["path"]).name
            assert answer.headers["Content-Disposition"] == f"attachment; filename*=utf-8''{name}"
        assert browser.get(path_of(run, rest="/edits/2/images/0/whole")).content == Path(IMAGE).read_bytes()

    def test_the_page_links_to_the_batch_and_to_its_neighbours(self, run: Run, browser: Browser) -> None:
        links = [links_in(edit_page(browser, run, number)) for number in (1, 2, 3)]

        assert [one["up"] for one in links] == [path_of(run)] * 3
        assert "All edits of this batch (3)" in edit_page(browser, run, 1)
        neighbours = [(one.get("previous"), one.get("next")) for one in links]
        first, second, third = (path_of(run, rest=f"/edits/{number}") for number in (1, 2, 3))
        assert neighbours == [(None, second), (first, third), (second, None)]

    def test_the_page_of_a_failed_edit_shows_the_reason(self, run: Run, browser: Browser) -> None:
        text = texts_in(edit_page(browser, run, 2))

        assert "failed: CONTENT_BLOCKED" in text
        assert "What happened OdiRouter refused the request: it was blocked." in text
        assert "mmsu_2" in text
        assert "None." in text

    def test_an_edit_that_was_never_submitted_has_a_page_too(self, run: Run, browser: Browser) -> None:
        line = {"number": 1, "name": "late", "edit": {"prompt": "x", "images": ["https://example.com/a.png"]}}
        write(manifest_of(run), [line])
        text = texts_in(edit_page(browser, run, 1))

        assert "This edit has no outputs, and the batch's manifest does not say why." in text
        assert "Request id" not in text
        assert "This input is a link: open it to see the picture." in text

    def test_a_missing_edit_gets_a_sentence_and_404(self, run: Run, browser: Browser) -> None:
        for number in (0, 4, 10**9):
            answer = browser.get(path_of(run, rest=f"/edits/{number}"))
            assert answer.status_code == 404
            assert "This batch has no such edit." in answer.text
            assert browser.get(path_of(run, rest=f"/edits/{number}/outputs/0/small")).status_code == 404
        answer = browser.get(path_of(run, "no_such_task", rest="/edits/1"))
        assert (answer.status_code, "Airflow has no such task instance." in answer.text) == (404, True)

    def test_a_file_that_replaced_a_picture_is_not_shown(self, run: Run, browser: Browser) -> None:
        [output] = lines_of(run)[2]["outputs"]
        Path(output["path"]).write_bytes(Path(IMAGE).read_bytes())

        for form in ("small", "whole"):
            assert browser.get(path_of(run, rest=f"/edits/3/outputs/0/{form}")).status_code == 404


class TestUnreadableManifest:
    def notices(self, browser: Browser, run: Run) -> list[tuple[int, str]]:
        """The answers of the batch's page, of an edit's page, and in place of a picture."""
        answers = [browser.get(path_of(run, rest=rest)) for rest in ("", "/edits/1", "/edits/1/outputs/0/small")]
        return [(answer.status_code, texts_in(answer.text)) for answer in answers]

    def expect(self, browser: Browser, run: Run, status_code: int, words: str) -> None:
        notices = self.notices(browser, run)
        assert [code for code, _ in notices] == [200, status_code, status_code]
        assert all(words in text for _, text in notices), notices

    def test_a_missing_manifest(self, run: Run, browser: Browser) -> None:
        manifest_of(run).unlink()
        self.expect(browser, run, 404, f"The API server finds no file {manifest_of(run)}.")
        assert "3 edits: 2 landed, 1 failed" in texts_in(browser.page(run))

    def test_a_folder_or_an_empty_file_in_its_place(self, run: Run, browser: Browser) -> None:
        write(manifest_of(run), [])
        self.expect(browser, run, 404, "The API server finds no file")
        manifest_of(run).unlink()
        manifest_of(run).mkdir()
        self.expect(browser, run, 404, "The API server finds no file")

    def test_a_manifest_of_blank_lines(self, run: Run, browser: Browser) -> None:
        write(manifest_of(run), ["", " "])
        assert "The manifest is empty." in texts_in(browser.page(run))

    def test_a_manifest_that_is_too_large(self, run: Run, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
        with manifest_of(run).open("wb") as file:
            file.truncate(files.MAX_BYTES + 1)  # sparse
        self.expect(browser, run, 413, "has more than 100 MiB.")

    def test_a_manifest_with_too_many_lines(self, run: Run, browser: Browser) -> None:
        write(manifest_of(run), ["{}"] * (edits.MAX_LINES + 1))
        self.expect(browser, run, 413, "has more than 100,000 lines.")

    def test_an_unreadable_line_does_not_hide_the_others(self, run: Run, browser: Browser) -> None:
        first, _, third = lines_of(run)
        odd: list[dict[str, Any] | str] = [
            "no JSON",
            '"text"',
            '{"number": 1}',
            '{"number":1,"name":"a","edit":' + "[" * 9_000 + "]" * 9_000 + "}",
            '{"number":1,"name":"\\ud800","edit":{}}',
            first | {"metadata": {"text": "x" * edits.MAX_LINE_BYTES}},
        ]
        for line in odd:
            write(manifest_of(run), [first, line, third])
            text = texts_in(browser.page(run))
            assert "The manifest has been changed. Lines that cannot be read: 2." in text
            assert "1. cup-1" in text
            assert "3. cup-3" in text
            answers = [browser.get(path_of(run, rest=f"/edits/{rest}")) for rest in ("2", "2/outputs/0/whole")]
            assert [answer.status_code for answer in answers] == [502, 502]
            assert "Line 2 of the batch's manifest cannot be read." in texts_in(answers[0].text)

    def test_a_page_of_unreadable_lines_links_to_the_next_page(
        self, run: Run, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(views, "CARDS_PER_PAGE", 1)
        write(manifest_of(run), ["no JSON", lines_of(run)[2]])
        page = browser.page(run)

        assert "Lines that cannot be read: 1." in page
        assert links_in(page)["next"] == path_of(run, rest="?page=2")

    def test_impossible_numbers_and_times_do_not_break_the_page(self, run: Run, browser: Browser) -> None:
        [line, *_] = lines_of(run)
        huge = 10**4_000
        output = line["outputs"][0] | {"size_bytes": huge, "width": huge, "height": -huge}
        line |= {"number": huge, "submitted_at": "0001-01-01T00:00:00", "completed_at": "9999-12-31T23:59:59-14:00"}
        for seconds in ("NaN", "Infinity", "1e308"):
            odd: Any = line | {"outputs": [output], "inference_seconds": float(seconds), "edit": {"n": huge}}
            write(manifest_of(run), [odd])
            assert "1. cup-1" in edit_page(browser, run, 1)
            assert "1. cup-1" in browser.page(run)


class TestManifestCache:
    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The manifests that have been read, in order."""
        found: list[str] = []

        def record(path: str, **arguments: Any) -> Any:
            found.append(path)
            return files.open_file(path, **arguments)

        monkeypatch.setattr(edits, "open_file", record)
        return found

    def test_a_page_and_all_its_pictures_read_the_manifest_once(
        self, run: Run, browser: Browser, reads: list[str]
    ) -> None:
        for source in images_in(browser.page(run)):
            assert browser.get(source).status_code == 200

        assert reads == [str(manifest_of(run))]

    def test_the_manifest_is_read_again_after_half_a_minute(
        self, run: Run, browser: Browser, reads: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        browser.page(run)
        started = files.now()
        monkeypatch.setattr(edits, "now", lambda: started + 15)
        browser.page(run)
        assert len(reads) == 1
        monkeypatch.setattr(edits, "now", lambda: started + 31)
        browser.page(run)
        assert len(reads) == 2

    def test_the_manifest_is_read_again_when_the_task_returns_another_summary(
        self, run_dag: RunDag, run: Run, browser: Browser, reads: list[str]
    ) -> None:
        browser.page(run)
        push(run, "return_value", run.xcom("edit") | {"completed_at": "2026-05-01T13:00:00Z"})
        browser.page(run)
        assert len(reads) == 2

    def test_the_manifest_is_read_again_after_an_error(self, run: Run, browser: Browser, reads: list[str]) -> None:
        content = manifest_of(run).read_bytes()
        manifest_of(run).unlink()
        assert "finds no file" in browser.page(run)
        manifest_of(run).write_bytes(content)
        assert "1. cup-1" in texts_in(browser.page(run))

    def test_the_oldest_manifests_leave_a_full_cache(
        self, run_dag: RunDag, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        edits._cache.clear()
        runs = [run_dag(batch(tmp_path)) for _ in range(3)]
        monkeypatch.setattr(edits, "MAX_CACHE_BYTES", 2 * manifest_of(runs[0]).stat().st_size + 100)
        for run in runs:
            browser.page(run)
        edits._trim_cache_later()

        assert [version.path for version in edits._cache] == [str(manifest_of(run)) for run in runs[1:]]


def test_the_manifest_can_be_in_an_object_store(run_dag: RunDag, browser: Browser, s3: S3, tmp_path: Path) -> None:
    run = run_dag(batch(tmp_path))
    first, *_ = lines_of(run)
    base = s3.url("out", conn_id=s3.conn_id)
    for output in first["outputs"]:
        path = Path(output["path"])
        s3.put(f"out/{path.name}", path.read_bytes())
        output["path"] = f"{base}/{path.name}"
    write(manifest_of(run), [first])
    s3.put(f"out/{manifest_of(run).name}", manifest_of(run).read_bytes())
    push(run, "return_value", run.xcom("edit") | {"manifest": f"{base}/{manifest_of(run).name}"})
    [source] = images_in(browser.page(run))

    assert browser.get(source).status_code == 200
    whole = browser.get(source.replace("small", "whole"))
    assert digest(IMAGE) != first["outputs"][0]["sha256"]
    assert whole.content == (tmp_path / "cup-1-0.png").read_bytes()
