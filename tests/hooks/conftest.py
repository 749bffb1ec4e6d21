"""Connections to any server, misbehaving servers, and pauses that take no time."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_odirouter.hooks import odirouter
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.raw_server import Behaviour, RawServer

Connect = Callable[..., OdiRouterHook]
Serve = Callable[..., RawServer]
Logs = Callable[[], list[str]]

KEY = "sk-the-secret-key-of-these-tests"


class Pauses:
    """The hook's clock: a pause between two repeats only moves it forward."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    @property
    def total(self) -> float:
        return sum(self.taken)

    def time(self) -> float:
        return time.time() + self.total

    def monotonic(self) -> float:
        return time.monotonic() + self.total

    def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)

    async def asleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    pauses = Pauses()
    monkeypatch.setattr(odirouter, "time", pauses)
    monkeypatch.setattr(odirouter, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": pauses.asleep}))
    return pauses


@pytest.fixture
def sandbox(pauses: Pauses) -> Sandbox:
    """A sandbox with the hook's clock."""
    return Sandbox(queue_seconds=0, run_seconds=0, clock=pauses.time, api_key=KEY)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Makes a connection and its hook: ``connect(host, key, timeout=…, verify=…)``."""

    def make(host: str, key: str = KEY, conn_id: str = "odirouter_default", **extra: Any) -> OdiRouterHook:
        document = {"conn_type": "odirouter", "host": host, "password": key, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(document))
        return OdiRouterHook(conn_id)

    return make


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[Logs]:
    """Returns all log lines before Airflow masks secrets: ours, which go to structlog, and those of libraries."""
    caplog.set_level(logging.INFO)
    with structlog.testing.capture_logs() as entries:
        yield lambda: [str(entry["event"]) for entry in entries] + caplog.messages


@pytest.fixture
def hook(base_url: str, connect: Connect) -> OdiRouterHook:
    """A hook of the sandbox."""
    return connect(base_url)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that misbehave: ``serve(behave)``."""
    with ExitStack() as servers:

        def start(behave: Behaviour, **options: Any) -> RawServer:
            return servers.enter_context(RawServer(behave, **options))

        yield start


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1, followed by its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "OdiRouter tests")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "authority.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@pytest.fixture
def tls(authority: Path) -> ssl.SSLContext:
    """The TLS settings of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    return context
