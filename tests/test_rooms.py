"""Who may import whom: the picture of the package, as a table that is walked."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = "airflow_provider_odirouter"
ROOT = Path(__file__).parents[1] / PACKAGE

CORE = {"errors", "places", "json_values", "models", "protocol", "polling"}
FACE = CORE | {"hooks", "triggers", "images", "links", "compat", "durability", "records", "lifecycle"}
FOR_ALL = {"redaction"}
MAY_IMPORT: dict[str, set[str]] = {
    "redaction": {"errors"},
    "errors": set(),
    "places": set(),
    "json_values": {"errors"},
    "models": {"errors", "places", "json_values"},
    "protocol": {"errors", "models"},
    "polling": {"errors", "models"},
    "hooks": {"errors", "models", "protocol", "compat", "get_provider_info"},
    "progress": set(),
    "triggers": CORE | {"hooks", "compat", "progress", "records"},
    "images": {"errors", "models", "compat"},
    "durability": {"errors", "models"},
    "records": {"errors"},
    "lifecycle": CORE | {"hooks", "compat", "records", "images", "durability"},
    "links": set(),
    "plugins": {"models", "images", "records", "listeners"},
    "listeners": {"errors", "models", "hooks", "records", "triggers", "operators"},
    "operators": FACE,
    "sensors": FACE | {"operators"},
    "decorators": FACE | {"operators"},
    "sandbox": set(),
    "compat": set(),
    "get_provider_info": set(),
}
ONLY_THESE_OF: dict[str, dict[str, set[str]]] = {
    "listeners": {"triggers": {"triggers.canceling"}, "operators": {"operators.batch.ledger"}},
}
"""Of some rooms, others may import a few modules only."""
PURE = ("errors", "redaction", "places", "json_values", "models", "protocol", "polling", "progress", "records")
WITHOUT_AIRFLOW = (*PURE, "sandbox")
IMPURE_MODULES = {"time", "asyncio", "socket", "random", "airflow", "httpx", "aiohttp"}

FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it, as full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported_by(path: Path) -> set[str]:
    ours = [name.split(".") for name in imports_of(path)]
    return {parts[1] for parts in ours if parts[0] == PACKAGE and parts[1] != "__version__"}


def test_every_room_is_in_the_table() -> None:
    assert {room_of(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    room = room_of(path)
    assert rooms_imported_by(path) - {room} <= MAY_IMPORT[room] | FOR_ALL


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) in ONLY_THESE_OF], ids=lambda path: path.name)
def test_of_some_rooms_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    for room, modules in ONLY_THESE_OF[room_of(path)].items():
        prefixes = {f"{PACKAGE}.{module}" for module in modules}
        imported = {name for name in imports_of(path) if name.startswith(f"{PACKAGE}.{room}.")}
        assert {name.rpartition(".")[0] for name in imported} <= prefixes


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) in PURE], ids=lambda path: path.name)
def test_a_pure_room_has_no_clock_no_socket_and_no_chance(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports_of(path)} & IMPURE_MODULES


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) in WITHOUT_AIRFLOW], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_room_that_needs_no_airflow_does_not_import_it(path: Path) -> None:
    assert "airflow" not in {name.split(".")[0] for name in imports_of(path)}


def test_only_the_hooks_speak_http() -> None:
    speakers = {
        room_of(path)
        for path in FILES
        if {name.split(".")[0] for name in imports_of(path)} & {"httpx", "aiohttp", "requests", "urllib3", "socket"}
    }
    assert speakers == {"hooks", "sandbox"}
