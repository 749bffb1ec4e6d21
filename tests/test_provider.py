"""The installed package, as Airflow sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_parser import get_parser

import airflow_provider_odirouter
from airflow_provider_odirouter.get_provider_info import get_provider_info

pytestmark = pytest.mark.every_version

NAME = "airflow-provider-odirouter"
ROOT = Path(__file__).parents[1]


Airflow = Callable[..., str]


@pytest.fixture
def airflow(capsys: pytest.CaptureFixture[str]) -> Airflow:
    """Runs Airflow's command line in this process: ``airflow("providers", "list")``."""

    def run(*arguments: str) -> str:
        parsed = get_parser().parse_args(arguments)
        with suppress(SystemExit):
            parsed.func(parsed)
        return capsys.readouterr().out

    return run


def test_the_entry_point_is_get_provider_info() -> None:
    [entry_point] = [one for one in entry_points(group="apache_airflow_provider") if one.dist and one.dist.name == NAME]
    assert entry_point.load() is get_provider_info
    assert version(NAME) == airflow_provider_odirouter.__version__


def test_airflow_lists_the_provider(airflow: Airflow) -> None:
    listed = json.loads(airflow("providers", "list", "--output", "json"))
    [ours] = [one for one in listed if one["package_name"] == NAME]
    assert ours["version"] == airflow_provider_odirouter.__version__


def test_airflow_knows_the_connection_type_and_the_link(airflow: Airflow) -> None:
    hooks = json.loads(airflow("providers", "hooks", "--output", "json"))
    [ours] = [one for one in hooks if one["connection_type"] == "odirouter"]
    assert ours["class"] == "airflow_provider_odirouter.hooks.odirouter.OdiRouterHook"
    assert "airflow_provider_odirouter.xcoms.OdiRouterRequestLink" in airflow("providers", "links", "--output", "json")


def test_airflow_knows_the_option_and_its_default(airflow: Airflow) -> None:
    assert airflow("config", "get-value", "odirouter", "max_polls_per_second").split()[-1] == "100"
    listed = airflow("config", "list", "--section", "odirouter", "--include-descriptions", "--include-examples")
    assert "How many polls one triggerer process makes per second at most" in listed
    assert "max_polls_per_second = 50" in listed


def modules_in(info: Any) -> list[str]:
    if isinstance(info, dict):
        return [module for key, value in info.items() for module in _modules(key, value)]
    return [module for value in info if isinstance(value, dict | list) for module in modules_in(value)]


def _modules(key: str, value: Any) -> list[str]:
    return value if key == "python-modules" else modules_in(value) if isinstance(value, dict | list) else []


def test_the_integration_has_tags_a_logo_and_how_to_guides() -> None:
    [integration] = get_provider_info()["integrations"]
    assert {"ai", "generative-ai"} <= set(integration["tags"])
    address, _, logo = integration["logo"].partition(f"/v{airflow_provider_odirouter.__version__}/")
    assert address == "https://raw.githubusercontent.com/airflow-provider-odirouter/airflow-provider-odirouter"
    assert len(integration["how-to-guide"]) == 5
    missing = [path for path in (logo, *integration["how-to-guide"]) if not (ROOT / path.lstrip("/")).is_file()]
    assert not missing, "the repository has no such files"


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
def test_airflow_reads_the_connection_from_the_environment(
    connection: str, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", connection)
    assert " odirouter " in airflow("connections", "get", "odirouter_default", "-o", "plain")


@pytest.mark.parametrize(("key", "answer"), [("sandbox-key", "Connection success!"), ("wrong", "The API key is wrong")])
def test_the_test_button_says_whether_the_key_is_right(
    key: str, answer: str, base_url: str, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.dumps({"conn_type": "odirouter", "password": key, "host": base_url})
    monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", connection)
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    assert answer in airflow("connections", "test", "odirouter_default")
