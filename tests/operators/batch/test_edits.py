"""Reading the list of edits: what is understood, and that every line that is not is named, all at once."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import InvalidParametersError, StorageError
from airflow_provider_odirouter.operators.batch import edits as edits_module
from airflow_provider_odirouter.operators.batch.edits import edits_of
from tests.object_store import S3

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a list of edits: ``write("a\\nb", "edits.jsonl")``; returns its path."""

    def make(content: str | bytes, name: str = "edits.jsonl") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return make


def values(value: Any) -> list[dict[str, Any]]:
    """The edits of a list that has no problems."""
    listing = edits_of(value)
    assert listing.problems == ()
    return [dict(edit.values) for edit in listing.edits]


def places(value: Any) -> list[str]:
    return [edit.place for edit in edits_of(value).edits]


def problems(value: Any) -> list[str]:
    return [str(problem) for problem in edits_of(value).problems]


# --- Lists


def test_dictionaries_are_edits_and_are_counted_as_python_counts() -> None:
    edits = [{"prompt": "Blue"}, {"prompt": "Red"}]
    assert values(edits) == edits
    assert places(edits) == ["edits[0]", "edits[1]"]


def test_an_upstream_output_may_be_any_iterable() -> None:
    def lazily() -> Iterator[dict[str, str]]:
        yield {"prompt": "Blue"}
        yield {"prompt": "Red"}

    assert values(lazily()) == values(({"prompt": "Blue"}, {"prompt": "Red"})) == list(lazily())


def test_what_is_no_dictionary_is_named_and_the_others_are_read() -> None:
    listing = edits_of([{"prompt": "Blue"}, "coffee.png", None, ["a"]])
    assert [edit.place for edit in listing.edits] == ["edits[0]"]
    assert [str(problem) for problem in listing.problems] == [
        "edits[1]: must be a dictionary of an edit's parameters, not str",
        "edits[2]: must be a dictionary of an edit's parameters, not NoneType",
        "edits[3]: must be a dictionary of an edit's parameters, not list",
    ]


def test_an_empty_list_is_read_as_such() -> None:
    assert values([]) == []


@pytest.mark.parametrize("value", [None, 7, b"edits.jsonl", {"prompt": "Blue"}], ids=["None", "int", "bytes", "dict"])
def test_what_is_neither_a_list_nor_a_path_is_refused(value: object) -> None:
    with pytest.raises(InvalidParametersError, match="must be a list of dictionaries, or the path of"):
        edits_of(value)


@pytest.mark.parametrize("text", ["[{'prompt': 'Blue'}]", ' [{"prompt": "Blue"}]', "{'prompt': 'Blue'}"])
def test_a_list_that_a_template_rendered_to_text_is_recognized(text: str) -> None:
    [problem] = problems(text)
    assert "a template rendered to text; set render_template_as_native_obj=True on the Dag" in problem


# --- Files


def test_a_list_in_a_store_is_read_through_its_connection(s3: S3) -> None:
    lines = b"".join(json.dumps({"prompt": f"Blue {number}"}).encode() + b"\n" for number in range(500))
    s3.put("lists/edits.jsonl", lines)
    by_url = edits_of(s3.url("lists/edits.jsonl", conn_id=s3.conn_id))
    by_argument = edits_of(s3.url("lists/edits.jsonl"), storage_conn_id=s3.conn_id)
    assert by_url == by_argument
    assert len(by_url.edits) == 500
    assert by_url.edits[499].place == "line 500"


def test_a_list_that_is_not_in_its_store_is_named(s3: S3) -> None:
    [problem] = problems(s3.url("lists/edits.jsonl", conn_id=s3.conn_id))
    assert "/lists/edits.jsonl' cannot be read: " in problem


def test_a_store_that_does_not_let_in_may_do_so_later(s3: S3) -> None:
    url = s3.put("edits.jsonl", b"{}")
    unreachable = s3.connect(
        endpoint_url="http://127.0.0.1:9",
        config_kwargs={"connect_timeout": 1, "retries": {"max_attempts": 0}},
    )
    with pytest.raises(StorageError, match="Nothing was submitted yet") as raised:
        edits_of(url, storage_conn_id=unreachable)
    assert raised.value.retry_helps
    assert url in str(raised.value)


@pytest.mark.parametrize("name", ["edits.json", "edits.txt", "edits", "edits.jsonl.gz"])
def test_a_file_with_another_extension_is_refused(write: Write, name: str) -> None:
    [problem] = problems(write("{}", name))
    assert f"/{name}' must end with .jsonl (a JSON object a line) or .csv" in problem


@pytest.mark.parametrize("name", ["edits.jsonl", "edits.ndjson", "EDITS.JSONL"])
def test_json_lines_have_more_than_one_extension(write: Write, name: str) -> None:
    assert values(write('{"prompt": "Blue"}', name)) == [{"prompt": "Blue"}]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert problems(f"{tmp_path}/no.jsonl") == [
        f"edits: '{tmp_path}/no.jsonl' cannot be read: No such file or directory"
    ]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    assert problems(f"{tmp_path}/folder.jsonl") == [f"edits: '{tmp_path}/folder.jsonl' cannot be read: Is a directory"]


def test_a_file_that_is_too_large_is_not_read_into_the_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits_module, "MOST_BYTES", 2**20)
    assert values(write(b'{"prompt": "Blue"}' + b" " * (2**20 - 18))) == [{"prompt": "Blue"}]
    [problem] = problems(write(b'{"prompt": "Blue"}' + b" " * (2**20 - 17)))
    assert "has more than 1 MiB" in problem


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["without BOM", "with BOM"])
@pytest.mark.parametrize("name", ["edits.jsonl", "edits.csv"])
def test_the_line_that_is_not_in_utf_8_is_named(write: Write, name: str, bom: bytes) -> None:
    [problem] = problems(write(bom + b'{"prompt": "a"}\n' * 4 + b"\xe9\n", name))
    assert problem.startswith("line 5: ")
    assert problem.endswith("is not in UTF-8")


# --- JSON Lines


def test_blank_lines_carriage_returns_and_a_bom_say_nothing(write: Write) -> None:
    path = write('\ufeff{"prompt": "Blue"}\r\n\r\n   \n\n{"prompt": "Red"}')
    assert values(path) == [{"prompt": "Blue"}, {"prompt": "Red"}]
    assert places(path) == ["line 1", "line 5"]


def test_line_separators_inside_of_texts_end_no_line(write: Write) -> None:
    prompt = "one\u2028two\u2029three\x85four\x0bfive"
    path = write("\n".join(f'{{"prompt": "{name}"}}' for name in (prompt.replace("\x0b", "\\u000b"), "Red")))
    assert values(path) == [{"prompt": prompt}, {"prompt": "Red"}]
    assert places(path) == ["line 1", "line 2"]


def test_every_line_that_is_no_json_is_named_and_the_others_are_read(write: Write) -> None:
    lines = [json.dumps({"prompt": f"Blue {number}"}) for number in range(1, 1001)]
    lines[730] = '{"prompt": "Blue",}'
    lines[800] = "{'prompt': 'Blue'}"
    lines[999] = '{"prompt": "Bl'
    listing = edits_of(write("\n".join(lines)))
    assert len(listing.edits) == 997
    where = [str(problem).partition(" at character ") for problem in listing.problems]
    assert [line.split(": is no JSON: ")[0] for line, _, _ in where] == ["line 731", "line 801", "line 1000"]
    # Of Python's own words, "line 1" would lead astray.
    assert all(column.isdigit() for _, _, column in where)
    assert not any("line 1 " in str(problem) for problem in listing.problems)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[1, 2]", "[1, 2]"),
        ('"coffee.png"', '"coffee.png"'),
        ("7", "7"),
        ("[" + "1," * 99 + "1]", "[" + "1," * 29 + "1"),
    ],
)
def test_a_line_that_is_no_object_is_named(write: Write, line: str, shown: str) -> None:
    assert problems(write(f"{{}}\n{line}\n")) == [f"line 2: must be a JSON object, not {shown}"]


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_know_are_refused(write: Write, constant: str) -> None:
    assert problems(write(f'{{"prompt": {constant}}}')) == [f"line 1: is no JSON: it knows no {constant}"]


def test_a_line_that_is_nested_too_deep_is_named(write: Write) -> None:
    [deep, many_digits] = problems(write(f'{{"prompt": {"[" * 200_000}}}\n{{"n": {"1" * 10_000}}}'))
    assert deep.startswith("line 1: is no JSON: ")
    assert many_digits.startswith("line 2: is no JSON: ")


def test_two_hundred_thousand_lines_can_be_read(write: Write) -> None:
    path = write('{"prompt": "Blue", "images": "a.png"}\n' * 200_000)
    assert len(edits_of(path).edits) == 200_000


# --- CSV


def test_a_row_is_an_edit_and_an_empty_cell_sets_nothing(write: Write) -> None:
    path = write("name,prompt,images,n\ncup,Blue,a.png,2\n,Red,b.png,\n\n,,,\nx, ,c.png,3\n", "edits.csv")
    assert values(path) == [
        {"name": "cup", "prompt": "Blue", "images": "a.png", "n": "2"},
        {"prompt": "Red", "images": "b.png"},
        {"name": "x", "images": "c.png", "n": "3"},
    ]
    assert places(path) == ["line 2", "line 3", "line 6"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_lines_are_counted_through_quoted_ones(write: Write, end: str) -> None:
    prompt = f'A "blue"{end}{end}cup, please\u2028'
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator=end)
    rows.writerows([("prompt", "images"), (prompt, "a.png"), ("Red", "b.png"), ("Green",)])
    listing = edits_of(write("\ufeff" + text.getvalue(), "edits.csv"))
    assert [(edit.place, edit.values["prompt"]) for edit in listing.edits] == [("line 2", prompt), ("line 5", "Red")]
    assert [str(problem) for problem in listing.problems] == ["line 6: has 1 cells, where the header has 2"]


def test_rows_that_are_too_short_or_too_long_are_named(write: Write) -> None:
    assert problems(write("prompt,images\nBlue\nBlue,a.png\nBlue,a.png,b.png\n", "edits.csv")) == [
        "line 2: has 1 cells, where the header has 2",
        "line 4: has 3 cells, where the header has 2",
    ]


def test_an_unknown_column_is_named_once_with_those_that_are_known(write: Write) -> None:
    [problem] = problems(write("prompt,picture,images\n" + "Blue,a.png,b.png\n" * 50, "edits.csv"))
    assert problem.startswith("line 1, column 'picture': is not a parameter of an edit; known are background, images, ")
    assert "name" in problem


def test_a_column_that_comes_twice_is_refused(write: Write) -> None:
    assert problems(write("prompt, prompt ,images\nBlue,Red,a.png\n", "edits.csv")) == ["line 1: names a column twice"]


def test_the_pictures_of_a_row_are_one_or_a_list_in_json(write: Write) -> None:
    path = write('prompt,images\nBlue,"[""a.png"", ""b.png""]"\nRed, a.png\n', "edits.csv")
    assert [edit["images"] for edit in values(path)] == [["a.png", "b.png"], " a.png"]


@pytest.mark.parametrize("cell", ['"[a.png, b.png]"', f'"{"[" * 100_000}"'], ids=["no JSON", "too deep"])
def test_a_list_of_pictures_that_is_no_json_is_named(write: Write, cell: str) -> None:
    [problem] = problems(write(f"prompt,images\nBlue,a.png\nBlue,{cell}\n", "edits.csv"))
    assert problem.startswith("line 3, images: is no list in JSON: ")


def test_a_quote_that_is_never_closed_is_named_where_it_begins(write: Write) -> None:
    listing = edits_of(write('prompt,images\nRed,a.png\n"Blue,b.png\n' + "Green,c.png\n" * 50, "edits.csv"))
    assert [edit.place for edit in listing.edits] == ["line 2"]
    assert [str(problem) for problem in listing.problems] == ["line 3: is no CSV: unexpected end of data"]


@pytest.mark.parametrize("content", ["", "\n\n", "prompt,images\n", "prompt,images"])
def test_a_file_without_rows_holds_no_edit(write: Write, content: str) -> None:
    assert values(write(content, "edits.csv")) == []


def test_a_list_of_another_country_names_its_header(write: Write) -> None:
    [problem] = problems(write("prompt;images\nBlue;a.png\n", "edits.csv"))
    assert "column 'prompt;images': is not a parameter" in problem
