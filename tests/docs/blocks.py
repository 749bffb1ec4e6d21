"""The pages of the documentation, and the code blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]

DIRECTIVES = {
    "{config-options}",
    "{connection-fields}",
    "{eval-rst}",
    "{image}",
    "{sandbox-settings}",
    "{toctree}",
}
"""Blocks that Sphinx reads: ``make docs`` fails if it cannot. An admonition is ``:::{note}``, whose code is found."""
PYTHON = "python"
COMMANDS = {"console", "bash", "sh"}


@dataclass(frozen=True)
class Block:
    """A code block."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_test(self) -> bool:
        """Whether it is a file of tests for pytest."""
        return self.language == PYTHON and "def test_" in self.text

    @property
    def is_dag(self) -> bool:
        """Whether it is a whole Dag file."""
        return (
            self.language == PYTHON
            and not self.is_test
            and bool(re.search(r"\bDAG\(|^@dag\b", self.text, re.MULTILINE))
        )

    @property
    def is_fragment(self) -> bool:
        """Whether it is Python that a Dag file may contain."""
        return self.language == PYTHON and not self.is_test and not self.is_dag


def parser() -> MarkdownIt:
    """Return a parser of CommonMark with tables, as GitHub and MyST read it."""
    return MarkdownIt("commonmark").enable("table")


@cache
def all_blocks() -> tuple[Block, ...]:
    """All code blocks of all pages, without what Sphinx itself reads."""
    return tuple(block for page in PAGES for block in _blocks_of(page))


def _blocks_of(page: Path) -> Iterator[Block]:
    for token in parser().parse(page.read_text()):
        if token.type in {"fence", "code_block"}:
            language = token.info.split()[0] if token.info.strip() else ""
            if language not in DIRECTIVES:
                line = token.map[0] + 1 if token.map else 0
                yield Block(str(page.relative_to(ROOT)), line, language, token.content)


@cache
def all_spans() -> tuple[Block, ...]:
    """All code within a line, of all pages."""
    return tuple(
        Block(str(page.relative_to(ROOT)), token.map[0] + 1 if token.map else 0, "", child.content)
        for page in PAGES
        for token in parser().parse(page.read_text())
        for child in token.children or ()
        if child.type == "code_inline"
    )


def blocks_in(*languages: str) -> list[Block]:
    """Return the blocks in some languages."""
    return [block for block in all_blocks() if block.language in languages]
