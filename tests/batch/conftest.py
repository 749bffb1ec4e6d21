"""Edits as a batch remembers them."""

from __future__ import annotations

from functools import partial
from typing import Any

from airflow_provider_odirouter.batch import input as batch_input
from airflow_provider_odirouter.batch.image_edits import ImageEditRules
from airflow_provider_odirouter.models import BatchItem, Phase

IMAGE_EDIT = ImageEditRules()
read_edits = partial(batch_input.read_edits, rules=IMAGE_EDIT)


def item(number: int, what: str = "", phase: Phase = Phase.PLANNED, **fields: Any) -> BatchItem:
    """
    Make an edit.

    :param what: What is submitted: edits of the same are the same.
    """
    what = what or f"edit {number}"
    values: dict[str, Any] = {
        "name": f"name-{number}",
        "edit": {"prompt": what, "images": [f"/in/{number}.png"]},
        "fingerprint": what,
        "phase": phase,
    }
    if phase in {Phase.SUBMITTED, Phase.SUCCEEDED, Phase.LANDED}:
        values |= {"request_id": f"mmsu_{what} of {fields.get('name', number)}", "try_number": 1}
    return BatchItem(number=number, **(values | fields))
