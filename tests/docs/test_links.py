"""The links between the pages, those of the README, and the list of all pages."""

from __future__ import annotations

import itertools
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from dev.check_site import problems_of
from tests.docs.blocks import DOCS, PAGES, ROOT, parser


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them, and those that it names itself."""
    tokens = parser().parse(page.read_text())
    titles = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    named = re.findall(r"^\(([\w-]+)\)=$", page.read_text(), re.MULTILINE)
    return {slug(title) for title in titles} | set(named)


def slug(title: str) -> str:
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def links_of(page: Path) -> list[str]:
    links = []
    for token in parser().parse(page.read_text()):
        for child in token.children or ():
            links += [str(value) for name, value in child.attrs.items() if name in {"href", "src"}]
    return links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.exists(), link
        assert ROOT in target.parents or target == ROOT, link
        if anchor:
            assert unquote(anchor) in anchors_of(target), link


def test_no_page_names_a_place_that_no_reader_has() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|tmp/w|root)/", page.read_text()), page


def test_each_picture_of_the_documentation_is_shown() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links_of(page) if "images/" in link}
    assert shown == set((DOCS / "images").iterdir())


def page(title: str, body: str = "") -> str:
    return f"<html><body><h1 id='{title}'>{title}</h1>{body}</body></html>"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two pages that are complete."""
    (tmp_path / "index.html").write_text(page("first", "<a href='a.html#a'>a</a><a href='https://x.example'>x</a>"))
    (tmp_path / "a.html").write_text(page("a", "<script src='script.js'></script><img src='data:image/png;base64,'>"))
    (tmp_path / "llms.txt").write_text("- [first](index.md): one\n- [a](a.md#a): two\n- [a](a.md): two\n")
    for name in ("index.md", "a.md", "llms-full.txt", "searchindex.js", "script.js"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_complete_site_has_no_problem(site: Path) -> None:
    assert list(problems_of(site)) == []


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("a.html", page("a", "<script src='https://cdn.example/x.js'></script>"), "a.html loads https://cdn.example/x"),
        ("a.html", page("a", "<link rel='stylesheet' href='//cdn.example/x.css'>"), "a.html loads //cdn.example/x"),
        ("a.html", page("a", "<img src='gone.png'>"), "a.html loads gone.png, which does not exist"),
        ("a.html", page("a", "<a href='gone.html'>b</a>"), "the link gone.html leads to no file"),
        ("a.html", page("a", "<a href='index.html#gone'>b</a>"), "the link index.html#gone leads to no anchor"),
        ("b.html", page("b"), "b cannot be reached from the first page"),
        ("llms.txt", "- [first](index.md)", "a is not in llms.txt"),
        ("x.css", "@font-face { src: url('https://fonts.example/a.woff') }", "x.css loads //fonts.example/a.woff"),
    ],
)
def test_a_site_with_a_hole_is_refused(site: Path, file: str, text: str, problem: str) -> None:
    (site / file).write_text(text)
    assert problem in "\n".join(problems_of(site))
