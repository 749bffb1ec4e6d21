"""``python -m airflow_provider_odirouter.sandbox``: serve a local OdiRouter until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import json
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_provider_odirouter.sandbox.sandbox import CONTROL_PATH, Sandbox
from airflow_provider_odirouter.sandbox.service import read_value
from airflow_provider_odirouter.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.journal import JournalEntry
    from airflow_provider_odirouter.sandbox.server import SandboxServer

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

    :param arguments: The command line.
    :return: Exit code.
    """
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    host, port, quiet = options.pop("host"), options.pop("port"), options.pop("quiet")
    settings = dict(options.pop("set", []))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        sandbox = Sandbox(on_call=None if quiet else _print_call, **options, **settings)
        with sandbox.serve(host, port) as server:
            print(_welcome(server, sandbox.settings), flush=True)
            stop.wait()
    except ValidationError as error:
        parser.error("; ".join(": ".join([*map(str, e["loc"][:1]), e["msg"]]) for e in error.errors()))
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            parser.error(f"Port {port} is busy. Choose another one with --port, or any free one with --port 0.")
        parser.error(f"Cannot serve on {host}:{port}: {error.strerror}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_odirouter.sandbox",
        description="A local OdiRouter: real pictures, no costs. Times are seconds, or ranges such as 2-6.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to serve on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8088, help="port to serve on, 0 for a free one (8088)")
    parser.add_argument("--quiet", action="store_true", default=False, help="no line per call")
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
    return name, read_value(value)


def _welcome(server: SandboxServer, settings: SandboxSettings) -> str:
    connection = {"conn_type": "odirouter", "password": settings.api_key, "host": server.base_url}
    return f"""OdiRouter sandbox: serving until Ctrl-C.
  base URL    {server.base_url}
  API key     {settings.api_key}
  control     {server.origin}{CONTROL_PATH}/settings (GET, PATCH), /journal, /requests, /reset
  connection  AIRFLOW_CONN_ODIROUTER_DEFAULT='{json.dumps(connection, separators=(",", ":"))}'"""


def _print_call(entry: JournalEntry) -> None:
    at = datetime.fromtimestamp(entry.at, UTC).astimezone().strftime("%H:%M:%S")
    print(f"{at} {entry.status_code or 'lost'} {entry.action:<6} {entry.method} {entry.path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
