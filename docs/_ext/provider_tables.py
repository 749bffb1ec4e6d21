"""Tables of the reference that are made from what Airflow and the sandbox read themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pygments.lexers.special import TextLexer
from sphinx.util.docutils import SphinxDirective

from airflow_provider_odirouter.get_provider_info import get_provider_info
from airflow_provider_odirouter.sandbox.__main__ import _OPTIONS
from airflow_provider_odirouter.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from docutils.nodes import Node
    from sphinx.application import Sphinx


class Table(SphinxDirective):
    """A table in Markdown; a subclass makes its rows."""

    def run(self) -> list[Node]:
        """Parse the table where the directive stands."""
        header, *body = self.rows()
        return self.parse_text_to_nodes("\n".join([_line(header), "|" + "---|" * len(header), *map(_line, body)]))

    def rows(self) -> list[tuple[str, ...]]:
        """Return the header and the rows."""
        raise NotImplementedError


class ConnectionFields(Table):
    """The fields of the connection: those of Airflow's own that are used, and the extras."""

    def rows(self) -> list[tuple[str, ...]]:
        """Read them from what Airflow reads."""
        [connection] = get_provider_info()["connection-types"]
        behaviour = connection["ui-field-behaviour"]
        own = [(f"`{name}`", label, behaviour["placeholders"][name]) for name, label in behaviour["relabeling"].items()]
        extras = [
            (f"extra `{name}`", field["label"], _with_code(field["description"]))
            for name, field in connection["conn-fields"].items()
        ]
        return [("field", "label in the form", "meaning"), *own, *extras]


class ConfigOptions(Table):
    """The options of Airflow's configuration."""

    def rows(self) -> list[tuple[str, ...]]:
        """Read them from what Airflow reads."""
        options = [
            (
                f"`[{section}] {name}`",
                f"`{option['default']}`",
                f"{option['description'].strip()} As a variable: `AIRFLOW__{section.upper()}__{name.upper()}`.",
            )
            for section, content in get_provider_info()["config"].items()
            for name, option in content["options"].items()
        ]
        return [("option", "default", "meaning"), *options]


class SandboxOptions(Table):
    """The settings of the sandbox, with the option of the command line that sets each."""

    def rows(self) -> list[tuple[str, ...]]:
        """Read them from the settings' class."""
        options = {name: f"`{option}`" for option, name in _OPTIONS.items()} | {"cancel_supported": "`--no-cancel`"}
        settings = [
            (f"`{name}`", options.get(name, ""), _default(field.get_default()), (field.description or ""))
            for name, field in SandboxSettings.model_fields.items()
        ]
        return [("setting", "option", "default", "meaning"), *settings]


def _line(row: tuple[str, ...]) -> str:
    cells = (cell.replace("|", "\\|").replace("\n", " ").replace("``", "`") for cell in row)
    return f"| {' | '.join(cells)} |"


def _with_code(text: str) -> str:
    """Show the JSON in a text as code."""
    if "{" not in text:
        return text
    begin, end = text.index("{"), text.rindex("}") + 1
    return f"{text[:begin]}`{text[begin:end]}`{text[end:]}"


def _default(value: Any) -> str:
    values = sorted(value) if isinstance(value, frozenset) else value if isinstance(value, tuple) else [value]
    return ", ".join(f"`{one}`" for one in values)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives, and the languages that Pygments does not know by these names."""
    app.add_directive("connection-fields", ConnectionFields)
    app.add_directive("config-options", ConfigOptions)
    app.add_directive("sandbox-settings", SandboxOptions)
    for language in ("jsonl", "csv"):
        app.add_lexer(language, TextLexer)
    return {"parallel_read_safe": True}
