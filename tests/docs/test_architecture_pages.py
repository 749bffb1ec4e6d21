"""The pages about the architecture name functions that exist, and layers as the test of the imports has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests import test_architecture as architecture

PAGES = Path(__file__).parents[2] / "docs" / "architecture"
LAYERS = "|".join(sorted(architecture.MAY_IMPORT))
NAMED = re.compile(rf"`((?:{LAYERS})(?:\.\w+)+)`")
"""A function, a class or a module: a layer's name, and more after a dot."""
FILE = re.compile(rf"`((?:{LAYERS})(?:/\w+)*\.py)`")


def names_in(page: str) -> list[str]:
    return sorted(set(NAMED.findall((PAGES / page).read_text())))


def table() -> Iterator[list[str]]:
    """The rows of the table of the layers: its cells."""
    for line in (PAGES / "layers.md").read_text().split("## ")[0].splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def in_code(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def layers() -> dict[str, set[str]]:
    return {layer: in_code(row[2]) for row in table() for layer in in_code(row[0])}


def only_modules() -> dict[str, Mapping[str, AbstractSet[str]]]:
    found: dict[str, Mapping[str, AbstractSet[str]]] = {}
    for row in table():
        modules: dict[str, set[str]] = {}
        for name in in_code(row[3]):
            layer, _, module = name.partition(".")
            modules.setdefault(layer, set()).add(module)
        if modules:
            found |= dict.fromkeys(in_code(row[0]), modules)
    return found


@pytest.mark.parametrize("name", sorted({*names_in("flows.md"), *names_in("decisions.md")}))
def test_each_named_function_exists(name: str) -> None:
    assert resolve_name(f"{architecture.PACKAGE}.{name}") is not None


def test_the_flows_name_many_functions() -> None:
    assert len(names_in("flows.md")) > 70


def test_each_named_file_exists() -> None:
    named = {name for page in PAGES.glob("*.md") for name in FILE.findall(page.read_text())}
    assert named
    assert {name for name in named if not (architecture.ROOT / name).is_file()} == set()


def test_the_table_of_the_layers_is_that_of_the_imports() -> None:
    assert layers() == architecture.MAY_IMPORT


def test_the_modules_that_some_layers_may_import_are_those_of_the_imports() -> None:
    assert only_modules() == architecture.ONLY_MODULES
