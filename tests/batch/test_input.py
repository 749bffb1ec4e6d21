"""The list of edits is read; one error names all lines that cannot be read."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.batch import input as input_module
from airflow_provider_odirouter.errors import StorageError
from tests.batch.conftest import read_edits
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
    edit_list = read_edits(value)
    assert edit_list.problems == ()
    return [dict(edit.values) for edit in edit_list.edits]


def positions(value: Any) -> list[str]:
    return [edit.position for edit in read_edits(value).edits]


def problems(value: Any) -> list[str]:
    return [str(problem) for problem in read_edits(value).problems]


# --- Lists


def test_dictionaries_are_edits_and_are_counted_as_python_counts() -> None:
    edits = [{"prompt": "Blue"}, {"prompt": "Red"}]
    assert values(edits) == edits
    assert positions(edits) == ["edits[0]", "edits[1]"]


def test_an_upstream_output_may_be_any_iterable() -> None:
    def lazily() -> Iterator[dict[str, str]]:
        yield {"prompt": "Blue"}
        yield {"prompt": "Red"}

    assert values(lazily()) == values(({"prompt": "Blue"}, {"prompt": "Red"})) == list(lazily())


def test_an_item_that_is_not_a_dictionary_is_named_and_the_others_are_read() -> None:
    edit_list = read_edits([{"prompt": "Blue"}, "coffee.png", None, ["a"]])
    assert [edit.position for edit in edit_list.edits] == ["edits[0]"]
    assert [str(problem) for problem in edit_list.problems] == [
        "edits[1]: must be a dictionary of an edit's parameters, not str",
        "edits[2]: must be a dictionary of an edit's parameters, not NoneType",
        "edits[3]: must be a dictionary of an edit's parameters, not list",
    ]


def test_an_empty_list_is_read_as_such() -> None:
    assert values([]) == []


@pytest.mark.parametrize("value", [None, 7, b"edits.jsonl", {"prompt": "Blue"}], ids=["None", "int", "bytes", "dict"])
def test_a_value_that_is_neither_a_list_nor_a_path_is_refused(value: object) -> None:
    what = "must be a list of dictionaries, or the path of a .jsonl or .csv file"
    assert problems(value) == [f"edits: {what}, not {type(value).__name__}"]


@pytest.mark.parametrize("text", ["[{'prompt': 'Blue'}]", ' [{"prompt": "Blue"}]', "{'prompt': 'Blue'}"])
def test_a_list_that_a_template_rendered_to_text_is_recognized(text: str) -> None:
    [problem] = problems(text)
    assert "a template rendered to text; set render_template_as_native_obj=True on the Dag" in problem


# --- Files


def test_a_list_in_a_store_is_read_through_its_connection(s3: S3) -> None:
    lines = b"".join(json.dumps({"prompt": f"Blue {number}"}).encode() + b"\n" for number in range(500))
    s3.put("lists/edits.jsonl", lines)
    by_url = read_edits(s3.url("lists/edits.jsonl", conn_id=s3.conn_id))
    by_argument = read_edits(s3.url("lists/edits.jsonl"), storage_conn_id=s3.conn_id)
    assert by_url.edits == by_argument.edits
    assert by_argument.path == s3.url("lists/edits.jsonl")
    assert len(by_url.edits) == 500
    assert by_url.edits[499].position == "line 500"


def test_a_list_that_is_not_in_its_store_is_named(s3: S3) -> None:
    [problem] = problems(s3.url("lists/edits.jsonl", conn_id=s3.conn_id))
    assert "/lists/edits.jsonl' cannot be read: " in problem


def test_a_list_in_a_store_that_does_not_answer_may_be_readable_later(s3: S3) -> None:
    url = s3.put("edits.jsonl", b"{}")
    unreachable = s3.connect(
        endpoint_url="http://127.0.0.1:9",
        config_kwargs={"connect_timeout": 1, "retries": {"max_attempts": 0}},
    )
    with pytest.raises(StorageError, match="cannot be read: ") as raised:
        read_edits(url, storage_conn_id=unreachable)
    assert raised.value.retry_helps
    assert url in str(raised.value)


@pytest.mark.parametrize("name", ["edits.json", "edits.txt", "edits", "edits.jsonl.gz"])
def test_a_file_with_another_extension_is_refused(write: Write, name: str) -> None:
    [problem] = problems(write("{}", name))
    assert f"/{name}' must end with .jsonl (one JSON object per line) or .csv" in problem


@pytest.mark.parametrize("name", ["edits.jsonl", "edits.ndjson", "EDITS.JSONL"])
def test_json_lines_have_more_than_one_extension(write: Write, name: str) -> None:
    assert values(write('{"prompt": "Blue"}', name)) == [{"prompt": "Blue"}]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert problems(f"{tmp_path}/no.jsonl") == [
        f"edits: '{tmp_path}/no.jsonl' cannot be read: No such file or directory"
    ]


def test_a_folder_is_not_read_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    assert problems(f"{tmp_path}/folder.jsonl") == [f"edits: '{tmp_path}/folder.jsonl' cannot be read: Is a directory"]


def test_a_file_that_is_too_large_is_not_read_into_the_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_module, "MAX_BYTES", 2**20)
    assert values(write(b'{"prompt": "Blue"}' + b" " * (2**20 - 18))) == [{"prompt": "Blue"}]
    [problem] = problems(write(b'{"prompt": "Blue"}' + b" " * (2**20 - 17)))
    assert "has more than 1 MiB" in problem


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["without BOM", "with BOM"])
@pytest.mark.parametrize("name", ["edits.jsonl", "edits.csv"])
def test_the_line_that_is_not_in_utf_8_is_named(write: Write, name: str, bom: bytes) -> None:
    [problem] = problems(write(bom + b'{"prompt": "a"}\n' * 4 + b"\xe9\n", name))
    assert problem.startswith("line 5: ")
    assert problem.endswith(f"/{name}' is not in UTF-8; save it in UTF-8 (in Excel: CSV UTF-8)")


# --- JSON Lines


def test_blank_lines_carriage_returns_and_a_bom_are_ignored(write: Write) -> None:
    path = write('\ufeff{"prompt": "Blue"}\r\n\r\n   \n\n{"prompt": "Red"}')
    assert values(path) == [{"prompt": "Blue"}, {"prompt": "Red"}]
    assert positions(path) == ["line 1", "line 5"]


def test_line_separators_inside_of_texts_do_not_end_a_line(write: Write) -> None:
    prompt = "one\u2028two\u2029three\x85four\x0bfive"
    path = write("\n".join(f'{{"prompt": "{name}"}}' for name in (prompt.replace("\x0b", "\\u000b"), "Red")))
    assert values(path) == [{"prompt": prompt}, {"prompt": "Red"}]
    assert positions(path) == ["line 1", "line 2"]


def test_every_line_that_is_not_json_is_named_and_the_others_are_read(write: Write) -> None:
    lines = [json.dumps({"prompt": f"Blue {number}"}) for number in range(1, 1001)]
    lines[730] = '{"prompt": "Blue",}'
    lines[800] = "{'prompt': 'Blue'}"
    lines[999] = '{"prompt": "Bl'
    edit_list = read_edits(write("\n".join(lines)))
    assert len(edit_list.edits) == 997
    where = [str(problem).partition(" at character ") for problem in edit_list.problems]
    assert [line.split(": is not JSON: ")[0] for line, _, _ in where] == ["line 731", "line 801", "line 1000"]
    # Python's own error would say "line 1".
    assert all(column.isdigit() for _, _, column in where)
    assert not any("line 1 " in str(problem) for problem in edit_list.problems)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[1, 2]", "[1, 2]"),
        ('"coffee.png"', '"coffee.png"'),
        ("7", "7"),
        ("[" + "1," * 99 + "1]", "[" + "1," * 29 + "1"),
    ],
)
def test_a_line_that_is_not_an_object_is_named(write: Write, line: str, shown: str) -> None:
    assert problems(write(f"{{}}\n{line}\n")) == [f"line 2: must be a JSON object, not {shown}"]


def test_a_line_that_is_nested_too_deep_is_named(write: Write) -> None:
    [deep, many_digits] = problems(write(f'{{"prompt": {"[" * 200_000}}}\n{{"n": {"1" * 10_000}}}'))
    assert deep.startswith("line 1: is not JSON: ")
    assert many_digits.startswith("line 2: is not JSON: ")


def test_two_hundred_thousand_lines_can_be_read(write: Write) -> None:
    path = write('{"prompt": "Blue", "images": "a.png"}\n' * 200_000)
    assert len(read_edits(path).edits) == 200_000


# --- CSV


def test_a_row_is_an_edit_and_an_empty_cell_counts_as_not_set(write: Write) -> None:
    path = write("name,prompt,images,n\ncup,Blue,a.png,2\n,Red,b.png,\n\n,,,\nx, ,c.png,3\n", "edits.csv")
    assert values(path) == [
        {"name": "cup", "prompt": "Blue", "images": "a.png", "n": "2"},
        {"prompt": "Red", "images": "b.png"},
        {"name": "x", "images": "c.png", "n": "3"},
    ]
    assert positions(path) == ["line 2", "line 3", "line 6"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_lines_are_counted_through_quoted_ones(write: Write, end: str) -> None:
    prompt = f'A "blue"{end}{end}cup, please\u2028'
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator=end)
    rows.writerows([("prompt", "images"), (prompt, "a.png"), ("Red", "b.png"), ("Green",)])
    edit_list = read_edits(write("\ufeff" + text.getvalue(), "edits.csv"))
    read = [(edit.position, edit.values["prompt"]) for edit in edit_list.edits]
    assert read == [("line 2", prompt), ("line 5", "Red")]
    assert [str(problem) for problem in edit_list.problems] == ["line 6: has 1 cell; the header has 2"]


def test_rows_that_are_too_short_or_too_long_are_named(write: Write) -> None:
    assert problems(write("prompt,images\nBlue\nBlue,a.png\nBlue,a.png,b.png\n", "edits.csv")) == [
        "line 2: has 1 cell; the header has 2",
        "line 4: has 3 cells; the header has 2; put a cell with ',' into quotes",
    ]


def test_an_unknown_column_is_named_once_with_those_that_are_known(write: Write) -> None:
    [problem] = problems(write("prompt,picture,images\n" + "Blue,a.png,b.png\n" * 50, "edits.csv"))
    words = "is not a parameter of an edit; the parameters are background, images, "
    assert problem.startswith(f"line 1, column 'picture': {words}")
    assert "name" in problem


def test_a_column_that_comes_twice_is_refused(write: Write) -> None:
    assert problems(write("prompt, prompt ,images\nBlue,Red,a.png\n", "edits.csv")) == [
        "line 1: names the column 'prompt' twice; keep one of them"
    ]


def test_the_pictures_of_a_row_are_one_or_a_list_in_json(write: Write) -> None:
    path = write('prompt,images\nBlue,"[""a.png"", ""b.png""]"\nRed, a.png\n', "edits.csv")
    assert [edit["images"] for edit in values(path)] == [["a.png", "b.png"], "a.png"]


@pytest.mark.parametrize("cell", ['"[a.png, b.png]"', f'"{"[" * 100_000}"'], ids=["no JSON", "too deep"])
def test_a_list_of_pictures_that_is_not_json_is_named(write: Write, cell: str) -> None:
    [problem] = problems(write(f"prompt,images\nBlue,a.png\nBlue,{cell}\n", "edits.csv"))
    assert problem.startswith("line 3, images: is not a JSON list: ")


def test_a_quote_that_is_never_closed_is_named_where_it_begins(write: Write) -> None:
    edit_list = read_edits(write('prompt,images\nRed,a.png\n"Blue,b.png\n' + "Green,c.png\n" * 50, "edits.csv"))
    assert [edit.position for edit in edit_list.edits] == ["line 2"]
    assert [str(problem) for problem in edit_list.problems] == [
        "line 3: is not CSV: unexpected end of data; is each quote closed, and written twice inside of a cell?"
    ]


@pytest.mark.parametrize("content", ["", "\n\n", "prompt,images\n", "prompt,images"])
def test_a_file_without_rows_holds_no_edit(write: Write, content: str) -> None:
    assert values(write(content, "edits.csv")) == []


# --- Lists as people write them


BLUE = [{"prompt": "Blue, dark", "images": "a.png"}]


@pytest.mark.parametrize(
    "text",
    [
        'prompt, images\n"Blue, dark", a.png\n',
        'prompt,images\n "Blue, dark" ,a.png \n'.replace(" ,", ","),
        'prompt,images,,,\n"Blue, dark",a.png,,,\n,,,,\n',
        'prompt,images\n"Blue, dark",a.png,,\n',
        "prompt;images\nBlue, dark;a.png\n",
        "prompt;images;;\r\nBlue, dark;a.png;;\r\n;;;\r\n",
        "prompt\timages\nBlue, dark\ta.png\n",
        "prompt|images\nBlue, dark|a.png\n",
        "sep=;\nprompt;images\nBlue, dark;a.png\n",
        '"sep=\t"\nprompt\timages\nBlue, dark\ta.png\n',
        '# made by hand\n\n#again\nprompt,images\n"Blue, dark",a.png\n',
        'prompt,images\r"Blue, dark",\xa0a.png\r',
        '\ufeffprompt,images\n"Blue, dark",a.png\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_table_is_read_as_people_and_excel_write_it(write: Write, text: str, encoding: str) -> None:
    assert values(write(text.encode(encoding), "edits.csv")) == BLUE


def test_lines_are_counted_through_what_stands_before_the_header(write: Write) -> None:
    text = '\nsep=;\n# by hand\nprompt;images\n"Blue\nsky";a.png\n;;\nRed;b.png;c.png\nGreen;d.png\n'
    edit_list = read_edits(write(text, "edits.csv"))
    assert [edit.position for edit in edit_list.edits] == ["line 5", "line 9"]
    assert [str(problem) for problem in edit_list.problems] == [
        "line 8: has 3 cells; the header has 2; put a cell with ';' into quotes"
    ]


def test_a_commented_row_is_neither_paid_nor_lost_in_silence(write: Write) -> None:
    edit_list = read_edits(write('prompt,images\n#Blue,a.png\n"#1, please",b.png\n', "edits.csv"))
    assert [edit.values["prompt"] for edit in edit_list.edits] == ["#1, please"]
    [problem] = edit_list.problems
    assert str(problem).startswith("line 2: begins with '#': delete the line if it is a comment")


def test_an_unnamed_column_with_cells_is_named_by_its_number(write: Write) -> None:
    [problem] = problems(write("prompt,,images\nBlue,x,a.png\n", "edits.csv"))
    assert problem.startswith("line 1, column 2: has no name; the parameters are background, images")


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("edits.jsonl", '# by hand\n{"prompt": "Blue"}\n// and\n{"prompt": "Red"}', ["line 2", "line 4"]),
        ("edits.jsonl", '{"prompt": "Blue"},\n{"prompt": "Red"},\n', ["line 1", "line 2"]),
        ("edits.jsonl", '{"prompt": "Blue"}\r{"prompt": "Red"}\r', ["line 1", "line 2"]),
        ("edits.jsonl", '{"prompt": "Blue"}\n\ufeff{"prompt": "Red"}\n', ["line 1", "line 2"]),
    ],
)
def test_json_lines_are_read_as_people_write_them(write: Write, name: str, text: str, read: list[str]) -> None:
    for encoding in ("utf-8", "utf-16"):
        path = write(text.encode(encoding), name)
        assert values(path) == [{"prompt": "Blue"}, {"prompt": "Red"}]
        assert positions(path) == read


WORKBOOK = b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0"


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        (
            "edits.csv",
            gzip.compress(b"prompt\n", mtime=0),
            "is compressed with gzip; decompress it first: gunzip < old > new",
        ),
        (
            "edits.jsonl",
            gzip.compress(b"{}\n", mtime=0),
            "is compressed with gzip; decompress it first: gunzip < old > new",
        ),
        ("edits.csv", bz2.compress(b"prompt\n"), "is compressed with bzip2; decompress it first: bunzip2"),
        ("edits.csv", WORKBOOK, "is an Excel workbook or a ZIP archive; save the sheet as CSV UTF-8"),
        ("edits.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel workbook; save the sheet as CSV UTF-8"),
        ("edits.jsonl", b"PAR1\x15", "is a Parquet file; write its rows as .jsonl or .csv"),
        ("edits.csv", "prompt,images\n".encode("utf-16-le"), "line 1: '.*' holds a NUL character"),
        ("edits.csv", b"prompt\nB\0lue\n", "line 2: '.*' holds a NUL character"),
        ("edits.jsonl", b'[\n {"prompt": "Blue"},\n {"prompt": "Red"}\n]\n', "line 1: begins a JSON list; each line"),
        ("edits.jsonl", b'\n[{"prompt": "Blue"}]', "line 2: begins a JSON list; each line must be an object: jq -c"),
        ("edits.jsonl", b'{\n "prompt": "Blue"\n}\n{\n}', "line 1: begins an object of several lines; .* jq -c"),
        ("edits.jsonl", b"prompt,images\nBlue,a.png\nRed,b.png\n", "line 1: looks like the header of a CSV file"),
        ("edits.jsonl", b"images;prompt\na.png;Blue\n", "line 1: looks like the header of a CSV file"),
        ("edits.csv", b'{"prompt": "Blue"}\n{"prompt": "Red"}\n', "line 1: is JSON; let the file's name end with"),
        ("edits.csv", b'[{"prompt": "Blue"},\n{"prompt": "Red"}]\n', "line 1: is JSON; let the file's name end with"),
    ],
)
def test_another_kind_of_file_gets_one_hint(write: Write, name: str, content: bytes, hint: str) -> None:
    [problem] = problems(write(content, name))
    assert re.search(hint, problem)


@pytest.mark.parametrize(
    "line", ['{"prompt": "Blue", "n": 1, "prompt": "Red"}', '{"images": {"outputs": [], "prompt": 1, "prompt": 2}}']
)
def test_a_key_that_comes_twice_is_refused(write: Write, line: str) -> None:
    assert problems(write(f"{{}}\n{line}\n{{}}\n")) == ["line 2: sets 'prompt' twice; keep one of them"]


def test_a_file_that_is_cut_in_the_middle_of_utf_16_is_named(write: Write) -> None:
    [problem] = problems(write('{"prompt": "Blue"}'.encode("utf-16")[:-1]))
    assert problem.endswith("/edits.jsonl' is not in UTF-16; save it in UTF-8 (in Excel: CSV UTF-8)")


def test_a_missing_relative_list_is_named_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [problem] = problems("lists/no.csv")
    assert problem == (
        "edits: 'lists/no.csv' cannot be read: No such file or directory; on this worker, it means "
        f"'{tmp_path}/lists/no.csv'"
    )


def test_a_relative_list_is_named_in_the_log_with_what_it_means(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write('{"prompt": "Blue"}')
    monkeypatch.chdir(tmp_path)
    assert len(read_edits("edits.jsonl").edits) == 1
    assert f"edits is a relative path: 'edits.jsonl' means '{path}'" in caplog.text
    caplog.clear()
    read_edits(path)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("edits.csv", "https://u:s3cret@cdn.example.com/a.png?sig=s3cret\n"),
        ("edits.jsonl", '"https://a.b/c.png?sig=s3cret"'),
    ],
)
def test_a_problem_of_a_list_shows_no_signature(write: Write, name: str, text: str) -> None:
    problems = read_edits(write(text.encode(), name)).problems
    assert problems
    assert "s3cret" not in str(problems)
