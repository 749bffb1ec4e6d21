"""Batches for any endpoint, against the sandbox."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_odirouter.operators.batch import OdiRouterBatchOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.conftest import Listener, actions, spent
from tests.dags.batches import changing, landed, manifest, phases
from tests.dags.conftest import RunDag, anywhere, clear, kill_task, run_once
from tests.dags.test_batch_retries import fail_after_submits  # noqa: F401 - a fixture
from tests.object_store import S3

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

ENDPOINT = "nano_banana_2"
URL = "https://example.com/cup.png"
SIGNED = [f"https://user:s3cretA@cdn.example.com/{number}.png?sig=s3cretB" for number in range(4)]
PLAIN: list[dict[str, Any]] = [{"prompt": word, "seed": number} for number, word in enumerate(("Red", "Green", "Blue"))]


def dag_of(items: Any, output: Path | str, dag_id: str = "any", **arguments: Any) -> DAG:
    defaults: dict[str, Any] = {
        "endpoint": ENDPOINT,
        "output_path": str(output),
        "poll_interval": 0.1,
        "deferrable": False,
        "max_concurrent_submits": 1,
        "retries": 1,
        "retry_delay": timedelta(0),
    }
    with DAG(dag_id) as dag:
        OdiRouterBatchOperator(task_id="make", items=items, **(defaults | arguments))
    return dag


def sent(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [dict(request.parameters) for request in sandbox.requests]


@anywhere
def test_files_are_sent_as_base64_and_all_else_as_it_is(
    deferrable: bool, run_dag: RunDag, sandbox: Sandbox, s3: S3, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF sound")
    film = s3.put("film.mp4", b"\0\0\0\x18ftypmp42")
    items = [
        {"audio": tmp_path / "a.wav", "frames": [film, URL], "style": {"seed": 1}, "name": "cup"},
        {"audio": URL, "voice": "/no/file", "loud": None, "seed": "nan", "prompt": "Green"},
    ]
    dag = dag_of(
        items,
        tmp_path / "out",
        deferrable=deferrable,
        file_parameters=("audio", "frames"),
        defaults={"prompt": "Blue", "seed": 7},
        storage_conn_id=s3.conn_id,
    )
    run = run_dag(dag)

    assert (run.state, run.errors) == ("success", [])
    wave, mp4 = (base64.b64encode(one).decode() for one in (b"RIFF sound", b"\0\0\0\x18ftypmp42"))
    assert sent(sandbox) == [
        {"prompt": "Blue", "seed": 7, "audio": wave, "frames": [mp4, URL], "style": {"seed": 1}},
        {"prompt": "Green", "seed": 7, "audio": URL, "voice": "/no/file"},
    ]
    assert {request.endpoint for request in sandbox.requests} == {ENDPOINT}
    summary = run.xcom("make")
    assert (summary["endpoint"], summary["succeeded"], summary["failed"]) == (ENDPOINT, 2, 0)
    assert run.xcom("make", "odirouter_batch")["endpoint"] == ENDPOINT
    own = Path(summary["manifest"]).stem
    assert [line["name"] for line in manifest(tmp_path / "out")] == ["cup", f"{own}-2"]
    assert landed(tmp_path / "out") == sorted(["cup-0.png", f"{own}-2-0.png"])


def test_all_that_is_wrong_is_named_with_its_line_before_anything_is_paid(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    file = tmp_path / "items.jsonl"
    rows: list[Any] = [
        {"audio": "missing.wav", "prompt": "Blue"},
        {"audio": ["None"], "prompt": "<NA>"},
        {"audio": 7, "name": "a/b"},
        {"scale": float("inf")},
        {"loud": None},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    run = run_dag(dag_of(str(file), tmp_path / "out", file_parameters=["audio", "imgae"]))
    assert run.is_final
    for words in (
        f"{ENDPOINT} in ",
        f"line 1, audio: '{tmp_path}/missing.wav' does not exist, as this worker sees it",
        "line 2, prompt: is '<NA>', which is what a template, str() or pandas writes",
        "line 2, audio[0]: must be a path or a URL, not 'None'",
        "line 3, audio: must be a path or a URL, not 7",
        "line 3, name: must be 1 to 120 letters",
        "line 4, scale: is infinite or not a number",
        "line 5: sets no parameter",
        "file_parameters: 'imgae' is not a parameter of any of the items",
    ):
        assert words in run.error
    assert actions(sandbox) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"items": [{"seed": 2**64}]}, r"items\[0\], seed: is a whole number of more than 64 bits"),
        ({"items": [PLAIN[0], "cup.png"]}, r"items\[1\]: must be a dictionary, not str"),
        ({"items": [{"image": ["/a.png", 7]}]}, r"items\[0\], image\[1\]: must be a path or a URL, not 7"),
        ({"items": {"prompt": "Blue"}}, "items: must be a list of dictionaries, or the path of a .jsonl or .csv file"),
        ({"items": "items.json"}, "items: 'items.json' must end with .jsonl"),
        ({"items": [], "defaults": {"style": {"a": {1}}}}, "defaults, style.a: is not JSON: its type is set"),
        ({"items": PLAIN, "file_parameters": "image"}, "file_parameters must be a list of names, not 'image'"),
        ({"items": PLAIN, "endpoint": None}, "endpoint must be a text, not None"),
    ],
)
def test_a_literal_that_cannot_be_used_is_an_error_of_the_dag(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dag_of(output="/out", **({"file_parameters": ["image"]} | arguments))


def test_a_default_that_cannot_be_used_is_named_once() -> None:
    with pytest.raises(ValueError, match=r"defaults, style\.a") as raised:
        dag_of(PLAIN, "/out", defaults={"style": {"a": {1}}})
    assert str(raised.value).count("is not JSON") == 1


def test_templates_and_an_upstream_list_are_known_when_the_task_runs(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    with DAG("upstream_items") as dag:

        @task
        def products() -> list[dict[str, Any]]:
            return [{"seed": 1}, {"seed": 2}]

        OdiRouterBatchOperator(
            task_id="make",
            endpoint="{{ 'nano' }}_banana_2",
            items=products(),
            defaults={"prompt": "{{ dag.dag_id }}"},
            output_path=str(tmp_path),
            deferrable=False,
            poll_interval=0.1,
        )
    run = run_dag(dag)
    assert run.state == "success", run.errors
    assert sorted(one["seed"] for one in sent(sandbox)) == [1, 2]
    assert {one["prompt"] for one in sent(sandbox)} == {"upstream_items"}
    assert run.xcom("make")["endpoint"] == ENDPOINT


def test_the_task_can_be_mapped(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    with DAG("any_mapped") as dag:
        arguments: dict[str, Any] = {"output_path": str(tmp_path), "deferrable": False, "poll_interval": 0.1}
        OdiRouterBatchOperator.partial(task_id="make", endpoint=ENDPOINT, **arguments).expand(
            items=[PLAIN[:1], PLAIN[1:]]
        )
    run = run_dag(dag)
    assert run.state == "success", run.errors
    assert [run.xcom("make", map_index=index)["edits"] for index in (0, 1)] == [1, 2]
    assert len(landed(tmp_path)) == 3


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_file_may_have_any_columns_and_lists_of_files(
    delimiter: str, conn_id: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    file = tmp_path / "items.csv"
    rows = [["name", "voice", "frames", "seed"], ["one", "[calm]", "'[\"a.wav\"]'", "7"], ["two", "loud", "a.wav", ""]]
    file.write_text("\n".join(delimiter.join(row) for row in rows).replace("'", ""))
    tried = run_once(dag_of(str(file), tmp_path / "out", file_parameters=["frames"]))
    assert tried.errors == []
    wave = base64.b64encode(b"sound").decode()
    assert sent(sandbox) == [{"voice": "[calm]", "frames": [wave], "seed": "7"}, {"voice": "loud", "frames": wave}]
    assert landed(tmp_path / "out") == ["one-0.png", "two-0.png"]


@pytest.mark.parametrize("text", ["name,,seed\n", "name,seed,seed\n"])
def test_a_csv_file_with_a_broken_header_is_refused(text: str, conn_id: str, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(text + "a,b,c\n")
    tried = run_once(dag_of(str(tmp_path / "items.csv"), tmp_path / "out"))
    assert "line 1" in tried.error
    assert actions(sandbox) == []


@anywhere
def test_a_retry_continues_what_is_paid(
    deferrable: bool,
    run_dag: RunDag,
    sandbox: Sandbox,
    tmp_path: Path,
    fail_after_submits: Any,  # noqa: F811
) -> None:
    sandbox.configure(run_seconds=1)
    fail_after_submits(1)
    run = run_dag(dag_of(PLAIN, tmp_path, deferrable=deferrable))
    assert (run.state, [str(error) for error in run.errors]) == ("success", ["no memory today"])
    assert spent(sandbox) == (3, 0)
    assert phases(tmp_path) == ["landed"] * 3


def test_a_file_counts_by_its_content(
    run_dag: RunDag,
    sandbox: Sandbox,
    tmp_path: Path,
    fail_after_submits: Any,  # noqa: F811
) -> None:
    for name in ("a", "b", "c", "moved"):
        (tmp_path / f"{name}.wav").write_bytes(name.encode())
    listed = tmp_path / "items.jsonl"
    listed.write_text("\n".join(json.dumps({"audio": f"{name}.wav"}) for name in "abc"))

    def change(_: Any) -> None:
        (tmp_path / "moved.wav").write_bytes(b"a")
        (tmp_path / "b.wav").write_bytes(b"new")
        listed.write_text("\n".join(json.dumps({"audio": f"{name}.wav"}) for name in ("c", "b", "moved")))

    sandbox.configure(run_seconds=1)
    fail_after_submits(1)
    dag = dag_of(str(listed), tmp_path / "out", file_parameters=["audio"], on_retry_callback=change)
    assert run_dag(dag).state == "success"
    contents = [base64.b64decode(one["audio"]) for one in sent(sandbox)]
    assert contents == [b"a", b"b", b"c", b"new"]
    assert len(landed(tmp_path / "out")) == 3


def test_a_file_that_changes_after_the_check_is_not_submitted(
    conn_id: str, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(b"old")

    def change(entry: JournalEntry) -> None:
        (tmp_path / "a.wav").write_bytes(b"new")

    listeners.append(change)
    items = [{"prompt": "Red"}, {"audio": str(tmp_path / "a.wav")}]
    tried = run_once(dag_of(items, tmp_path / "out", file_parameters=["audio"], retries=0))
    assert tried.errors == []
    assert "The files have changed since they were checked" in manifest(tmp_path / "out")[1]["error"]
    assert sandbox.paid == 1


def test_a_try_with_another_endpoint_cancels_the_requests_of_the_earlier_one(
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
    fail_after_submits: Any,  # noqa: F811
) -> None:
    fail_after_submits(1)
    sandbox.configure(run_seconds=60)
    listeners.append(changing(sandbox, "cancel", {"run_seconds": 0}))
    run = run_dag(dag_of(PLAIN, tmp_path, endpoint="{{ ['nano_banana_2', 'gpt_image_2'][ti.try_number - 1] }}"))
    assert run.state == "success"
    assert [request.endpoint for request in sandbox.requests] == [ENDPOINT] * 3 + ["gpt_image_2"] * 3
    assert [request.error_type for request in sandbox.requests] == ["CANCELED"] * 3 + [None] * 3
    assert spent(sandbox) == (6, 3)


def test_whole_urls_are_sent_and_shortened_ones_are_kept(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path, caplog: Any
) -> None:
    items: list[dict[str, Any]] = [
        {"image": SIGNED[0]},
        {"style": {"like": [SIGNED[1]]}},
        {"prompt": f"Like {SIGNED[2]} please"},
        {"reference": SIGNED[3]},
    ]
    sandbox.configure(balance=2, run_seconds=1)
    listeners.append(changing(sandbox, "submit", {}, {}, {"balance": 100}))
    run = run_dag(dag_of(items, tmp_path, deferrable=True, file_parameters=["image"]))
    assert run.state == "success", run.errors
    assert sent(sandbox) == items
    written = [path.read_text() for path in tmp_path.rglob("*.json*")]
    assert len(written) >= 3
    kept = "".join([*written, caplog.text, json.dumps(run.xcom("make")), *map(str, run.errors)])
    assert "cdn.example.com/1.png?***" in kept
    assert "s3cret" not in kept


def test_a_kill_cancels_the_requests_of_the_endpoint(
    run_dag: RunDag, sandbox: Sandbox, listeners: list[Listener], tmp_path: Path
) -> None:
    def kill(entry: JournalEntry) -> None:
        if entry.action == "status" and sandbox.paid == 3 and not spent(sandbox)[1]:
            kill_task()

    sandbox.configure(run_seconds=60)
    listeners.append(kill)
    run = run_dag(dag_of(PLAIN, tmp_path, retries=0))
    assert run.error == "The task was killed."
    assert not sandbox.alive
    assert spent(sandbox) == (3, 3)


def test_a_clear_cancels_what_runs_and_keeps_what_has_landed(
    run_dag: RunDag,
    sandbox: Sandbox,
    listeners: list[Listener],
    tmp_path: Path,
    fail_after_submits: Any,  # noqa: F811
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submits(1)
    listeners.append(changing(sandbox, "cancel", {"run_seconds": 0}))
    run = run_dag(dag_of(PLAIN, tmp_path, dag_id="any_cleared", on_retry_callback=clear))
    assert run.state == "success"
    assert spent(sandbox) == (6, 3)


def names_taken(output: Path) -> None:
    output.mkdir()
    (output / "cup-0.png").write_bytes(b"of others")


@pytest.mark.parametrize(("if_exists", "names"), [("fail", []), ("new_name", ["cup-2"]), ("overwrite", ["cup"])])
def test_files_of_others_are_safe(
    if_exists: str, names: list[str], conn_id: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    names_taken(tmp_path / "out")
    tried = run_once(dag_of([PLAIN[0] | {"name": "cup"}], tmp_path / "out", if_exists=if_exists))
    if names:
        assert [line["name"] for line in manifest(tmp_path / "out")] == names
    else:
        assert f"1 parameter of {ENDPOINT} cannot be used" in tried.error
        assert "'cup' is taken: cup-0.png" in tried.error
        assert actions(sandbox) == []
    assert ((tmp_path / "out" / "cup-0.png").read_bytes() == b"of others") is (if_exists != "overwrite")


@pytest.mark.parametrize(("on_empty", "state"), [("skip", "skipped"), ("succeed", "success"), ("fail", "failed")])
def test_an_empty_list_does_what_on_empty_says(
    on_empty: str, state: str, run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    run = run_dag(dag_of([], tmp_path / "out", on_empty=on_empty, file_parameters=["image"]))
    assert run.state_of("make") == [state]
    assert actions(sandbox) == []
    if on_empty == "fail":
        assert "items: holds no edit" in run.error


def test_the_same_item_twice_is_made_twice_under_its_numbers(conn_id: str, sandbox: Sandbox, tmp_path: Path) -> None:
    assert run_once(dag_of([PLAIN[0]] * 2, tmp_path)).errors == []
    assert [name.rpartition("-0.")[0][-2:] for name in landed(tmp_path)] == ["-1", "-2"]
    assert sandbox.paid == 2
