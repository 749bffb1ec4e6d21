"""A local OdiRouter to develop and test against: ``python -m airflow_provider_odirouter.sandbox``."""

from __future__ import annotations

from airflow_provider_odirouter.sandbox.engine import RequestSnapshot
from airflow_provider_odirouter.sandbox.inprocess import SandboxTransport
from airflow_provider_odirouter.sandbox.journal import JournalEntry
from airflow_provider_odirouter.sandbox.sandbox import Sandbox
from airflow_provider_odirouter.sandbox.server import SandboxServer
from airflow_provider_odirouter.sandbox.settings import SandboxSettings

__all__ = ["JournalEntry", "RequestSnapshot", "Sandbox", "SandboxServer", "SandboxSettings", "SandboxTransport"]
