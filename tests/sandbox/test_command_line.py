"""The command ``odirouter-sandbox``, which is also ``python -m airflow_provider_odirouter.sandbox``."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_odirouter.sandbox import __main__ as command_line

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_odirouter.sandbox"]


@contextmanager
def started(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Starts the sandbox, and reads its connection from its output."""
    with subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"ODIROUTER_SANDBOX__PORT": "0"} | environment,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        connection = re.search(r"AIRFLOW_CONN_ODIROUTER_DEFAULT='(.*)'", lines[-1])
        assert connection, lines
        try:
            yield process, json.loads(connection[1])
        finally:
            process.kill()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs a command line that is refused, and returns its error."""

    def run(*options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            command_line.main(options)
        assert ended.value.code == 2
        return capsys.readouterr().err

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_it_serves_until_sigterm() -> None:
    options = ("--run-seconds", "2-6", "--key", "k", "--no-cancel", "--set", "status_words=lower", "--balance", "1")
    with started(*options) as (process, connection):
        base, headers = connection["host"], {"authorization": f"Bearer {connection['password']}"}
        with httpx.Client(base_url=base, headers=headers, trust_env=False) as client:
            submission = client.post("/v1/queue/gpt_image_2", json={}).json()
            status = client.get(submission["status_url"]).json()["status"]
            cancel = client.put(submission["cancel_url"]).status_code
            settings = client.get(base.replace("/model", "/sandbox/settings")).json()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert connection["conn_type"] == "odirouter"
    assert (status, cancel, settings["run_seconds"], settings["balance"]) == ("in_queue", 405, [2, 6], 1)
    assert [line.split()[1:4] for line in out.splitlines()] == [
        ["200", "submit", "POST"],
        ["200", "status", "GET"],
        ["405", "cancel", "PUT"],
    ]
    assert (process.returncode, err) == (0, "")


def test_quiet_prints_no_calls_and_ctrl_c_ends_it() -> None:
    with started("--quiet") as (process, connection):
        httpx.get(connection["host"], trust_env=False)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def settings_of(connection: dict[str, str]) -> dict[str, Any]:
    answer = httpx.get(connection["host"].replace("/model", "/sandbox/settings"), trust_env=False).json()
    assert isinstance(answer, dict)
    return answer


def test_settings_come_from_the_environment_unless_the_command_line_has_them() -> None:
    environment = {
        "ODIROUTER_SANDBOX__API_KEY": "0123",
        "ODIROUTER_SANDBOX__RUN_SECONDS": "2-6",
        "ODIROUTER_SANDBOX__QUEUE_SECONDS": "5",
        "ODIROUTER_SANDBOX__SEED": "7",
        "ODIROUTER_SANDBOX__CANCEL_SUPPORTED": "false",
        "ODIROUTER_SANDBOX__FAULT_ACTIONS": "status,result",
        "ODIROUTER_SANDBOX__RESULT_PENDING": "null",
        # As in a file of variables from which a person has removed the value.
        "ODIROUTER_SANDBOX__BALANCE": "",
        "ODIROUTER_SANDBOX__QUIET": "true",
        # Kubernetes sets these in each container, for a service of this name.
        "ODIROUTER_SANDBOX_PORT": "tcp://10.0.0.1:8088",
        "ODIROUTER_SANDBOX_SERVICE_HOST": "10.0.0.1",
    }
    with started("--queue-seconds", "1", "--set", "seed=8", **environment) as (process, connection):
        settings = settings_of(connection)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("", "")
    assert connection["password"] == settings["api_key"] == "0123"
    assert (settings["run_seconds"], settings["queue_seconds"], settings["seed"]) == ([2, 6], 1, 8)
    assert (settings["cancel_supported"], settings["balance"], settings["result_pending"]) == (False, None, None)
    assert sorted(settings["fault_actions"]) == ["result", "status"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RUN_SECOND", "1", "run_second: Extra inputs are not permitted"),
        ("RUN_SECONDS", "soon", "run_seconds: Input should be"),
        ("PORT", "tcp://10.0.0.1:8088", "argument --port: invalid int value: 'tcp://10.0.0.1:8088'"),
        ("HOST", "0.0.0.0", "on a loopback address: not on 0.0.0.0"),
    ],
)
def test_the_error_for_a_wrong_environment_variable_says_what_is_wrong(
    name: str, value: str, message: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ODIROUTER_SANDBOX__{name}", value)
    assert message in refused()


def test_a_setting_that_is_given_twice_has_the_value_of_set(refused: Callable[..., str]) -> None:
    assert "seed: Input should be a valid integer" in refused("--seed", "1", "--set", "seed=x")


def test_the_error_for_a_busy_port_says_what_to_do(refused: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        assert f"Port {port} is busy. Choose another one with --port" in refused("--port", port)


def test_the_error_for_a_forbidden_port_names_it(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", forbid)
    assert "Cannot serve on 127.0.0.1:80: Permission denied" in refused("--port", "80")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "on a loopback address: not on 0.0.0.0"),
        (["--run-seconds", "6-2"], "run_seconds: the range 6.0-2.0 ends before it begins"),
        (["--set", "nonsense=1"], "nonsense: Extra inputs are not permitted"),
        (["--set", "nonsense"], "nonsense is not of the form NAME=VALUE"),
        (["--result-shape", "round"], "result_shape: Input should be"),
        (["--port", "70000"], "a number from 0 to 65535, not 70000"),
    ],
)
def test_the_error_for_a_wrong_option_says_what_is_wrong(
    options: list[str], message: str, refused: Callable[..., str]
) -> None:
    assert message in refused(*options)
