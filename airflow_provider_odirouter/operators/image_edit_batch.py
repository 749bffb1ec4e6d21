"""The operator for many edits in one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias
from uuid import uuid4

from airflow.sdk import BaseOperator

from airflow_provider_odirouter.operators.base import (
    Check,
    OdiRouterSubmittingTask,
    Place,
    check_count,
    flag_problem,
    name_problem,
    one_of,
    path_problem,
    seconds_problem,
    store_problem,
)
from airflow_provider_odirouter.operators.literals import check_edits, is_open
from airflow_provider_odirouter.operators.queue import SAFETY_MARGIN
from airflow_provider_odirouter.places import AsText

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context, XComArg

    from airflow_provider_odirouter.durability import OnLostSubmit
    from airflow_provider_odirouter.models import RequestEvent
    from airflow_provider_odirouter.operators.batch.batch import Batch
    from airflow_provider_odirouter.operators.batch.ledger import Ledger
    from airflow_provider_odirouter.operators.custody import Custody
    from airflow_provider_odirouter.polling import Wait
    from airflow_provider_odirouter.records import BatchRecord

ENDPOINT = "gpt_image_1_edit"

Edits: TypeAlias = "Sequence[Mapping[str, Any]] | Place | XComArg"
"""A list of edits, the path of one, or an upstream task's output that will be one of these."""


class OdiRouterImageEditBatchOperator(OdiRouterSubmittingTask, BaseOperator):
    """
    Edit many pictures with ``gpt_image_1_edit`` in one task: submit all, wait for all in one trigger, land all.

    Each edit has the parameters of
    :class:`~airflow_provider_odirouter.operators.image_edit.OdiRouterImageEditOperator`, and may have a ``name``, which
    its files begin with. All edits and all pictures are checked before the first is submitted; everything that is
    broken is named at once, with its line.

    It writes a manifest to the output path, as JSON Lines: a line per edit, in order, with ``outputs``, or with
    ``error``, ``error_type`` and ``request_id``. It returns ``{"endpoint", "manifest", "edits", "succeeded", "failed",
    "outputs", "submitted_at", "completed_at"}``: where the manifest lies, and the counts.

    What becomes of each edit is noted beside the manifest (in ``.odirouter/``), on every version of Airflow: a retry
    submits only what is missing or failed in passing, and lands what was paid. Clearing the task submits what the
    service had refused, too, but never what has succeeded.

    :param edits: A list of dictionaries, or the path of a JSON Lines (``.jsonl``) or CSV file in any store; at most
        10,000 edits.
    :param defaults: Parameters of all edits that do not set them themselves.
    :param output_path: Folder for the pictures and the manifest, in any store.
    :param storage_conn_id: The Airflow connection of the stores, for URLs that name none themselves.
    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``.
    :param max_concurrent_submits: How many edits are submitted at a time, their pictures in memory. Default: 8.
    :param max_in_flight: How many requests may be alive at once; a longer batch goes in waves of so many. Default:
        1,000, whose ids just fit into the database where it is MySQL.
    :param on_item_failure: ``"continue"`` (default): the task succeeds if any edit did. ``"fail"``: it fails if any
        did, after all are done.
    :param deferrable: Wait in the triggerer (default), not on the worker.
    :param poll_interval: Seconds between looks at each request. Default: 5; they stretch where there are more than the
        triggerer's ``[odirouter] looks_per_second``.
    :param timeout: Seconds from the last submit of a wave to the end of the wait for it. Default: 3600.
        ``execution_timeout`` counts too, if it is shorter.
    :param cancel_on_kill: Cancel all requests when the task is killed, cleared or marked. Default: true.
    :param cancel_on_timeout: Cancel what has not ended when ``timeout`` has passed, or cannot be looked at any more and
        no retry will. Default: true.
    :param on_lost_submit: What a retry does about edits whose submit an earlier try died in: ``"submit"`` them again,
        with a warning (default), or let them ``"fail"``, until the task is cleared.
    """

    template_fields: Sequence[str] = ("edits", "defaults", "output_path", "odirouter_conn_id", "storage_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"edits": "json", "defaults": "json"}
    edits = AsText()
    defaults = AsText()
    ui_color = "#e8e0ff"
    checks: ClassVar[Mapping[str, Check]] = {
        "output_path": path_problem,
        "odirouter_conn_id": name_problem,
        "storage_conn_id": store_problem,
        "on_item_failure": one_of("continue", "fail"),
        "deferrable": flag_problem,
        "poll_interval": seconds_problem,
        "timeout": seconds_problem,
        "cancel_on_kill": flag_problem,
        "cancel_on_timeout": flag_problem,
        "on_lost_submit": one_of("submit", "fail"),
    }

    def __init__(
        self,
        *,
        edits: Edits,
        output_path: Place,
        defaults: Mapping[str, Any] | None = None,
        storage_conn_id: str | None = None,
        odirouter_conn_id: str = "odirouter_default",
        max_concurrent_submits: int = 8,
        max_in_flight: int = 1000,
        on_item_failure: Literal["continue", "fail"] = "continue",
        deferrable: bool = True,
        poll_interval: float = 5.0,
        timeout: float = 3600.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        on_lost_submit: OnLostSubmit = "submit",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_count("max_concurrent_submits", max_concurrent_submits)
        check_count("max_in_flight", max_in_flight)
        self.edits = edits
        self.defaults = defaults
        self.output_path = output_path
        self.storage_conn_id = storage_conn_id
        self.odirouter_conn_id = odirouter_conn_id
        self.max_concurrent_submits = max_concurrent_submits
        self.max_in_flight = max_in_flight
        self.on_item_failure = on_item_failure
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.on_lost_submit = on_lost_submit
        self._manifest: str | None = None
        # A mapped task is made anew on the worker, where execute() checks: what it finds there is final.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            self.check_own(rendered=False)
            if isinstance(self.edits, list | tuple):
                check_edits(self.edits, None if is_open(self.defaults) else self.defaults or {})

    def execute(self, context: Context) -> dict[str, Any]:
        """Check all edits, go on where an earlier try has stopped, and return the counts."""
        from airflow_provider_odirouter.images import landing
        from airflow_provider_odirouter.operators import recovery, steps
        from airflow_provider_odirouter.operators.batch.carrying import carry_over
        from airflow_provider_odirouter.operators.batch.edits import edits_of
        from airflow_provider_odirouter.operators.batch.finishing import announce
        from airflow_provider_odirouter.operators.batch.plan import plan

        with (
            steps.showing_failure(context, self.take_ownership(context)),
            steps.airflow_errors(),
            recovery.telling_costs(context),
        ):
            self.check_own(rendered=True)
            ledger, batch, custody = self._take_up(context)
            store = context.get("task_state_store")
            noted = ledger.load(store)
            with custody.of(batch):
                self._prepare_calls()
                planned = plan(
                    edits_of(self.edits, storage_conn_id=self.storage_conn_id),
                    self.defaults or {},
                    odirouter_conn_id=self.odirouter_conn_id,
                    storage_conn_id=self.storage_conn_id,
                    prefix=steps.name_of(context),
                )
                landing.probe(self.output_path, self.storage_conn_id)
                steps.tell_what_a_local_path_needs(self.output_path)
                carried = carry_over(
                    planned,
                    noted,
                    cleared=ledger.was_cleared,
                    may_cancel=self.cancel_on_kill,
                    on_lost_submit=self.on_lost_submit,
                )
                batch.begin(carried, store)
                # Before the first submit: from then on, somebody else may have to cancel.
                announce(context, self._record(context, ledger))
                return self._go_on(context, ledger, batch, custody)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on where the trigger's event says how the requests have ended."""
        from airflow_provider_odirouter.models import BatchEvent

        ended = BatchEvent.model_validate(event)
        return self._resume(context, lambda batch: batch.events_of(ended))

    def execute_without_trigger(
        self, context: Context, error: str = "Unknown", traceback: list[str] | None = None
    ) -> dict[str, Any]:
        """
        Have a last look at requests whose trigger has crashed, or did not end in time, and go on from there.

        :param error: Airflow's reason.
        :param traceback: Of the trigger's crash.
        """
        from airflow_provider_odirouter.operators import steps
        from airflow_provider_odirouter.operators.batch.calls import wait_here

        def looks(batch: Batch) -> Sequence[RequestEvent]:
            waits = self._waits(batch, datetime.now(UTC))
            return steps.last_looks(waits, error, traceback, lambda waits: wait_here(self.hook, waits))

        return self._resume(context, looks)

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Tell OpenLineage of the list of edits, if it is a file, and of the manifest; only its provider calls this."""
        from airflow_provider_odirouter.operators import lineage

        listed = [self.edits] if isinstance(self.edits, str) else []
        return lineage.openlineage(listed, [self._manifest] if self._manifest else [])

    def _prepare_calls(self) -> None:
        """
        Have no call fail for its settings after it was noted.

        Nor need a kill read the connection: a signal handler may interrupt a question to Airflow, and ask none.
        """
        self.hook.prepare()

    def _take_up(self, context: Context) -> tuple[Ledger, Batch, Custody]:
        from airflow_provider_odirouter.operators import steps
        from airflow_provider_odirouter.operators.batch.batch import Batch, Manner
        from airflow_provider_odirouter.operators.batch.ledger import Ledger

        ti = context["ti"]
        ledger = Ledger(
            self.output_path,
            self.storage_conn_id,
            steps.name_of(context),
            max_tries=ti.max_tries,
            ti_id=str(ti.id),
            ownership=self.take_ownership(context),
        )
        manner = Manner(
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            max_concurrent_submits=self.max_concurrent_submits,
            max_in_flight=self.max_in_flight,
            cancel_on_kill=self.cancel_on_kill,
            cancel_on_timeout=self.cancel_on_timeout,
            try_number=ti.try_number,
            tried_again=steps.is_tried_again(context),
        )
        return ledger, Batch(self.hook, ledger, manner), self.take_custody(context, ENDPOINT, ledger)

    def _resume(self, context: Context, events: Callable[[Batch], Sequence[RequestEvent]]) -> dict[str, Any]:
        from airflow_provider_odirouter.operators import steps

        with steps.showing_failure(context, self.take_ownership(context)), steps.airflow_errors():
            ledger, batch, custody = self._take_up(context)
            ledger.resume()
            with custody.of(batch):
                self._prepare_calls()
                batch.settle(events(batch))
                return self._go_on(context, ledger, batch, custody)

    def _go_on(self, context: Context, ledger: Ledger, batch: Batch, custody: Custody) -> dict[str, Any]:
        """Submit, land and wait in turns, until nothing is left to do."""
        from airflow_provider_odirouter.operators import steps
        from airflow_provider_odirouter.operators.batch.calls import wait_here
        from airflow_provider_odirouter.operators.batch.finishing import publish

        while self._begin_wave(context, batch):
            deadline = steps.deadline(context, self.execution_timeout, datetime.now(UTC), self.timeout)
            waits, wave = self._waits(batch, deadline), uuid4().hex
            publish(context, ledger, self._record(context, ledger, deadline=deadline), wave=wave)
            batch.land()
            if self.deferrable:
                custody.stop_if_ended()
                self._defer(waits, wave)
            batch.settle(wait_here(self.hook, waits))
        batch.land()
        return self._finish(context, ledger, batch)

    def _record(self, context: Context, ledger: Ledger, **known: Any) -> BatchRecord:
        from airflow_provider_odirouter.operators.batch.finishing import record_of

        return record_of(
            context,
            ledger,
            odirouter_conn_id=self.odirouter_conn_id,
            cancel_on_kill=self.cancel_on_kill,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            **known,
        )

    def _begin_wave(self, context: Context, batch: Batch) -> bool:
        from airflow_provider_odirouter.errors import RequestTimeoutError
        from airflow_provider_odirouter.operators import steps

        now = datetime.now(UTC)
        if steps.deadline(context, self.execution_timeout, now, 0.0) < now:
            # Airflow does not enforce it while the task is deferred; requests would be cancelled at once.
            batch.submit_no_more(RequestTimeoutError("The task's execution_timeout is over."))
        return batch.begin_wave()

    def _waits(self, batch: Batch, deadline: datetime) -> list[Wait]:
        from airflow_provider_odirouter.polling import Wait

        return [
            Wait(
                endpoint=ENDPOINT,
                request_id=request_id,
                poll_interval=self.poll_interval,
                deadline=deadline.timestamp(),
                cancel_on_timeout=self.cancel_on_timeout,
            )
            for request_id in batch.awaited()
        ]

    def _defer(self, waits: Sequence[Wait], wave: str) -> None:
        from airflow_provider_odirouter.triggers.batch import OdiRouterBatchTrigger

        deadline = waits[0].deadline
        self.defer(
            trigger=OdiRouterBatchTrigger(
                odirouter_conn_id=self.odirouter_conn_id,
                endpoint=ENDPOINT,
                wave=wave,
                request_ids=[wait.request_id for wait in waits],
                deadline=deadline,
                poll_interval=self.poll_interval,
                cancel_on_kill=self.cancel_on_kill,
                cancel_on_timeout=self.cancel_on_timeout,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=deadline - datetime.now(UTC).timestamp()) + SAFETY_MARGIN,
        )

    def _finish(self, context: Context, ledger: Ledger, batch: Batch) -> dict[str, Any]:
        from airflow_provider_odirouter.models import BatchSummary
        from airflow_provider_odirouter.operators import lineage, steps
        from airflow_provider_odirouter.operators.batch.finishing import publish, verdict, write_manifest

        ledger.check_owner()
        items = ledger.items
        self._manifest = write_manifest(
            items,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            name=steps.name_of(context),
        )
        publish(context, ledger, self._record(context, ledger, manifest=self._manifest))
        error = verdict(
            items,
            self._manifest,
            on_item_failure=self.on_item_failure,
            stopped_by=batch.error,
            tried_again=steps.is_tried_again(context),
        )
        if error:
            raise error
        summary = BatchSummary.of(ENDPOINT, self._manifest, items).model_dump(mode="json")
        lineage.describe_assets(context, self.outlets, summary, folder=self.output_path)
        return summary
