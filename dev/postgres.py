"""A temporary PostgreSQL in a `with` block, on a unix socket only.

with Postgres() as postgres:
    LocalAirflow(…, database_url=postgres.url)

`python -m dev.postgres` installs Debian's package if this machine has no PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from signal import SIGINT
from types import TracebackType
from typing import Self

from dev import debian
from dev.interrupts import delay_signals
from dev.processes import Child, stop_all

DEBIAN = Path("/usr/lib/postgresql")
SYSTEM_USER = "postgres"
DATABASE_USER = "airflow"
START_TIMEOUT = 30.0
GRACE = 5.0
# The data need not survive a crash of the machine, so the server is made faster.
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "listen_addresses=")
# By default, the package also starts a server, now and at each boot.
INSTALL = """
set -e
no_server=/etc/postgresql-common/createcluster.d/no-main-cluster.conf
trap 'rm -f "$no_server"' EXIT
mkdir -p "${no_server%/*}"
echo 'create_main_cluster = false' > "$no_server"
apt-get install -qq --no-install-recommends postgresql
"""


class PostgresError(RuntimeError):
    """PostgreSQL is missing, or did not start."""


class Postgres:
    """A PostgreSQL with an empty database; the server and its data are removed at the end of the block.

    PostgreSQL refuses to run as root: for root, it runs as the package's user.

    :raises PostgresError: If PostgreSQL is missing or does not start.
    """

    def __init__(self) -> None:
        self.url = ""
        self.pid: int | None = None
        self._running = ExitStack()

    def __enter__(self) -> Self:
        try:
            with delay_signals():
                child = self._start(server_programs())
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
        """End the server and delete its data; may be called more than once."""
        with delay_signals():
            self._running.close()

    def _start(self, programs: Path) -> Child:
        user = SYSTEM_USER if os.geteuid() == 0 else None
        folder = Path(tempfile.mkdtemp(prefix="temporary-postgres-"))
        self._running.callback(shutil.rmtree, folder, ignore_errors=True)
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        initdb: list[str | Path] = [programs / "initdb", "--pgdata", data, "--username", DATABASE_USER]
        initdb += ["--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
        done = subprocess.run(initdb, user=user, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PostgresError(f"PostgreSQL's initdb failed:\n{done.stdout}{done.stderr}")
        options = [part for option in OPTIONS for part in ("-c", option)]
        child = Child(
            "postgres",
            [str(programs / "postgres"), "-D", str(data), "-k", str(folder), *options],
            environment={"PATH": os.environ["PATH"]},
            log_file=folder / "postgres.log",
            cwd=folder,
            user=user,
            # After SIGTERM, it would wait until all clients have disconnected.
            stop_signal=SIGINT,
        )
        self._running.callback(stop_all, [child], GRACE)
        child.start()
        self.pid = child.pid
        self.url = f"postgresql+psycopg2://{DATABASE_USER}@/postgres?host={folder}"
        self._is_ready: list[str | Path] = [programs / "pg_isready", "--quiet", "--host", folder]
        return child

    def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while subprocess.run(self._is_ready, check=False).returncode:
            if child.died or time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL did not start. The end of its log:\n{child.tail()}")
            time.sleep(0.1)


def server_programs() -> Path:
    """The folder of `initdb` and `postgres`: Debian's newest version, which is not in the PATH, else that in the PATH.

    :raises PostgresError: If there is none.
    """
    versions = [folder for folder in DEBIAN.glob("*/bin") if (folder / "initdb").exists()]
    if versions:
        return max(versions, key=lambda folder: float(folder.parent.name))
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise PostgresError("PostgreSQL's server is not installed. On Debian: apt-get install postgresql")


def install() -> None:
    """Install Debian's package if this machine has no PostgreSQL."""
    try:
        server_programs()
    except PostgresError as error:
        debian.install("PostgreSQL", INSTALL, error)


if __name__ == "__main__":
    install()
