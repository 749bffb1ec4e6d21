"""What Airflow answers when it is asked whether a task instance's id is still the current one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, InactiveAssetsResult

from airflow_provider_odirouter.compat import has_supervisor_process, is_current_instance

pytestmark = pytest.mark.every_version

Answer = Callable[[Any], None]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Lets Airflow's supervisor answer so; an error is raised."""

    def make(answer: Any) -> None:
        def send(_: object) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=send), raising=False)

    return make


def server_error(status_code: int, reason: str) -> AirflowRuntimeError:
    detail = {"status_code": status_code, "message": "Server returned error", "detail": {"detail": {"reason": reason}}}
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


def test_an_id_that_airflow_knows_is_the_current_one(answer: Answer) -> None:
    answer(InactiveAssetsResult(inactive_assets=[]))
    assert is_current_instance(uuid4())


def test_an_id_that_airflow_does_not_find_is_an_earlier_trys(answer: Answer) -> None:
    answer(server_error(404, "not_found"))
    assert not is_current_instance(uuid4())


@pytest.mark.parametrize(
    "trouble", [server_error(404, "a gateway's"), server_error(500, "not_found"), OSError("away")], ids=repr
)
def test_any_other_trouble_is_no_answer(trouble: Exception, answer: Answer) -> None:
    answer(trouble)
    with pytest.raises(type(trouble)):
        is_current_instance(uuid4())


def test_the_answer_to_another_question_is_none(answer: Answer) -> None:
    """Airflow 3.1 gives an answer to whichever thread reads it first."""
    answer(None)
    with pytest.raises(TypeError, match="Airflow returned the answer to another call: NoneType"):
        is_current_instance(uuid4())


def test_what_runs_in_this_very_process_is_no_supervisor(answer: Answer) -> None:
    answer(None)
    assert not has_supervisor_process()
