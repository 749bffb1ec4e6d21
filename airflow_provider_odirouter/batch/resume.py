"""The one decision about retries of a batch: which edits of an earlier try are continued, which submitted. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.errors import LostSubmitError, OdiRouterError
from airflow_provider_odirouter.lifecycle.state import OnLostSubmit
from airflow_provider_odirouter.models import NOTHING_SPENT, BatchItem, Phase, Spending

PAID = frozenset({Phase.SUBMITTED, Phase.SUCCEEDED, Phase.LANDED})
"""A new try continues edits in these phases: their requests are paid, or may be."""


@dataclass
class ResumePlan:
    """
    The edits of a new try, and the requests of an earlier one that it does not need.

    :param unwanted: Requests that may be running and that this try does not need. If a request cannot be cancelled, the
        edit beside it is continued; ``None``: there is no such edit any more.
    :param lost: How many edits are submitted again because an earlier try died during their submit.
    """

    items: BatchItems = field(default_factory=BatchItems)
    unwanted: dict[str, BatchItem | None] = field(default_factory=dict)
    lost: int = 0
    endpoints: dict[str, str] = field(default_factory=dict)
    """Of the unwanted requests: a Dag's endpoint may have changed since then."""
    spent_on_others: Spending = NOTHING_SPENT
    """On edits of the earlier try that are not in the list any more."""
    waits_for_cleared: int = 0
    """How many live requests of a cleared task are kept, since ``max_submits`` forbids to submit their edits again."""

    def drop_request_of(self, saved: BatchItem, *, instead: BatchItem | None) -> None:
        """
        Let the request of an earlier try be cancelled.

        :param instead: The edit that is continued if that fails.
        """
        if saved.request_id:
            self.unwanted[saved.request_id] = instead
            self.endpoints[saved.request_id] = saved.endpoint

    def keep_waiting_for(self, request_id: str) -> None:
        """Continue the edit of a request that could not be cancelled."""
        if item := self.unwanted[request_id]:
            self.items[item.number - 1] = item

    def keep_waiting_for_cleared(self) -> None:
        """Continue the edits whose requests would be cancelled, and then could not be submitted again."""
        for request_id in list(self.unwanted):
            self.keep_waiting_for(request_id)
            del self.unwanted[request_id]
            self.waits_for_cleared += 1

    def remarks(self) -> Iterator[str]:
        """Yield lines for the log."""
        if continued := sum(item.phase is not Phase.PLANNED for item in self.items):
            yield f"This try continues {continued:,} of {len(self.items):,} edits, and does not pay for them again."
        if self.lost:
            yield (
                f"An earlier try died while it submitted. Submits without an answer: {self.lost}. Their requests may "
                "be running and may be paid; OdiRouter has no way to find out. This try submits these edits again."
            )
        if self.waits_for_cleared:
            yield (
                f"max_submits forbids to submit all edits again: this try waits for the {self.waits_for_cleared:,} "
                "requests that may be running, although the task was cleared."
            )
        if self.unwanted:
            yield f"Requests of an earlier try that this try does not need: {len(self.unwanted):,}."


def plan_resume(
    planned: Sequence[BatchItem],
    saved: Sequence[BatchItem],
    *,
    cleared: bool,
    may_cancel: bool,
    on_lost_submit: OnLostSubmit,
    submits_left: float = math.inf,
) -> ResumePlan:
    """
    Decide for each edit whether it is continued or submitted. Edits are matched by content, not by position.

    :param planned: The edits of this try.
    :param saved: The edits of an earlier try, with their states.
    :param cleared: Whether a user has cleared the task since then.
    :param may_cancel: Whether live requests may be cancelled.
    :param submits_left: How many submits ``max_submits`` allows: no live request is cancelled for one that it forbids.
    """
    resume_plan = ResumePlan(BatchItems(planned))
    matches = _match(planned, saved)
    for index, of_saved in sorted(matches.items()):
        same = saved[of_saved]
        resumed = _resume(
            resume_plan, planned[index], same, cleared=cleared, may_cancel=may_cancel, on_lost_submit=on_lost_submit
        )
        resume_plan.items[index] = resumed.model_copy(update=same.spending._asdict())
    if sum(item.phase is Phase.PLANNED for item in resume_plan.items) > submits_left:
        resume_plan.keep_waiting_for_cleared()
    taken = set(matches.values())
    for index, item in enumerate(saved):
        if index not in taken:
            resume_plan.spent_on_others = resume_plan.spent_on_others.plus(item.spending)
            if item.is_alive:
                resume_plan.drop_request_of(item, instead=None)
    return resume_plan


def _match(planned: Sequence[BatchItem], saved: Sequence[BatchItem]) -> dict[int, int]:
    """
    Return which saved edit is the earlier state of which planned one, by the latter's index.

    Several edits may differ in their names only. Then paid requests are used first, each for the edit of its name; if
    that is not in the list any more, for another of these edits.
    """
    if not saved:
        return {}
    wanted: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for index, item in enumerate(planned):
        wanted[item.fingerprint][item.name] = index

    def rank(of_saved: int) -> tuple[bool, bool]:
        one = saved[of_saved]
        return one.phase not in PAID, one.name not in wanted[one.fingerprint]

    matches: dict[int, int] = {}
    for of_saved in sorted(range(len(saved)), key=rank):
        one = saved[of_saved]
        if indices := wanted[one.fingerprint]:
            name = one.name if one.name in indices else next(iter(indices))
            matches[indices.pop(name)] = of_saved
    return matches


def _resume(
    resume_plan: ResumePlan,
    item: BatchItem,
    same: BatchItem,
    *,
    cleared: bool,
    may_cancel: bool,
    on_lost_submit: OnLostSubmit,
) -> BatchItem:
    # Its position, its name and the paths of its pictures may have changed.
    now = item.model_dump(include={"number", "name", "given_name", "own_files", "url_fields"})
    now |= {"edit": item.edit, "sha256": item.sha256}  # a dump would shorten their URLs
    continued = same.model_copy(update={**now, "error": None, "error_type": None})
    match same.phase:
        case Phase.LANDED if same.name != item.name:
            return continued.model_copy(update={"phase": Phase.SUCCEEDED, "outputs": ()})
        case Phase.LANDED | Phase.SUCCEEDED:
            return continued
        case Phase.SUBMITTED if cleared and may_cancel and same.request_id:
            resume_plan.drop_request_of(same, instead=continued)
            return item
        case Phase.SUBMITTED:
            return continued
        case Phase.SUBMITTING if on_lost_submit == "fail" and not cleared:
            error = LostSubmitError("An earlier try died during the submit; it is unknown whether the submit arrived.")
            return as_failed(item, error)
        case Phase.SUBMITTING:
            resume_plan.lost += 1
            return item
        case Phase.FAILED if not (same.retry_helps or cleared):
            return same.model_copy(update=now)
    return item


def as_failed(item: BatchItem, error: Exception, *, error_type: str | None = None) -> BatchItem:
    """
    Return an edit with its failure.

    :param error_type: The vendor's; ``None``: the name of the error's class.
    """
    if isinstance(error, OdiRouterError) and not error.retry_helps:
        error.be_last()
    return item.model_copy(
        update={
            "phase": Phase.FAILED,
            "error": str(error),
            "error_type": error_type or type(error).__name__,
            "retry_helps": getattr(error, "retry_helps", True),
            "own_files": (*item.own_files, *getattr(error, "landed", ())),
        }
    )


def as_planned(item: BatchItem) -> BatchItem:
    """Return an edit as it was before its submit: its request has ended without outputs."""
    return item.model_copy(update={"phase": Phase.PLANNED, "request_id": None, "submitted_at": None, "try_number": 0})
