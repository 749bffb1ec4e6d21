"""Grids of cards, on pages: the instances of a mapped task, and the edits of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_odirouter.plugins.gallery.addresses import Addresses
from airflow_provider_odirouter.plugins.gallery.edits import Edits
from airflow_provider_odirouter.plugins.gallery.figures import is_loaded, make_figure
from airflow_provider_odirouter.plugins.gallery.instances import Instance, Task
from airflow_provider_odirouter.plugins.gallery.named import Kind, pictures_of
from airflow_provider_odirouter.plugins.gallery.pages import NOT_OURS, heading
from airflow_provider_odirouter.plugins.gallery.rendering import Page, notice
from airflow_provider_odirouter.redaction import without_password

CARDS = 60
"""On a page."""


def pages_of(total: int) -> int:
    """Return how many pages so many cards take."""
    return max(1, -(-total // CARDS))


def mapped_page(addresses: Addresses, task: Task, found: Sequence[Instance], *, page: int, total: int) -> Page:
    """
    Make a page of a mapped task.

    :param found: Those of its instances that are on the page.
    :param total: How many there are.
    """
    if not any(instance.is_ours for instance in found):
        return notice(NOT_OURS)
    content = {
        "title": f"Images of {task.task_id}",
        "task": task,
        "cards": [_card(addresses, instance, f"[{instance.label or instance.map_index}]") for instance in found],
        "total": total,
        "refresh": not all(instance.has_ended for instance in found),
    }
    return Page("grid.html", content | _paging(page, total, lambda number: addresses.all_of(task, number)))


def batch_page(addresses: Addresses, edits: Edits, *, page: int, trouble: str | None) -> Page:
    """
    Make a page of a batch: how it gets on, and its edits when they are done.

    :param trouble: Why the edits cannot be shown.
    """
    batch, told = edits.batch, edits.batch.told
    manifest = told.manifest if told else None
    page = min(page, pages_of(len(edits)))
    first = (page - 1) * CARDS + 1
    shown = list(edits.some(first, CARDS))
    if broken := [str(number) for number, edit in enumerate(shown, first) if edit is None]:
        trouble = f"The manifest has been changed: what cannot be understood is its line {', '.join(broken)}."
    if manifest and not edits and not trouble:
        trouble = "The manifest is empty."
    content = heading(batch) | {
        "title": f"Images of {batch.name}",
        "instance": batch,
        "counts": counts_of(batch),
        "times": _times_of(batch),
        "trouble": trouble,
        "cards": [_card(addresses, edit, edit.name) for edit in shown if edit],
        "manifest": without_password(manifest) if manifest else None,
        "up": (addresses.all_of(batch.task), "All instances of this task") if batch.map_index >= 0 else None,
        "refresh": not batch.has_ended,
    }
    return Page("batch.html", content | _paging(page, len(edits), lambda number: addresses.batch(batch, number)))


def counts_of(batch: Instance) -> dict[str, int]:
    """Return how many edits of a batch have come how far."""
    if summary := batch.summary:
        return {"edits": summary.edits, "landed": summary.succeeded, "failed": summary.failed}
    if record := batch.batch:
        counts = {"edits": record.edits, "landed": record.landed, "failed": record.failed}
        return counts if batch.has_ended else counts | {"waiting": record.waiting}
    return {}


def _times_of(batch: Instance) -> dict[str, Any]:
    times = {"Submitted": batch.told.submitted_at if batch.told else None}
    if batch.summary:
        times["Completed"] = batch.summary.completed_at
    elif batch.batch and not batch.has_ended:
        times["Given up"] = batch.batch.deadline
    return {name: time for name, time in times.items() if time}


def _paging(page: int, total: int, address: Callable[[int], str]) -> dict[str, Any]:
    pages = pages_of(total)
    return {
        "page": page,
        "pages": pages,
        "earlier": address(page - 1) if page > 1 else None,
        "later": address(page + 1) if page < pages else None,
    }


def _card(addresses: Addresses, instance: Instance, name: str) -> dict[str, Any]:
    pictures = sorted(filter(is_loaded, pictures_of(instance)), key=lambda one: one.kind is not Kind.OUTPUT)
    return heading(instance) | {
        "name": name,
        "href": addresses.instance(instance),
        "figure": make_figure(addresses, instance, pictures[0], None) if pictures else None,
        "counts": counts_of(instance),
        "empty": "no picture" if instance.has_ended else "no picture yet",
        "more": max(0, sum(one.kind is Kind.OUTPUT for one in pictures) - 1),
    }
