"""A log server that has no logs.

Airflow's own log servers, one for the scheduler and one for each triggerer, need a port each and listen on all of the
machine's addresses. Here they are turned off: all components log to one folder, where the api-server reads the logs.
But it also asks the log servers, and logs a traceback if none answers. This one answers with an empty log.
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
    """Listens on a free port of loopback until `close`."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
