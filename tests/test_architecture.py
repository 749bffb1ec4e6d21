"""Who may import whom: the table of the layers, held against the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = "airflow_provider_odirouter"
ROOT = Path(__file__).parents[1] / PACKAGE

SMALL = {
    "redaction",
    "templating",
    "json_values",
    "parameter_checks",
    "file_parameters",
    "text_paths",
    "addresses",
    "get_provider_info",
}
"""Small and pure, one idea each; imported by all."""
BELOW_LIFECYCLE = {"errors", "compat", "metrics", "models", "protocol", "hooks", "storage", "images", "xcoms"}
BELOW_FACES = BELOW_LIFECYCLE | {"lifecycle", "batch", "triggers", "review"}
FACES = {"operators", "sensors", "decorators"}
MAY_IMPORT: dict[str, set[str]] = {
    **{module: {"errors"} for module in SMALL},
    "errors": set(),
    "compat": set(),
    "models": {"errors"},
    "protocol": {"errors", "models"},
    "metrics": {"errors", "compat", "models"},
    "hooks": {"errors", "compat", "metrics", "models", "protocol"},
    "storage": {"errors", "compat"},
    "images": {"errors", "models", "storage"},
    "xcoms": {"errors", "models", "compat"},
    "lifecycle": BELOW_LIFECYCLE,
    "batch": BELOW_LIFECYCLE | {"lifecycle"},
    "review": {"errors", "models", "storage", "images", "xcoms"},
    "triggers": {"errors", "compat", "metrics", "models", "hooks", "xcoms", "lifecycle"},
    **dict.fromkeys(FACES, BELOW_FACES | FACES),
    "plugins": {"errors", "compat", "models", "storage", "images", "xcoms", "listeners", "batch"},
    "listeners": {"errors", "compat", "models", "hooks", "xcoms", "lifecycle", "batch"},
    "sandbox": set(),
    "testing": {"sandbox"},
}
"""What the modules of a layer may import of ours, beside each other and the small ones."""
ONLY_MODULES = {
    "triggers": {"lifecycle": {"polling", "wait", "ownership", "cancel"}},
    "plugins": {"batch": {"state"}},
    "listeners": {"lifecycle": {"cancel"}, "batch": {"state"}},
}
"""Of some layers, others may import a few modules only."""
PURE = (SMALL - {"get_provider_info"}) | {"errors", "models", "protocol"}
PURE_MODULES = {"lifecycle/polling.py", "batch/resume.py", "batch/checks.py", "batch/rules.py"}
IMPURE = {"time", "asyncio", "socket", "random", "airflow", "httpx", "aiohttp"}
HTTP = {"httpx", "aiohttp", "requests", "urllib3", "socket"}
PRIVATE_OF_AIRFLOW = (
    "airflow.sdk.execution_time",
    "airflow.sdk.definitions._internal",
    "airflow.sdk.bases",
    "_AIRFLOW",
)

FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> set[str]:
    """All names that a file imports, wherever in it, as full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours_of(path: Path) -> set[tuple[str, ...]]:
    """Of those the ones of this package, without its name."""
    names = {tuple(name.split(".")) for name in imports_of(path)}
    constants = {"__version__", "IMAGE_EDIT_ENDPOINT"}
    return {parts[1:] for parts in names if parts[0] == PACKAGE and parts[1] not in constants}


def top_level_imports_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)}


def test_every_layer_is_in_the_table() -> None:
    assert {layer_of(path) for path in FILES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_layer_imports_only_what_the_table_allows(path: Path) -> None:
    layer = layer_of(path)
    assert {parts[0] for parts in ours_of(path)} - {layer} <= MAY_IMPORT[layer] | SMALL


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(path) in ONLY_MODULES], ids=name_of)
def test_a_layer_imports_only_the_modules_that_the_table_allows(path: Path) -> None:
    for layer, modules in ONLY_MODULES[layer_of(path)].items():
        assert {parts[1] for parts in ours_of(path) if parts[0] == layer} <= modules


@pytest.mark.parametrize(
    "path", [path for path in FILES if layer_of(path) in PURE or name_of(path) in PURE_MODULES], ids=name_of
)
def test_a_pure_module_has_no_clock_no_socket_and_no_chance(path: Path) -> None:
    assert not top_level_imports_of(path) & IMPURE


def test_the_sandbox_knows_nothing_of_airflow() -> None:
    assert not [path for path in FILES if layer_of(path) == "sandbox" and "airflow" in top_level_imports_of(path)]


def test_only_the_hooks_and_the_sandbox_speak_http() -> None:
    assert {layer_of(path) for path in FILES if top_level_imports_of(path) & HTTP} == {"hooks", "sandbox"}


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(path) not in {"compat", "sandbox"}], ids=name_of)
def test_private_names_of_airflow_stand_in_compat_only(path: Path) -> None:
    imported = {name for name in imports_of(path) if name.startswith(PRIVATE_OF_AIRFLOW)}
    assert not imported
    assert "_AIRFLOW_PROCESS_CONTEXT" not in path.read_text()
    assert "_BaseOperator__" not in path.read_text()


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    modules = {name_of(path).removesuffix(".py").replace("/", "."): path for path in FILES if path.stem != "__init__"}
    edges = {
        name: {
            target
            for parts in ours_of(path)
            for target in (".".join(parts), ".".join(parts[:-1]))
            if target in modules and target != name
        }
        for name, path in modules.items()
    }
    free: set[str] = set()
    while ready := {name for name, targets in edges.items() if name not in free and targets <= free}:
        free |= ready
    assert sorted(set(modules) - free) == []
