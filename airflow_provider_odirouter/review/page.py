"""
The page of a review: its Markdown, and the switches of its form.

The page is Airflow's *Required Actions*. It shows Markdown, but no HTML, and loads the gallery's pictures with the
reader's own login. Texts of users stand in code spans, where nothing is Markdown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

from airflow_provider_odirouter.addresses import EDIT, SMALL, WHOLE, of_version
from airflow_provider_odirouter.images.inputs import is_url
from airflow_provider_odirouter.models import LandedOutput
from airflow_provider_odirouter.redaction import shorten_url, shorten_urls
from airflow_provider_odirouter.review.input import ReviewedEdit, count_outputs

MAX_BYTES = 60_000
"""Of the Markdown: Airflow's column holds 64 KiB on MySQL."""
MAX_NAME = 60
SHOWN_ELSEWHERE = "The names or the prompts are long, so this page is shortened; the *Images* tab shows all."


class Addresses(NamedTuple):
    """
    Where the review's pictures are, relative to the address of Airflow's UI, which may have a prefix.

    :param instance: The gallery's address of the review's task instance.
    :param tab: The UI's address of its *Images* tab.
    """

    instance: str
    tab: str


class _Detail(NamedTuple):
    """What a page has space for."""

    prompt: int = 200
    """Characters of each prompt."""
    links: bool = True
    """Whether each picture leads to the large one."""
    inputs: bool = True
    outputs: bool = True


DETAILS = (
    _Detail(),
    _Detail(100),
    _Detail(50),
    _Detail(50, links=False),
    _Detail(50, links=False, inputs=False),
    _Detail(0, links=False, inputs=False),
    _Detail(50, links=False, inputs=False, outputs=False),
    _Detail(0, links=False, inputs=False, outputs=False),
)
"""From most to least: the page gets the first that fits."""


def switch_names(edits: Sequence[ReviewedEdit]) -> dict[str, str]:
    """Return the titles of the switches, one for each picture, by the keys of their values."""
    return {f"keep_{number}": title for number, title, _, _ in _pictures(edits)}


def make_body(edits: Sequence[ReviewedEdit], addresses: Addresses, *, preselect: bool) -> str:
    """
    Return the Markdown, of at most :data:`MAX_BYTES`.

    :param preselect: Whether the switches are on at first.
    """
    prompts = [shorten(shorten_urls(str(edit.item.edit.get("prompt") or "")), DETAILS[0].prompt) for edit in edits]
    bodies = (_body(edits, prompts, addresses, detail, preselect=preselect) for detail in DETAILS)
    return next(body for body in bodies if len(body.encode()) <= MAX_BYTES)


def code(text: str, max_length: int) -> str:
    """Return a text of a user's as a code span of one line, in which no character has a meaning."""
    text = shorten(text, max_length)
    if not text:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def shorten(text: str, max_length: int) -> str:
    """Return a text in one line, cut, and without characters that hide others or change their order."""
    # The rest of a text of 32,000 characters is not shown, unless the first ones are blanks.
    text = " ".join("".join(map(_visible, text[: 8 * max_length])).split()) + text[8 * max_length :][:max_length]
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…" if max_length else ""


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in {"Cc", "Zl", "Zp"}:
        return " "
    # A zero width joiner makes one emoji of two; lone surrogates cannot be stored.
    return "" if category in {"Cf", "Cs"} and character != "\u200d" else character


def _pictures(edits: Sequence[ReviewedEdit]) -> Iterator[tuple[int, str, ReviewedEdit, int]]:
    """Yield the number of each picture on the page, the title of its switch, its edit, and its position there."""
    pictures = [(edit, index) for edit in edits for index, _ in edit.outputs()]
    for number, (edit, index) in enumerate(pictures, start=1):
        yield number, f"Keep {number}: {shorten(edit.item.name, MAX_NAME)}", edit, index


def _body(
    edits: Sequence[ReviewedEdit], prompts: Sequence[str], addresses: Addresses, detail: _Detail, *, preselect: bool
) -> str:
    count = count_outputs(edits)
    pictures = "1 picture" if count == 1 else f"{count} pictures"
    do = "Switch off each that must not be used." if preselect else "Switch on each that may be used."
    numbers = {(edit.item.number, index): number for number, _, edit, index in _pictures(edits)}
    is_common = len(edits) > 1 and len(set(prompts)) == 1
    parts = [f"**{pictures}.** {do} The [Images]({addresses.tab}) tab shows them larger."]
    parts += [SHOWN_ELSEWHERE] if detail != DETAILS[0] else []
    parts += [_prompt("Prompt of all", prompts[0], detail)] if is_common else []
    for edit, prompt in zip(edits, prompts, strict=True):
        base = addresses.instance + EDIT.format(number=edit.item.number)
        parts += [
            f"#### {edit.item.number}. {code(edit.item.name, MAX_NAME)}",
            "" if is_common else _prompt("Prompt", prompt, detail),
            _table(edit, base, detail, {index: numbers[edit.item.number, index] for index, _ in edit.outputs()}),
        ]
    return "\n\n".join(filter(None, parts))


def _prompt(title: str, prompt: str, detail: _Detail) -> str:
    shown = code(prompt, detail.prompt)
    return f"{title}: {shown}" if shown else ""


def _table(edit: ReviewedEdit, base: str, detail: _Detail, numbers: dict[int, int]) -> str:
    """Return the input beside the outputs, one row for each output."""
    if not detail.outputs:
        return " ".join(f"**Keep {number}**" for number in numbers.values())
    cells = [f"**Keep {numbers[index]}** {_output(base, index, output, detail)}" for index, output in edit.outputs()]
    if not detail.inputs:
        return "\n\n".join(cells)
    first, *rest = cells
    inputs = " ".join(_inputs(edit, base, detail)) or "not known here"
    return "\n".join(
        ["| Input | Output |", "| --- | --- |", f"| {inputs} | {first} |", *(f"| | {one} |" for one in rest)]
    )


def _inputs(edit: ReviewedEdit, base: str, detail: _Detail) -> Iterator[str]:
    images = edit.item.edit.get("images")
    for index, source in enumerate(images if isinstance(images, list) else []):
        if is_url(str(source)):
            yield f"[Input {index + 1}, a link]({_escaped(shorten_url(source))})"
        elif digest := edit.item.sha256.get(source):
            yield _picture(f"Input {index + 1}", base, "images", index, digest, detail)


def _output(base: str, index: int, output: LandedOutput, detail: _Detail) -> str:
    if output.path is None:
        link = f"[Open it]({_escaped(output.url or '')})"
        return f"This picture lies behind OdiRouter's link, which expires. {link}"
    return _picture(f"Output {index + 1}", base, "outputs", index, str(output.sha256), detail)


def _picture(alt: str, base: str, kind: str, index: int, sha256: str, detail: _Detail) -> str:
    small, whole = (of_version(base + form.format(kind=kind, index=index), sha256) for form in (SMALL, WHOLE))
    return f"[![{alt}]({small})]({whole})" if detail.links else f"![{alt}]({small})"


def _escaped(url: str) -> str:
    """Return a URL in which no character ends a link, a table's cell or a line."""
    return quote(url, safe="%/:?#@!$&'*+,;=~._-")
