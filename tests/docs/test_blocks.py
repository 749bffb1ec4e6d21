"""Each block of the documentation that is no Python: lists, return values, settings, commands, queries, logs."""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import os
import pkgutil
import re
import sqlite3
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.configuration import conf
from airflow.sdk import Connection

from airflow_provider_odirouter.batch.any_endpoint import AnyEndpointRules
from airflow_provider_odirouter.batch.image_edits import ImageEditRules
from airflow_provider_odirouter.batch.input import read_edits
from airflow_provider_odirouter.get_provider_info import get_provider_info
from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.models import BatchItem, BatchSummary, LandedOutput, Manifest, Prices
from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from airflow_provider_odirouter.operators.image_edit_batch import OdiRouterImageEditBatchOperator
from airflow_provider_odirouter.operators.lineage import EXTRA_FIELDS
from airflow_provider_odirouter.operators.review import OdiRouterReviewOperator
from airflow_provider_odirouter.sandbox.settings import SandboxSettings
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from tests.docs.blocks import COMMANDS, DOCS, ROOT, Block, all_blocks, blocks_in

LANGUAGES = {"python", "json", "jsonl", "csv", "ini", "yaml", "sql", "text", "dockerfile", *COMMANDS}
SANDBOX = "ODIROUTER_SANDBOX__"
CONN_ID = "odirouter_default"


def test_each_block_has_a_language_that_a_test_reads() -> None:
    unknown = {str(block): block.language for block in all_blocks() if block.language not in LANGUAGES}
    assert unknown == {}


# --- JSON: return values, events, connections, policies

Json = Mapping[str, Any]


def fields(*models: Any, without: Iterable[str] = ()) -> set[str]:
    return {name for model in models for name in model.model_fields} - set(without)


PRIVATE = ("phase", "fingerprint", "try_number", "retry_helps", "given_name", "own_files", "url_fields", "endpoint")


def check_manifest(value: Json) -> None:
    assert set(value) == fields(Manifest)
    check_outputs(value["outputs"])


def check_outputs(outputs: list[Json]) -> None:
    for output in outputs:
        assert {"content_type", "width", "height", "size_bytes", "sha256"} <= set(output) <= fields(LandedOutput)


def check_summary(value: Json) -> None:
    assert set(value) == fields(BatchSummary)


def check_line(value: Json) -> None:
    """A line of a batch's manifest."""
    assert set(value) <= fields(BatchItem, without=PRIVATE)
    assert {"number", "name", "edit"} <= set(value)
    assert ("outputs" in value) != ("error" in value)
    check_outputs(value.get("outputs", []))


def check_event(value: Json) -> None:
    """The extra of the event of an asset; that of a batch is its summary."""
    assert set(value) == set(EXTRA_FIELDS)


def check_review(value: Json) -> None:
    for line in (*value["approved"], *value["rejected"]):
        check_line(line)
    assert set(value) == {"approved", "rejected", "note", "responded_by", "responded_at"}


def check_prices(value: Json) -> None:
    Prices.parse(value["prices"])


def check_connection(value: Json) -> None:
    ConnectionSettings.from_connection(Connection(conn_id=CONN_ID, **as_airflow_reads(value)))


def as_airflow_reads(value: Json) -> dict[str, Any]:
    """The connection in JSON, as Airflow reads it from an environment variable or a secrets backend."""
    connection = Connection.from_json(json.dumps(value), conn_id="x")
    names = ("conn_type", "host", "login", "password", "schema", "port", "extra")
    return {name: getattr(connection, name) for name in names}


def check_edit(value: Json) -> None:
    check_list(Block("", 0, "jsonl", json.dumps(value)))


def check_policy(value: Json) -> None:
    assert value["Version"] == "2012-10-17"
    for statement in value["Statement"]:
        assert set(statement) == {"Effect", "Action", "Resource"}


SHAPES = {
    frozenset({"request_id", "endpoint", "outputs", "submitted_at"}): check_manifest,
    frozenset({"manifest", "edits", "submits"}): check_summary,
    frozenset({"number", "edit"}): check_line,
    frozenset({"approved", "rejected"}): check_review,
    frozenset({"request_id", "outputs", "inference_seconds"}): check_event,
    frozenset({"prices"}): check_prices,
    frozenset({"conn_type"}): check_connection,
    frozenset({"images", "name"}): check_edit,
    frozenset({"Statement"}): check_policy,
}
"""By the keys that a JSON object must have; the first that fits counts."""


@pytest.mark.parametrize("block", blocks_in("json"), ids=str)
def test_json_has_the_keys_of_the_real_thing(block: Block) -> None:
    values = documents_in(block.text)
    assert values
    for value in values:
        check = next((check for keys, check in SHAPES.items() if keys <= set(value)), None)
        assert check, f"nothing is known that has these keys: {sorted(value)}"
        check(value)


def documents_in(text: str) -> list[Json]:
    """Read JSON documents, one after the other, between comments."""
    decoder, values = json.JSONDecoder(), []
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE).strip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].strip()
    return values


# --- Lists of edits


@pytest.mark.parametrize("block", blocks_in("jsonl", "csv"), ids=str)
def test_a_list_of_edits_can_be_read(block: Block, tmp_path: Path) -> None:
    if block.language == "jsonl" and {"number", "edit"} <= set(documents_in(block.text)[0]):
        for line in documents_in(block.text):
            check_line(line)
        return
    check_list(block, tmp_path)


def check_list(block: Block, folder: Path | None = None) -> None:
    rules = ImageEditRules()
    source: Any = documents_in(block.text) if folder is None else str(folder / f"edits.{block.language}")
    if folder:
        Path(source).write_text(block.text)
    found = read_edits(source, rules)
    if found.problems:  # A list for another model has other columns.
        found = read_edits(source, AnyEndpointRules("nano_banana_2", ("image",)))
    assert not found.problems
    assert found.edits
    if folder is not None:
        rows = [row for row in block.text.splitlines() if row.strip() and not row.startswith("#")]
        assert len(found.edits) == len(rows) - (block.language == "csv")


# --- Settings


@cache
def known_options() -> set[tuple[str, str]]:
    """The options of Airflow, of its installed providers, and ours."""
    ours = {
        (section, option) for section, content in get_provider_info()["config"].items() for option in content["options"]
    }
    return ours | {
        (section, option)
        for section, content in conf.configuration_description.items()
        for option in content["options"]
    }


OF_CELERY = {("celery_broker_transport_options", "visibility_timeout")}
"""Its provider is not installed here."""


def check_option(section: str, option: str) -> None:
    assert (section.lower(), option.lower()) in known_options() | OF_CELERY, (
        f"Airflow has no option [{section}] {option}"
    )


@pytest.mark.parametrize("block", blocks_in("ini"), ids=str)
def test_an_option_of_airflow_exists(block: Block) -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(block.text)
    assert settings.sections()
    for section in settings.sections():
        for option in settings[section]:
            check_option(section, option)
    if "secrets" in settings:
        json.loads(settings["secrets"]["backend_kwargs"])
        if "hashicorp" not in settings["secrets"]["backend"]:  # which is not installed here
            pkgutil.resolve_name(settings["secrets"]["backend"])


@pytest.mark.parametrize("block", all_blocks(), ids=str)
def test_environment_variables_are_read_by_something(block: Block) -> None:
    for name in re.findall(r"\bAIRFLOW__[A-Z0-9_]+", block.text):
        section, _, option = name.removeprefix("AIRFLOW__").removesuffix("_CMD").removesuffix("_SECRET").partition("__")
        check_option(section, option)
    for name in re.findall(rf"\b{SANDBOX}([A-Z_]+)", block.text):
        assert name.lower() in SandboxSettings.model_fields or name in {"HOST", "PORT", "QUIET"}


@pytest.mark.parametrize("block", blocks_in("yaml"), ids=str)
def test_yaml_can_be_read(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        assert isinstance(document, dict)
        if CONN_ID in document:
            check_connection(document[CONN_ID])


# --- Connections


def connections_in(text: str) -> list[tuple[str, str]]:
    """Return the environment variables that set connections, and their values."""
    quoted = re.findall(r"\b(AIRFLOW_CONN_[A-Z0-9_]+)=(?:'([^']*)'|\"([^\"]*)\"|(\S+))", text)
    in_yaml = re.findall(
        r"\b(AIRFLOW_CONN_[A-Z0-9_]+):\s*(?:'([^'\n]*)'|\"([^\"\n]*)\"|([^'\"\s]+))$", text, re.MULTILINE
    )
    return [(name, one or other or plain) for name, one, other, plain in quoted + in_yaml]


CONNECTIONS = [
    pytest.param(name, value, id=f"{block}-{name}")
    for block in all_blocks()
    for name, value in connections_in(block.text)
    if not value.startswith("$")
]


def read_connection(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setenv(name, value)
    connection: Connection = Connection.get(name.removeprefix("AIRFLOW_CONN_").lower())
    return connection


@pytest.mark.parametrize(("name", "value"), CONNECTIONS)
def test_a_connection_can_be_read(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = read_connection(name, value, monkeypatch)
    if "ODIROUTER" not in name:
        assert connection.conn_type in {"aws", "google_cloud_platform", "wasb"}
        return
    settings = ConnectionSettings.from_connection(connection)
    assert settings.base_url.endswith("/model")


def test_the_table_of_uris_has_the_base_urls_that_they_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "how-to" / "connections.md").read_text()
    rows = re.findall(r"^\| `(odirouter://[^`]*)` \| `([^`]*)` \|$", page, re.MULTILINE)
    assert len(rows) >= 6
    for uri, base_url in rows:
        connection = read_connection("AIRFLOW_CONN_ODIROUTER_DEFAULT", uri, monkeypatch)
        assert ConnectionSettings.from_connection(connection).base_url == base_url, uri


# --- Tables


def test_the_trials_of_the_page_about_tests_are_settings_of_the_sandbox() -> None:
    page = (DOCS / "how-to" / "testing.md").read_text()
    rows = re.findall(r"^\| [a-z][^|`]* \| `(\w+=[^`]*)` \|$", page, re.MULTILINE)
    assert len(rows) >= 5
    for row in rows:
        call = ast.parse(f"f({row})", mode="eval").body
        assert isinstance(call, ast.Call)
        SandboxSettings(**{str(one.arg): ast.literal_eval(one.value) for one in call.keywords})


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("edit-pictures", OdiRouterImageEditOperator),
        ("batches", OdiRouterImageEditBatchOperator),
        ("review", OdiRouterReviewOperator),
        ("sensor", OdiRouterRequestSensor),
    ],
)
def test_the_table_of_parameters_is_complete_and_has_the_defaults(name: str, operator: type) -> None:
    page = (DOCS / "how-to" / f"{name}.md").read_text()
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ([^|]*) \|", page, re.MULTILINE)
    listed = {parameter: default for names, default in rows for parameter in re.findall(r"`(\w+)`", names)}
    parameters = inspect.signature(operator).parameters
    assert set(parameters) - {"kwargs", "poke_interval"} <= set(listed)
    for parameter, default in listed.items():
        value = re.fullmatch(r"`?([\w.]+)`?", default)
        if parameter in parameters and value and value[1] not in {"required", "none"}:
            assert str(parameters[parameter].default) == value[1], parameter


# --- Queries, and what stands in a log


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize("block", blocks_in("sql"), ids=str)
def test_a_query_fits_airflows_tables(block: Block) -> None:
    with sqlite3.connect(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db") as database:
        for query in filter(str.strip, block.text.split(";")):
            database.execute(f"EXPLAIN {query}")


@cache
def source() -> str:
    """All texts of the provider, with one blank between two words."""
    files = [
        path.read_text()
        for path in sorted((ROOT / "airflow_provider_odirouter").rglob("*.*"))
        if path.suffix in {".py", ".html"}
    ]
    joined = re.sub(r"[\"']\s*\n\s*[fr]*[\"']", "", "\n".join(files))  # strings that stand one after the other
    return re.sub(r"\s+", " ", joined)


VARIABLE = r"[\d,.:/_-]*\d[\d,.:/_%-]*|…|“[^”]*”|'[^']*'|`[^`]*`|\S*/\S*|\S*_\S*|\S*@\S*"


@pytest.mark.parametrize("block", blocks_in("text"), ids=str)
def test_a_line_of_a_log_is_one_that_the_provider_writes(block: Block) -> None:
    if is_drawing(block.text):
        return
    for line in filter(str.strip, block.text.splitlines()):
        pieces = [piece.strip(" .,;:()") for piece in re.split(VARIABLE, line)]
        long = [piece for piece in pieces if len(piece.split()) >= 2]
        assert long, f"too little of this can be compared with the code: {line}"
        missing = [piece for piece in long if piece not in source()]
        assert not missing, f"the provider does not write {missing}"


def is_drawing(text: str) -> bool:
    """Whether it is a diagram or a tree of files."""
    return bool(re.search(r"[─│├└┌┐┘▶→↓▼]|--+>|\|--", text))
