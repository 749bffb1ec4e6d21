"""``python -m airflow_provider_odirouter.sandbox``."""

from __future__ import annotations

import errno
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from airflow_provider_odirouter.sandbox import __main__ as command_line

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_odirouter.sandbox"]


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Starts the sandbox, and reads its connection from its output."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
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
        out, err = process.communicate(timeout=10)
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
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


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
