"""Pages out of templates: every text is escaped by the template engine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """A page, but for the nonce that lets its own style and script be used."""

    template: str
    content: dict[str, Any]

    def render(self, nonce: str) -> str:
        """Return the HTML."""
        return _environment().get_template(self.template).render(nonce=nonce, **self.content)


def notice(text: str) -> Page:
    """Make a page that says one thing."""
    return Page("notice.html", {"title": "Images", "text": text, "refresh": False})


def _moment(at: datetime) -> str:
    try:
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError):  # the year 1, a few hours before
        return str(at)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = _moment
    return environment
