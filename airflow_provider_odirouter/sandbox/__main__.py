"""The command ``odirouter-sandbox``: serve a local OdiRouter until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_provider_odirouter.sandbox.sandbox import CONTROL_PATH, Sandbox
from airflow_provider_odirouter.sandbox.service import read_value
from airflow_provider_odirouter.sandbox.settings import SandboxSettings, describe_problems

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.journal import JournalEntry
    from airflow_provider_odirouter.sandbox.server import SandboxServer

_PREFIX = "ODIROUTER_SANDBOX__"
"""
Of the environment variables. Two underscores, since for a service of the name ``odirouter-sandbox``, Kubernetes sets
variables such as ``ODIROUTER_SANDBOX_PORT`` in all containers.
"""
_NO = {"no", "false", "0", "off"}
_OPTIONS = {
    "--key": "api_key",
    "--queue-seconds": "queue_seconds",
    "--run-seconds": "run_seconds",
    "--balance": "balance",
    "--rate-limit": "rate_limit",
    "--max-alive": "max_alive",
    "--error-type": "error_type",
    "--result-shape": "result_shape",
    "--file-expiry": "file_expiry_seconds",
    "--latency": "latency_seconds",
    "--server-errors": "server_errors",
    "--drop-every": "drop_every",
    "--seed": "seed",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Serve until Ctrl-C or SIGTERM.

    :param arguments: The command line. It counts more than the environment variables.
    :return: Exit code.
    """
    environment = _read_environment(os.environ)
    parser = _parser(**{name: environment.pop(name) for name in ("host", "port", "quiet") if name in environment})
    options = vars(parser.parse_args(arguments))
    host, port, quiet = options.pop("host"), options.pop("port"), options.pop("quiet")
    own = dict(options.pop("set", []))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = SandboxSettings.model_validate(environment | options | own)
        sandbox = Sandbox(settings, on_call=None if quiet else _print_call)
        with sandbox.serve(host, port) as server:
            print(_welcome(sandbox, server), flush=True)
            stop.wait()
    except ValidationError as error:
        parser.error(describe_problems(error))
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            parser.error(f"Port {port} is busy. Choose another one with --port, or any free one with --port 0.")
        parser.error(f"Cannot serve on {host}:{port}: {error.strerror}")
    return 0


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what environment variables set, by the names of the settings; one without a value counts as not set."""
    return {
        name.removeprefix(_PREFIX).lower(): _read_value(value)
        for name, value in environment.items()
        if name.startswith(_PREFIX) and value.strip()
    }


def _parser(host: str = "127.0.0.1", port: str = "8088", quiet: str = "no") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="odirouter-sandbox",
        description="A local OdiRouter: real pictures, no costs. Times are seconds, or ranges such as 2-6.",
        epilog=f"All settings, HOST, PORT and QUIET can also be environment variables: {_PREFIX}RUN_SECONDS=2-6.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--host", default=host, help="loopback address to serve on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=port, help="port to serve on, 0 for a free one (8088)")
    parser.add_argument("--quiet", action="store_true", default=quiet.lower() not in _NO, help="no line per call")
    for option, name in _OPTIONS.items():
        field = SandboxSettings.model_fields[name]
        text = f"{field.description} ({field.default})".replace("%", "%%").replace("\n", " ")
        parser.add_argument(option, dest=name, metavar="VALUE", help=text)
    parser.add_argument(
        "--no-cancel", dest="cancel_supported", action="store_const", const=False, help="cancels answer 405"
    )
    parser.add_argument(
        "--set",
        action="append",
        type=_read_setting,
        metavar="NAME=VALUE",
        help=f"any setting, repeatable: {', '.join(SandboxSettings.model_fields)}",
    )
    return parser


def _read_setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=VALUE")
    return name, _read_value(value)


def _read_value(text: str) -> Any:
    """Read a value as JSON. Numbers stay text: the settings convert them where they are numbers, which a key is not."""
    value = read_value(text)
    return text if isinstance(value, int | float) else value


def _welcome(sandbox: Sandbox, server: SandboxServer) -> str:
    return f"""OdiRouter sandbox: serving until Ctrl-C.
  base URL    {server.base_url}
  API key     {sandbox.settings.api_key}
  control     {server.origin}{CONTROL_PATH}/settings (GET, PATCH), /journal, /requests, /reset
  connection  AIRFLOW_CONN_ODIROUTER_DEFAULT='{sandbox.connection(server.base_url)}'"""


def _print_call(entry: JournalEntry) -> None:
    at = datetime.fromtimestamp(entry.at, UTC).astimezone().strftime("%H:%M:%S")
    print(f"{at} {entry.status_code or 'lost'} {entry.action:<6} {entry.method} {entry.path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
