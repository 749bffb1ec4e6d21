"""The command ``odirouter-request``, in a shell on a machine of Airflow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import by_hand
from airflow_provider_odirouter.lifecycle.cancel import cancel_command
from airflow_provider_odirouter.sandbox import Sandbox
from tests.dags.conftest import airflow_db
from tests.dags.test_connection import in_database

__all__ = ["airflow_db", "in_database"]

ENDPOINT = "gpt_image_1_edit"
UNKNOWN = "mmsu_ffffffffffffffffffffffffffffffff"


@pytest.fixture
def request_id(conn_id: str, sandbox: Sandbox) -> str:
    """A request that runs."""
    sandbox.configure(run_seconds=60)
    parameters = {"prompt": "Blue", "images": ["https://cdn.example.com/cup.png"]}
    return OdiRouterHook(conn_id).submit(ENDPOINT, parameters).request_id


@pytest.mark.every_version
def test_it_cancels_with_a_connection_of_airflows_database_as_our_log_lines_say(
    request_id: str, in_database: str, sandbox: Sandbox
) -> None:
    program, *arguments = cancel_command(in_database, ENDPOINT, request_id).split()
    assert program == "odirouter-request"
    command = [sys.executable, "-W", "ignore", "-m", by_hand.__name__, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == (
        f"With the connection 'in_database', request {request_id}: It was cancelled."
    )
    assert sandbox.alive == []


@pytest.mark.usefixtures("own_context")
class TestAnswers:
    def test_it_says_the_status(self, request_id: str, conn_id: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert by_hand.main(["status", ENDPOINT, request_id, "--conn-id", conn_id]) == 0
        assert capsys.readouterr().out == f"Request {request_id}: It is IN_PROGRESS.\n"

    def test_a_cancel_of_a_request_that_this_account_does_not_know_is_a_failure(
        self, conn_id: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert by_hand.main(["cancel", ENDPOINT, UNKNOWN, "--conn-id", conn_id]) == 1
        assert (
            f"With the connection {conn_id!r}, request {UNKNOWN}: OdiRouter does not know it" in capsys.readouterr().out
        )

    def test_a_cancel_that_the_endpoint_does_not_have_is_a_failure(
        self, request_id: str, conn_id: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sandbox.configure(cancel_supported=False)
        assert by_hand.main(["cancel", ENDPOINT, request_id, "--conn-id", conn_id]) == 1
        assert "the request runs on and may be paid" in capsys.readouterr().out

    def test_it_fails_with_the_error(self, conn_id: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert by_hand.main(["status", ENDPOINT, UNKNOWN, "--conn-id", conn_id]) == 1
        assert UNKNOWN in capsys.readouterr().err

    def test_it_fails_with_the_name_of_a_connection_that_airflow_does_not_know(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert by_hand.main(["status", ENDPOINT, UNKNOWN, "--conn-id", "unknown"]) == 1
        assert "'unknown'" in capsys.readouterr().err

    @pytest.mark.parametrize("value", ["odirouter://:KEEEEY", '{"conn_type": "odirouter"'])
    def test_a_variable_that_airflow_cannot_read_is_named_without_its_value(
        self, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", value)
        assert by_hand.main(["status", ENDPOINT, UNKNOWN, "--conn-id", "broken"]) == 1
        error = capsys.readouterr().err
        assert "The variable AIRFLOW_CONN_BROKEN is set, but Airflow cannot read it" in error
        assert "KEEEEY" not in error
