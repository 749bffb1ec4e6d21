"""Parameters of any endpoint that are files: read, checked and sent like the pictures of an edit."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.images.inputs import MAX_INPUT_BYTES
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import actions, spent
from tests.dags.conftest import RunDag
from tests.object_store import S3

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

URL = "https://example.com/cup.png?X-Amz-Signature=very-secret-signature"


def dag_of(parameters: Any, file_parameters: Any = ("image", "audio", "frames"), **arguments: Any) -> DAG:
    with DAG("files") as dag:
        OdiRouterQueueOperator(
            task_id="make",
            endpoint="nano_banana_2",
            parameters=parameters,
            file_parameters=file_parameters,
            **({"deferrable": False, "poll_interval": 0.1} | arguments),
        )
    return dag


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of all submits, whole: the sandbox's journal shortens them."""
    bodies: list[dict[str, Any]] = []
    submit = OdiRouterHook.submit

    def noting(self: OdiRouterHook, endpoint: str, parameters: Any) -> Any:
        bodies.append(dict(parameters))
        return submit(self, endpoint, parameters)

    monkeypatch.setattr(OdiRouterHook, "submit", noting)
    return bodies


def test_files_of_any_kind_are_sent_as_bare_base64_and_urls_unchanged(
    run_dag: RunDag, sandbox: Sandbox, sent: list[dict[str, Any]], tmp_path: Path, s3: S3
) -> None:
    sound, film = tmp_path / "a.wav", b"\0\0\0\x18ftypmp42"
    sound.write_bytes(b"RIFF sound")
    frames = [s3.put("film.mp4", film), URL, "{{ '" + str(sound) + "' }}"]
    parameters = {"prompt": "Blue", "image": URL, "audio": sound, "frames": frames, "voice": str(sound)}
    run = run_dag(dag_of(parameters, storage_conn_id=s3.conn_id))
    assert (run.state, run.errors) == ("success", [])
    wave = base64.b64encode(b"RIFF sound").decode()
    assert sent == [
        {
            "prompt": "Blue",
            "image": URL,
            "audio": wave,
            "frames": [base64.b64encode(film).decode(), URL, wave],
            "voice": str(sound),
        }
    ]


def test_xcom_and_rendered_fields_show_paths_and_no_secret(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: list[str] = []
    monkeypatch.setattr("airflow.sdk.log.mask_secret", hidden.extend)
    (tmp_path / "a.wav").write_bytes(b"sound")
    run = run_dag(dag_of({"prompt": "Blue", "image": URL, "audio": str(tmp_path / "a.wav")}, ["image", "audio"]))
    record = json.dumps(run.xcom("make", "odirouter_request"))
    assert str(tmp_path / "a.wav") in record
    assert "https://example.com/cup.png?***" in record
    assert "very-secret" not in record
    assert any("very-secret-signature" in secret for secret in hidden)


def test_all_files_that_cannot_be_used_are_named_before_anything_is_paid(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "large.wav").write_bytes(bytes(MAX_INPUT_BYTES + 1))
    (tmp_path / "empty.wav").touch()
    frames = [str(tmp_path / name) for name in ("missing.mp4", "large.wav", "empty.wav", ".")]
    run = run_dag(
        dag_of(
            {"frames": [*frames, "/in/{{ '{{ not a template' }}"], "image": "data:image/png;base64,AAAA"},
            ["image", "frames"],
        )
    )
    assert run.is_final
    assert "parameters.frames[0]: " in run.error
    assert "parameters.frames[4]: '/in/{{ not a template' does not exist" in run.error
    for words in (
        "missing.mp4' does not exist, as this worker sees it",
        "large.wav' has more than 10 MiB",
        "empty.wav' is empty (0 bytes)",
        "is a folder, not a file",
        "parameters.image: 'data:image/png;base64,AAAA' is a data: URL",
    ):
        assert words in run.error
    assert actions(sandbox) == []


def test_a_retry_whose_file_has_changed_submits_the_new_one(
    run_dag: RunDag, sandbox: Sandbox, sent: list[dict[str, Any]], tmp_path: Path, fail_after_submit: Any
) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(b"old")
    fail_after_submit(1)
    arguments: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(0), "output_path": str(tmp_path / "out")}
    run = run_dag(
        dag_of({"audio": str(sound)}, ["audio"], on_retry_callback=lambda _: sound.write_bytes(b"new"), **arguments)
    )
    assert run.state == "success"
    assert [body["audio"] for body in sent] == [base64.b64encode(content).decode() for content in (b"old", b"new")]


def test_a_retry_with_the_same_file_pays_nothing(
    run_dag: RunDag, sandbox: Sandbox, tmp_path: Path, fail_after_submit: Any
) -> None:
    (tmp_path / "a.wav").write_bytes(b"old")
    (tmp_path / "b.wav").write_bytes(b"old")
    fail_after_submit(1)
    parameters = {"audio": str(tmp_path) + "/{{ 'ab'[ti.try_number - 1] }}.wav"}
    run = run_dag(dag_of(parameters, ["audio"], retries=1, retry_delay=timedelta(0), output_path=str(tmp_path / "out")))
    assert run.state == "success"
    assert spent(sandbox)[0] == 1


def test_openlineage_gets_the_files() -> None:
    [task] = dag_of({"audio": "/in/a.wav", "frames": ["s3://b/c.mp4", URL], "voice": "x"}, ["audio", "frames"]).tasks
    assert isinstance(task, OdiRouterQueueOperator)
    assert task.input_sources() == ("/in/a.wav", "s3://b/c.mp4", URL)


@pytest.mark.parametrize(
    ("file_parameters", "parameters", "words"),
    [
        ("image", {"image": "/a.png"}, "file_parameters must be a list of names, not 'image'"),
        (None, {"image": "/a.png"}, "file_parameters must be a list of names, not None"),
        ([7], {"image": "/a.png"}, "file_parameters must be a text, not 7"),
        (["imgae"], {"image": "/a.png"}, "file_parameters: 'imgae' is not one of the parameters"),
        (["image"], {"image": "nan"}, "parameters.image: must be a path or a URL, not 'nan'"),
        (["image"], {"image": 7}, "parameters.image: must be a path or a URL, not 7"),
        (["image"], {"image": ["/a.png", {"path": "/b.png"}]}, r"parameters.image\[1\]: must be a path or a URL, not"),
    ],
)
def test_wrong_names_and_values_are_an_error_of_the_dag(file_parameters: Any, parameters: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dag_of(parameters, file_parameters)
