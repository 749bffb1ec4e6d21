"""The pages of single edits and of mapped tasks, after real runs, in Airflow's real API server."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin

import pytest
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.utils.session import create_session
from PIL import Image

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.plugins.gallery.files import NOT_FOUND
from airflow_provider_odirouter.plugins.images_tab import OdiRouterPlugin
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from airflow_provider_odirouter.xcoms import REQUEST_XCOM, STATUS_XCOM, StatusRecord
from tests.dags.conftest import Run, RunDag, edit
from tests.plugins.conftest import Browser, Visitor, images_in, path_of, push

pytestmark = pytest.mark.every_version

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def dag_with_mask(pictures: Path, folder: Path) -> DAG:
    return edit(
        pictures,
        prompt="Hot chocolate",
        mask=str(pictures / "coffee-mask.png"),
        size="1024x1024",
        n=2,
        output_path=str(folder),
    )


def opened(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


class TestOneEdit:
    def test_the_page_shows_inputs_beside_outputs_and_all_parameters(
        self, run_dag: RunDag, browser: Browser, sandbox: Sandbox, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(dag_with_mask(pictures, tmp_path))
        page = browser.page(run)

        for title in ("Input 1", "Mask", "Output 1", "Output 2"):
            assert title in page
        [request] = sandbox.requests
        for text in ("Hot chocolate", request.request_id, "1024x1024", "1024 × 1024", "PNG", "MiB", "Inference"):
            assert text in page
        assert "<dt>Spent in all tries</dt><dd>1 submit</dd>" in page
        assert "succeeded" in page
        assert "data-refresh" not in page

    def test_whole_pictures_are_the_files_that_landed(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(dag_with_mask(pictures, tmp_path))

        for index, output in enumerate(run.xcom("edit")["outputs"]):
            answer = browser.get(path_of(run, rest=f"/outputs/{index}/whole"))
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
            assert answer.content == Path(output["path"]).read_bytes()
        answer = browser.get(path_of(run, rest="/images/0/whole"))
        assert answer.content == (pictures / "coffee.png").read_bytes()

    def test_each_picture_of_the_page_is_small_and_can_be_decoded(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(dag_with_mask(pictures, tmp_path))
        sizes = []
        for source in images_in(browser.page(run)):
            answer = browser.get(source)
            assert answer.headers["Content-Type"] == "image/webp"
            sizes.append(opened(answer.content).size)

        # The photograph, its mask over it, the mask, two outputs.
        assert sizes == [(512, 341), (512, 341), (512, 341), (512, 512), (512, 512)]

    def test_the_cover_lies_over_the_editable_part_only(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(dag_with_mask(pictures, tmp_path))
        cover = opened(browser.get(path_of(run, rest="/mask/0/cover")).content).getchannel("A")

        with Image.open(pictures / "coffee-mask.png") as mask:
            editable = mask.getchannel("A").resize(cover.size).point(lambda alpha: 255 * (alpha < 128))
        assert cover.getpixel((0, 0)) == 0
        covered = cover.point(lambda alpha: 255 * (alpha > 64))
        differing = sum(a != b for a, b in zip(covered.tobytes(), editable.tobytes(), strict=True))
        assert differing < 0.02 * len(editable.tobytes())

    def test_a_download_has_the_name_of_the_file(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(dag_with_mask(pictures, tmp_path))
        [output, _] = run.xcom("edit")["outputs"]
        answer = browser.get(path_of(run, rest="/outputs/0/whole?download=true"))

        name = Path(output["path"]).name
        assert answer.headers["Content-Disposition"] == f"attachment; filename*=utf-8''{name}"

    def test_a_browser_asks_for_a_small_picture_again_but_does_not_load_it_again(
        self, run_dag: RunDag, browser: Browser, visitor: Visitor, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(dag_with_mask(pictures, tmp_path))
        path = path_of(run, rest="/outputs/0/small")
        first = browser.get(path)
        etag = first.headers["ETag"]

        assert "no-cache" in first.headers["Cache-Control"]
        assert browser.get(path, **{"If-None-Match": etag}).status_code == 304
        assert visitor(None).get(path, **{"If-None-Match": etag}).status_code == 401

    def test_a_file_that_replaced_a_picture_is_not_shown(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(edit(pictures, output_path=str(tmp_path)))
        [output] = run.xcom("edit")["outputs"]
        Path(output["path"]).write_bytes((pictures / "rocket.jpg").read_bytes())

        for form in ("small", "whole"):
            answer = browser.get(path_of(run, rest=f"/outputs/0/{form}"))
            assert (answer.status_code, answer.text) == (404, f"{output['path']}: {NOT_FOUND}")
        assert "Not found, or changed since the task wrote it." in browser.page(run)

    def test_a_new_picture_under_the_same_name_is_shown(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        blue = run_dag(edit(pictures, prompt="Blue", output_path=str(tmp_path)))
        other = run_dag(edit(pictures, prompt="Sepia", output_path=str(tmp_path)))
        smalls = [browser.get(path_of(run, rest="/outputs/0/small")) for run in (blue, other)]

        assert smalls[0].headers["ETag"] != smalls[1].headers["ETag"]
        assert smalls[0].content != smalls[1].content

    def test_the_page_is_found_without_a_map_index(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(edit(pictures, output_path=str(tmp_path)))

        for map_index in ("{MAP_INDEX}", "all", "-1"):
            assert "Output 1" in browser.page(run, map_index=map_index)

    def test_each_picture_has_an_alternative_text(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        page = browser.page(run_dag(dag_with_mask(pictures, tmp_path)))

        alts = re.findall(r'<img [^>]*alt="([^"]*)"', page)
        assert len(alts) == len(images_in(page)) == 5
        assert alts[0] == "Input 1: coffee.png"
        assert "Output 1 of: Hot chocolate" in alts
        assert all(alts)
        assert '<html lang="en">' in page


class TestOtherStates:
    def test_a_failure_shows_the_vendors_words_and_what_to_do(
        self, run_dag: RunDag, browser: Browser, sandbox: Sandbox, pictures: Path
    ) -> None:
        sandbox.configure(error_type="CONTENT_BLOCKED")
        run = run_dag(edit(pictures))
        [request] = sandbox.requests
        page = browser.page(run)

        assert "OdiRouter says: <q>" in page
        assert "Change the prompt or the pictures" in page
        assert request.request_id in page
        assert "Input 1" in page

    def test_a_page_names_bad_parameters_though_nothing_was_submitted(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures, images=["{{ '/no/such.png' }}"]))

        assert "&#39;/no/such.png&#39; does not exist, as this worker sees it" in browser.page(run)

    def test_the_page_of_another_providers_task_is_one_sentence(self, run_dag: RunDag, visitor: Visitor) -> None:
        from airflow.sdk import task

        with DAG("not_ours") as dag:

            @task
            def other() -> dict[str, object]:
                return {"outputs": [{"path": "/etc/passwd"}]}

            other()
        page = visitor("not_ours").page(run_dag(dag), "other")

        assert "This task does not edit pictures with OdiRouter" in page
        assert "<img" not in page
        assert "passwd" not in page

    def test_a_missing_task_instance_gets_a_sentence_and_404(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))

        answer = browser.get(path_of(run, "no_such_task"))
        assert answer.status_code == 404
        assert "Airflow has no such task instance." in answer.text

    def test_the_page_of_a_task_that_only_submits_says_so(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        page = browser.page(run_dag(edit(pictures, wait_for_completion=False)))

        assert "this task only submits" in page
        assert "Input 1" in page

    def test_the_page_of_a_task_that_does_not_push_its_manifest_says_so(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        page = browser.page(run_dag(edit(pictures, output_path=str(tmp_path), do_xcom_push=False)))

        assert "the task does not push its return value" in page

    def test_a_missing_picture_does_not_break_the_page(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(edit(pictures, output_path=str(tmp_path)))
        [output] = run.xcom("edit")["outputs"]
        Path(output["path"]).unlink()

        assert "Output 1" in browser.page(run)
        for form in ("small", "whole"):
            answer = browser.get(path_of(run, rest=f"/outputs/0/{form}"))
            assert (answer.status_code, answer.text) == (404, f"{output['path']}: {NOT_FOUND}")

    def test_a_page_that_can_change_refreshes_itself(self, run_dag: RunDag, browser: Browser, pictures: Path) -> None:
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        run = run_dag(edit(pictures, wait_for_completion=False))
        for state in ("deferred", "running", "queued", "up_for_retry"):
            with create_session() as session:
                session.query(TaskInstance).filter_by(dag_id="edit", run_id=run.run.run_id).update({"state": state})
            assert '<main id="page" data-refresh>' in browser.page(run)


def wait(run: Run, state: str = "deferred", **changes: Any) -> None:
    """Put a task back to where its request had not ended; ``changes`` are those of the request's record."""
    from airflow.models.taskinstance import TaskInstance

    push(run, REQUEST_XCOM, run.xcom("edit", REQUEST_XCOM) | changes)
    with create_session() as session:
        session.query(TaskInstance).filter_by(dag_id="edit", run_id=run.run.run_id).update({"state": state})


def show_status(run: Run, request_id: str, raw_status: str) -> None:
    """Push what a trigger pushes when it sees a new status."""
    XComModel.set(STATUS_XCOM, None, dag_id="edit", task_id="edit", run_id=run.run.run_id)
    push(run, STATUS_XCOM, StatusRecord(request_id=request_id, raw_status=raw_status, seen_at=NOON).to_xcom())


class TestAWaitingRequest:
    def test_the_page_says_since_when_until_when_and_how_to_follow_it(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))
        request_id = run.xcom("edit", "request_id")
        wait(run, waiting_since="2999-11-29T12:00:00Z", deadline="2999-11-29T12:15:00Z")
        page = unescape(browser.page(run))

        assert "<dt>Since</dt><dd>2999-11-29 12:00:00 UTC</dd>" in page
        assert "<dt>Deadline</dt><dd>2999-11-29 12:15:00 UTC</dd>" in page
        assert "not known here" in page
        logs = f"/dags/edit/runs/{quote(run.run.run_id, safe='')}/tasks/edit"
        assert f'href="{logs}" target="_top"' in page
        command = f"odirouter-request status gpt_image_1_edit {request_id} --conn-id odirouter_default"
        assert f"<code>{command}</code>" in page
        assert "To cancel the request, mark the task as failed." in page

    def test_the_page_shows_the_status_that_the_trigger_has_seen_last(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))
        wait(run)
        show_status(run, run.xcom("edit", "request_id"), "IN_PROGRESS")

        assert "IN_PROGRESS, first seen 2026-11-29 12:00:00 UTC" in browser.page(run)

    def test_a_status_of_the_vendor_is_text(self, run_dag: RunDag, browser: Browser, pictures: Path) -> None:
        run = run_dag(edit(pictures))
        wait(run)
        show_status(run, run.xcom("edit", "request_id"), "<script>alert(1)</script>")

        assert "&lt;script&gt;alert(1)&lt;/script&gt;, first seen" in browser.page(run)

    @pytest.mark.parametrize("deadline", ["2026-01-01T12:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59-14:00"])
    def test_an_odd_deadline_does_not_break_the_page(
        self, deadline: str, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))
        wait(run, deadline=deadline)

        assert "<dt>Deadline</dt>" in browser.page(run)

    def test_the_status_of_an_earlier_trys_request_is_not_shown(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))
        wait(run)
        show_status(run, "mmsu_of_an_earlier_try", "IN_PROGRESS")
        page = browser.page(run)

        assert "IN_PROGRESS" not in page
        assert "not known here" in page

    def test_the_page_says_that_the_deadline_has_passed(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures, cancel_on_kill=False))
        wait(run, deadline="2026-01-01T12:00:00Z")
        page = browser.page(run)

        assert "2026-01-01 12:00:00 UTC, which has passed" in page
        assert "mark the task as failed" not in page

    def test_a_record_of_an_older_version_has_no_beginning(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))
        wait(run, waiting_since=None)
        page = browser.page(run)

        assert "Waiting for OdiRouter" in page
        assert "Since" not in page

    @pytest.mark.parametrize("state", ["success", "failed", "up_for_retry", "queued"])
    def test_a_task_that_does_not_wait_says_nothing_of_it(
        self, state: str, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))
        wait(run, state)

        assert "Waiting for OdiRouter" not in browser.page(run)

    def test_a_task_that_only_submits_does_not_wait(self, run_dag: RunDag, browser: Browser, pictures: Path) -> None:
        run = run_dag(edit(pictures, wait_for_completion=False))
        wait(run)

        assert "Waiting for OdiRouter" not in browser.page(run)


class TestTheExtraLink:
    def follow(self, browser: Browser, run: Run, map_index: int = -1) -> str:
        """Open the link as Airflow's UI does, and return the page."""
        ui = f"{browser.client.base_url}{browser.prefix}/"
        task = f"dags/edit/dagRuns/{quote(run.run.run_id, safe='')}/taskInstances/edit"
        answer = browser.client.get(f"{ui}api/v2/{task}/links?map_index={map_index}")
        assert answer.status_code == 200, answer.text
        # The base of the UI's pages is its own address.
        page = browser.client.get(urljoin(ui, answer.json()["extra_links"]["OdiRouter request"]))
        assert page.status_code == 200, page.text
        return page.text

    @pytest.mark.parametrize("prefix", ["", "/team-a"])
    def test_it_opens_the_page_of_a_request_that_waits(
        self, prefix: str, run_dag: RunDag, visitor: Visitor, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))
        wait(run)

        page = self.follow(visitor("edit", prefix), run)
        assert run.xcom("edit", "request_id") in page
        assert f'href="{prefix}/dags/edit/runs/' in page

    def test_it_opens_the_page_of_a_task_that_failed_before_it_had_a_request(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures, images=["{{ '/no/such.png' }}"]))

        assert "does not exist, as this worker sees it" in self.follow(browser, run)

    def test_it_opens_the_page_of_each_instance_of_a_mapped_task(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        with DAG("edit") as dag:
            OdiRouterImageEditOperator.partial(
                task_id="edit", images=[str(pictures / "chelsea.png")], wait_for_completion=False
            ).expand(prompt=["Red", "Green"])
        run = run_dag(dag)

        for map_index, prompt in enumerate(["Red", "Green"]):
            assert f">{prompt}</blockquote>" in self.follow(browser, run, map_index)

    @pytest.mark.parametrize("run_id", ["a b+c~d:e;f=g@h&'i'", "2026-11-29T12:00:00+00:00", "{MAP_INDEX}"])
    def test_it_opens_the_page_of_a_run_with_an_odd_id(
        self, run_id: str, run_dag: RunDag, browser: Browser, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.models.dagrun import DagRun

        monkeypatch.setattr(DagRun, "generate_run_id", lambda **_: run_id)
        monkeypatch.setenv("AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN", ".*")
        run = run_dag(edit(pictures))
        wait(run)

        page = self.follow(browser, run)
        assert run.xcom("edit", "request_id") in page
        [logs] = re.findall('id="logs" href="/dags/edit/runs/([^"]*)/tasks/edit"', page)
        assert unquote(unescape(logs)) == run_id


class TestLinks:
    def test_a_page_loads_outputs_that_did_not_land_from_the_vendor_only(
        self, run_dag: RunDag, browser: Browser, pictures: Path, base_url: str
    ) -> None:
        run = run_dag(edit(pictures))
        [output] = run.xcom("edit")["outputs"]
        answer = browser.get(path_of(run))

        assert output["url"] in images_in(answer.text)
        assert "The vendor&#39;s link to this picture has expired" in answer.text
        origin = base_url.removesuffix("/model")
        assert f"img-src 'self' {origin};" in answer.headers["Content-Security-Policy"]
        # The API server itself opens no address.
        assert browser.get(path_of(run, rest="/outputs/0/whole")).status_code == 404

    def test_a_page_does_not_load_a_linked_input(self, run_dag: RunDag, browser: Browser, pictures: Path) -> None:
        run = run_dag(
            edit(
                pictures,
                images=[
                    "https://example.com/cup.png",
                    "https://example.com/hat.png?signature=a&b=c",
                    str(pictures / "coffee.png"),
                ],
            )
        )
        answer = browser.get(path_of(run))

        # It could be the address that logs its reader out.
        assert not any("example.com" in source for source in images_in(answer.text))
        assert "example.com" not in answer.headers["Content-Security-Policy"]
        assert 'href="https://example.com/cup.png"' in answer.text
        # A link without its signature would not work.
        assert "which is not kept, so it cannot be opened here" in answer.text
        assert 'href="https://example.com/hat.png' not in answer.text

    def test_a_signature_that_an_older_version_has_pushed_is_not_shown(
        self, run_dag: RunDag, browser: Browser, pictures: Path
    ) -> None:
        run = run_dag(edit(pictures))
        link = "https://user:s3cret@example.com/cup.png?sig=s3cret#s3cret"
        push(run, REQUEST_XCOM, run.xcom("edit", REQUEST_XCOM) | {"images": [link], "mask": link})
        page = browser.page(run)
        assert "https://***@example.com/cup.png?***" in page
        assert "s3cret" not in page

    @pytest.mark.parametrize(
        ("link", "is_loaded"),
        [
            ("https://cdn.example.com/a b.png?signature=x", True),
            ("https://93.184.216.34/a.png", True),
            ("http://airflow.test/auth/logout", False),
            ("https://AIRFLOW.test./auth/logout", False),
            ("http://airflow.test:9999/auth/logout", False),
            ("http://x@airflow.test/auth/logout", False),
            ("http://airflow.test\\@cdn.example.com/../auth/logout", False),
            ("http://cdn.example.com\\.airflow.test/auth/logout", False),
            ("http://air\tflow.test/auth/logout", False),
            ("http://airflow%2etest/auth/logout", False),
            ("http://\uff41irflow.test/auth/logout", False),
            ("http://public.airflow.example/auth/logout", False),
            ("http://forwarded.example/auth/logout", False),
            ("http://10.0.0.1/auth/logout", False),
            ("http://167772161/auth/logout", False),
            ("http://0x0a.0.0.1/auth/logout", False),
            ("http://10.1/auth/logout", False),
            ("http://012.0.0.1/auth/logout", False),
            ("http://[::1]/auth/logout", False),
            ("/auth/logout", False),
            ("//airflow.test/auth/logout", False),
            ("javascript:alert(1)", False),
            ("data:image/png;base64,AAAA", False),
        ],
    )
    def test_a_link_to_airflow_itself_is_never_loaded(
        self, run_dag: RunDag, browser: Browser, pictures: Path, link: str, is_loaded: bool
    ) -> None:
        run = run_dag(edit(pictures, wait_for_completion=False))
        outputs = [{"url": link, "content_type": "image/png"}]
        push(run, "return_value", {"request_id": "r", "endpoint": "e", "outputs": outputs})
        proxies = {"X-Forwarded-Host": "forwarded.example, 10.0.0.1:8080"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIRFLOW__API__BASE_URL", "https://public.airflow.example:8443/prefix")
            pages = [browser.get(path_of(run, map_index=index), **proxies) for index in (-1, "all")]
        for page in pages:
            assert (link in images_in(page.text)) is is_loaded
            policy = page.headers["Content-Security-Policy"]
            assert ("img-src 'self';" in policy) is not is_loaded
        if not is_loaded and link.startswith("http"):
            assert "This output is a link: open it to see the picture." in pages[0].text


class TestMappedTasks:
    def mapped(self, pictures: Path, folder: Path, count: int) -> DAG:
        with DAG("edit") as dag:
            OdiRouterImageEditOperator.partial(
                task_id="edit",
                images=[str(pictures / "chelsea.png")],
                deferrable=False,
                wait_for_completion=count < 10,
                output_path=str(folder),
                map_index_template="{{ task.prompt }}",
            ).expand(prompt=[f"Colour {number}" for number in range(count)])
        return dag

    def test_each_instance_has_a_card_that_leads_to_its_page(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(self.mapped(pictures, tmp_path, 3))
        page = browser.page(run, map_index="{MAP_INDEX}")

        assert "3 instances" in page
        assert [f"[Colour {number}]" in page for number in range(3)] == [True] * 3
        assert images_in(page) == [path_of(run, map_index=index, rest="/outputs/0/small") for index in range(3)]
        for index in range(3):
            one = browser.page(run, map_index=index)
            assert f"Colour {index}" in one
            assert path_of(run, map_index="all") in one

    def test_the_page_of_a_task_redirects_to_its_newest_run(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run_dag(self.mapped(pictures, tmp_path, 1))
        newest = run_dag(self.mapped(pictures, tmp_path, 2))
        answer = browser.get("/dags/edit/tasks/edit")

        assert answer.status_code == 307
        assert answer.headers["Location"] == "/odirouter" + path_of(newest, map_index="all")
        assert "This task has not run yet." in browser.get("/dags/edit/tasks/never").text

    def test_many_cards_are_split_into_pages(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_odirouter.plugins.gallery.views.CARDS_PER_PAGE", 5)
        run = run_dag(self.mapped(pictures, tmp_path, 12))
        pages = [browser.get(path_of(run, map_index="all", rest=f"?page={number}")).text for number in (1, 2, 3)]

        assert [page.count("<li>") for page in pages] == [5, 5, 2]
        assert ['rel="prev"' in page for page in pages] == [False, True, True]
        assert ['rel="next"' in page for page in pages] == [True, True, False]

    def test_a_mapped_task_with_one_instance_is_a_grid_of_one(
        self, run_dag: RunDag, browser: Browser, pictures: Path, tmp_path: Path
    ) -> None:
        run = run_dag(self.mapped(pictures, tmp_path, 1))

        assert "1 instance in run" in browser.page(run, map_index="{MAP_INDEX}")


def test_the_sensor_has_a_page_too(run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path) -> None:
    with DAG("submit_and_wait") as dag:
        output: Any = OdiRouterImageEditOperator(
            task_id="submit", prompt="Blue", images=str(pictures / "coffee.png"), wait_for_completion=False
        ).output
        OdiRouterRequestSensor(
            task_id="wait",
            request_id=output["request_id"],
            output_path=str(tmp_path),
            deferrable=False,
        )
    page = visitor("submit_and_wait").page(run_dag(dag), "wait")

    assert "Output 1" in page
    assert "Not known here." in page


def test_the_gallery_works_below_a_prefix(run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path) -> None:
    run = run_dag(edit(pictures, output_path=str(tmp_path)))
    prefixed = visitor("edit", prefix="/team-a")
    page = prefixed.page(run)

    assert images_in(page) == [
        f"/team-a/odirouter{path_of(run, rest=rest)}" for rest in ("/images/0/small", "/outputs/0/small")
    ]
    # Airflow's own links, too, are relative to the page's base, which has the prefix.
    assert all(not view["href"].startswith("/") for view in OdiRouterPlugin.external_views)
