"""What a try knows of an earlier one: nothing is paid twice, and every paid output lands."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.execution_time import context as execution_context
from airflow.sdk.execution_time import task_runner
from PIL import Image

from airflow_provider_odirouter.errors import StorageError
from airflow_provider_odirouter.hooks import downloads
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.state import KEY
from airflow_provider_odirouter.lifecycle.state_files import NotesBesideOutputs
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from airflow_provider_odirouter.triggers import request as trigger
from tests.conftest import Clock, ConfigureAt, Listener, actions, spent
from tests.dags.conftest import (
    HAS_STORE,
    ONE_ENDED,
    Fail,
    Run,
    RunDag,
    anywhere,
    clear,
    end_execution_timeout,
    kill_task,
    needs_store,
)
from tests.dags.conftest import edit as edit_of

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

IN_AIRFLOW, BESIDE = "in Airflow's store", "beside the outputs"
Edit = Callable[..., DAG]
Note = Callable[..., Any]


@pytest.fixture(params=[IN_AIRFLOW, BESIDE] if HAS_STORE else [BESIDE])
def request_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the task keeps its notes; in Airflow 3.3, both ways are tested."""
    if HAS_STORE and request.param == BESIDE:
        monkeypatch.setattr(task_runner.RuntimeTaskInstance, "get_template_context", without_store)
    return str(request.param)


get_template_context = task_runner.RuntimeTaskInstance.get_template_context


def without_store(ti: Any) -> Any:
    context: Any = get_template_context(ti)
    context.pop("task_state_store", None)
    return context


@pytest.fixture
def edit(request_store: str, pictures: Path, tmp_path: Path) -> Edit:
    """Makes a Dag of one edit, with an output path if the notes need one."""

    def make(pictures: Path, **arguments: Any) -> DAG:
        defaults = {"output_path": str(tmp_path)} if request_store == BESIDE else {}
        return edit_of(pictures, **(defaults | arguments))

    return make


@pytest.fixture
def note(request_store: str, tmp_path: Path) -> Note:
    """Reads the note for the next try of a task instance; ``None``: there is none."""

    def read(run: Run, map_index: int = -1) -> Any:
        if request_store == IN_AIRFLOW:
            return run.note(map_index=map_index)
        ti = run.run.get_task_instance("edit", map_index=map_index)
        name = f"{ti.id}.json" if map_index >= 0 else "*.json"
        found = sorted(tmp_path.glob(f"**/.odirouter/*/{name}"))
        return json.loads(found[-1].read_text()) if found else None

    return read


@pytest.fixture
def spoil(request_store: str, tmp_path: Path) -> Callable[[Any, str], None]:
    """Overwrites the note of a task instance, between its tries."""

    def write(context: Any, text: str) -> None:
        ti = context["ti"]
        if request_store == BESIDE:
            [file] = tmp_path.glob(f".odirouter/*/{ti.id}.json")
            file.write_text(text)
            return
        from airflow._shared.state import TaskScope
        from airflow.state import get_state_backend

        get_state_backend().set(TaskScope(ti.dag_id, ti.run_id, ti.task_id, -1), KEY, text)

    return write


@pytest.fixture
def fail_to_note(request_store: str, monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Lets the store refuse writes, from this note on."""

    def make(number: int) -> None:
        accessor: Any = NotesBesideOutputs if request_store == BESIDE else execution_context.TaskStateStoreAccessor
        write, notes = accessor.set, []

        def failing(self: Any, key: str, value: Any, **arguments: Any) -> None:
            notes.append(value)
            if len(notes) >= number:
                raise OSError("no store today")
            write(self, key, value, **arguments)

        monkeypatch.setattr(accessor, "set", failing)

    return make


@anywhere
def test_a_retry_resumes_the_request_of_a_try_that_failed_after_its_submit(
    deferrable: bool,
    run_dag: RunDag,
    note: Note,
    edit: Edit,
    sandbox: Sandbox,
    pictures: Path,
    fail_after_submit: Fail,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox.configure(run_seconds=1)
    fail_after_submit(1)
    run = run_dag(edit(pictures, deferrable=deferrable))
    assert (run.state, run.error) == ("success", "no XCom today")
    assert spent(sandbox) == (1, 0)
    [request] = sandbox.requests
    assert run.xcom("edit")["request_id"] == run.xcom("edit", "request_id") == request.request_id
    assert f"Request {request.request_id} is not cancelled: the next try keeps waiting" in caplog.text
    assert note(run)["done"]


def test_a_retry_takes_a_result_without_leaving_the_worker(
    run_dag: RunDag,
    edit: Edit,
    sandbox: Sandbox,
    pictures: Path,
    fail_after_submit: Fail,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_after_submit(1)
    monkeypatch.setattr(trigger, "OdiRouterRequestTrigger", None)
    run = run_dag(edit(pictures, deferrable=True))
    assert run.state == "success"
    assert actions(sandbox)[:4] == ["submit", "status", "status", "result"]


def test_a_retry_submits_again_when_the_earlier_request_has_failed_meanwhile(
    run_dag: RunDag, edit: Edit, sandbox: Sandbox, pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(error_type="INFERENCE_FAILURE", fail_first=1)
    fail_after_submit(1)
    run = run_dag(edit(pictures))
    assert run.state == "success"
    assert run.xcom("edit")["request_id"] == sandbox.requests[1].request_id
    assert spent(sandbox) == (2, 0)


@needs_store
def test_a_retry_policy_may_decide_against_a_retry_so_that_the_request_is_cancelled(
    run_dag: RunDag, edit: Edit, sandbox: Sandbox, configure_at: ConfigureAt, pictures: Path, fail_after_submit: Fail
) -> None:
    from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy

    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    fail_after_submit(1)
    run = run_dag(edit(pictures, retry_policy=ExceptionRetryPolicy(rules=[])))
    assert (run.state, run.error) == ("success", "no XCom today")
    assert spent(sandbox) == (2, 1)
    assert not sandbox.alive


def test_the_last_try_cancels_and_forgets_the_request_that_it_resumed(
    run_dag: RunDag, note: Note, edit: Edit, sandbox: Sandbox, pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submit(1, 2)
    run = run_dag(edit(pictures))
    assert run.state == "failed"
    assert spent(sandbox) == (1, 1)
    assert not sandbox.alive
    assert note(run) == ONE_ENDED


@anywhere
def test_outputs_that_did_not_land_are_fetched_again_and_not_paid_again(
    deferrable: bool,
    run_dag: RunDag,
    edit: Edit,
    sandbox: Sandbox,
    configure_at: ConfigureAt,
    pictures: Path,
    tmp_path: Path,
) -> None:
    sandbox.configure(file_fault="html")
    configure_at("file", file_fault="none")
    run = run_dag(edit(pictures, output_path=str(tmp_path), deferrable=deferrable))
    assert run.state == "success"
    assert "A retry downloads the outputs again, and pays nothing" in run.error
    assert spent(sandbox) == (1, 0)
    [picture] = tmp_path.glob("*.png")
    with Image.open(picture) as image:
        image.load()


def test_a_cleared_task_takes_the_outputs_that_no_try_could_store(
    run_dag: RunDag, note: Note, edit: Edit, sandbox: Sandbox, listeners: list[Listener], pictures: Path, tmp_path: Path
) -> None:
    def break_storage(entry: JournalEntry) -> None:
        if entry.action == "result":
            (tmp_path / "out").rename(tmp_path / "away")
            (tmp_path / "out").touch()

    listeners.append(break_storage)
    run = run_dag(edit(pictures, output_path=str(tmp_path / "out"), retries=0))
    assert isinstance(run.errors[0], StorageError)
    assert "Clear the task: it then downloads the outputs again, and pays nothing." in run.error
    assert note(run)["request_id"] == sandbox.requests[0].request_id


@pytest.mark.parametrize("settings", [{"file_expiry_seconds": 0}, {"file_fault": "html"}], ids=str)
def test_a_cleared_task_submits_again_if_no_try_could_fetch_the_outputs(
    settings: dict[str, Any], run_dag: RunDag, note: Note, edit: Edit, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    sandbox.configure(**settings)
    run = run_dag(edit(pictures, output_path=str(tmp_path)))
    assert (run.state, spent(sandbox)) == ("failed", (1, 0))
    assert "A retry downloads the outputs again, and pays nothing" in str(run.errors[0])
    assert "If you clear the task, it submits a new request, and pays for it" in str(run.errors[1])
    assert note(run) == ONE_ENDED


@pytest.mark.parametrize(("on_lost_submit", "submits"), [("submit", 2), ("fail", 1)])
def test_a_worker_that_dies_during_its_submit_leaves_its_intent(
    on_lost_submit: str,
    submits: int,
    run_dag: RunDag,
    note: Note,
    edit: Edit,
    sandbox: Sandbox,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def die(*arguments: Any) -> None:
        monkeypatch.setattr(OdiRouterHook, "submit", submit)
        submit(*arguments)
        raise SystemExit(137)

    submit: Any = OdiRouterHook.submit
    monkeypatch.setattr(OdiRouterHook, "submit", die)
    run = run_dag(edit(pictures, on_lost_submit=on_lost_submit))
    assert isinstance(run.errors[0], SystemExit)
    assert spent(sandbox) == (submits, 0)
    if on_lost_submit == "submit":
        assert run.state == "success"
        assert "That request may be running and may be paid" in caplog.text
    else:
        assert type(run.errors[1]).__name__ == "AirflowFailException"
        assert "it is unknown whether the submit arrived" in str(run.errors[1])
        assert "request_id" not in note(run)


def test_a_submit_that_airflow_ends_is_lost_and_not_retried(
    run_dag: RunDag, note: Note, edit: Edit, sandbox: Sandbox, listeners: list[Listener], pictures: Path
) -> None:
    listeners.append(end_execution_timeout(sandbox, "submit"))
    sandbox.configure(hang=True, fault_actions={"submit"}, fault_after_effect=True)
    run = run_dag(edit(pictures, execution_timeout=timedelta(hours=1)))
    assert run.is_final
    assert "execution_timeout ended the submit" in run.error
    assert (sandbox.paid, spent(sandbox)) == (1, (1, 0))
    assert "request_id" not in note(run)


def test_a_retry_with_another_input_cancels_the_request_of_the_first(
    run_dag: RunDag, edit: Edit, sandbox: Sandbox, configure_at: ConfigureAt, pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    fail_after_submit(1)
    run = run_dag(edit(pictures, prompt="Try {{ ti.try_number }}"))
    assert run.state == "success"
    assert [(request.parameters["prompt"], request.error_type) for request in sandbox.requests] == [
        ("Try 1", "CANCELED"),
        ("Try 2", None),
    ]


def test_a_cleared_task_cancels_its_live_request_and_submits_again(
    run_dag: RunDag, edit: Edit, sandbox: Sandbox, configure_at: ConfigureAt, pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    configure_at("submit", run_seconds=0)
    fail_after_submit(1)
    run = run_dag(edit(pictures, dag_id="cleared", on_retry_callback=clear))
    assert run.state == "success"
    assert actions(sandbox)[:6] == ["submit", "status", "cancel", "submit", "status", "result"]


def test_retries_resume_a_live_request_that_a_cleared_task_cannot_cancel(
    run_dag: RunDag, edit: Edit, sandbox: Sandbox, clock: Clock, pictures: Path, fail_after_submit: Fail
) -> None:
    """The first try of the cleared task counts as cleared, the second as a retry, although nothing else changed."""
    sandbox.configure(run_seconds=3600, cancel_supported=False)
    fail_after_submit(1, 2)
    changes: list[Callable[[Any], object]] = [clear, lambda _: sandbox.configure(cancel_supported=True)]
    dag = edit(pictures, dag_id="cleared", timeout=1, on_retry_callback=lambda context: changes.pop(0)(context))
    run = run_dag(dag)
    assert [str(error) for error in run.errors[:2]] == ["no XCom today"] * 2
    assert actions(sandbox)[:4] == ["submit", "status", "cancel", "status"]
    assert spent(sandbox) == (1, 2)


@pytest.mark.parametrize(
    "settings", [{"error_type": "CONTENT_BLOCKED"}, {"error_type": "CANCELED"}, {"result_shape": "none"}], ids=str
)
@anywhere
def test_a_request_that_is_over_is_forgotten(
    deferrable: bool,
    settings: dict[str, Any],
    run_dag: RunDag,
    note: Note,
    edit: Edit,
    sandbox: Sandbox,
    pictures: Path,
) -> None:
    sandbox.configure(**settings)
    run = run_dag(edit(pictures, retries=0, deferrable=deferrable))
    assert run.state == "failed"
    assert note(run) == ONE_ENDED


@pytest.mark.parametrize("cleared", [False, True])
def test_a_try_that_fails_after_landing_is_free_for_a_retry_not_if_cleared(
    cleared: bool,
    run_dag: RunDag,
    edit: Edit,
    sandbox: Sandbox,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_once(*_: Any) -> None:
        monkeypatch.setattr(task_runner, "_push_xcom_if_needed", push)
        raise OSError("no XCom today")

    push = task_runner._push_xcom_if_needed
    monkeypatch.setattr(task_runner, "_push_xcom_if_needed", fail_once)
    change = clear if cleared else None
    run = run_dag(edit(pictures, dag_id="cleared", output_path=str(tmp_path), on_retry_callback=change))
    assert run.state == "success"
    assert spent(sandbox) == (2 if cleared else 1, 0)
    assert run.xcom("edit")["request_id"] == sandbox.requests[-1].request_id


# tests/lifecycle has many more.
BROKEN = {
    "no JSON": "mmsu_lost",
    "null": "null",
    "newer": '{"version": 2, "max_tries": 1, "requests": ["mmsu_1"]}',
}


@pytest.mark.parametrize("cleared", [False, True], ids=["retried", "cleared"])
@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_note_that_cannot_be_read_lets_only_a_cleared_task_pay_again(
    text: str,
    cleared: bool,
    request_store: str,
    run_dag: RunDag,
    note: Note,
    edit: Edit,
    sandbox: Sandbox,
    pictures: Path,
    fail_after_submit: Fail,
    spoil: Callable[[Any, str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def change(context: Any) -> None:
        spoil(context, text)
        if cleared:
            clear(context)

    sandbox.configure(run_seconds=1)
    fail_after_submit(1)
    run = run_dag(edit(pictures, dag_id="cleared", on_retry_callback=change))
    path = (
        "key 'odirouter_request' of Airflow's task state store"
        if request_store == IN_AIRFLOW
        else "/.odirouter/cleared_"
    )
    message = "What an earlier try has noted of its request cannot be read: "
    if cleared:
        assert (run.state, spent(sandbox)) == ("success", (2, 0))
        assert message in caplog.text
        assert "may be running and may be paid" in caplog.text
        assert note(run)["done"]
    else:
        assert (run.state, spent(sandbox)) == ("failed", (1, 0))
        error = run.errors[-1]
        assert type(error).__name__ == "AirflowFailException"
        assert str(error).startswith(message)
        assert path in str(error)


def test_each_mapped_edit_resumes_its_own_request(
    run_dag: RunDag, note: Note, sandbox: Sandbox, pictures: Path, tmp_path: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=1)
    fail_after_submit(1)
    with DAG("mapped") as dag:
        OdiRouterImageEditOperator.partial(
            task_id="edit",
            images=[str(pictures / "coffee.png")],
            output_path=str(tmp_path),
            poll_interval=0.1,
            retries=1,
            retry_delay=timedelta(0),
        ).expand(prompt=["Red", "Green"])
    run = run_dag(dag)
    assert run.state_of("edit") == ["success"] * 2
    requests = {request.parameters["prompt"]: request.request_id for request in sandbox.requests}
    assert [run.xcom("edit", map_index=index)["request_id"] for index in range(2)] == [
        requests["Red"],
        requests["Green"],
    ]
    assert spent(sandbox) == (2, 0)
    assert [note(run, map_index=index)["done"] for index in range(2)] == [True, True]


def test_a_try_that_cannot_note_its_intent_sends_nothing(
    run_dag: RunDag, edit: Edit, sandbox: Sandbox, pictures: Path, fail_to_note: Fail
) -> None:
    fail_to_note(1)
    run = run_dag(edit(pictures, retries=0))
    assert run.error == "no store today"
    assert actions(sandbox) == []


@pytest.mark.parametrize("retries", [0, 1])
def test_a_try_that_cannot_note_its_request_cancels_it(
    retries: int, run_dag: RunDag, edit: Edit, sandbox: Sandbox, pictures: Path, fail_to_note: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_to_note(2)
    run = run_dag(edit(pictures, retries=retries))
    assert {str(error) for error in run.errors} == {"no store today"}
    assert spent(sandbox) == (1, 1)
    assert not sandbox.alive


def test_a_request_that_another_task_waits_for_is_submitted_once(
    run_dag: RunDag, note: Note, edit: Edit, sandbox: Sandbox, pictures: Path, fail_after_submit: Fail
) -> None:
    sandbox.configure(run_seconds=60)
    fail_after_submit(1)
    run = run_dag(edit(pictures, wait_for_completion=False))
    assert run.state == "success"
    assert run.xcom("edit")["request_id"] == sandbox.alive[0]
    assert spent(sandbox) == (1, 0)
    assert note(run)["done"]


@anywhere
@pytest.mark.parametrize("retries", [0, 1])
def test_a_link_to_an_address_that_is_not_public_costs_no_second_request(
    deferrable: bool,
    retries: int,
    run_dag: RunDag,
    note: Note,
    edit: Edit,
    sandbox: Sandbox,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downloads, "is_private_host", lambda _: False)  # as if the service itself were public
    run = run_dag(edit(pictures, deferrable=deferrable, retries=retries, output_path=str(tmp_path)))
    assert run.state == "failed"
    assert run.is_final, "a retry would find the same"
    assert "allow_private_downloads" in run.error
    assert spent(sandbox) == (1, 0)
    assert "file" not in actions(sandbox)
    assert note(run)["request_id"] == sandbox.requests[0].request_id, "clearing the task fetches the paid outputs"


def test_a_worker_stopped_during_its_submit_leaves_the_request_to_the_retry(
    run_dag: RunDag, edit: Edit, sandbox: Sandbox, listeners: list[Listener], pictures: Path
) -> None:
    """Airflow still counts the task as running: a deployment stops its worker."""

    def stop(entry: JournalEntry) -> None:
        if entry.action == "submit":
            listeners.clear()
            kill_task()

    sandbox.configure(run_seconds=2, latency_seconds=0.3)
    listeners.append(stop)
    run = run_dag(edit(pictures))
    assert (run.state, run.error) == ("success", "The task was killed.")
    assert spent(sandbox) == (1, 0)
