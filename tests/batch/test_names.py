"""A batch overwrites no file that its task instance has not made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.batch import names
from airflow_provider_odirouter.batch.names import free_names, may_replace, with_known_names
from airflow_provider_odirouter.batch.resume import as_failed, plan_resume
from airflow_provider_odirouter.errors import LandingError, NamesTakenError, OutputExistsError, StorageError
from airflow_provider_odirouter.models import BatchItem, LandedOutput, Phase
from airflow_provider_odirouter.storage.files import files_in
from tests.batch.conftest import item
from tests.object_store import S3


def named(number: int, given: str, phase: Phase = Phase.PLANNED, **fields: Any) -> BatchItem:
    """An edit with a name of the user's."""
    return item(number, phase=phase, **({"name": given, "given_name": given} | fields))


def output(path: str) -> LandedOutput:
    return LandedOutput(path=path, content_type="image/png", width=1, height=2, size_bytes=3, sha256="4")


@pytest.fixture
def choose(tmp_path: Path) -> Callable[..., list[str]]:
    """Lays files into a folder, and returns the names that edits get there."""

    def names_of(
        files: list[str], *items: BatchItem, saved: tuple[BatchItem, ...] = (), if_exists: Any = "new_name"
    ) -> list[str]:
        for file in files:
            (tmp_path / file).touch()
        found = free_names(items, saved, if_exists, endpoint="e", output_path=str(tmp_path), storage_conn_id=None)
        return [one.name for one in found]

    return names_of


def taken(choose: Callable[..., list[str]], files: list[str], *items: BatchItem, **arguments: Any) -> list[str]:
    with pytest.raises(NamesTakenError) as raised:
        choose(files, *items, if_exists="fail", **arguments)
    assert not raised.value.retry_helps
    return [str(problem) for problem in raised.value.problems]


def test_all_names_that_are_taken_are_named_at_once(choose: Any, tmp_path: Path) -> None:
    files = ["cup-0.png", "cup-1.png", "cup-2.png", "cup-3.webp", "cup-4.jpg", "hat-0.jpg"]
    found = taken(choose, files, named(1, "cup"), named(2, "bag"), named(3, "hat"))
    of_others = f" in '{tmp_path}' exists, and this task has not made it"
    assert found == [
        f"edit 1, name: 'cup' is taken: cup-0.png, cup-1.png, cup-2.png and 2 more{of_others}",
        f"edit 3, name: 'hat' is taken: hat-0.jpg{of_others}",
    ]


def test_the_error_says_what_to_do(choose: Any) -> None:
    with pytest.raises(NamesTakenError) as raised:
        choose(["cup-0.png"], named(1, "cup"), if_exists="fail")
    assert "give the edits other names" in str(raised.value)
    assert 'if_exists="overwrite"' in str(raised.value)
    assert 'if_exists="new_name"' in str(raised.value)
    assert str(raised.value).endswith("Nothing was sent, and nothing was paid.")


@pytest.mark.parametrize(
    "file",
    [
        "cup.png",
        "cup-holder-0.png",
        "a-cup-0.png",
        "cup-0",
        "cup-x.png",
        "cup0.png",
        ".cup-0.png.part",
        "cup-0.png.xmp",
    ],
)
def test_other_files_take_no_name(choose: Any, file: str) -> None:
    assert choose([file], named(1, "cup"), if_exists="fail") == ["cup"]


@pytest.mark.parametrize("file", ["cup-0.png", "CUP-0.png", "cup-11.webp", "Cup-0.svg"])
def test_a_file_takes_a_name_whatever_its_case_number_and_extension_are(choose: Any, file: str) -> None:
    assert len(taken(choose, [file], named(1, "cup"))) == 1


def test_a_name_with_a_number_is_not_the_name_without_it(choose: Any) -> None:
    assert choose(["cup-0.png"], named(1, "cup-0"), if_exists="fail") == ["cup-0"]
    assert len(taken(choose, ["cup-0-0.png"], named(1, "cup-0"), named(2, "cup-1"))) == 1


def test_a_new_name_is_one_that_neither_a_file_nor_another_edit_has(choose: Any) -> None:
    files = ["cup-0.png", "CUP-2-0.png", "hat-1.png"]
    edits = [named(1, "cup"), named(2, "Cup-3"), named(3, "hat"), named(4, "bag")]
    assert choose(files, *edits) == ["cup-4", "Cup-3", "hat-2", "bag"]


def test_two_edits_do_not_get_the_same_new_name(choose: Any) -> None:
    assert choose(["cup-0.png", "cup-2-0.png"], named(1, "cup"), named(2, "cup-2")) == ["cup-3", "cup-2-2"]


@pytest.mark.parametrize(
    ("if_exists", "items"),
    [
        ("overwrite", [named(1, "cup")]),
        ("fail", [item(1)]),
        ("new_name", [item(1), named(2, "cup", Phase.LANDED)]),
        ("fail", []),
    ],
)
def test_the_folder_is_listed_only_where_a_name_may_be_taken(
    if_exists: Any, items: list[BatchItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "files_in", None)
    assert free_names(items, [], if_exists, endpoint="e", output_path="/no", storage_conn_id=None)[:] == items


def test_it_is_listed_once(choose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []

    def noting(folder: Any) -> list[str]:
        listed.append(str(folder))
        return files_in(folder)

    monkeypatch.setattr(names, "files_in", noting)
    choose(["cup-0.png", "hat-0.png"], named(1, "cup"), named(2, "hat"), named(3, "bag"))
    assert len(listed) == 1


def test_a_folder_in_a_store_is_listed_without_those_below_it(s3: S3) -> None:
    for key in ("out/cup-0.png", "out/deep/hat-0.png", "out-2/bag-0.png", "out/.odirouter/a/state-0.jsonl"):
        s3.put(key, b"mine")
    edits = [named(1, "cup"), named(2, "hat"), named(3, "bag")]
    arguments: dict[str, Any] = {"endpoint": "e", "output_path": s3.url("out"), "storage_conn_id": s3.conn_id}
    assert [one.name for one in free_names(edits, [], "new_name", **arguments)] == ["cup-2", "hat", "bag"]
    arguments["output_path"] = s3.url("none")
    assert free_names(edits, [], "fail", **arguments)[:] == edits


def test_a_folder_that_cannot_be_listed_is_an_error_that_a_retry_may_cure(s3: S3) -> None:
    closed_port = s3.connect(endpoint_url="http://127.0.0.1:9", config_kwargs={"retries": {"max_attempts": 0}})
    with pytest.raises(StorageError, match=r"cannot be listed: .*Nothing was submitted yet\.") as raised:
        free_names([named(1, "cup")], [], "fail", endpoint="e", output_path=s3.url("out"), storage_conn_id=closed_port)
    assert raised.value.retry_helps


# --- A new try


def new_try(planned: list[BatchItem], saved: list[BatchItem], *, cleared: bool = False) -> list[BatchItem]:
    plan = plan_resume(
        with_known_names(planned, saved), saved, cleared=cleared, may_cancel=True, on_lost_submit="submit"
    )
    return list(plan.items)


def test_a_new_try_knows_the_names_that_an_earlier_one_has_chosen(choose: Any) -> None:
    phases = [Phase.PLANNED, Phase.SUBMITTED, Phase.SUCCEEDED, Phase.LANDED]
    saved = [
        named(number, f"cup{number}", phase, name=f"cup{number}-2") for number, phase in enumerate(phases, start=1)
    ]
    saved[3] = saved[3].model_copy(update={"outputs": (output("/out/cup4-2-0.png"),)})
    items = new_try([named(number, f"cup{number}") for number in range(1, 5)], saved)
    assert [one.phase for one in items] == phases
    files = [f"cup{number}-0.png" for number in range(1, 5)] + ["cup4-2-0.png", "cup3-2-0.png"]
    assert choose(files, *items, saved=tuple(saved)) == [one.name for one in saved]


def test_a_chosen_name_does_not_become_that_of_two_edits() -> None:
    saved = [named(1, "cup", name="cup-2")]
    items = new_try([named(1, "cup"), named(2, "CUP-2")], saved)
    assert [one.name for one in items] == ["cup", "CUP-2"]


def test_a_state_without_given_names_has_the_names_that_edits_have() -> None:
    saved = [named(1, "cup", Phase.LANDED, given_name=None, outputs=(output("/out/cup-0.png"),))]
    [one] = new_try([named(1, "cup")], saved)
    assert (one.phase, one.given_name, one.own_files) == (Phase.LANDED, "cup", ("cup-0.png",))


def test_what_earlier_tries_have_landed_may_be_overwritten(choose: Any) -> None:
    saved = [named(1, "cup", Phase.LANDED, outputs=(output("s3://a@b/Cup-0.png"),), own_files=("cup-1.png",))]
    [one] = new_try([named(1, "cup", fingerprint="another prompt")], saved)
    assert (one.phase, one.own_files) == (Phase.PLANNED, ("cup-1.png", "Cup-0.png"))
    assert choose(["cup-0.png", "cup-1.png"], one, saved=tuple(saved), if_exists="fail") == ["cup"]
    assert len(taken(choose, ["cup-2.png"], one, saved=tuple(saved))) == 1
    assert [may_replace(one, "fail", f"cup-{number}.png") for number in range(3)] == [True, True, False]


def test_files_of_a_landing_that_has_failed_are_known_to_the_next_try(choose: Any) -> None:
    error = LandingError("The second one is broken.")
    error.landed = ("cup-0.png",)
    saved = [as_failed(named(1, "cup", Phase.SUCCEEDED), error)]
    [one] = new_try([named(1, "cup")], saved, cleared=True)
    assert one.phase is Phase.PLANNED
    assert choose(["cup-0.png"], one, saved=tuple(saved), if_exists="fail") == ["cup"]


def test_what_is_paid_continues_under_its_name_although_files_are_there(choose: Any) -> None:
    saved = [named(1, "cup", Phase.SUCCEEDED), named(2, "hat", Phase.SUBMITTED)]
    items = new_try([named(1, "cup"), named(2, "hat")], saved)
    assert choose(["cup-0.png", "hat-0.png"], *items, saved=tuple(saved), if_exists="fail") == ["cup", "hat"]


def test_what_is_not_paid_yet_is_checked_in_each_try(choose: Any) -> None:
    saved = [named(1, "cup")]
    assert len(taken(choose, ["cup-0.png"], *new_try([named(1, "cup")], saved), saved=tuple(saved))) == 1


def test_a_renamed_edit_is_checked_under_its_new_name(choose: Any) -> None:
    saved = [named(1, "cup", Phase.LANDED, outputs=(output("/out/cup-0.png"),))]
    items = new_try([named(1, "hat")], saved)
    assert [one.phase for one in items] == [Phase.SUCCEEDED]
    assert len(taken(choose, ["cup-0.png", "hat-0.png"], *items, saved=tuple(saved))) == 1


def test_a_landing_that_found_another_file_gets_a_new_name_if_that_is_wanted(choose: Any) -> None:
    error = OutputExistsError("/out/cup-0.png")
    saved = [as_failed(named(1, "cup"), error).model_copy(update={"phase": Phase.SUCCEEDED, "request_id": "mmsu_1"})]
    items = new_try([named(1, "cup")], saved)
    assert choose(["cup-0.png"], *items, saved=tuple(saved)) == ["cup-2"]
    assert [one.phase for one in items] == [Phase.SUCCEEDED]


@pytest.mark.parametrize(
    ("one", "if_exists", "may"),
    [
        (item(1), "fail", True),
        (named(1, "cup"), "fail", False),
        (named(1, "cup"), "new_name", False),
        (named(1, "cup"), "overwrite", True),
        (named(1, "cup", own_files=("cup-0.png",)), "fail", True),
        (named(1, "cup", own_files=("cup-1.png",)), "new_name", False),
    ],
)
def test_which_files_may_be_replaced(one: BatchItem, if_exists: Any, may: bool) -> None:
    assert may_replace(one, if_exists, "cup-0.png") is may


def test_the_manifest_has_the_name_of_the_files_alone() -> None:
    line = named(1, "cup", Phase.LANDED, name="cup-2", own_files=("cup-2-0.png",)).to_manifest()
    assert line["name"] == "cup-2"
    assert not {"given_name", "own_files"} & set(line)
