"""The environment of a small and fast Airflow, the same for 3.1 to 3.3."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dev.ports import LOOPBACK

HOSTNAME_MODULE = "local_airflow_hostname"
PASSWORDS = "passwords.json"
USERNAME = "admin"


@dataclass(frozen=True)
class Settings:
    """The settings that differ between two local Airflows."""

    home: Path
    dags_folder: Path
    url: str
    database_url: str
    log_server_port: int
    # All components of an Airflow have the same.
    fernet_key: str = field(default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    jwt_secret: str = field(default_factory=lambda: secrets.token_urlsafe(64))

    @property
    def log_folder(self) -> Path:
        return self.home / "logs"

    def environment(self, caller: Mapping[str, str]) -> dict[str, str]:
        """The environment of a component, in which `caller` overrides everything else.

        AIRFLOW… variables of the developer's shell are left out: they would change what is tested.
        """
        inherited = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name.upper()}
        environment = inherited | self._options() | dict(caller)
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (str(self.home / "config"), environment.get("PYTHONPATH", "")) if part
        )
        environment["PYTHONUNBUFFERED"] = "1"
        for name in ("NO_PROXY", "no_proxy"):
            # Airflow's components call each other with clients that use a proxy.
            hosts = [environment.get(name, ""), LOOPBACK, "localhost"]
            environment[name] = ",".join(host for host in hosts if host)
        return environment

    def _options(self) -> dict[str, str]:
        sections: dict[str, dict[str, object]] = {
            "core": {
                "dags_folder": self.dags_folder,
                "plugins_folder": self.home / "plugins",
                "load_examples": False,
                "executor": "LocalExecutor",
                "parallelism": 4,
                # A Dag with a schedule must not start by itself; `trigger_dag` unpauses the Dag that it runs.
                "dags_are_paused_at_creation": True,
                "fernet_key": self.fernet_key,
                "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
                "simple_auth_manager_users": f"{USERNAME}:admin",
                "simple_auth_manager_passwords_file": self.home / PASSWORDS,
                "execution_api_server_url": f"{self.url}/execution/",
                # The default asks DNS for the machine's name.
                "hostname_callable": f"{HOSTNAME_MODULE}.hostname",
                "min_serialized_dag_update_interval": 1,
                "test_connection": "Enabled",
            },
            "database": {
                "sql_alchemy_conn": self.database_url,
                # `LocalAirflow` has just migrated it; four processes need not check that again.
                "check_migrations": False,
            },
            "logging": {
                "base_log_folder": self.log_folder,
                "dag_processor_child_process_log_directory": self.log_folder / "dag_processor",
                "colored_console_log": False,
                "worker_log_server_port": self.log_server_port,
                "trigger_log_server_port": self.log_server_port,
            },
            "api": {
                "base_url": self.url,
                "secret_key": self.secret_key,
                "workers": 1,
            },
            "api_auth": {"jwt_secret": self.jwt_secret},
            "scheduler": {"scheduler_idle_sleep_time": 0.25},
            "dag_processor": {
                "refresh_interval": 5,
                "bundle_refresh_check_interval": 1,
                "min_file_process_interval": 10,
                "parsing_processes": 2,
            },
            # On two cores, the API sometimes answers late while all components start.
            "workers": {"execution_api_timeout": 30},
            "usage_data_collection": {"enabled": False},
        }
        options = {
            f"AIRFLOW__{section.upper()}__{option.upper()}": str(value)
            for section, entries in sections.items()
            for option, value in entries.items()
        }
        return {"AIRFLOW_HOME": str(self.home), "SCARF_ANALYTICS": "false", "DO_NOT_TRACK": "1"} | options


def prepare_home(home: Path, hostname: str = LOOPBACK) -> None:
    """Create the folders and files that a component reads at its start."""
    for folder in ("components", "config", "plugins"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    # Airflow has no option for a fixed hostname, only one for a function that returns it.
    source = f'def hostname() -> str:\n    return "{hostname}"\n'
    (home / "config" / f"{HOSTNAME_MODULE}.py").write_text(source)


def prepare_password(home: Path) -> str:
    """Make a password for the admin, and return it."""
    password = secrets.token_urlsafe(12)
    passwords = home / PASSWORDS
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({USERNAME: password}))
    return password
