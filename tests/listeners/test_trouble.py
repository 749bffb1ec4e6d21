"""Errors of the listener do not reach Airflow, other listeners, or the requests of other tasks."""

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

from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.batch.report import make_record, publish
from airflow_provider_odirouter.batch.state import BatchStore
from airflow_provider_odirouter.listeners import abandoned, marked
from airflow_provider_odirouter.listeners import instances as database
from airflow_provider_odirouter.listeners.delay import Delay
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.xcoms import REQUEST_XCOM
from tests.conftest import actions, spent
from tests.listeners.conftest import (
    Abandon,
    Mark,
    ShopEdit,
    call,
    call_for_run,
    dying_batch,
    dying_edit,
    finish,
    instance,
)
from tests.plugins.conftest import push

pytestmark = pytest.mark.every_version


def ours(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if "listeners" in record.name)


def test_no_argument_from_airflow_raises_and_other_listeners_are_called(
    no_delay: Delay, caplog: pytest.LogCaptureFixture
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
    assert caplog.text.count("A marked task is not checked") == 2
    assert not no_delay._marks


def test_an_error_of_the_database_is_logged_and_the_next_mark_is_handled(
    abandon: Abandon, mark: Mark, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = abandon(dying_edit(pictures))
    with monkeypatch.context() as patch:
        patch.setattr(database, "MARKED_STATES", object())
        mark(run)
    assert "Could not check whether marked tasks have left requests running" in caplog.text
    assert spent(sandbox) == (1, 0)
    mark(run)
    assert not sandbox.alive


@pytest.mark.parametrize("value", [None, 7, "mmsu_1", [], {}, {"request_id": 7, "endpoint": []}])
def test_a_broken_xcom_is_logged_and_other_tasks_are_handled(
    value: Any, abandon: Abandon, no_delay: Delay, sandbox: Sandbox, pictures: Path, caplog: Any
) -> None:
    with DAG("two") as dag:
        ShopEdit.partial(task_id="edit", images=[str(pictures / "small.png")], retries=0).expand(prompt=["A", "B"])
    run = abandon(dag)
    push(run, REQUEST_XCOM, value, map_index=0)
    call_for_run(run, "failed")
    finish(no_delay)
    assert [request.parameters["prompt"] for request in sandbox.requests if request.error_type] == ["B"]
    assert "The XCom odirouter_request of two.edit cannot be read" in ours(caplog)


def test_a_missing_connection_is_logged_with_the_call_that_cancels(
    abandon: Abandon, mark: Mark, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = abandon(dying_edit(pictures))
    [request_id] = sandbox.alive
    monkeypatch.delenv("AIRFLOW_CONN_ODIROUTER_DEFAULT")
    mark(run)
    assert "Airflow finds no connection 'odirouter_default'" in ours(caplog)
    assert f"odirouter-request cancel gpt_image_1_edit {request_id} --conn-id odirouter_default" in ours(caplog)
    assert actions(sandbox) == ["submit"]


def test_a_wrong_key_is_logged_but_not_shown(
    abandon: Abandon, mark: Mark, pictures: Path, base_url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = abandon(dying_edit(pictures))
    wrong = {"conn_type": "odirouter", "password": "another-key", "host": base_url}
    monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", json.dumps(wrong))
    mark(run)
    assert "Not cancelled (" in ours(caplog)
    assert "another-key" not in caplog.text


def test_a_request_is_cancelled_in_spite_of_transient_server_errors(
    abandon: Abandon, mark: Mark, sandbox: Sandbox, pictures: Path
) -> None:
    run = abandon(dying_edit(pictures))
    sandbox.configure(server_errors=2)
    mark(run)
    assert not sandbox.alive


def test_a_service_that_does_not_answer_is_given_up_in_time(
    abandon: Abandon, mark: Mark, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = abandon(dying_edit(pictures))
    monkeypatch.setattr(abandoned, "STATUS_SECONDS", 0.2)
    monkeypatch.setattr(abandoned, "CANCEL_SECONDS", 0.2)
    sandbox.configure(hang=True)
    mark(run)
    sandbox.configure(hang=False)
    assert "Not cancelled (OdiRouter did not answer the cancel within 0.2 s)" in ours(caplog)


@pytest.mark.parametrize("trouble", ["missing", "broken"])
def test_an_unreadable_state_of_a_batch_is_logged(
    trouble: str, abandon: Abandon, mark: Mark, sandbox: Sandbox, tmp_path: Path, caplog: Any
) -> None:
    run = abandon(dying_batch(tmp_path))
    for path in tmp_path.glob(".odirouter/*/*"):
        path.write_text("{") if trouble == "broken" else path.unlink()
    mark(run)
    assert len(sandbox.alive) == 3
    assert f"batch.edit of {run.run.run_id} was marked as failed." in ours(caplog)
    assert str(tmp_path) in ours(caplog)


def test_no_xcom_holds_the_password_of_an_output_path(tmp_path: Path) -> None:
    batch_store = BatchStore(str(tmp_path), None, "name", max_tries=0)
    batch_store.begin(BatchItems(), None)
    pushed: list[Any] = []
    ti = SimpleNamespace(
        dag_id="batch", task_id="edit", run_id="run", map_index=-1, xcom_push=lambda **xcom: pushed.append(xcom)
    )
    context: Any = {"ti": ti}
    record = make_record(
        context,
        batch_store,
        endpoint="e",
        odirouter_conn_id="odirouter_default",
        cancel_on_kill=True,
        output_path="ftp://user:pass-word@host/out",
        storage_conn_id=None,
    )
    publish(context, batch_store, record)
    assert "host/out" in str(pushed)
    assert "pass-word" not in str(pushed)


def test_many_marks_need_one_thread_and_one_query_for_each_five_hundred(
    abandon: Abandon, no_delay: Delay, sandbox: Sandbox, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DAG("many") as dag:
        prompts = [f"Edit {number}" for number in range(20)]
        ShopEdit.partial(task_id="edit", images=[str(pictures / "small.png")], retries=0).expand(prompt=prompts)
    run = abandon(dag)
    monkeypatch.setattr(marked, "_delay", waiting := Delay(marked._cancel, seconds=0.5))
    instances = [instance(run, index) for index in range(20)]
    queries = count_queries(lambda: mark_all(instances * 10, waiting))
    # Before the service is asked, and after it.
    assert queries == 2
    assert len([request for request in sandbox.requests if request.error_type == "CANCELED"]) == 20
    assert spent(sandbox) == (20, 20)


def mark_all(marked: list[Any], waiting: Delay) -> None:
    for ti in marked:
        call("on_task_instance_failed", previous_state=None, task_instance=ti, error="")
    finish(waiting)


def count_queries(do: Any) -> int:
    from airflow.settings import engine

    queries: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "xcom" in statement:
            queries.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        do()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(queries)
