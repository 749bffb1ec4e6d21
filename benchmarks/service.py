"""The TLS server with its certificate, and an environment in which all contenders reach it and trust it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import certificate, processes
from benchmarks.contenders import connections
from benchmarks.tally import Tally


@dataclass(frozen=True)
class Service:
    """
    A running service.

    :param tally: The file of its counters.
    :param environment: For a process that connects to it.
    """

    pid: int
    tally: Path
    environment: dict[str, str]


@contextmanager
def running(*, latency: float, **variables: str) -> Iterator[Service]:
    """
    Run the server for a while.

    :param latency: Seconds between a request and its answer.
    :param variables: More variables for that environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        certificate.write(home)
        tally = home / "tally"
        Tally.create(tally)
        environment = processes.environment(home, SSL_CERT_FILE=str(home / "trusted.pem"), **variables)
        order = {"folder": folder, "latency": latency, "tally": str(tally)}
        with processes.serving("tls_server", order, environment=environment) as server:
            yield Service(server.pid, tally, environment | connections(server.address))
