"""The page of a task instance or of an edit of a batch: what it was given beside what it has made."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_odirouter.plugins.gallery.addresses import Addresses
from airflow_provider_odirouter.plugins.gallery.edits import Edit
from airflow_provider_odirouter.plugins.gallery.figures import make_figure
from airflow_provider_odirouter.plugins.gallery.instances import Instance
from airflow_provider_odirouter.plugins.gallery.named import Kind, pictures_of
from airflow_provider_odirouter.plugins.gallery.rendering import Page, notice

NOT_OURS = "This task edits no pictures with OdiRouter, so there is nothing to show here."
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


def heading(instance: Instance) -> dict[str, Any]:
    """Return what begins a page, and stands below a card."""
    words = STATES.get(instance.state, instance.state)
    if isinstance(instance, Edit) and instance.error_type:
        words = f"{words}: {instance.error_type}"
    return {"name": instance.name, "state": instance.state or "none", "state_words": words}


def instance_page(addresses: Addresses, instance: Instance) -> Page:
    """Make the page of a task instance with one edit."""
    if not instance.is_ours:
        return notice(NOT_OURS)
    up = (addresses.all_of(instance.task), "All instances of this task") if instance.map_index >= 0 else None
    return Page("instance.html", _content(addresses, instance) | {"up": up, "earlier": None, "later": None})


def edit_page(addresses: Addresses, edit: Edit, cards: int) -> Page:
    """
    Make the page of an edit of a batch.

    :param cards: On a page of the batch.
    """
    number, total = edit.number, edit.total
    content = {
        "up": (addresses.batch(edit, page=-(-number // cards)), f"All edits of this batch ({total:,})"),
        "earlier": addresses.edit(edit, number - 1) if number > 1 else None,
        "later": addresses.edit(edit, number + 1) if number < total else None,
        # The batch's own says nothing of when this edit was submitted.
        "try_number": None,
    }
    return Page("instance.html", _content(addresses, edit) | content)


def _content(addresses: Addresses, instance: Instance) -> dict[str, Any]:
    pictures = list(pictures_of(instance))
    mask = next((one for one in pictures if one.kind is Kind.MASK and not one.is_linked), None)
    return heading(instance) | {
        "title": f"Images of {instance.name}",
        "instance": instance,
        "request_id": _first(instance, "request_id"),
        "endpoint": _first(instance, "endpoint"),
        "prompt": instance.parameters.get("prompt"),
        "parameters": {name: _text(value) for name, value in instance.parameters.items() if name != "prompt"},
        "inputs": [make_figure(addresses, instance, one, mask) for one in pictures if one.kind is not Kind.OUTPUT],
        "outputs": [make_figure(addresses, instance, one, mask) for one in pictures if one.kind is Kind.OUTPUT],
        "try_number": instance.try_number,
        "refresh": not instance.has_ended,
    }


def _first(instance: Instance, name: str) -> Any:
    records = (instance.request, instance.manifest, instance.failure)
    return next((value for record in records if (value := getattr(record, name, None))), None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
