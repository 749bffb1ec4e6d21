"""The edits of a batch in memory: there may be thousands, of which few are in progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

from airflow_provider_odirouter.models import BatchItem, Phase

IN_PROGRESS = frozenset({Phase.SUBMITTING, Phase.SUBMITTED, Phase.SUCCEEDED})


class BatchItems(Sequence[BatchItem]):
    """
    Edits in their order, for many threads.

    Of most, only the line of the state file is kept, from which an edit is made when it is read: an object needs five
    times the memory. Kept as objects are those in progress, and those whose URLs are not whole in their lines.

    :param items: To begin with; their numbers count from 1.
    """

    def __init__(self, items: Iterable[BatchItem] = ()) -> None:
        self.lines: list[bytes] = []
        """As they are in the state files."""
        self.objects: dict[int, BatchItem] = {}
        """By index: at least the edits in progress."""
        if isinstance(items, BatchItems):
            self.lines, self.objects = list(items.lines), dict(items.objects)
        else:
            for item in items:
                self.append(item)

    def append(self, item: BatchItem) -> None:
        """Add the edit with the next number."""
        self.lines.append(b"")
        self[-1] = item

    def __setitem__(self, index: int, item: BatchItem) -> None:
        index = range(len(self))[index]
        line = item.to_line()
        # In this order: a thread that reads the edit meanwhile finds the old one or the new one.
        if item.phase in IN_PROGRESS or (item.phase is Phase.PLANNED and item.without_secrets() != item):
            self.objects[index] = item
            self.lines[index] = line
        else:
            self.lines[index] = line
            self.objects.pop(index, None)

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> BatchItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[BatchItem]: ...
    def __getitem__(self, index: int | slice) -> BatchItem | Sequence[BatchItem]:
        indices = range(len(self))[index]
        if isinstance(indices, range):
            return [self[one] for one in indices]
        return self.objects.get(indices) or BatchItem.model_validate_json(self.lines[indices])
