"""A log server without logs.

Airflow's own log servers, one of the scheduler and one of each triggerer, listen on all of the machine's addresses
and need a port each. Here every process writes to the same folder, and the api-server reads the logs there; it asks
the log servers besides, and fills its own log with tracebacks when none answers. This one answers: nothing here.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dev.ports import LOOPBACK


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass


class EmptyLogServer:
    """Listens on a free port of loopback from its making to `close`."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
