"""The connection form: from the hook for Airflow 3.1, from the provider info for newer versions."""

from __future__ import annotations

import importlib.resources
import inspect
import json
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_odirouter import __version__
from airflow_provider_odirouter.get_provider_info import CONNECTION_TYPE, get_provider_info
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

pytestmark = pytest.mark.every_version


def schema(name: str) -> Any:
    return json.loads(importlib.resources.files("airflow").joinpath(name).read_text())


@pytest.fixture(scope="module")
def form() -> Any:
    """The form as Airflow's API server sends it to the browser; a process can ask for it once."""
    code = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
(form,) = [hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "odirouter"]
print(form.model_dump_json())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_provider_info_follows_airflows_schema() -> None:
    jsonschema.validate(get_provider_info(), schema("provider_info.schema.json"))


def test_the_field_behaviour_follows_airflows_schema() -> None:
    jsonschema.validate(OdiRouterHook.get_ui_field_behaviour(), schema("customized_form_field_behaviours.schema.json"))


def test_airflow_finds_the_provider_under_its_distributions_name() -> None:
    provider = ProvidersManager().providers["airflow-provider-odirouter"]

    assert provider.version == __version__
    assert provider.data["name"] == "OdiRouter"


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
def test_airflow_finds_the_hook() -> None:
    hook = ProvidersManager().hooks["odirouter"]

    assert hook is not None
    assert hook.hook_class_name == f"{OdiRouterHook.__module__}.{OdiRouterHook.__qualname__}"
    assert hook.connection_id_attribute_name == OdiRouterHook.conn_name_attr
    assert hook.hook_name == OdiRouterHook.hook_name


def test_the_hook_takes_the_connection_under_the_name_that_airflow_uses() -> None:
    parameters = inspect.signature(OdiRouterHook).parameters

    assert parameters[OdiRouterHook.conn_name_attr].default == OdiRouterHook.default_conn_name


def test_the_form_asks_only_for_key_and_base_url(form: Any) -> None:
    fields = form["standard_fields"]

    assert fields["password"]["title"] == "API key"
    assert fields["host"]["title"] == "Base URL"
    assert "https://odirouter.ai/model" in fields["host"]["placeholder"]
    assert all(fields[name]["hidden"] for name in ("url_schema", "port", "login"))
    assert not any(fields[name]["hidden"] for name in ("password", "host"))


def test_the_form_has_the_extra_fields_that_the_hook_reads(form: Any) -> None:
    assert set(form["extra_fields"]) == {"timeout", "verify", "allow_private_downloads", "prices"}
    assert form["hook_class_name"] == CONNECTION_TYPE["hook-class-name"]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("timeout", {"integer", "number"}),
        ("verify", {"string"}),
        ("allow_private_downloads", {"boolean"}),
        ("prices", {"string"}),
    ],
)
def test_an_extra_field_may_be_left_empty(form: Any, name: str, kinds: set[str]) -> None:
    field = form["extra_fields"][name]

    assert "null" in field["schema"]["type"]
    assert kinds & set(field["schema"]["type"])
    assert field["description"] or field["schema"].get("description")
    assert field["schema"]["title"] == CONNECTION_TYPE["conn-fields"][name]["label"]


@pytest.mark.skipif(version("apache-airflow-core").startswith("3.1."), reason="Airflow 3.1 knows no limits")
def test_the_browser_gets_the_limits_of_the_timeout(form: Any) -> None:
    limits = form["extra_fields"]["timeout"]["schema"]

    assert (limits["minimum"], limits["maximum"]) == (0, 3600)


def test_airflow_31_finds_the_form_in_the_hooks_own_class() -> None:
    assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= vars(OdiRouterHook).keys()


def test_hook_and_provider_info_describe_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    # Airflow 3.1 calls these methods, with stand-ins for wtforms; every version tests them.
    def field(kind: str) -> Any:
        return lambda label, description: {"kind": kind, "label": label, "description": description}

    wtforms = SimpleNamespace(IntegerField=field("number"), StringField=field("string"), BooleanField=field("boolean"))
    monkeypatch.setitem(sys.modules, "wtforms", wtforms)

    widgets = OdiRouterHook.get_connection_form_widgets()
    behaviour = OdiRouterHook.get_ui_field_behaviour()

    assert widgets == {
        name: {
            "kind": definition["schema"]["type"][0],
            "label": definition["label"],
            "description": definition["description"],
        }
        for name, definition in CONNECTION_TYPE["conn-fields"].items()
    }
    assert behaviour == {
        "hidden_fields": CONNECTION_TYPE["ui-field-behaviour"]["hidden-fields"],
        "relabeling": CONNECTION_TYPE["ui-field-behaviour"]["relabeling"],
        "placeholders": CONNECTION_TYPE["ui-field-behaviour"]["placeholders"],
    }
