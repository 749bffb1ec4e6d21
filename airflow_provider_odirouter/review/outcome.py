"""What becomes of a person's answer: which pictures are approved, and which are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_odirouter.review.input import ReviewedEdit


def split(edits: Sequence[ReviewedEdit], approved: Mapping[str, bool]) -> dict[str, list[dict[str, Any]]]:
    """
    Return the approved and the rejected pictures, each with the manifest or the line of its edit.

    :param approved: Of each picture, by the key of its switch, in the order of the pictures.
    """
    answers = iter(approved.values())
    chosen: dict[str, list[dict[str, Any]]] = {"approved": [], "rejected": []}
    for edit in edits:
        answer_of = {index: next(answers) for index, _ in edit.outputs()}
        for name, wanted in (("approved", True), ("rejected", False)):
            if indexes := [index for index, answer in answer_of.items() if answer is wanted]:
                chosen[name].append(edit.with_outputs(indexes))
    return chosen


def count(entries: Iterable[Mapping[str, Any]]) -> int:
    """Return how many pictures manifests have."""
    return sum(len(entry["outputs"]) for entry in entries)
