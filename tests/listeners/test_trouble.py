"""Whatever fails, Airflow and the other listeners notice nothing of it, and one task's trouble is no other's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.listeners import hookimpl
from airflow.listeners.listener import get_listener_manager
from airflow.sdk import DAG
from sqlalchemy import event

from airflow_provider_odirouter.listeners import instances as database
from airflow_provider_odirouter.listeners import marked, orphans
from airflow_provider_odirouter.listeners.delay import Delay
from airflow_provider_odirouter.operators.batch.finishing import publish, record_of
from airflow_provider_odirouter.operators.batch.ledger import Ledger
from airflow_provider_odirouter.records import REQUEST_XCOM
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import actions, spent
from tests.listeners.conftest import (
    Lonely,
    Mark,
    ShopEdit,
    call,
    call_for_run,
    finish,
    instance,
    lonely_batch,
    lonely_edit,
)
from tests.plugins.conftest import push


def ours(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if "listeners" in record.name)


def test_nothing_that_airflow_hands_over_raises_and_other_listeners_are_called(
    at_once: Delay, caplog: pytest.LogCaptureFixture
) -> None:
    class Others:
        called = 0

        @hookimpl
        def on_task_instance_success(self) -> None:
            self.called += 1

    others, manager = Others(), get_listener_manager()
    manager.add_listener(others)
    try:
        call("on_task_instance_success", previous_state=None, task_instance=SimpleNamespace())
        call("on_dag_run_failed", dag_run=None, msg="")
    finally:
        manager.pm.unregister(others)
    assert others.called == 1
    assert caplog.text.count("A mark could not be noted") == 2
    assert not at_once._marks


def test_a_mark_whose_database_fails_is_said_and_the_next_one_is_seen_to(
    lonely: Lonely, mark: Mark, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = lonely(lonely_edit(pictures))
    with monkeypatch.context() as patch:
        patch.setattr(database, "MARKED", object())
        mark(run)
    assert "It could not be found out whether marked tasks have left requests running" in caplog.text
    assert spent(sandbox) == (1, 0)
    mark(run)
    assert not sandbox.alive


@pytest.mark.parametrize("value", [None, 7, "mmsu_1", [], {}, {"request_id": 7, "endpoint": []}])
def test_an_xcom_that_is_broken_is_said_and_is_no_other_tasks_trouble(
    value: Any, lonely: Lonely, at_once: Delay, sandbox: Sandbox, pictures: Path, caplog: Any
) -> None:
    with DAG("two") as dag:
        ShopEdit.partial(task_id="edit", images=[str(pictures / "small.png")], retries=0).expand(prompt=["A", "B"])
    run = lonely(dag)
    push(run, REQUEST_XCOM, value, map_index=0)
    call_for_run(run, "failed")
    finish(at_once)
    assert [request.parameters["prompt"] for request in sandbox.requests if request.error_type] == ["B"]
    assert "The XCom odirouter_request of two.edit cannot be read" in ours(caplog)


def test_a_connection_that_only_workers_have_is_said_with_the_call_that_cancels(
    lonely: Lonely, mark: Mark, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = lonely(lonely_edit(pictures))
    [request_id] = sandbox.alive
    monkeypatch.delenv("AIRFLOW_CONN_ODIROUTER_DEFAULT")
    mark(run)
    assert "Airflow finds no connection 'odirouter_default'" in ours(caplog)
    assert f"OdiRouterHook('odirouter_default').cancel('gpt_image_1_edit', '{request_id}')" in ours(caplog)
    assert actions(sandbox) == ["submit"]


def test_a_key_that_is_wrong_is_said_and_not_shown(
    lonely: Lonely, mark: Mark, pictures: Path, base_url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = lonely(lonely_edit(pictures))
    wrong = {"conn_type": "odirouter", "password": "another-key", "host": base_url}
    monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", json.dumps(wrong))
    mark(run)
    assert "it could not be cancelled" in ours(caplog)
    assert "another-key" not in caplog.text


def test_a_service_that_fails_in_passing_is_outlived(
    lonely: Lonely, mark: Mark, sandbox: Sandbox, pictures: Path
) -> None:
    run = lonely(lonely_edit(pictures))
    sandbox.configure(server_errors=2)
    mark(run)
    assert not sandbox.alive


def test_a_service_that_answers_nobody_ends_the_work_in_time(
    lonely: Lonely, mark: Mark, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = lonely(lonely_edit(pictures))
    monkeypatch.setattr(orphans, "STATUS_SECONDS", 0.2)
    monkeypatch.setattr(orphans, "CANCEL_SECONDS", 0.2)
    sandbox.configure(hang=True)
    mark(run)
    sandbox.configure(hang=False)
    assert "it could not be cancelled (no answer within 0.2 s)" in ours(caplog)


@pytest.mark.parametrize("trouble", ["gone", "broken"])
def test_the_state_of_a_batch_that_cannot_be_read_here_is_said(
    trouble: str, lonely: Lonely, mark: Mark, sandbox: Sandbox, tmp_path: Path, caplog: Any
) -> None:
    run = lonely(lonely_batch(tmp_path))
    for path in tmp_path.glob(".odirouter/*/*"):
        path.write_text("{") if trouble == "broken" else path.unlink()
    mark(run)
    assert len(sandbox.alive) == 3
    assert f"batch.edit of {run.run.run_id} was marked as failed." in ours(caplog)
    assert str(tmp_path) in ours(caplog)


def test_a_password_in_an_output_path_goes_into_no_xcom(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), None, "name", max_tries=0)
    ledger.begin([], None)
    pushed: list[Any] = []
    ti = SimpleNamespace(
        dag_id="batch", task_id="edit", run_id="run", map_index=-1, xcom_push=lambda **xcom: pushed.append(xcom)
    )
    context: Any = {"ti": ti}
    record = record_of(
        context,
        ledger,
        odirouter_conn_id="odirouter_default",
        cancel_on_kill=True,
        output_path="ftp://user:pass-word@host/out",
        storage_conn_id=None,
    )
    publish(context, ledger, record)
    assert "host/out" in str(pushed)
    assert "pass-word" not in str(pushed)


def test_a_storm_of_marks_needs_one_thread_and_a_question_for_each_five_hundred(
    lonely: Lonely, at_once: Delay, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DAG("storm") as dag:
        prompts = [f"Edit {number}" for number in range(20)]
        ShopEdit.partial(task_id="edit", images=[str(pictures / "small.png")], retries=0).expand(prompt=prompts)
    run = lonely(dag)
    monkeypatch.setattr(marked, "_delay", waiting := Delay(marked._cancel, seconds=0.5))
    instances = [instance(run, index) for index in range(20)]
    questions = count_questions(lambda: storm(instances * 10, waiting))
    # Before the service is asked, and after it.
    assert questions == 2
    assert len([request for request in sandbox.requests if request.error_type == "CANCELED"]) == 20
    assert spent(sandbox) == (20, 20)


def storm(marked: list[Any], waiting: Delay) -> None:
    for ti in marked:
        call("on_task_instance_failed", previous_state=None, task_instance=ti, error="")
    finish(waiting)


def count_questions(do: Any) -> int:
    from airflow.settings import engine

    questions: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "xcom" in statement:
            questions.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        do()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(questions)
