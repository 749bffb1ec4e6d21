"""
Check the pages that ``make docs`` has built: complete, and without a request to another host.

Sphinx itself checks the links between the pages (``-W -n``), but neither what the browser loads, nor what ``llms.txt``
lists.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"href": {"link"}, "src": {"audio", "embed", "iframe", "img", "input", "script", "source", "track", "video"}}
"""Attributes that a browser loads by itself, and the elements that have them. A hyperlink waits for a click."""
MADE = {"genindex", "py-modindex", "search"}
"""Pages that Sphinx makes."""


class Page(HTMLParser):
    """What a page loads, where it leads, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if not value:
                continue
            if tag in LOADED.get(name, ()) or name == "srcset":
                self.loaded.append(value)
            elif name == "href":
                self.links.append(value)
            elif name == "id":
                self.anchors.add(value)


def problems_of(site: Path) -> Iterator[str]:
    """Say what is wrong with the pages below a folder."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for url in page.loaded:
            if urlsplit(url).netloc:
                yield f"{name} loads {url}"
            elif not urlsplit(url).scheme and not (path.parent / unquote(urlsplit(url).path)).exists():
                yield f"{name} loads {url}, which does not exist"
        for url in page.links:
            if problem := _link_problem(path, url, pages):
                yield f"{name}: {problem}"
    for style in sorted(site.rglob("*.css")):
        for url in re.findall(r"(?:url\(|@import )\s*[\"']?(?:https?:)?(//[^\"')]+)", style.read_text()):
            yield f"{style.relative_to(site)} loads {url}"
    yield from _unlisted(site, pages)


def _link_problem(path: Path, url: str, pages: dict[Path, Page]) -> str | None:
    target = urlsplit(url)
    if target.scheme or target.netloc:
        return None
    file = (path.parent / unquote(target.path)).resolve() if target.path else path
    if not file.exists():
        return f"the link {url} leads to no file"
    if target.fragment and file in pages and unquote(target.fragment) not in pages[file].anchors:
        return f"the link {url} leads to no anchor"
    return None


def _unlisted(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Yield the pages that a reader of the site, or of ``llms.txt``, does not find."""
    listed = set(re.findall(r"\]\(([^)#]+\.md)\)", (site / "llms.txt").read_text()))
    found = {site / "index.html"}
    waiting = [site / "index.html"]
    while waiting:
        here = waiting.pop()
        linked = {(here.parent / unquote(urlsplit(url).path)).resolve() for url in pages[here].links}
        waiting += linked & pages.keys() - found
        found |= linked & pages.keys()
    for path in pages:
        name = str(path.relative_to(site).with_suffix(""))
        if name in MADE:
            continue
        if path not in found:
            yield f"{name} cannot be reached from the first page"
        if f"{name}.md" not in listed:
            yield f"{name} is not in llms.txt"
        if not path.with_suffix(".md").exists():
            yield f"{name} has no Markdown for llms.txt"
    if not (site / "llms-full.txt").exists():
        yield "llms-full.txt is missing"
    if not (site / "searchindex.js").exists():
        yield "there is no index for the search"


def main() -> None:
    [_, folder] = sys.argv
    site = Path(folder).resolve()
    if problems := list(problems_of(site)):
        sys.exit("\n".join(["The documentation is not complete:", *problems]))
    count = sum(1 for _ in site.rglob("*.html"))
    print(f"{count} pages in {folder}: no page loads anything from another host, and all links lead to a page.")


if __name__ == "__main__":
    main()
