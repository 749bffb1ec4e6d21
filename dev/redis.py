"""A temporary Redis in a `with` block, on loopback only.

with Redis() as redis:
    CeleryAirflow(…, broker_url=redis.url)

`python -m dev.redis` installs Debian's package if this machine has no Redis.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from dev import debian
from dev.interrupts import delay_signals
from dev.ports import LOOPBACK, free_port
from dev.processes import Child, stop_all

START_TIMEOUT = 30.0
GRACE = 5.0
# The data need not survive the process, so none is written to the disk.
OPTIONS = ("--save", "", "--appendonly", "no")
# By default, the package also starts a server, now and at each boot.
INSTALL = """
set -e
policy=/usr/sbin/policy-rc.d
if ! test -e "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\\nexit 101\\n' > "$policy"
    chmod +x "$policy"
fi
apt-get install -qq --no-install-recommends redis-server
update-rc.d redis-server disable
"""


class RedisError(RuntimeError):
    """Redis is missing, or did not start."""


class Redis:
    """An empty Redis; the server and its folder are removed at the end of the block.

    :raises RedisError: If Redis is missing or does not start.
    """

    def __init__(self) -> None:
        self.url = ""
        self._running = ExitStack()

    def __enter__(self) -> Self:
        try:
            with delay_signals():
                child = self._start(server_program())
            self._wait_until_ready(child)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server and delete its folder; may be called more than once."""
        with delay_signals():
            self._running.close()

    def _start(self, program: str) -> Child:
        folder = Path(tempfile.mkdtemp(prefix="temporary-redis-"))
        self._running.callback(shutil.rmtree, folder, ignore_errors=True)
        self._port = free_port()
        child = Child(
            "redis",
            [program, "--bind", LOOPBACK, "--port", str(self._port), "--dir", str(folder), *OPTIONS],
            environment={"PATH": os.environ["PATH"]},
            log_file=folder / "redis.log",
            cwd=folder,
        )
        self._running.callback(stop_all, [child], GRACE)
        child.start()
        self.url = f"redis://{LOOPBACK}:{self._port}/0"
        return child

    def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if child.died or time.monotonic() > deadline:
                raise RedisError(f"Redis did not start. The end of its log:\n{child.tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def server_program() -> str:
    """The path of the server.

    :raises RedisError: If it is not installed.
    """
    if found := shutil.which("redis-server"):
        return found
    raise RedisError("Redis's server is not installed. On Debian: apt-get install redis-server")


def install() -> None:
    """Install Debian's package if this machine has no Redis."""
    try:
        server_program()
    except RedisError as error:
        debian.install("Redis", INSTALL, error)


if __name__ == "__main__":
    install()
