"""
A batch on a worker: each edit is submitted, waited for and landed on its own, side by side with the others.

Threads submit and land, an event loop waits; the main thread starts them and handles their ends, and so knows at any
moment how many requests may be alive.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

from airflow_provider_odirouter.batch.endings import (
    BatchOptions,
    as_ended,
    complete_event,
    land_edit,
)
from airflow_provider_odirouter.batch.pace import SubmitPace
from airflow_provider_odirouter.batch.progress import BatchProgress
from airflow_provider_odirouter.batch.resume import ResumePlan, as_planned
from airflow_provider_odirouter.batch.state import BatchStore
from airflow_provider_odirouter.batch.submit import BatchSubmitter
from airflow_provider_odirouter.errors import (
    BatchStateMissingError,
    NotOwnerError,
    OdiRouterError,
    RateLimitedError,
    RequestTimeoutError,
    SubmitLimitError,
)
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.cancel import Outcome, cancel_on_worker
from airflow_provider_odirouter.lifecycle.guard import RequestGuard
from airflow_provider_odirouter.lifecycle.polling import OVER_AFTER_CANCEL, Wait, deadline_of
from airflow_provider_odirouter.lifecycle.state import TaskStateStore
from airflow_provider_odirouter.lifecycle.wait import WorkerLoop, wait_for
from airflow_provider_odirouter.models import BatchEvent, BatchItem, Phase, RequestEvent
from airflow_provider_odirouter.storage.threads import MAX_WORKERS, Jobs, Then

log = logging.getLogger(__name__)

SAVE_SECONDS = 10.0
"""How old the counts that people see may be, and the endings that the state does not hold yet."""


class Pipeline:
    """
    The edits of a batch while a worker runs it; its guard holds their requests.

    :param publish: Called in the main thread when the counts have changed, and are saved.
    """

    def __init__(
        self,
        hook: OdiRouterHook,
        store: BatchStore,
        guard: RequestGuard,
        options: BatchOptions,
        *,
        publish: Callable[[], object],
    ) -> None:
        self.store = store
        self.guard = guard
        self._hook = hook
        self._options = options
        self._publish = publish
        self._submitter = BatchSubmitter(hook, store, guard, options)
        self._pace = SubmitPace(options.max_in_flight)
        self._jobs = Jobs(options.max_concurrent_submits + MAX_WORKERS + 1)  # one more saves
        self._began_at = datetime.now(UTC)
        # The numbers of the edits that are to be submitted, are submitted now, and so on.
        self._planned: deque[int] = deque()
        self._submitting: set[int] = set()
        self._submits = 0
        """Of the task instance in all its tries, without those that are submitted now."""
        self._alive: set[int] = set()
        """Their requests may be running, also if their wait has ended."""
        self._events: dict[int, RequestEvent] = {}
        """How waits have ended that a trigger has made."""
        self._waits: dict[int, Wait] = {}
        self._unlanded: deque[int] = deque()
        self._landing: set[int] = set()
        self._loop: WorkerLoop
        self._progress: BatchProgress
        self._saved_at = time.monotonic()
        self._is_saving = False
        self._has_news = False

    @property
    def error(self) -> OdiRouterError | None:
        """Why the remaining edits are not submitted."""
        return self._submitter.error

    # --- Before it runs

    def begin(self, plan: ResumePlan, store: TaskStateStore | None) -> None:
        """
        Take over an earlier try's edits, and cancel those of its requests that this try does not need.

        :param store: Airflow's, if there is one.
        :raises OdiRouterError: If a request of a cleared task cannot be cancelled: a new one would be paid beside it.
        """
        for remark in plan.remarks():
            log.warning(remark)
        if plan.unwanted and self._options.cancel_on_kill:
            outcomes: dict[str, Outcome] = {}
            for endpoint in dict.fromkeys(map(plan.endpoints.__getitem__, plan.unwanted)):
                unwanted = [one for one in plan.unwanted if plan.endpoints[one] == endpoint]
                outcomes |= cancel_on_worker(
                    self._hook, endpoint, unwanted, cause="not_needed", why="This try does not need them."
                )
            for request_id, outcome in outcomes.items():
                if isinstance(outcome, Exception) and plan.unwanted[request_id]:
                    raise outcome
                if outcome not in OVER_AFTER_CANCEL:
                    plan.keep_waiting_for(request_id)
        self.store.begin(plan.items, store, plan.spent_on_others)

    def stop_submitting(self, error: OdiRouterError) -> None:
        """
        Leave the remaining edits to another try.

        :param error: Why.
        """
        self._submitter.stop(error)

    def pending(self) -> list[str]:
        """Return the requests to wait for: those that may be running, and whose wait has not ended."""
        return [str(item.request_id) for item in self.store.submitted() if item.error is None]

    def events_of(self, ended: BatchEvent) -> list[RequestEvent]:
        """
        Return the events that the trigger's event is made of, one for each request.

        :raises BatchStateMissingError: If it is about other requests than this batch waits for.
        """
        request_ids = self.pending()
        if not ended.is_for(request_ids):
            raise BatchStateMissingError(
                "The trigger's event and the batch's state name different requests.",
                advice="A retry polls each request that the batch's state names, and pays for none again.",
                last_advice="Clear the task: it polls each request that the batch's state names.",
            )
        return list(ended.events(self._options.endpoint, request_ids))

    # --- For the guard

    def request_ids(self) -> Sequence[str]:
        """Return the requests that may be running; without those that a last try leaves running on purpose."""
        submitted = self.store.submitted()
        return [str(item.request_id) for item in submitted if item.error is None or self._options.will_be_retried]

    def forget(self, request_ids: Collection[str]) -> None:
        """Let a new try submit the edits of these requests, which are over."""
        for item in self.store.submitted():
            if item.request_id in request_ids:
                self.store.stage(as_planned(item))
        try:
            self.store.save()
        except OdiRouterError as error:
            log.warning("%d requests are cancelled, but that could not be saved: %s", len(request_ids), error)

    # --- While it runs

    def run(self, events: Iterable[RequestEvent] = ()) -> list[Wait]:
        """
        Submit, wait and land until nothing is left to do for a worker.

        :param events: How the waits have ended that a trigger has made.
        :return: What is left to wait for in a trigger, in the order of the edits: nothing, unless the task defers.
        :raises StorageError: If the batch's state cannot be saved.
        """
        self._take_up(events)
        try:
            while True:
                with WorkerLoop(self._hook, self._jobs.report_error) as self._loop:
                    for number in [*self._events, *self._waits]:
                        self._start_wait(number)
                    while self._start_next():
                        self._jobs.handle_next()
                        self._report()
                self._jobs.handle_ended()  # such as a wait that has ended since
                if not self._has_work:
                    break
            self.store.save()
        except BaseException:
            self.guard.stop_submitting()
            self._submitter.wait_for_answers()
            self._try_to_save()
            raise
        finally:
            self._jobs.close()
        self._progress.log(self.store.items)
        return [self._waits[number] for number in sorted(self._waits)]

    def _take_up(self, events: Iterable[RequestEvent]) -> None:
        """Sort the edits by what is to be done with each."""
        self._progress = BatchProgress(self.store.items)
        self._submits = self.store.spent().submits
        by_request = {event.request_id: event for event in events}
        for item in self.store.items:
            match item.phase:
                case Phase.PLANNED:
                    self._planned.append(item.number)
                case Phase.SUBMITTED:
                    self._alive.add(item.number)
                    if event := by_request.get(str(item.request_id)):
                        self._events[item.number] = event
                    elif item.error is None:
                        self._waits[item.number] = self._make_wait(item)
                case Phase.SUCCEEDED:
                    self._unlanded.append(item.number)

    def _start_next(self) -> bool:
        """Start all that may start, and return whether there is more to do, now or when something has ended."""
        while self._planned and self._may_submit():
            self._start_submit(self._planned.popleft())
        while self._unlanded and len(self._landing) < MAX_WORKERS and not self._is_leaving:
            self._start_landing(self._unlanded.popleft())
        return self._has_work

    @property
    def _has_work(self) -> bool:
        if self._submitting or self._landing or self._events or self._is_saving or self._has_submits:
            return True
        return bool(self._waits or self._unlanded) and not self._is_leaving

    @property
    def _has_submits(self) -> bool:
        """Whether edits are to be submitted, now or when a request has ended."""
        has_slots = len(self._alive) < self._options.max_in_flight or self._waits
        return bool(self._planned and self.guard.may_submit and has_slots)

    @property
    def _is_leaving(self) -> bool:
        """Whether the task defers as soon as what is under way has ended: it has submitted all edits that it may."""
        is_busy = self._submitting or self._has_submits or self._events
        return self._options.deferrable and bool(self._waits) and not is_busy

    # --- Submits

    def _may_submit(self) -> bool:
        if not self.guard.may_submit or len(self._submitting) >= self._options.max_concurrent_submits:
            return False
        if self._is_limit_reached():
            return False
        if not self._pace.may_submit(alive=len(self._alive), submitting=len(self._submitting), now=time.monotonic()):
            return False
        if self._options.ends_at and datetime.now(UTC) >= self._options.ends_at:
            # Airflow does not enforce it while the task is deferred. New requests would be cancelled at once.
            self.stop_submitting(RequestTimeoutError("The task's execution_timeout has passed."))
            return False
        return True

    def _is_limit_reached(self) -> bool:
        """Return whether ``max_submits`` allows no further submit, as far as the answers are known by now."""
        limit = self._options.max_submits
        if limit is None or self._submits + len(self._submitting) < limit:
            return False
        if not self._submitting:
            self.stop_submitting(SubmitLimitError(limit, str(self.store.spent())))
        return True

    def _start_submit(self, number: int) -> None:
        item = self.store.item(number)

        def submit() -> Then:
            try:
                self._submitter.submit(item)
            except RateLimitedError as error:
                return partial(self._on_rate_limited, number, error)
            return partial(self._on_submitted, number, item.submits)

        self._submitting.add(number)
        self._jobs.start(submit)

    def _on_submitted(self, number: int, submits_before: int) -> None:
        self._submitting.discard(number)
        item = self.store.item(number)
        self._submits += item.submits - submits_before
        if item.phase is Phase.SUBMITTED:
            self._alive.add(number)
            self._pace.note_submitted(alive=len(self._alive))
            self._waits[number] = self._make_wait(item)
            self._start_wait(number)
        self._note(item)

    def _on_rate_limited(self, number: int, error: RateLimitedError) -> None:
        self._submitting.discard(number)
        self._planned.appendleft(number)
        self._has_news = True  # the saved state still has the intent to submit it
        alive, now = len(self._alive), time.monotonic()
        self._pace.note_rate_limited(error.retry_after, alive=alive, now=now)
        if self._pace.gives_up(alive=alive, now=now):
            self.stop_submitting(error)
        else:
            log.info("%s The edit is submitted later; requests that may be running: %d.", error.what, alive)

    # --- Waits

    def _make_wait(self, item: BatchItem) -> Wait:
        # A new try waits for the request of an earlier one as long as for its own.
        is_own = item.try_number == self._options.try_number
        since = item.submitted_at if is_own and item.submitted_at else self._began_at
        return Wait(
            endpoint=self._options.endpoint,
            request_id=str(item.request_id),
            poll_interval=self._options.poll_interval,
            deadline=deadline_of(since, self._options.timeout, self._options.ends_at).timestamp(),
            cancel_on_timeout=self._options.cancel_on_timeout,
        )

    def _start_wait(self, number: int) -> None:
        """Wait for a request, or complete the event of a wait that a trigger has made."""

        async def wait(client: OdiRouterHook) -> None:
            event = self._events.get(number)
            if event is None:
                event = await wait_for(client, self._waits[number], first_poll_delay=0.0, note=log.debug)
            event = await complete_event(client, event, self._options)
            self._jobs.report(partial(self._on_end, number, event))

        self._loop.start(wait)

    def _on_end(self, number: int, event: RequestEvent) -> None:
        self._events.pop(number, None)
        self._waits.pop(number, None)
        item = self.store.item(number)
        since = item.submitted_at.timestamp() if item.submitted_at else None
        self._hook.metrics.ended(event, submitted_at=since)
        item = as_ended(item, event, self._options)
        self.store.stage(item)
        if item.phase is not Phase.SUBMITTED:
            self._alive.discard(number)
        if item.phase is Phase.SUCCEEDED:
            self._unlanded.append(number)
        elif item.phase is Phase.PLANNED:
            self._planned.append(number)
        self._note(item)

    # --- Landings

    def _start_landing(self, number: int) -> None:
        item = self.store.item(number)
        self._landing.add(number)
        self._jobs.start(lambda: partial(self._on_landed, land_edit(self._hook, item, self._options)))

    def _on_landed(self, item: BatchItem) -> None:
        self._landing.discard(item.number)
        self.store.stage(item)
        self._note(item)

    # --- What people see

    def _note(self, item: BatchItem) -> None:
        self._has_news = True
        self._progress.note(item)

    def _report(self) -> None:
        """Say in the log how far the batch has come, and save and publish the counts, each from time to time."""
        self._progress.log_if_due(lambda: self.store.items)
        if self._is_saving or not self._has_news or time.monotonic() < self._saved_at + SAVE_SECONDS:
            return

        def save() -> Then:
            self.store.save()
            return self._on_saved

        self._is_saving, self._has_news = True, False
        self._jobs.start(save)

    def _on_saved(self) -> None:
        self._is_saving, self._saved_at = False, time.monotonic()
        try:
            self._publish()
        except NotOwnerError:
            raise
        except Exception as error:  # noqa: BLE001 - Airflow's API may be away for a while, which must end nothing
            self.guard.stop_if_killed()  # the error may be that of a kill
            log.warning("The counts of the batch could not be pushed as an XCom; the batch goes on: %s", error)

    def _try_to_save(self) -> None:
        """Save what the next try would otherwise have to find out, where the task fails anyway."""
        try:
            self.store.save()
        except Exception as error:  # noqa: BLE001 - the error that ends the task matters more
            log.warning("The batch's state could not be saved: %s", error)
