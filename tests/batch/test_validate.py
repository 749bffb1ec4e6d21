"""All checks before the first submit, the names of the files, and the fingerprints of the edits."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from platform import node
from typing import Any

import pytest

from airflow_provider_odirouter.batch import validate as validate_module
from airflow_provider_odirouter.batch.validate import _absolute, parameters_of, validate
from airflow_provider_odirouter.errors import InvalidParametersError, StorageError
from airflow_provider_odirouter.models import BatchItem
from airflow_provider_odirouter.storage.files import read
from tests.batch.conftest import IMAGE_EDIT, read_edits
from tests.object_store import S3

URL = "https://example.com/coffee.png"


def planned(edits: Any, defaults: Any = None, **arguments: Any) -> list[BatchItem]:
    connections: dict[str, Any] = {"odirouter_conn_id": "odirouter_default", "storage_conn_id": None, "prefix": "mine"}
    connections |= arguments
    edit_list = read_edits(edits, storage_conn_id=connections["storage_conn_id"])
    return list(validate(edit_list, defaults, IMAGE_EDIT, **connections))


def problems(edits: Any, defaults: Any = None, **arguments: Any) -> list[str]:
    with pytest.raises(InvalidParametersError) as raised:
        planned(edits, defaults, **arguments)
    assert not raised.value.retry_helps
    return [str(problem) for problem in raised.value.problems]


def only(edit: dict[str, Any], **arguments: Any) -> BatchItem:
    [item] = planned([edit], **arguments)
    return item


@pytest.fixture
def coffee(pictures: Path) -> str:
    return str(pictures / "coffee.png")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are read, in any store and in any order."""
    paths: list[str] = []

    def noting(path: Any, max_bytes: int) -> bytes:
        paths.append(str(path))
        return read(path, max_bytes)

    monkeypatch.setattr("airflow_provider_odirouter.images.inputs.read", noting)
    return paths


# --- Defaults


def test_a_default_counts_where_an_edit_sets_nothing(coffee: str) -> None:
    edits = [{"prompt": "Red"}, {"prompt": None, "n": ""}, {"prompt": "", "n": 1}]
    items = planned(edits, {"prompt": "Blue", "images": coffee, "n": 3})
    assert [(item.edit["prompt"], item.edit["n"]) for item in items] == [("Red", 3), ("Blue", 3), ("Blue", 1)]


def test_an_unknown_parameter_of_all_is_named_once(coffee: str) -> None:
    edits = [{"prompt": f"Blue {number}", "images": coffee} for number in range(50)]
    assert problems(edits, {"quallity": "high"}) == ["defaults, quallity: is not a parameter of this endpoint"]
    assert problems(edits, {"n": 99}) == ["defaults, n: should be less than or equal to 10, not 99"]


def test_all_edits_cannot_have_one_name(coffee: str) -> None:
    edit = {"prompt": "Blue", "images": coffee}
    assert problems([edit], {"name": "cup"}) == ["defaults, name: is not a parameter of this endpoint"]


def test_wrong_defaults_are_named_beside_the_lines_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    path.write_text('{"prompt": "Blue"}\nBlue\n')
    [of_all, of_edit, of_line] = problems(str(path), {"n": 0})
    assert of_all.startswith("defaults, n: ")
    assert of_edit == "line 1, images: is required"
    assert of_line.startswith("line 2: is not JSON")


# --- Every bad line at once


def test_everything_that_is_wrong_is_named_at_once_with_its_line(tmp_path: Path, coffee: str) -> None:
    (tmp_path / "text.png").write_text("I am a text")
    lines: list[Any] = [{"prompt": f"Blue {number}", "images": coffee} for number in range(1, 21)]
    lines[1] |= {"images": f"{tmp_path}/missing.png"}
    lines[2] |= {"quality": "best", "n": 99}
    lines[3] = ["Blue"]
    lines[5] |= {"images": [coffee, f"{tmp_path}/text.png"]}
    lines[6] |= {"name": "../cup"}
    lines[7] |= {"name": "cup"}
    lines[8] |= {"name": "CUP"}
    lines[9] = dict(lines[10])
    lines[12] |= {"images": "nosuch://bucket/coffee.png"}
    lines[13] |= {"images": "data:image/png;base64,AAAA"}
    lines[14] |= {"picture": coffee}
    text = [json.dumps(line) for line in lines]
    text[4] = "Blue"
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(text))

    found = problems(str(path))
    assert {problem.partition(": ")[0] for problem in found} == {
        "line 2, images[0]",
        "line 3, quality",
        "line 3, n",
        "line 4",
        "line 5",
        "line 6, images[1]",
        "line 7, name",
        "line 9, name",
        "line 11",
        "line 13, images[0]",
        "line 14, images[0]",
        "line 15, picture",
    }
    assert len(found) == 12
    missing = f"line 2, images[0]: '{tmp_path}/missing.png' does not exist, as this worker sees it (host "
    assert any(problem.startswith(missing) for problem in found)


def test_the_text_of_an_error_is_bounded_but_all_is_in_it() -> None:
    with pytest.raises(InvalidParametersError) as raised:
        planned([{"prompt": "Blue"}] * 5_000)
    assert len(raised.value.problems) == 5_000
    text = str(raised.value)
    assert text.startswith("5000 parameters of gpt_image_1_edit cannot be used:\n  - edits[0], images: is required\n")
    assert "  - edits[199], images: is required\n  … and 4,800 more\n" in text
    assert len(text) < 20_000


def test_a_list_without_edits_hides_no_wrong_default() -> None:
    assert planned([]) == []
    assert problems([], {"quallity": "high"}) == ["defaults, quallity: is not a parameter of this endpoint"]


def test_a_file_that_cannot_be_read_is_not_said_to_be_empty(tmp_path: Path) -> None:
    assert len(problems(f"{tmp_path}/missing.jsonl")) == 1


@pytest.mark.parametrize("kind", ["list", "file"])
def test_far_too_many_edits_are_refused_before_a_picture_is_read(
    tmp_path: Path, reads: list[str], coffee: str, kind: str
) -> None:
    edits: Any = [{"prompt": "Blue", "images": coffee}] * 200_000
    if kind == "file":
        path = tmp_path / "edits.jsonl"
        path.write_text((json.dumps(edits[0]) + "\n") * 200_000)
        edits = str(path)
    assert problems(edits) == ["edits: holds 200,000 edits; at most 10,000 in one batch, so split the list"]
    assert reads == []


def test_ten_thousand_edits_are_not_too_many() -> None:
    edits = [{"prompt": f"Blue {number}", "images": URL} for number in range(10_000)]
    items = planned(edits)
    assert [item.number for item in items] == list(range(1, 10_001))
    assert len({item.name for item in items}) == 10_000


def test_wrong_defaults_hide_no_edit_and_are_named_once(coffee: str, tmp_path: Path) -> None:
    edits = [
        {"images": coffee},
        {"images": coffee, "prompt": "nan"},
        {"images": f"{tmp_path}/missing.png", "n": True},
        {"prompt": "Red", "images": coffee, "output_compression": 50},
        {"prompt": "Red", "images": coffee, "name": True},
    ]
    found = problems(edits, {"prompt": "None", "output_format": "gif", "quallity": "high"})
    assert [problem.partition("; not")[0] for problem in found] == [
        "defaults, prompt: is 'None', which is what a template, str() or pandas writes for a missing value",
        "defaults, output_format: should be 'png', 'jpeg' or 'webp', not 'gif'",
        "defaults, quallity: is not a parameter of this endpoint",
        "edits[2], n: must be a whole number, not True",
        f"edits[2], images[0]: '{tmp_path}/missing.png' does not exist, as this worker sees it (host {node()})",
        "edits[4], name: must be 1 to 120 letters, digits, '.', '_' or '-', and begin with a letter or a digit",
    ]


@pytest.mark.parametrize("defaults", [None, "", "None", float("nan"), {}])
def test_unset_defaults_are_none(coffee: str, defaults: Any) -> None:
    assert only({"prompt": "Blue", "images": coffee}, defaults=defaults).edit["prompt"] == "Blue"


@pytest.mark.parametrize("defaults", ["{'n': 2}", ["n"], 7])
def test_defaults_that_are_no_dictionary_are_named(coffee: str, defaults: Any) -> None:
    [problem] = problems([{"prompt": "Blue", "images": coffee}], defaults)
    assert problem.startswith(f"defaults: must be a dictionary of parameters, not {type(defaults).__name__}")
    assert ("render_template_as_native_obj" in problem) == isinstance(defaults, str)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_what_stands_for_no_value_in_a_list_is_not_set(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"edits{suffix}"
    rows = [
        ("name", "prompt", "images", "n", "mask"),
        ("NaN", "Blue", URL, "nan", "None"),
        ("cup", "nan", URL, "2", ""),
    ]
    if suffix == ".csv":
        path.write_text("".join(",".join(row) + "\n" for row in rows))
    else:
        cells = [[float("nan") if cell == "nan" else cell for cell in row] for row in rows]
        path.write_text("".join(json.dumps(dict(zip(rows[0], row, strict=True))) + "\n" for row in cells[1:]))
    first, second = planned(str(path), {"prompt": "Red"})
    assert first.edit == {"prompt": "Blue", "images": [URL]}
    assert first.name.startswith("mine-coffee-")
    assert (second.name, second.edit) == ("cup", {"prompt": "Red", "images": [URL], "n": 2})
    [problem] = problems(str(path))
    assert re.fullmatch(r"line \d, prompt: is '?nan'?, which is what a template, str\(\) or pandas writes .*", problem)


@pytest.mark.parametrize(("number", "shown"), [("Infinity", "inf"), ("-Infinity", "-inf"), ("1e999", "inf")])
def test_infinite_numbers_of_a_file_are_named_by_their_field(tmp_path: Path, number: str, shown: str) -> None:
    path = tmp_path / "edits.jsonl"
    path.write_text(f'{{"prompt": {number}, "images": "{URL}", "n": {number}, "user": {number}}}')
    assert problems(str(path)) == [
        f"line 1, prompt: must be a text, not {shown}",
        f"line 1, n: must be a whole number, not {shown}",
        f"line 1, user: must be a text, not {shown}",
    ]


def test_an_error_about_a_file_names_it_once(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    path.write_text('{"prompt": "Blue"}\nBlue\n')
    with pytest.raises(InvalidParametersError) as raised:
        planned(str(path))
    assert str(raised.value).startswith(f"2 parameters of gpt_image_1_edit in '{path}' cannot be used:\n")
    assert str(raised.value).count(str(path)) == 1


def test_pictures_that_may_be_readable_later_do_not_hide_a_wrong_edit(s3: S3, coffee: str) -> None:
    url = s3.put("in/coffee.png", Path(coffee).read_bytes())
    silent = s3.connect(
        endpoint_url="http://127.0.0.1:9", config_kwargs={"connect_timeout": 1, "retries": {"max_attempts": 0}}
    )
    edits = [{"prompt": "Blue", "images": url}, {"prompt": "None", "images": coffee}]
    with pytest.raises(StorageError):
        planned(edits[:1], storage_conn_id=silent)
    [problem] = problems(edits, storage_conn_id=silent)
    assert problem.startswith("edits[1], prompt: is 'None'")


# --- Names


@pytest.mark.parametrize("name", ["cup", "Cup_1.small-2", "7", 7, "a" * 120])
def test_a_name_becomes_that_of_the_files(coffee: str, name: Any) -> None:
    assert only({"prompt": "Blue", "images": coffee, "name": name}).name == str(name)


@pytest.mark.parametrize(
    "name", ["a/b", "../a", ".a", "-a", "a b", "ä", "a\n", "a" * 121, "a\u0000", ["a"], {"a": 1}, "x" * 1_000_000]
)
def test_a_name_that_some_store_cannot_hold_is_refused(coffee: str, name: Any) -> None:
    [problem] = problems([{"prompt": "Blue", "images": coffee, "name": name}])
    assert problem.startswith("edits[0], name: must be 1 to 120 letters, digits, '.', '_' or '-'")
    assert len(problem) < 250


@pytest.mark.parametrize("name", [None, ""])
def test_an_empty_name_is_none(coffee: str, name: Any) -> None:
    assert only({"prompt": "Blue", "images": coffee, "name": name}).name.startswith("mine-coffee-")


@pytest.mark.parametrize("other", ["cup", "CUP", "Cup"])
def test_two_edits_with_one_name_would_write_one_file(coffee: str, other: str) -> None:
    edits = [{"prompt": "Blue", "images": coffee, "name": name} for name in ("cup", "plate", other)]
    assert problems(edits) == [
        f"edits[2], name: {other!r} is also the name of edits[0]: both would write the same files",
    ]


def test_the_problems_of_a_line_stand_together_whatever_finds_them(coffee: str) -> None:
    edits = [
        {"prompt": "Blue", "images": "/no/such.png", "name": "cup"},
        {"prompt": "Blue", "images": coffee, "quality": "best", "name": "cup"},
        {"prompt": "Blue", "images": coffee, "quality": "best", "name": "a/b"},
    ]
    fields = [problem.partition(": ")[0] for problem in problems(edits)]
    assert fields == [
        "edits[0], images[0]",
        "edits[1], quality",
        "edits[1], name",
        "edits[2], name",
        "edits[2], quality",
    ]


def test_the_same_edit_twice_needs_names(coffee: str) -> None:
    edit = {"prompt": "Blue", "images": coffee}
    rule = "is the same edit as edits[0], and would write the same files; if you want both, give each a name"
    found = problems([edit, {"prompt": "Red", "images": coffee}, edit, edit])
    assert found == [f"edits[2]: {rule}", f"edits[3]: {rule}"]
    items = planned([edit | {"name": "a"}, edit | {"name": "b"}, edit])
    assert len({item.fingerprint for item in items}) == 1
    assert len({item.name for item in items}) == 3


def test_a_name_that_was_made_for_another_edit_is_refused(coffee: str) -> None:
    edit = {"prompt": "Blue", "images": coffee}
    name = only(edit).name
    [problem] = problems([edit, {"prompt": "Red", "images": coffee, "name": name}])
    assert problem == f"edits[1], name: {name!r} is also the name of edits[0]: both would write the same files"


def test_names_that_are_made_for_edits_are_readable_stable_and_safe(tmp_path: Path, coffee: str) -> None:
    odd = tmp_path / "Größe & 'Farbe' (1).png"
    odd.write_bytes(Path(coffee).read_bytes())
    edits = [
        {"prompt": "Blue", "images": coffee},
        {"prompt": "Red", "images": coffee},
        {"prompt": "Blue", "images": str(odd), "n": 2},
        {"prompt": "Blue", "images": f"{URL}?token=a/b.png#c"},
        {"prompt": "Blue", "images": "https://example.com/"},
        {"prompt": "Blue", "images": f"https://example.com/{'x' * 500}.png"},
    ]
    names = [item.name for item in planned(edits)]
    assert names == [item.name for item in planned(edits)]
    stems = [name.removeprefix("mine-")[:-11] for name in names]
    assert stems == ["coffee", "coffee", "Gr-e-Farbe-1", "coffee", "example", "x" * 40]
    assert len(set(names)) == 6
    assert all(name.isascii() and set(name) <= set("abcdefghijklmnopqrstuvwxyzGRF0123456789-") for name in names)


# --- Fingerprints


def test_an_edit_is_another_if_its_prompt_its_picture_or_its_connection_is(tmp_path: Path, pictures: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes((pictures / "coffee.png").read_bytes())
    edit = {"prompt": "Blue", "images": str(picture)}
    mask = str(pictures / "coffee-mask.png")
    first = only(edit).fingerprint
    others = [
        only(edit | {"prompt": "Red"}).fingerprint,
        only(edit | {"n": 2}).fingerprint,
        only(edit | {"mask": mask}).fingerprint,
        only(edit | {"images": [str(picture), str(picture)]}).fingerprint,
        only(edit, odirouter_conn_id="other").fingerprint,
        only(edit | {"images": URL}).fingerprint,
        only(edit | {"images": f"{URL}?2"}).fingerprint,
    ]
    picture.write_bytes((pictures / "chelsea.png").read_bytes())
    others.append(only(edit).fingerprint)
    assert len({first, *others}) == 9


def test_an_edit_is_the_same_whatever_its_position_and_the_path_of_its_picture(tmp_path: Path, coffee: str) -> None:
    moved = tmp_path / "moved.png"
    moved.write_bytes(Path(coffee).read_bytes())
    edit = {"prompt": "Blue", "images": coffee, "mask": coffee.replace(".png", "-mask.png")}
    first = only(edit)
    _, second = planned([{"prompt": "Red", "images": coffee}, edit | {"images": str(moved), "name": "cup"}])
    assert (second.fingerprint, second.number) == (first.fingerprint, 2)
    reordered = dict(reversed(list(edit.items())))
    assert only(reordered).fingerprint == first.fingerprint


# --- Pictures


def test_every_picture_is_checked_once_however_many_edits_it_is_in(
    reads: list[str], pictures: Path, coffee: str
) -> None:
    edits = [{"prompt": f"Blue {number}", "images": coffee} for number in range(300)]
    edits.append({"prompt": "Blue", "images": str(pictures / "rocket.jpg")})
    items = planned(edits)
    assert sorted(Path(path).name for path in reads) == ["coffee.png", "rocket.jpg"]
    assert all(item.sha256 == items[0].sha256 for item in items[:300])
    assert items[300].sha256 != items[0].sha256


def test_pictures_behind_urls_are_not_read(reads: list[str]) -> None:
    item = only({"prompt": "Blue", "images": [URL]})
    assert (item.edit["images"], item.sha256, reads) == ([URL], {}, [])


def test_manifests_and_paths_can_be_given_as_pictures(pictures: Path, coffee: str) -> None:
    manifest = {"outputs": [{"path": coffee}, {"path": str(pictures / "rocket.jpg")}]}
    edits = [
        {"prompt": "Blue", "images": manifest},
        {"prompt": "Red", "images": Path(coffee)},
        {"prompt": "Green", "images": [{"outputs": [{"path": coffee}]}, Path(coffee)]},
    ]
    images = [item.edit["images"] for item in planned(edits)]
    assert images == [[coffee, str(pictures / "rocket.jpg")], [coffee], [coffee, coffee]]


def test_paths_are_absolute(coffee: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(coffee).parent)
    monkeypatch.setenv("HOME", str(Path(coffee).parent))
    edit = {"prompt": "Blue", "images": ["coffee.png", "~/rocket.jpg"], "mask": "./coffee-mask.png"}
    item = only(edit)
    folder = Path(coffee).parent
    assert item.edit["images"] == [coffee, str(folder / "rocket.jpg")]
    assert item.edit["mask"] == str(folder / "coffee-mask.png")
    assert set(item.sha256) == {*item.edit["images"], item.edit["mask"]}
    monkeypatch.chdir("/")
    assert parameters_of(item, IMAGE_EDIT)["prompt"] == "Blue"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("x.png", "s3://shop@b/a//in/x.png"),
        ("./x.png", "s3://shop@b/a//in/x.png"),
        ("../x.png", "s3://shop@b/a//x.png"),
        ("x//y.png", "s3://shop@b/a//in/x//y.png"),
        ("../../../../x.png", "s3://shop@b/../x.png"),  # which is refused: no key is above its bucket
        ("/data/x.png", "/data/x.png"),
    ],
)
def test_a_picture_beside_a_list_in_a_store_has_the_lists_folder(value: str, path: str) -> None:
    assert _absolute(value, "s3://shop@b/a//in") == path


def test_relative_pictures_of_a_file_are_relative_to_it(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "airflow_provider_odirouter")
    shutil.copytree(pictures, tmp_path / "shop" / "photos")
    lists = tmp_path / "shop" / "lists"
    lists.mkdir()
    (lists / "cup.png").write_bytes((pictures / "coffee.png").read_bytes())
    path = lists / "edits.jsonl"
    lines = [
        {"images": "cup.png", "mask": "../photos/coffee-mask.png"},
        {
            "images": [
                "./cup.png",
                str(pictures / "rocket.jpg"),
                URL,
                {"outputs": [{"path": str(pictures / "small.png")}]},
            ]
        },
        {"prompt": "None", "mask": "nan"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(pictures)
    items = planned(str(path), {"prompt": "Blue", "images": "coffee.png"})
    found = [
        [str(Path(image).resolve()) for image in item.edit["images"]] for item in items if "://" not in str(item.edit)
    ]
    assert found == [[str(lists / "cup.png")], [str(pictures / "coffee.png")]]
    assert Path(items[0].edit["mask"]).resolve() == tmp_path / "shop" / "photos" / "coffee-mask.png"
    assert items[1].edit["images"][1:] == [str(pictures / "rocket.jpg"), URL, str(pictures / "small.png")]
    assert "mask" not in items[2].edit
    assert f"Relative paths in '{path}' are relative to its folder, {lists}." in caplog.text
    relative = "images[0] is a relative path: 'coffee.png' means"
    assert f"line 3, {relative} '{pictures}/coffee.png'" in caplog.text


def test_a_relative_list_has_relative_pictures(tmp_path: Path, coffee: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "edits.csv").write_text("prompt,images\nBlue,cup.png\n")
    (tmp_path / "lists" / "cup.png").write_bytes(Path(coffee).read_bytes())
    monkeypatch.chdir(tmp_path)
    [item] = planned("lists/edits.csv")
    assert item.edit["images"] == [str(tmp_path / "lists" / "cup.png")]


@pytest.mark.parametrize("named", ["in the URL", "as an argument"])
def test_relative_pictures_of_a_list_in_a_store_are_in_the_store(s3: S3, coffee: str, named: str) -> None:
    s3.put("photos/cup.png", Path(coffee).read_bytes())
    s3.put("lists/cup.png", Path(coffee).read_bytes())
    s3.put("lists/edits.csv", b'prompt,images\nBlue,"[""../photos/cup.png"", ""./cup.png""]"\n')
    in_url = named == "in the URL"
    path = s3.url("lists/edits.csv", conn_id=s3.conn_id) if in_url else s3.url("lists/edits.csv")
    [item] = planned(path, storage_conn_id=None if in_url else s3.conn_id)
    assert item.edit["images"] == [s3.url(f"{name}/cup.png", conn_id=s3.conn_id) for name in ("photos", "lists")]


def test_paths_have_the_connection_of_their_store(s3: S3, coffee: str) -> None:
    url = s3.put("in/coffee.png", Path(coffee).read_bytes())
    item = only({"prompt": "Blue", "images": url}, storage_conn_id=s3.conn_id)
    path = s3.url("in/coffee.png", conn_id=s3.conn_id)
    assert (item.edit["images"], list(item.sha256)) == ([path], [path])
    assert item.name.startswith("mine-coffee-")
    assert item.fingerprint == only({"prompt": "Blue", "images": coffee}).fingerprint
    assert len(parameters_of(item, IMAGE_EDIT)["images"][0]) > 1_000


def test_remarks_on_pictures_are_bounded(coffee: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, validate_module.__name__)
    mask = coffee.replace(".png", "-mask.png")
    planned([{"prompt": f"Blue {number}", "images": URL, "mask": mask} for number in range(50)])
    lines = [record.message for record in caplog.records if record.name == validate_module.__name__]
    assert len(lines) == validate_module.MAX_REMARKS + 1
    assert lines[0].startswith("edits[0], images[0] is a URL")
    assert lines[-1] == "… and 30 more remarks on pictures."


# --- The parameters that are sent later


@pytest.fixture
def picture(tmp_path: Path, coffee: str) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(Path(coffee).read_bytes())
    return path


def test_the_parameters_that_are_sent_hold_the_pictures(picture: Path) -> None:
    item = only({"prompt": "Blue", "images": [str(picture), URL], "n": "2", "name": "cup"})
    sent = parameters_of(item, IMAGE_EDIT)
    assert {name: sent[name] for name in ("prompt", "n")} == {"prompt": "Blue", "n": 2}
    assert sent["images"][1] == URL
    assert len(sent["images"][0]) > picture.stat().st_size
    assert set(sent) == {"prompt", "n", "images"}


def test_a_picture_that_has_changed_since_is_not_sent(picture: Path, pictures: Path) -> None:
    item = only({"prompt": "Blue", "images": str(picture)})
    picture.write_bytes((pictures / "chelsea.png").read_bytes())
    with pytest.raises(StorageError, match="have changed since they were checked, and are not submitted") as raised:
        parameters_of(item, IMAGE_EDIT)
    assert raised.value.retry_helps


def test_a_picture_that_has_vanished_since_is_named(picture: Path) -> None:
    item = only({"prompt": "Blue", "images": str(picture)})
    picture.unlink()
    with pytest.raises(InvalidParametersError, match="does not exist, as this worker sees it"):
        parameters_of(item, IMAGE_EDIT)


@pytest.mark.parametrize("prompt", ["\u2028", "\x00", "\U0001f600", "a\tb\nc", "“”"])
def test_odd_texts_survive_the_state(coffee: str, prompt: str) -> None:
    item = only({"prompt": f"Blue{prompt}", "images": coffee})
    assert BatchItem.model_validate_json(item.to_line()) == item


def test_half_a_character_is_refused_before_anything_is_paid(coffee: str) -> None:
    [problem] = problems([{"prompt": "Blue\ud83d", "images": coffee}])
    assert problem.startswith("edits[0], prompt: ")


def test_a_picture_that_many_edits_miss_is_one_problem(coffee: str) -> None:
    missing = [{"prompt": word, "images": "/no/cup.png"} for word in ("Red", "Green", "Blue")]
    [problem] = problems([{"prompt": "Red", "images": coffee}, *missing])
    assert problem.startswith("edits[1], images[0]: '/no/cup.png' does not exist")
    assert problem.endswith("; 2 more edits have the same")
