"""People look at a task's pictures, in a real browser, below the UI's own address."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from dev.local_airflow import LocalAirflow
from tests.conftest import PICTURES
from tests.e2e.trial import TASK_ID, Trial
from tests.e2e.visitor import Visitor, path_of, width_of
from tests.object_store import REGION, S3

pytestmark = pytest.mark.every_version


@pytest.fixture(scope="module", autouse=True)
def shop(airflow: LocalAirflow, s3_endpoint: str) -> Iterator[None]:
    """A bucket with photographs, and Airflow's connection to it."""
    store = S3(s3_endpoint, bucket="photos")
    for name in ("coffee.png", "coffee-mask.png", "small.png"):
        store.put(name, (PICTURES / name).read_bytes())
    extra = {"endpoint_url": s3_endpoint, "region_name": REGION}
    airflow.api.add_connection("shop", "aws", login="root", password="of-all", extra=json.dumps(extra))
    yield
    store.close()


@pytest.fixture(scope="module")
def visitor(airflow: LocalAirflow) -> Iterator[Visitor]:
    """A user who has logged in."""
    with Visitor(airflow) as visitor:
        visitor.log_in()
        yield visitor
        assert visitor.dialogs == []
        assert "127.0.0.1" in visitor.hosts
        assert visitor.hosts <= {"127.0.0.1", "localhost"}  # a part of this file may run alone


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: SCREENSHOTS=docs/images renews those of the documentation."""
    return Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))


def manifest_of(airflow: LocalAirflow, trial: Trial, map_index: int = -1) -> dict[str, Any]:
    manifest: dict[str, Any] = airflow.xcom(trial.dag_id, trial.run_id, TASK_ID, "return_value", map_index)
    return manifest


@pytest.mark.chosen
@pytest.mark.on_celery
@pytest.mark.run("hot_chocolate")
def test_who_waits_sees_the_state_and_then_the_pictures_by_themselves(
    trial: Trial, visitor: Visitor, airflow: LocalAirflow
) -> None:
    trial.wait_until_watched()
    gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id))

    expect(gallery.get_by_text("waits for OdiRouter")).to_be_visible()
    expect(gallery.get_by_text("None yet.")).to_be_visible()
    assert width_of(gallery.get_by_alt_text("Input 1: coffee.png")) == 512

    trial.let_requests_end()
    outputs = gallery.get_by_alt_text("of: Turn the coffee into hot chocolate")
    expect(outputs).to_have_count(2, timeout=120_000)
    expect(gallery.get_by_text("succeeded")).to_be_visible()
    trial.check(submits=1, cancels=0, ends="success")
    for index, output in enumerate(manifest_of(airflow, trial)["outputs"]):
        assert width_of(outputs.nth(index)) == min(512, output["width"])


@pytest.mark.run("hot_chocolate")
def test_the_link_of_a_request_that_waits_opens_its_page(trial: Trial, visitor: Visitor) -> None:
    trial.wait_until_watched()
    page = visitor.follow_link(path_of(trial.dag_id, trial.run_id), "OdiRouter request")

    expect(page.get_by_text("Waiting for OdiRouter")).to_be_visible()
    # As the trigger has pushed it; the page refreshes by itself.
    expect(page.get_by_text("IN_PROGRESS, first seen")).to_be_visible()
    expect(page.get_by_text(f"odirouter-request status gpt_image_1_edit {trial.request_id}")).to_be_visible()
    page.get_by_role("link", name="The task's log").click()
    expect(page.get_by_text("is IN_PROGRESS")).to_be_visible()
    trial.let_requests_end()
    trial.check(submits=1, cancels=0, ends="success")


@pytest.mark.run("hot_chocolate", run_seconds=0)
def test_it_is_readable_by_day_and_by_night(trial: Trial, visitor: Visitor, screenshots: Path) -> None:
    trial.check(submits=1, cancels=0, ends="success")
    gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id))
    for theme, is_light in (("light", True), ("dark", False)):
        visitor.use_theme(theme)
        outputs = gallery.get_by_alt_text("of: Turn the coffee")
        expect(outputs).to_have_count(2)
        assert [width_of(outputs.nth(index)) for index in range(2)] == [512, 512]
        text = gallery.locator("body").evaluate("body => getComputedStyle(body).color")
        brightness = sum(int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(","))
        assert (brightness < 3 * 128) is is_light, text
        visitor.page.screenshot(path=screenshots / f"gallery-{theme}.jpg", quality=85)
    # A change of the theme needs no new page.
    visitor.page.evaluate("document.documentElement.classList.replace('dark', 'light')")
    expect(gallery.locator("html")).to_have_class("light")


@pytest.mark.run("hot_chocolate", run_seconds=0)
def test_pictures_open_and_download_whole_out_of_airflows_frame(
    trial: Trial, visitor: Visitor, airflow: LocalAirflow
) -> None:
    trial.check(submits=1, cancels=0, ends="success")
    [output, _] = manifest_of(airflow, trial)["outputs"]
    with visitor.held("**/small") as release:
        gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id))
        link = gallery.get_by_role("link", name="Open Output 1")
        place = link.bounding_box()
        release()
        assert width_of(gallery.get_by_alt_text("Output 1 of:")) == 512
        # A page that moves while its pictures arrive takes the link away from under the pointer.
        assert link.bounding_box() == place

    with visitor.page.expect_popup() as opening:
        link.click()
    assert width_of(opening.value.locator("img")) == output["width"]
    opening.value.close()

    with visitor.page.expect_download() as loading:
        gallery.get_by_role("link", name="Download Output 1").press("Enter")
    assert loading.value.suggested_filename == Path(output["path"]).name
    assert hashlib.sha256(loading.value.path().read_bytes()).hexdigest() == output["sha256"]


@pytest.mark.run("hot_chocolate", run_seconds=0)
def test_the_keyboard_alone_suffices(trial: Trial, visitor: Visitor) -> None:
    trial.check(submits=1, cancels=0, ends="success")
    gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id))
    cover = gallery.get_by_alt_text("The part that may be edited")
    expect(cover).to_be_visible()

    gallery.get_by_label("Show the part that may be edited").focus()
    visitor.page.keyboard.press("Space")
    expect(cover).not_to_be_visible()
    for name in ("Open Input 1", "Download Input 1", "Open Mask", "Download Mask", "Open Output 1"):
        visitor.page.keyboard.press("Tab")
        expect(gallery.get_by_role("link", name=name)).to_be_focused()


@pytest.mark.run("refused", run_seconds=0, error_type="CONTENT_BLOCKED", error_message="<b>No</b> weapons.")
def test_a_refused_edit_shows_the_vendors_words_and_runs_no_script(trial: Trial, visitor: Visitor) -> None:
    trial.check(submits=1, cancels=0, ends="failed")
    gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id))

    expect(gallery.get_by_text("<b>No</b> weapons.")).to_be_visible()
    expect(gallery.get_by_text("<img src=x onerror=alert(1)><script>alert(2)</script>")).to_be_visible()
    assert visitor.dialogs == []


# A page does not load by itself what lies on Airflow's own host, which is 127.0.0.1.
@pytest.mark.run("by_link", run_seconds=0, host="localhost")
def test_pictures_by_link_are_shown_until_the_link_expires(trial: Trial, visitor: Visitor) -> None:
    trial.check(submits=1, cancels=0, ends="success")
    gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id))
    assert width_of(gallery.get_by_alt_text("Output 1 of: Edit 0")) > 0

    trial.let_requests_end()  # which puts the sandbox's clock beyond the end of the link
    visitor.page.reload()
    expect(gallery.get_by_text("The vendor's link to this picture has expired")).to_be_visible()


@pytest.mark.run("four_edits", run_seconds=0)
def test_a_mapped_task_has_a_grid_that_leads_to_each_of_its_edits(trial: Trial, visitor: Visitor) -> None:
    trial.check(submits=4, cancels=0, ends="4 success")
    gallery = visitor.open_images(f"/dags/{trial.dag_id}/tasks/{TASK_ID}")
    cards = gallery.get_by_alt_text("Output 1 of: Edit")
    expect(cards).to_have_count(4)
    assert all(width_of(cards.nth(index)) > 0 for index in range(4))

    gallery.get_by_role("link", name="[2]").click()
    expect(gallery.get_by_alt_text("Output 1 of: Edit 2")).to_be_visible()
    gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id, map_index=3))
    expect(gallery.get_by_alt_text("Output 1 of: Edit 3")).to_be_visible()
    gallery.get_by_role("link", name="All instances of this task").click()
    expect(gallery.get_by_text("4 instances in run")).to_be_visible()


@pytest.mark.on_celery
@pytest.mark.run("seventy_cups", run_seconds=0)
def test_a_batch_has_a_grid_with_pages_that_leads_to_each_of_its_edits(trial: Trial, visitor: Visitor) -> None:
    trial.check(submits=70, cancels=0, ends="success")
    gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id))
    cards = gallery.get_by_alt_text("Output 1 of: Cup")
    expect(cards).to_have_count(60)
    assert width_of(cards.nth(0)) > 0

    gallery.get_by_role("link", name="Next").click()
    expect(cards).to_have_count(10)
    gallery.get_by_role("link", name="seventy_cups-70").click()
    expect(gallery.get_by_alt_text("Input 1: small.png")).to_be_visible()
    assert width_of(gallery.get_by_alt_text("Output 1 of: Cup 70")) > 0


@pytest.mark.run("cups_in_turn")
def test_the_pictures_of_a_batch_appear_while_it_runs(trial: Trial, visitor: Visitor, screenshots: Path) -> None:
    trial.wait_until_watched(requests=6)
    gallery = visitor.open_images(path_of(trial.dag_id, trial.run_id))
    expect(gallery.get_by_text("12 edits: 0 landed, 0 failed, 6 waiting")).to_be_visible(timeout=60_000)

    trial.let_requests_end()
    outputs = gallery.get_by_alt_text("Output 1 of: Cup")
    expect(outputs).to_have_count(6, timeout=60_000)
    assert all(width_of(outputs.nth(index)) > 0 for index in range(6))
    expect(gallery.get_by_text("12 edits: 6 landed, 0 failed, 6 waiting")).to_be_visible(timeout=60_000)
    assert trial.states == ["running"]
    visitor.page.screenshot(path=screenshots / "gallery-batch.jpg", quality=85)

    trial.wait_until_watched(requests=12)
    trial.let_requests_end()
    trial.check(submits=12, cancels=0, ends="success")


def test_a_task_that_is_not_ours_says_so(airflow: LocalAirflow, visitor: Visitor) -> None:
    run_id = airflow.trigger_dag("not_ours")
    airflow.wait_for(lambda: airflow.api.run("not_ours", run_id)["state"] == "success", "the run's success")
    gallery = visitor.open_images(path_of("not_ours", run_id))

    expect(gallery.get_by_text("This task does not edit pictures with OdiRouter")).to_be_visible()


def test_who_has_not_logged_in_sees_nothing(airflow: LocalAirflow, trials: dict[str, Trial]) -> None:
    trial = trials["test_it_is_readable_by_day_and_by_night"]
    page = f"{airflow.url}/odirouter{path_of(trial.dag_id, trial.run_id)}/-1"
    with httpx.Client(trust_env=False) as stranger:
        for rest in ("", "/outputs/0/whole", "/outputs/0/small", "/images/0/whole", "/mask/0/cover"):
            assert stranger.get(page + rest).status_code == httpx.codes.UNAUTHORIZED
