"""The edits of a batch, each seen as if it were a task instance of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from airflow_provider_odirouter.models import BatchItem, Manifest
from airflow_provider_odirouter.plugins.gallery.files import NotShownError
from airflow_provider_odirouter.plugins.gallery.instances import Instance
from airflow_provider_odirouter.plugins.gallery.manifests import LONGEST_LINE, lines_of, place_of
from airflow_provider_odirouter.records import FailureRecord, RequestRecord

PICTURES = frozenset({"images", "mask"})
UNEXPLAINED = "This edit has no outputs, and its manifest does not say why."


@dataclass(frozen=True)
class Edit(Instance):
    """
    An edit of a batch.

    :param number: Its place among them, from 1.
    :param total: How many there are.
    :param folder: Where its manifest lies.
    :param stem: What the names of its files begin with, as its manifest says.
    :param error_type: What kind of failure it was.
    """

    number: int
    total: int
    folder: str
    stem: str
    error_type: str | None

    @property
    def name(self) -> str:
        """What people call it."""
        # One that the user has given no name begins with the batch's own, which is long and says nothing here.
        return f"{self.number}. {self.stem.removeprefix(f'{self.file_name}-')}"

    def can_have_landed(self, path: str) -> bool:
        """Return whether a file can be its output: it lies beside the manifest."""
        folder, _, name = path.rpartition("/")
        return folder == self.folder and name.startswith(f"{self.stem}-")


@dataclass(frozen=True)
class Edits:
    """All edits of a batch that has ended: lines, each of which is understood when it is needed."""

    batch: Instance
    lines: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.lines)

    def some(self, first: int, most: int) -> Iterator[Edit | None]:
        """Yield edits in order; ``None`` where a line cannot be understood."""
        for number in range(first, min(first + most, len(self) + 1)):
            yield self._edit(number)

    def one(self, number: int) -> Edit:
        """
        Return an edit.

        :raises NotShownError: If there is none.
        """
        if not 1 <= number <= len(self):
            raise NotShownError("This batch has no such edit.", 404)
        edit = self._edit(number)
        if edit is None:
            raise NotShownError(f"Line {number} of the batch's manifest cannot be understood.", 502)
        return edit

    def _edit(self, number: int) -> Edit | None:
        line = self.lines[number - 1]
        if len(line) > LONGEST_LINE:
            return None
        try:
            return _seen(self.batch, BatchItem.model_validate_json(line), number, len(self))
        except ValidationError:
            return None


async def edits_of(batch: Instance) -> Edits:
    """
    Return the edits of a batch, as its manifest tells of them; none, if it has written no manifest yet.

    :raises NotShownError: If the manifest cannot be shown.
    """
    return Edits(batch, await lines_of(batch))


def _seen(batch: Instance, item: BatchItem, number: int, total: int) -> Edit:
    known: dict[str, Any] = {
        "request_id": item.request_id or "",
        "endpoint": batch.told.endpoint if batch.told else "",
        "submitted_at": item.submitted_at,
    }
    pictures = {name: value for name, value in item.edit.items() if name in PICTURES}
    parameters = {name: value for name, value in item.edit.items() if name not in PICTURES}
    return Edit(
        task=batch.task,
        map_index=batch.map_index,
        state="success" if item.outputs else "failed",
        label=batch.label,
        operator=batch.operator,
        try_number=batch.try_number,
        request=RequestRecord.model_validate(known | pictures | {"sha256": item.sha256, "parameters": parameters}),
        manifest=Manifest(
            # All have landed: a batch leaves nothing behind the vendor's links.
            outputs=tuple(output.model_copy(update={"url": None}) for output in item.outputs),
            completed_at=item.completed_at,
            inference_seconds=item.inference_seconds,
            **known,
        ),
        failure=None if item.outputs else FailureRecord(what=item.error or UNEXPLAINED),
        batch=None,
        summary=None,
        number=number,
        total=total,
        folder=(place_of(batch) or "").rpartition("/")[0],
        stem=item.name,
        error_type=item.error_type,
    )
