"""A log server on loopback.

Airflow's own log servers, one for each scheduler, worker and triggerer, listen on all of the machine's addresses. Here
they are turned off. Where all components log to one folder, the api-server reads the logs there; but it also asks the
log servers, and logs a traceback if none answers, so one answers with an empty log. Where machines share no folder,
one for each serves its logs.
"""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dev.ports import LOOPBACK

PREFIX = "/log/"


class LogServer:
    """Serves the logs of a folder until `close`; without a folder, each log is empty."""

    def __init__(self, folder: Path | None = None, *, host: str = LOOPBACK, port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                log = b"" if folder is None else _read(folder, self.path)
                self.send_response(HTTPStatus.NOT_FOUND if log is None else HTTPStatus.OK)
                self.send_header("Content-Length", str(len(log or b"")))
                self.end_headers()
                self.wfile.write(log or b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _read(folder: Path, url: str) -> bytes | None:
    """The log at a URL's path, None if it does not exist in the folder."""
    path = folder / unquote(urlsplit(url).path.removeprefix(PREFIX))
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        return None
    return path.read_bytes()
