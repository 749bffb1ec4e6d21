"""What a new try makes of what an earlier one has noted. Pure: decided here alone, and without any call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from airflow_provider_odirouter.durability import OnLostSubmit
from airflow_provider_odirouter.errors import LostSubmitError
from airflow_provider_odirouter.models import BatchItem, Phase

PAID = frozenset({Phase.SUBMITTED, Phase.SUCCEEDED, Phase.LANDED})
"""What a new try goes on with."""


@dataclass
class Carried:
    """
    The edits of a new try, and what is to be done about an earlier one's.

    :param unwanted: Requests that may be running and that nobody wants any more; with the edit that goes on with it if
        it cannot be cancelled any more.
    :param lost: How many submits of an earlier try have an unknown fate, and are made again.
    """

    items: list[BatchItem] = field(default_factory=list)
    unwanted: dict[str, BatchItem | None] = field(default_factory=dict)
    lost: int = 0

    def go_on_with(self, request_id: str) -> None:
        """Go on with a request that could not be cancelled."""
        if item := self.unwanted[request_id]:
            self.items[item.number - 1] = item

    def remarks(self) -> Iterator[str]:
        """Say what the user should know of it."""
        if goes_on := sum(item.phase is not Phase.PLANNED for item in self.items):
            yield f"This try goes on with {goes_on:,} of {len(self.items):,} edits, and does not pay for them again."
        if self.lost:
            yield (
                f"An earlier try died during {self.lost} submits. Those requests may be running and may be paid; "
                "OdiRouter has no way to find out. They are submitted again."
            )
        if self.unwanted:
            yield f"{len(self.unwanted):,} requests of an earlier try may be running that are not wanted any more."


def carry_over(
    planned: Iterable[BatchItem],
    noted: Iterable[BatchItem],
    *,
    cleared: bool,
    may_cancel: bool,
    on_lost_submit: OnLostSubmit,
) -> Carried:
    """
    Match the edits of this try with what an earlier one has noted, by what is submitted and not by their places.

    :param cleared: Whether a user has cleared the task since.
    :param may_cancel: Whether live requests that are not wanted are cancelled.
    """
    carried = Carried()
    planned, noted = list(planned), list(noted)
    matches = _matches(planned, noted)
    for item in planned:
        same = matches.get(item.number)
        carried.items.append(
            item
            if same is None
            else _next(carried, item, same, cleared=cleared, may_cancel=may_cancel, on_lost_submit=on_lost_submit)
        )
    taken = {same.number for same in matches.values()}
    left = [item for item in noted if item.is_alive and item.number not in taken]
    carried.unwanted |= {item.request_id: None for item in left if item.request_id}
    return carried


def _matches(planned: Iterable[BatchItem], noted: Iterable[BatchItem]) -> dict[int, BatchItem]:
    """
    Return what was noted of each edit, by the edit's number.

    Some may be the same but for their names, and meant so. What is paid then comes first, and goes to the edit of its
    name if that is still wanted, else to any.
    """
    wanted: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for item in planned:
        wanted[item.fingerprint][item.name] = item.number
    matches: dict[int, BatchItem] = {}
    for one in sorted(noted, key=lambda one: (one.phase not in PAID, one.name not in wanted[one.fingerprint])):
        if numbers := wanted[one.fingerprint]:
            name = one.name if one.name in numbers else next(iter(numbers))
            matches[numbers.pop(name)] = one
    return matches


def _next(
    carried: Carried,
    item: BatchItem,
    same: BatchItem,
    *,
    cleared: bool,
    may_cancel: bool,
    on_lost_submit: OnLostSubmit,
) -> BatchItem:
    # Its place, its name and the paths of its pictures are those of now.
    now = {"number": item.number, "name": item.name, "edit": item.edit, "sha256": item.sha256}
    goes_on = same.model_copy(update={**now, "error": None, "error_type": None})
    match same.phase:
        case Phase.LANDED if same.name != item.name:
            return goes_on.model_copy(update={"phase": Phase.SUCCEEDED, "outputs": ()})
        case Phase.LANDED | Phase.SUCCEEDED:
            return goes_on
        case Phase.SUBMITTED if cleared and may_cancel and same.request_id:
            carried.unwanted[same.request_id] = goes_on
            return item
        case Phase.SUBMITTED:
            return goes_on
        case Phase.SUBMITTING if on_lost_submit == "fail" and not cleared:
            error = LostSubmitError("An earlier try died during the submit; its fate is unknown.")
            return failed(item, error)
        case Phase.SUBMITTING:
            carried.lost += 1
            return item
        case Phase.FAILED if not (same.retry_helps or cleared):
            return same.model_copy(update=now)
    return item


def failed(item: BatchItem, error: Exception, *, error_type: str | None = None) -> BatchItem:
    """
    Return an edit that has failed.

    :param error_type: The vendor's, if there is one.
    """
    return item.model_copy(
        update={
            "phase": Phase.FAILED,
            "error": str(error),
            "error_type": error_type or type(error).__name__,
            "retry_helps": getattr(error, "retry_helps", True),
        }
    )


def submitted_anew(item: BatchItem) -> BatchItem:
    """Return an edit whose request is over and brought nothing: as it was before its submit."""
    return item.model_copy(update={"phase": Phase.PLANNED, "request_id": None, "submitted_at": None, "try_number": 0})
