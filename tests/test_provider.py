"""What Airflow sees of the installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points, version
from typing import Any

import pytest

import airflow_provider_odirouter
from airflow_provider_odirouter.get_provider_info import get_provider_info

NAME = "airflow-provider-odirouter"


def airflow(*arguments: str, check: bool = True, **environment: str) -> str:
    """Run Airflow's command line."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        check=check,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    return done.stdout


def test_the_entry_point_leads_to_the_provider_info() -> None:
    [entry_point] = [one for one in entry_points(group="apache_airflow_provider") if one.dist and one.dist.name == NAME]
    assert entry_point.load() is get_provider_info
    assert version(NAME) == airflow_provider_odirouter.__version__


def test_airflow_lists_the_provider() -> None:
    listed = json.loads(airflow("providers", "list", "--output", "json"))
    [ours] = [one for one in listed if one["package_name"] == NAME]
    assert ours["version"] == airflow_provider_odirouter.__version__


def test_airflow_knows_the_connection_type_and_the_link() -> None:
    hooks = json.loads(airflow("providers", "hooks", "--output", "json"))
    [ours] = [one for one in hooks if one["connection_type"] == "odirouter"]
    assert ours["class"] == "airflow_provider_odirouter.hooks.odirouter.OdiRouterHook"
    assert "airflow_provider_odirouter.links.OdiRouterRequestLink" in airflow("providers", "links", "--output", "json")


def test_airflow_knows_the_option_and_its_default() -> None:
    assert airflow("config", "get-value", "odirouter", "looks_per_second").split()[-1] == "100"
    listed = airflow("config", "list", "--section", "odirouter", "--include-descriptions", "--include-examples")
    assert "How many looks at requests one triggerer process makes in a second at most" in listed
    assert "looks_per_second = 50" in listed


def modules_in(info: Any) -> list[str]:
    if isinstance(info, dict):
        return [module for key, value in info.items() for module in _modules(key, value)]
    return [module for value in info if isinstance(value, dict | list) for module in modules_in(value)]


def _modules(key: str, value: Any) -> list[str]:
    return value if key == "python-modules" else modules_in(value) if isinstance(value, dict | list) else []


def test_every_module_that_the_provider_info_names_exists() -> None:
    modules = modules_in(get_provider_info())
    assert len(modules) >= 5
    for module in modules:
        __import__(module)


@pytest.mark.parametrize(
    "connection",
    ["odirouter://:KEY@", '{"conn_type": "odirouter", "password": "KEY"}'],
    ids=["as a URI", "as JSON"],
)
def test_airflow_reads_the_connection_from_the_environment(connection: str) -> None:
    read = airflow("connections", "get", "odirouter_default", "-o", "plain", AIRFLOW_CONN_ODIROUTER_DEFAULT=connection)
    assert " odirouter " in read


@pytest.mark.parametrize(("key", "tells"), [("sandbox-key", "Connection success!"), ("wrong", "The API key is wrong")])
def test_the_test_button_tells_whether_the_key_is_right(key: str, tells: str, base_url: str) -> None:
    connection = json.dumps({"conn_type": "odirouter", "password": key, "host": base_url})
    environment = {"AIRFLOW_CONN_ODIROUTER_DEFAULT": connection, "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    assert tells in airflow("connections", "test", "odirouter_default", check=False, **environment)


FORMS = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
[form] = [hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "odirouter"]
print("FORM", form.model_dump_json())
"""


def test_the_connection_form_has_our_labels_and_fields() -> None:
    """In a process of its own, as the api-server: Airflow 3.1 finds no form where it has used a connection before."""
    output = subprocess.run([sys.executable, "-c", FORMS], check=True, capture_output=True, text=True).stdout
    form = json.loads(output.partition("FORM ")[2].splitlines()[0])
    standard = form["standard_fields"]
    assert (standard["password"]["title"], standard["host"]["title"]) == ("API key", "Base URL")
    assert "https://odirouter.ai/model" in standard["host"]["placeholder"]
    for hidden in ("login", "port", "url_schema"):
        assert standard[hidden]["hidden"]
    assert set(form["extra_fields"]) == {"timeout", "verify", "allow_private_downloads"}
