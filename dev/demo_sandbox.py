"""The sandbox as the demo uses it: a process of its own, watched through its control address."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from dev.demo_options import ROOT
from dev.interrupts import held
from dev.ports import LOOPBACK, free_port
from dev.processes import Child, end_all

START_TIME = 30.0
GRACE = 3.0
# The provider first looks after 7 to 12 s: long enough to be seen waiting, short enough to be done by then, mostly.
TIMES = ("--queue-seconds", "2", "--run-seconds", "6")


class SandboxError(RuntimeError):
    """The sandbox did not start; the text has the end of its log."""


class DemoSandbox:
    """A sandbox with a key of its own, until the block ends."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.origin = f"http://{LOOPBACK}:{port}"
        self.base_url = f"{self.origin}/model"
        self.api_key = f"demo-{secrets.token_hex(8)}"
        module = "airflow_provider_odirouter.sandbox"
        self._child = Child(
            "sandbox",
            [sys.executable, "-m", module, "--port", str(port), "--key", self.api_key, *TIMES],
            environment=os.environ,
            log_file=folder / "sandbox.log",
            cwd=ROOT,
        )
        self._client = httpx.Client(base_url=f"{self.origin}/sandbox", trust_env=False)

    def __enter__(self) -> Self:
        try:
            self._child.start()
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def request(self, request_id: str) -> dict[str, Any]:
        """How a request is: `state`, and the times `starts_at` and `ends_at` in epoch seconds."""
        requests = self._client.get("/requests").raise_for_status().json()
        return next(request for request in requests if request["request_id"] == request_id)

    def looks(self, request_id: str) -> list[float]:
        """When the status of a request was asked for, in epoch seconds."""
        calls = self._client.get("/journal").raise_for_status().json()
        return [call["at"] for call in calls if call["action"] == "status" and call["request_id"] == request_id]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIME
        while time.monotonic() < deadline and self._child.exit_code is None:
            try:
                # The key, because somebody else could have taken the port meanwhile.
                if self._client.get("/settings").raise_for_status().json().get("api_key") == self.api_key:
                    return
            except (httpx.HTTPError, ValueError):
                pass
            time.sleep(0.1)
        raise SandboxError(f"The sandbox did not start. The end of its log:\n{self._child.tail()}")

    def _end(self) -> None:
        with held():
            end_all([self._child], GRACE)
            self._client.close()
