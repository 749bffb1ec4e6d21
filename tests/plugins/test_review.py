"""A person reviews edited pictures, through Airflow's real API, and the gallery shows them under the review."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter import metrics
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.operators.review import OdiRouterReviewOperator, review_chunks
from tests.dags.conftest import RunDag
from tests.plugins.auth import ENTITIES_WITHOUT_XCOM
from tests.plugins.conftest import Visitor, path_of
from tests.plugins.reviews import Person, answers_reach_the_trigger, keeping

__all__ = ["answers_reach_the_trigger"]

pytestmark = pytest.mark.usefixtures("answers_reach_the_trigger")


def reviewed(tmp_path: Path, pictures: Path, person: Person, edit: dict[str, Any] | None = None, **review: Any) -> DAG:
    """An edit with three pictures, its review, and a task after it."""
    defaults: dict[str, Any] = {"n": 3, "output_path": str(tmp_path), "deferrable": False, "poll_interval": 0.1}
    with DAG("edit") as dag:
        edited = OdiRouterImageEditOperator(
            task_id="edit", prompt="Blue", images=str(pictures / "coffee.png"), **(defaults | (edit or {}))
        )
        asked = OdiRouterReviewOperator(task_id="review", edits=edited.output, notifiers=person, **review)

        @task
        def after() -> None:
            """Stand for what uses the pictures."""

        asked >> after()
    return dag


def numbers(entries: list[dict[str, Any]]) -> list[int]:
    """The numbers of the outputs in their files' names."""
    found = [re.search(r"-(\d+)\.png", output["path"]) for entry in entries for output in entry["outputs"]]
    return [int(match[1]) for match in found if match]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How many outputs the metric counts, by outcome; tests/dags/test_metrics.py receives metrics on a socket."""
    counts: dict[str, float] = {}

    def count(_: str, name: str, value: float, tags: dict[str, str]) -> None:
        if name == "reviews":
            counts[tags["outcome"]] = counts.get(tags["outcome"], 0) + value

    monkeypatch.setattr(metrics, "_emit", count)
    return counts


@pytest.mark.every_version
def test_a_person_keeps_two_of_three_and_the_result_has_just_these(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path, counted: dict[str, float]
) -> None:
    person = Person(visitor("edit"), keeping(1, 3, note="More cream"))
    run = run_dag(reviewed(tmp_path, pictures, person))
    assert run.state == "success", run.errors
    result, manifest = run.xcom("review"), run.xcom("edit")
    assert (numbers(result["approved"]), numbers(result["rejected"])) == ([0, 2], [1])
    assert counted == {"approved": 2, "rejected": 1}
    assert result["approved"] == [{**manifest, "outputs": [manifest["outputs"][0], manifest["outputs"][2]]}]
    assert {name: run.xcom("review", name) for name in result} == result
    assert (result["note"], result["responded_by"]) == ("More cream", {"id": "edit", "name": "edit"})
    assert re.match(r"\d{4}-\d\d-\d\dT", result["responded_at"])
    [request] = person.requests
    assert request["options"] == ["Submit"]
    assert [one["schema"].get("title") for one in request["params"].values()] == [
        "Keep 1: coffee.png",
        "Keep 2: coffee.png",
        "Keep 3: coffee.png",
        "Note",
    ]


@pytest.mark.every_version
def test_the_pages_pictures_are_the_gallerys_for_all_who_may_read_the_dags_xcoms(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path
) -> None:
    person = Person(visitor("edit"), keeping())
    run = run_dag(reviewed(tmp_path, pictures, person))
    shown = re.findall(r"\((odirouter(/[^)]*))\)", person.requests[0]["body"])
    assert len(shown) == 2 * 4
    for _, path in shown:
        assert visitor("edit").get(path).status_code == 200
        assert visitor("edit", prefix="/team-a").get(path).status_code == 200
        assert visitor(ENTITIES_WITHOUT_XCOM).get(path).status_code == 403
        assert visitor("another_dag").get(path).status_code == 403
        assert visitor(None).get(path).status_code == 401
        other = re.sub("sha256=.*", f"sha256={'0' * 12}", path)
        assert visitor("edit").get(other).status_code == 404
    page = visitor("edit").page(run, "review")
    assert "1. coffee.png" in page
    assert "Blue" in visitor("edit").get(path_of(run, "review", rest="/edits/1")).text


def test_a_picture_that_changes_under_a_persons_eyes_is_neither_approved_nor_rejected(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path
) -> None:
    person = Person(visitor("edit"), keeping(1))

    def change() -> None:
        min(tmp_path.glob("*-1.png")).write_bytes((pictures / "small.png").read_bytes())

    person.before_answer = change
    run = run_dag(reviewed(tmp_path, pictures, person))
    assert run.state_of("review") == ["failed"]
    assert "The pictures have changed since the page showed them" in run.error
    assert "-1.png' has changed" in run.error
    assert run.xcom("review") is None
    small = re.findall(r"\(odirouter(/[^)]*small[^)]*)\)", person.requests[0]["body"])
    assert [visitor("edit").get(path).status_code for path in small] == [200, 200, 404, 200]


def test_deleted_pictures_are_an_error_before_a_person_is_asked(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path
) -> None:
    person = Person(visitor("edit"), keeping(1))
    dag = reviewed(tmp_path, pictures, person)

    def delete(context: Any) -> None:
        min(tmp_path.glob("*-1.png")).unlink()

    dag.get_task("review")._pre_execute_hook = delete  # type: ignore[union-attr]
    run = run_dag(dag)
    assert "-1.png' is missing" in run.error
    assert "Clear the edit" in run.error
    assert person.requests == []


@pytest.mark.parametrize(
    ("on_none_approved", "review", "after"),
    [("skip", "success", "skipped"), ("succeed", "success", "success"), ("fail", "failed", "upstream_failed")],
)
def test_what_happens_if_nothing_is_approved(
    on_none_approved: str,
    review: str,
    after: str,
    run_dag: RunDag,
    visitor: Visitor,
    pictures: Path,
    tmp_path: Path,
) -> None:
    person = Person(visitor("edit"), keeping(note="All too dark"))
    run = run_dag(reviewed(tmp_path, pictures, person, on_none_approved=on_none_approved))
    assert (run.state_of("review"), run.state_of("after")) == ([review], [after])
    if review == "success":
        assert numbers(run.xcom("review")["rejected"]) == [0, 1, 2]
        assert (run.xcom("review")["approved"], run.xcom("review", "note")) == ([], "All too dark")
    else:
        assert "No picture is approved" in run.error
        assert "All too dark" in run.error


def test_pictures_behind_the_vendors_links_are_shown_as_links(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path
) -> None:
    person = Person(visitor("edit"), keeping(1, 2))
    run = run_dag(reviewed(tmp_path, pictures, person, {"output_path": None, "n": 2}))
    assert run.state == "success", run.errors
    assert person.requests[0]["body"].count("lies behind OdiRouter's link, which expires. [Open it](http://") == 2
    assert run.xcom("review")["approved"][0]["outputs"] == run.xcom("edit")["outputs"]


def test_a_second_answer_is_refused_and_the_first_counts(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path
) -> None:
    person = Person(visitor("edit"), keeping(1))
    run = run_dag(reviewed(tmp_path, pictures, person))
    late = person.send(person.path, keeping(2, 3)(person.requests[0]))
    assert late.status_code == 409
    assert numbers(run.xcom("review")["approved"]) == [0]


def test_an_answer_without_switches_is_the_form_as_it_was(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path
) -> None:
    person = Person(visitor("edit"), lambda _: {})
    run = run_dag(reviewed(tmp_path, pictures, person, preselect=False))
    assert numbers(run.xcom("review")["rejected"]) == [0, 1, 2]
    assert person.requests[0]["params"]["keep_1"]["value"] is False


def test_a_value_that_is_no_switch_is_a_clear_error(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path
) -> None:
    person = Person(visitor("edit"), lambda request: {**keeping(1)(request), "keep_2": "perhaps"})
    run = run_dag(reviewed(tmp_path, pictures, person))
    assert "The answer cannot be used" in run.error


def test_a_mapped_review_over_chunks_of_a_batch_and_a_batch_of_what_is_rejected(
    run_dag: RunDag, visitor: Visitor, pictures: Path, tmp_path: Path
) -> None:
    person = Person(visitor("edit"), keeping(1))
    common: dict[str, Any] = {"output_path": str(tmp_path), "deferrable": False, "poll_interval": 0.1}
    with DAG("edit") as dag:
        edited = OdiRouterImageEditBatchOperator(
            task_id="edit",
            edits=[{"prompt": f"Cup {number}", "name": f"cup-{number}", "n": 5} for number in range(1, 5)],
            defaults={"images": str(pictures / "small.png")},
            **common,
        )
        split: Any = task(review_chunks)
        chunks = split(edited.output, size=10)
        asked = OdiRouterReviewOperator.partial(task_id="review", notifiers=person).expand(edits=chunks)

        @task
        def rejected(reviews: Any) -> list[dict[str, Any]]:
            return [entry for review in reviews for entry in review["rejected"]]

        OdiRouterImageEditBatchOperator(
            task_id="again", edits=rejected(asked.output), defaults={"prompt": "Once more"}, **common
        )
    run = run_dag(dag)
    assert run.state == "success", run.errors
    assert run.state_of("review") == ["success"] * 2
    assert [len(request["params"]) for request in person.requests] == [11, 11]
    # Which of the two is asked first is Airflow's choice.
    assert sorted("cup-3" in request["body"] for request in person.requests) == [False, True]
    assert run.xcom("again")["succeeded"] == 4


def test_nothing_to_review_asks_no_person(run_dag: RunDag, visitor: Visitor) -> None:
    person = Person(visitor("edit"), keeping(1))
    with DAG("edit") as dag:
        OdiRouterReviewOperator(task_id="review", edits=[], notifiers=person)
    run = run_dag(dag)
    assert run.state == "success"
    assert (run.xcom("review")["approved"], run.xcom("review")["responded_by"]) == ([], None)
    assert person.requests == []


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (None, "has the upstream task run"),
        ("None", "has the upstream task run"),
        ("[{'outputs': []}]", "render_template_as_native_obj"),
        (7, "must be a manifest"),
        ({"a": 1}, "must be a manifest, a list of manifests"),
        ({"request_id": "r", "endpoint": "e", "outputs": []}, "its task only submitted the request"),
        ({"manifest": "/nowhere/b.jsonl"}, "'/nowhere/b.jsonl' cannot be read"),
        (
            [{"request_id": "r", "endpoint": "e", "outputs": [{"path": f"/{n}.png"} for n in range(101)]}],
            "review_chunks",
        ),
    ],
)
def test_what_cannot_be_reviewed_is_a_final_error_that_says_why(run_dag: RunDag, edits: Any, words: str) -> None:
    with DAG("edit") as dag:
        OdiRouterReviewOperator(task_id="review", edits=edits, retries=3)
    run = run_dag(dag)
    assert words in run.error
    assert run.is_final


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preselect": "no"}, "preselect must be True or False"),
        ({"on_timeout": "ask"}, "on_timeout must be 'fail' or 'reject' or 'approve'"),
        ({"on_none_approved": None}, "on_none_approved must be"),
        ({"response_timeout": timedelta(0)}, "response_timeout must be a timedelta, more than 0"),
        ({"response_timeout": 60}, "response_timeout must be a timedelta"),
    ],
)
def test_wrong_parameters_are_an_error_of_the_dag(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OdiRouterReviewOperator(task_id="review", edits=[], **arguments)


@pytest.mark.every_version
@pytest.mark.parametrize(("on_timeout", "approved"), [("approve", 3), ("reject", 0), ("fail", None)])
def test_what_happens_if_no_person_answers_in_time(
    on_timeout: str,
    approved: int | None,
    run_dag: RunDag,
    visitor: Visitor,
    pictures: Path,
    tmp_path: Path,
    counted: dict[str, float],
) -> None:
    person = Person(visitor("edit"))
    run = run_dag(
        reviewed(
            tmp_path,
            pictures,
            person,
            on_timeout=on_timeout,
            on_none_approved="succeed",
            response_timeout=timedelta(milliseconds=10),
        )
    )
    if approved is None:
        assert "No person has answered within 0:00:00.01" in run.error
    else:
        assert len(numbers(run.xcom("review")["approved"])) == approved
        assert run.xcom("review")["responded_by"] is None
    assert counted == {"timeout": 3}
    late = person.send(person.path, keeping(1)(person.requests[0]))
    assert late.status_code == 409
