"""Builds the TLS settings from those of the connection and of the environment."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from airflow_provider_odirouter.errors import ConnectionSettingsError, EnvironmentSettingsError

HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""The file name of a certificate in a folder that ``openssl rehash`` has indexed."""


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """
    Build the TLS settings. It takes about 20 ms, so do it once for many calls.

    :param verify: Whether certificates are checked, or a CA file that is trusted in addition to the public ones.
    :raises ConnectionSettingsError: If the CA file cannot be used.
    :raises EnvironmentSettingsError: If ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` or ``SSLKEYLOGFILE`` cannot be used.
    """
    if verify is False:
        return httpx.create_ssl_context(verify=False)
    _check_environment()
    with _naming_setting("the public certificates (the package certifi)", EnvironmentSettingsError):
        context = httpx.create_ssl_context()
    if isinstance(verify, str):
        # In addition to the public ones: another host serves the pictures.
        with _naming_setting(f"The connection's verify, the CA file {verify!r},", ConnectionSettingsError):
            context.load_verify_locations(cafile=verify)
    return context


def _check_environment() -> None:
    """Try each variable that :mod:`ssl` and httpx read: their own errors do not name it."""
    if file := os.environ.get("SSL_CERT_FILE"):
        with _naming_setting(f"SSL_CERT_FILE ({file!r})", EnvironmentSettingsError):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    elif folders := os.environ.get("SSL_CERT_DIR"):
        # OpenSSL reads the folder only when it needs a certificate, and does not report an empty one.
        with _naming_setting(f"SSL_CERT_DIR ({folders!r})", EnvironmentSettingsError):
            if not any(_has_certificates(Path(folder)) for folder in folders.split(os.pathsep) if folder):
                raise FileNotFoundError("no certificate with a file name that OpenSSL finds (run openssl rehash)")
    if file := os.environ.get("SSLKEYLOGFILE"):
        with _naming_setting(f"SSLKEYLOGFILE ({file!r})", EnvironmentSettingsError):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).keylog_filename = file


def _has_certificates(folder: Path) -> bool:
    return folder.is_dir() and any(HASHED_NAME.fullmatch(path.name) for path in folder.iterdir())


@contextmanager
def _naming_setting(setting: str, kind: type[ConnectionSettingsError]) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        setting = setting[0].upper() + setting[1:]
        raise kind(f"{setting} cannot be used: {error}.") from error
