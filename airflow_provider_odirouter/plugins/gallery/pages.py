"""The gallery's pages, made on the server: every text is escaped by the template engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_provider_odirouter.images.paths import without_password
from airflow_provider_odirouter.plugins.gallery.addresses import Addresses
from airflow_provider_odirouter.plugins.gallery.instances import Instance, Task
from airflow_provider_odirouter.plugins.gallery.named import Kind, Named, pictures_of

TEMPLATES = Path(__file__).parent / "templates"

STATES = {
    None: "not scheduled yet",
    "scheduled": "scheduled",
    "queued": "waits for a worker",
    "running": "runs on a worker",
    "deferred": "waits for OdiRouter",
    "up_for_retry": "failed, and will be tried again",
    "up_for_reschedule": "waits for OdiRouter",
    "restarting": "is restarted",
    "success": "succeeded",
    "failed": "failed",
    "upstream_failed": "not run: an upstream task failed",
    "skipped": "skipped",
    "removed": "removed",
}
EXPIRED = "The vendor's link to this picture has expired, or cannot be reached. Set output_path to keep pictures."
UNREACHABLE = "This address has no picture any more, or cannot be reached."
UNREADABLE = (
    "The API server finds no picture there. What lies on a worker's own disk is seen only if that disk is shared; an "
    "object store can be read from everywhere."
)


@dataclass(frozen=True)
class Page:
    """A page, but for the nonce that lets its own style and script be used."""

    template: str
    content: dict[str, Any]

    def render(self, nonce: str) -> str:
        """Return the HTML."""
        return _environment().get_template(self.template).render(nonce=nonce, **self.content)


@dataclass(frozen=True)
class Figure:
    """
    A picture on a page.

    :param cover: What covers the editable part, if there is a mask of it.
    :param missing: What is said if the browser cannot show it.
    """

    title: str
    alt: str
    small: str
    whole: str
    missing: str
    is_linked: bool
    is_loaded: bool
    place: str
    facts: Sequence[str] = ()
    cover: str | None = None


def is_loaded(picture: Named) -> bool:
    """
    Return whether a page loads a picture by itself.

    Not an input behind a link: whoever starts a run can name any address, such as the one that logs its reader out.
    """
    return picture.kind is Kind.OUTPUT or not picture.is_linked


def notice(text: str) -> Page:
    """Make a page that says one thing."""
    return Page("notice.html", {"title": "Images", "text": text, "refresh": False})


def instance_page(addresses: Addresses, instance: Instance) -> Page:
    """Make the page of a task instance: what it was given beside what it has made."""
    if not instance.is_ours:
        return notice("This task edits no pictures with OdiRouter, so there is nothing to show here.")
    pictures = list(pictures_of(instance))
    mask = next((one for one in pictures if one.kind is Kind.MASK and not one.is_linked), None)
    content = {
        "title": f"Images of {_name(instance)}",
        "name": _name(instance),
        "state": instance.state or "none",
        "state_words": STATES.get(instance.state, instance.state),
        "instance": instance,
        "request_id": _first(instance, "request_id"),
        "endpoint": _first(instance, "endpoint"),
        "prompt": _parameters(instance).get("prompt"),
        "parameters": {name: _text(value) for name, value in _parameters(instance).items() if name != "prompt"},
        "inputs": [_figure(addresses, instance, one, mask) for one in pictures if one.kind is not Kind.OUTPUT],
        "outputs": [_figure(addresses, instance, one, mask) for one in pictures if one.kind is Kind.OUTPUT],
        "all": addresses.all_of(instance.task) if instance.map_index >= 0 else None,
        "refresh": not instance.has_ended,
    }
    return Page("instance.html", content)


def grid(addresses: Addresses, task: Task, found: Sequence[Instance], *, page: int, pages: int, total: int) -> Page:
    """Make the page of a mapped task: a card for each of its instances."""
    if not any(instance.is_ours for instance in found):
        return notice("This task edits no pictures with OdiRouter, so there is nothing to show here.")
    content = {
        "title": f"Images of {task.task_id}",
        "task": task,
        "cards": [_card(addresses, instance) for instance in found],
        "page": page,
        "pages": pages,
        "total": total,
        "earlier": addresses.all_of(task, page - 1) if page > 1 else None,
        "later": addresses.all_of(task, page + 1) if page < pages else None,
        "refresh": not all(instance.has_ended for instance in found),
    }
    return Page("grid.html", content)


def _card(addresses: Addresses, instance: Instance) -> dict[str, Any]:
    pictures = sorted(filter(is_loaded, pictures_of(instance)), key=lambda one: one.kind is not Kind.OUTPUT)
    return {
        "name": f"[{instance.label or instance.map_index}]",
        "href": addresses.instance(instance),
        "state": instance.state or "none",
        "state_words": STATES.get(instance.state, instance.state),
        "figure": _figure(addresses, instance, pictures[0], None) if pictures else None,
        "more": max(0, sum(one.kind is Kind.OUTPUT for one in pictures) - 1),
    }


def _figure(addresses: Addresses, instance: Instance, picture: Named, mask: Named | None) -> Figure:
    number = f" {picture.index + 1}"
    match picture.kind:
        case Kind.OUTPUT:
            title, missing = f"Output{number}", EXPIRED if picture.is_linked else UNREADABLE
            content_type = picture.output.content_type if picture.output else None
            if content_type and not content_type.startswith("image/"):
                missing = f"It is no picture, but {content_type}."
            alt = f"Output{number} of: {_parameters(instance).get('prompt') or instance.task.task_id}"[:200]
        case Kind.IMAGE:
            title, missing = f"Input{number}", UNREACHABLE if picture.is_linked else UNREADABLE
            alt = f"Input{number}: {picture.file_name}"
        case Kind.MASK:
            title, missing = "Mask", UNREACHABLE if picture.is_linked else UNREADABLE
            alt = f"Mask: {picture.file_name}. Its transparent part may be edited."
    # A mask is of the first image.
    is_masked = mask and (picture.kind, picture.index) == (Kind.IMAGE, 0)
    return Figure(
        title=title,
        alt=alt,
        small=addresses.small(instance, picture),
        whole=addresses.whole(instance, picture),
        missing=missing,
        is_linked=picture.is_linked,
        is_loaded=is_loaded(picture),
        place=without_password(picture.place),
        facts=_facts(picture),
        cover=addresses.cover(instance, mask) if mask and is_masked else None,
    )


def _facts(picture: Named) -> list[str]:
    if not (output := picture.output):
        return []
    facts = [(output.content_type or "").removeprefix("image/").upper()]
    if output.width and output.height:
        facts.append(f"{output.width} × {output.height}")
    if output.size_bytes is not None:
        facts.append(_size(output.size_bytes))
    return [fact for fact in facts if fact]


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _name(instance: Instance) -> str:
    index = f" [{instance.label or instance.map_index}]" if instance.map_index >= 0 else ""
    return f"{instance.task.task_id}{index}"


def _first(instance: Instance, name: str) -> Any:
    records = (instance.request, instance.manifest, instance.failure)
    return next((value for record in records if (value := getattr(record, name, None))), None)


def _parameters(instance: Instance) -> dict[str, Any]:
    return instance.request.parameters if instance.request else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _moment(at: datetime) -> str:
    try:
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:  # the year 1, a few hours before
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
