"""The operator for many requests to any endpoint in one task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, TypeAlias, cast
from uuid import uuid4

from airflow.sdk import BaseOperator

from airflow_provider_odirouter.batch.any_endpoint import AnyEndpointRules
from airflow_provider_odirouter.batch.checks import check_literals
from airflow_provider_odirouter.compat import SET_DURING_EXECUTION, AirflowSkipException, is_mapped_on_worker
from airflow_provider_odirouter.file_parameters import usable_names
from airflow_provider_odirouter.operators.base import OdiRouterSubmittingTask
from airflow_provider_odirouter.parameter_checks import (
    Check,
    count_problem,
    flag_problem,
    name_problem,
    names_problem,
    one_of,
    or_none,
    path_problem,
    seconds_problem,
    store_problem,
)
from airflow_provider_odirouter.storage.path_fields import PathField, PathLike

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context, XComArg

    from airflow_provider_odirouter.batch.items import BatchItems
    from airflow_provider_odirouter.batch.names import IfExists
    from airflow_provider_odirouter.batch.pipeline import Pipeline
    from airflow_provider_odirouter.batch.report import OnItemFailure
    from airflow_provider_odirouter.batch.resume import ResumePlan
    from airflow_provider_odirouter.batch.rules import EndpointRules
    from airflow_provider_odirouter.batch.state import BatchStore
    from airflow_provider_odirouter.lifecycle.polling import Wait
    from airflow_provider_odirouter.lifecycle.state import OnLostSubmit
    from airflow_provider_odirouter.models import RequestEvent
    from airflow_provider_odirouter.xcoms import BatchRecord

log = logging.getLogger(__name__)

DRY_RUN_XCOM = "odirouter_dry_run"

Items: TypeAlias = "Sequence[Mapping[str, Any]] | PathLike | XComArg"
"""A list of edits, the path of a file with one, or an upstream task's output that will be one of these."""


class OdiRouterBatchOperator(OdiRouterSubmittingTask, BaseOperator):
    """
    Make many requests to an endpoint of OdiRouter's queue in one task, each on its own: submit, wait, land.

    It is :class:`~airflow_provider_odirouter.operators.image_edit_batch.OdiRouterImageEditBatchOperator` for any
    other model; logs, errors and the manifest call each item an edit. Each item has the parameters of one request, and
    may have a ``name``, with which the names of its files begin; without it, they begin with the task instance's own
    name and the item's number. What counts as not set (``None``, NaN, a blank text, a word such as ``"None"``) takes
    the default, or is not sent; for ``prompt``, it is an error. All other parameters are sent as they are. All items
    and all files are checked before the first submit; one error names everything that is wrong, with its line.

    The manifest, the return value, the saved state and what a retry does are those of the image edit batch.

    :param endpoint: The model, such as ``gpt_image_2_edit``.
    :param items: A list of dictionaries, or the path of a JSON Lines (``.jsonl``) or CSV file in any store; at most
        10,000 items. Relative paths of files in it are relative to its folder. In a CSV file, every cell is a text.
    :param file_parameters: The names of parameters that are files, such as ``("image", "audio")``: each is a path, a
        URL of a store, or a list of these. The worker reads the files, of any kind and of at most 10 MiB each, and
        sends them as base64; an ``http(s)`` URL is sent as it is.
    :param defaults: Parameters for all edits that do not set them themselves.
    :param output_path: Folder for the pictures and the manifest, in any store.
    :param storage_conn_id: The Airflow connection of the stores, for URLs that name none themselves.
    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``.
    :param max_concurrent_submits: How many edits are submitted at a time; their pictures are in memory. Default: 8.
    :param max_in_flight: How many requests may be alive at once. If the service allows fewer (``429``), the batch
        keeps as many as it allows. Default: 1,000. A batch of more edits holds its worker until all are submitted.
    :param if_exists: What becomes of an edit with a ``name`` if the output path has a file
        ``{name}-{number}.{extension}`` that no try of this task has made. ``"fail"`` (default): the task fails before
        it submits anything, and names all such files. ``"overwrite"``: the file is replaced. ``"new_name"``: the edit
        gets a free name, such as ``cup-2``, in all tries. A file that another process writes after this check is not
        overwritten, either: this edit fails, and a retry lands its pictures, with ``"new_name"`` under another name.
        (Only in an object store, of two processes that write a file at the same moment, the later one wins.)
    :param on_empty: What the task does if the list holds no edit: ``"skip"`` (default): it is skipped. ``"succeed"``:
        it writes an empty manifest, and returns the summary. ``"fail"``: it fails, and Airflow does not retry.
    :param on_item_failure: ``"continue"`` (default): the task succeeds if at least one edit did. ``"fail"``: it fails
        if at least one edit did, after all have ended.
    :param deferrable: Wait in the triggerer (default, whatever ``[operators] default_deferrable`` says), not on the
        worker.
    :param poll_interval: Seconds between polls of each request. Default: 5; longer if the triggerer has more polls to
        send than ``[odirouter] max_polls_per_second``.
    :param timeout: Seconds from the submit of an edit to the end of the wait for it. Default: 3600.
        ``execution_timeout`` bounds the whole task, deferral included.
    :param cancel_on_kill: Cancel all requests when the task is killed, cleared or marked. Default: true.
    :param cancel_on_timeout: Cancel requests that have not ended when ``timeout`` has passed, or whose status cannot be
        read any more and that no retry will poll. Default: true.
    :param on_lost_submit: What a retry does with edits during whose submit an earlier try died: ``"submit"`` them
        again, with a warning (default), or let them ``"fail"`` until the task is cleared.
    :param max_submits: How many submits the task instance may make in all its tries, also after it is cleared. Each
        submit counts that may have created a request. When it is reached, the batch submits nothing more, lands what is
        paid, and fails; Airflow does not retry. Default: no limit.
    :param dry_run: Check everything that is checked before the first submit, and the API key; say in the log and in the
        XCom ``odirouter_dry_run`` how many edits would be submitted, and what that would cost by the ``prices`` of the
        connection. Submit and cancel nothing, and skip the task, so that nothing after it runs. Default: false.
    """

    template_fields: Sequence[str] = (
        "endpoint",
        "items",
        "defaults",
        "output_path",
        "odirouter_conn_id",
        "storage_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"items": "json", "defaults": "json"}
    items = PathField()
    defaults = PathField()
    ui_color = "#e8e0ff"
    dry_run: bool  # type: ignore[assignment] # Airflow never calls its own method of this name
    checks: ClassVar[Mapping[str, Check]] = {
        "endpoint": name_problem,
        "file_parameters": names_problem,
        "output_path": path_problem,
        "odirouter_conn_id": name_problem,
        "storage_conn_id": store_problem,
        "max_concurrent_submits": count_problem,
        "max_in_flight": count_problem,
        "if_exists": one_of("fail", "overwrite", "new_name"),
        "on_empty": one_of("skip", "succeed", "fail"),
        "on_item_failure": one_of("continue", "fail"),
        "deferrable": flag_problem,
        "poll_interval": seconds_problem,
        "timeout": seconds_problem,
        "cancel_on_kill": flag_problem,
        "cancel_on_timeout": flag_problem,
        "on_lost_submit": one_of("submit", "fail"),
        "max_submits": or_none(count_problem),
        "dry_run": flag_problem,
    }

    def __init__(
        self,
        *,
        endpoint: str,
        items: Items,
        output_path: PathLike,
        file_parameters: Sequence[str] = (),
        defaults: Mapping[str, Any] | None = None,
        storage_conn_id: str | None = None,
        odirouter_conn_id: str = "odirouter_default",
        max_concurrent_submits: int = 8,
        max_in_flight: int = 1000,
        if_exists: Literal["fail", "overwrite", "new_name"] | str = "fail",
        on_empty: Literal["skip", "succeed", "fail"] | str = "skip",
        on_item_failure: Literal["continue", "fail"] | str = "continue",
        deferrable: bool = True,
        poll_interval: float = 5.0,
        timeout: float = 3600.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        on_lost_submit: Literal["submit", "fail"] | str = "submit",
        max_submits: int | None = None,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.items = items
        self.file_parameters = file_parameters
        self.defaults = defaults
        self.output_path = output_path
        self.storage_conn_id = storage_conn_id
        self.odirouter_conn_id = odirouter_conn_id
        self.max_concurrent_submits = max_concurrent_submits
        self.max_in_flight = max_in_flight
        self.if_exists = cast("IfExists", if_exists)  # as below
        self.on_empty = on_empty
        self.on_item_failure = cast("OnItemFailure", on_item_failure)  # check_parameters() refuses any other
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.on_lost_submit = cast("OnLostSubmit", on_lost_submit)
        self.max_submits = max_submits
        self.dry_run = dry_run
        self._manifest: str | None = None
        # The worker builds a mapped task again, and there execute() checks it: its error is final.
        if not is_mapped_on_worker(self):
            with self.checking_parameters(rendered=False):
                is_set_later = self.listed is SET_DURING_EXECUTION
                check_literals(() if is_set_later else self.listed, self.defaults, self.rules)

    @property
    def listed(self) -> Any:
        """The edits, as the user gave them: a list, or the path of a file."""
        return self.items

    @property
    def rules(self) -> EndpointRules:
        """The rules of the endpoint."""
        # For an error, also if the endpoint itself cannot be used.
        endpoint = self.endpoint if isinstance(self.endpoint, str) else type(self).__name__
        return AnyEndpointRules(endpoint, usable_names(self.file_parameters))

    def list_again(self) -> Any:
        """
        Return the edits after a deferral.

        :raises StorageError: If they are not known any more.
        """
        return self.listed

    def execute(self, context: Context) -> dict[str, Any]:
        """Check all edits, continue those of an earlier try, submit the others, and return the summary."""
        from airflow_provider_odirouter.batch.names import with_known_names
        from airflow_provider_odirouter.batch.progress import describe_price, log_begin
        from airflow_provider_odirouter.batch.report import announce
        from airflow_provider_odirouter.lifecycle.failures import handle_failure
        from airflow_provider_odirouter.lifecycle.finish import prepare_output_path
        from airflow_provider_odirouter.lifecycle.wait import end_of_execution

        with handle_failure(context, self.take_ownership(context)):
            with self.checking_parameters(rendered=True) as problems:
                if problems:
                    self._plan(context)  # for its problems alone
            pipeline = self._open(context)
            task_store = context.get("task_state_store")
            saved = pipeline.store.load(task_store)
            if self.dry_run:
                self._report_dry_run(context, pipeline, saved)
            with pipeline.guard.hold(pipeline):
                self.hook.prepare()
                planned = with_known_names(self._plan(context), saved)
                if planned or saved or self.on_empty == "succeed":
                    prepare_output_path(self.output_path, self.storage_conn_id)
                    pipeline.begin(self._plan_resume(planned, saved, pipeline.store), task_store)
                if not planned:
                    return self._finish_empty(context, pipeline)
                del planned, saved  # the store has what is needed of them, with less memory
                log_begin(
                    pipeline.store.items,
                    self._manifest_path(context),
                    max_in_flight=self.max_in_flight,
                    timeout=self.timeout,
                    ends_at=end_of_execution(context, self.execution_timeout),
                    price=describe_price(pipeline.store.items, self.endpoint, self.hook.settings.prices),
                )
                # Before the first submit: from then on, another process may have to cancel requests.
                announce(context, self._record(context, pipeline.store))
                return self._run(context, pipeline)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resume with the trigger's event."""
        from airflow_provider_odirouter.models import BatchEvent

        ended = BatchEvent.model_validate(event)
        return self._resume(context, lambda pipeline: pipeline.events_of(ended))

    def execute_without_trigger(
        self, context: Context, error: str = "Unknown", traceback: list[str] | None = None
    ) -> dict[str, Any]:
        """
        Poll the requests again, whose trigger has crashed or did not end in time, and resume.

        :param error: Airflow's reason.
        :param traceback: Of the trigger's crash.
        """
        from airflow_provider_odirouter.lifecycle.wait import final_polls

        def poll(pipeline: Pipeline) -> Sequence[RequestEvent]:
            waits = [self.make_wait(request_id, datetime.now(UTC)) for request_id in pipeline.pending()]
            return final_polls(self.hook, waits, error, traceback) if waits else []

        return self._resume(context, poll)

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Return the file of the edits and the manifest as lineage; only OpenLineage's provider calls this."""
        from airflow_provider_odirouter.operators import lineage

        listed = [self.listed] if isinstance(self.listed, str) else []
        return lineage.openlineage(listed, [self._manifest] if self._manifest else [])

    def _manifest_path(self, context: Context) -> str:
        from airflow_provider_odirouter.lifecycle.finish import name_of_files
        from airflow_provider_odirouter.redaction import without_password

        return without_password(f"{self.output_path.rstrip('/')}/{name_of_files(context)}.jsonl")

    def _plan(self, context: Context) -> BatchItems:
        """Read and check all edits and their files."""
        from airflow_provider_odirouter.batch.input import read_edits
        from airflow_provider_odirouter.batch.validate import validate
        from airflow_provider_odirouter.errors import InvalidParametersError, Problem
        from airflow_provider_odirouter.lifecycle.finish import name_of_files

        rules = self.rules
        planned = validate(
            read_edits(self.listed, rules, storage_conn_id=self.storage_conn_id),
            self.defaults,
            rules,
            odirouter_conn_id=self.odirouter_conn_id,
            storage_conn_id=self.storage_conn_id,
            prefix=name_of_files(context),
        )
        if not planned and self.on_empty == "fail":
            problem = Problem(rules.list_name, "holds no edit, and on_empty is 'fail'")
            raise InvalidParametersError(self.endpoint, [problem])
        return planned

    def _finish_empty(self, context: Context, pipeline: Pipeline) -> dict[str, Any]:
        if self.on_empty == "skip":
            raise AirflowSkipException(
                "The list of edits is empty: there is nothing to do. (on_empty='succeed' lets the task succeed, "
                "on_empty='fail' lets it fail.)"
            )
        return self._finish(context, pipeline)

    def _plan_resume(self, planned: BatchItems, saved: BatchItems, store: BatchStore) -> ResumePlan:
        """Decide what becomes of each edit, and find free names for their files."""
        from airflow_provider_odirouter.batch.names import free_names
        from airflow_provider_odirouter.batch.resume import plan_resume

        resume_plan = plan_resume(
            planned,
            saved,
            cleared=store.was_cleared,
            may_cancel=self.cancel_on_kill,
            on_lost_submit=self.on_lost_submit,
            submits_left=self._submits_left(store),
        )
        resume_plan.items = free_names(
            resume_plan.items,
            saved,
            self.if_exists,
            endpoint=self.endpoint,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
        )
        return resume_plan

    def _report_dry_run(self, context: Context, pipeline: Pipeline, saved: BatchItems) -> NoReturn:
        """Check what a real run would, and say what it would do; nothing holds or changes an earlier try's requests."""
        from airflow_provider_odirouter.batch.names import with_known_names
        from airflow_provider_odirouter.batch.progress import describe_price
        from airflow_provider_odirouter.lifecycle.finish import prepare_output_path
        from airflow_provider_odirouter.models import Phase, Spending

        self.hook.prepare()
        planned = with_known_names(self._plan(context), saved)
        prepare_output_path(self.output_path, self.storage_conn_id)
        items = self._plan_resume(planned, saved, pipeline.store).items
        self.hook.check_key()
        prices = self.hook.settings.prices
        spending = Spending.sum(
            prices.spending(self.endpoint, item.edit) for item in items if item.phase is Phase.PLANNED
        )
        spent, left = pipeline.store.spent(), self._submits_left(pipeline.store)
        text = (
            f"Dry run: of {len(items):,} edits, {spending.submits:,} would be submitted; nothing was. "
            f"{describe_price(items, self.endpoint, prices)}"
        ).strip()
        if spending.submits > left:
            text += f" max_submits allows {left:,.0f} of them. Spent so far: {spent}."
        report = {"edits": len(items), "to_submit": spending.submits, "cost": spending.cost, "spent": spent._asdict()}
        context["ti"].xcom_push(key=DRY_RUN_XCOM, value=report)
        log.info(text)
        raise AirflowSkipException(text)

    def _submits_left(self, store: BatchStore) -> float:
        return inf if self.max_submits is None else self.max_submits - store.spent().submits

    def _open(self, context: Context) -> Pipeline:
        from airflow_provider_odirouter.batch.endings import BatchOptions
        from airflow_provider_odirouter.batch.pipeline import Pipeline
        from airflow_provider_odirouter.batch.report import publish
        from airflow_provider_odirouter.batch.state import BatchStore
        from airflow_provider_odirouter.batch.validate import parameters_of
        from airflow_provider_odirouter.lifecycle.failures import will_be_retried
        from airflow_provider_odirouter.lifecycle.finish import name_of_files
        from airflow_provider_odirouter.lifecycle.wait import end_of_execution

        ti = context["ti"]
        store = BatchStore(
            self.output_path,
            self.storage_conn_id,
            name_of_files(context),
            max_tries=ti.max_tries,
            ti_id=str(ti.id),
            ownership=self.take_ownership(context),
        )
        options = BatchOptions(
            endpoint=self.endpoint,
            make_parameters=partial(parameters_of, rules=self.rules),
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            if_exists=self.if_exists,
            max_concurrent_submits=self.max_concurrent_submits,
            max_in_flight=self.max_in_flight,
            deferrable=self.deferrable,
            poll_interval=self.poll_interval,
            timeout=self.timeout,
            ends_at=end_of_execution(context, self.execution_timeout),
            cancel_on_kill=self.cancel_on_kill,
            cancel_on_timeout=self.cancel_on_timeout,
            try_number=ti.try_number,
            will_be_retried=will_be_retried(context),
            max_submits=self.max_submits,
        )
        return Pipeline(
            self.hook,
            store,
            self.guard_requests(context, lambda: store.survives_retry),
            options,
            publish=lambda: publish(context, store, self._record(context, store)),
        )

    def _resume(self, context: Context, events: Callable[[Pipeline], Sequence[RequestEvent]]) -> dict[str, Any]:
        from airflow_provider_odirouter.lifecycle.failures import handle_failure

        with handle_failure(context, self.take_ownership(context)):
            pipeline = self._open(context)
            pipeline.store.load_after_deferral()
            with pipeline.guard.hold(pipeline):
                self.hook.prepare()  # a signal handler must not ask Airflow: it may have interrupted another question
                ended = events(pipeline)
                self._restore_urls(pipeline, context["ti"].try_number)
                return self._run(context, pipeline, ended)

    def _restore_urls(self, pipeline: Pipeline, try_number: int) -> None:
        """Read the list again if an edit may be submitted whose URLs the batch's state does not hold whole."""
        from airflow_provider_odirouter.batch.input import read_edits
        from airflow_provider_odirouter.batch.validate import with_whole_urls
        from airflow_provider_odirouter.errors import OdiRouterError
        from airflow_provider_odirouter.models import Phase

        # An earlier try's request that has failed is submitted again.
        earlier = [item for item in pipeline.store.submitted() if item.try_number != try_number]
        planned = (item for item in pipeline.store.items if item.phase is Phase.PLANNED)
        shortened = [item for item in chain(planned, earlier) if item.has_shortened_url]
        if not shortened:
            return
        try:
            whole = with_whole_urls(
                shortened,
                read_edits(self.list_again(), self.rules, storage_conn_id=self.storage_conn_id),
                self.defaults,
                self.rules,
                storage_conn_id=self.storage_conn_id,
            )
        except OdiRouterError as error:
            pipeline.guard.stop_if_killed()  # a kill in the user's function is an error of that function, too
            pipeline.stop_submitting(error)  # The requests that are paid are landed all the same.
        else:
            for item in whole:
                pipeline.store.stage(item)

    def _run(self, context: Context, pipeline: Pipeline, events: Sequence[RequestEvent] = ()) -> dict[str, Any]:
        if waits := pipeline.run(events):
            self._defer(context, pipeline, waits)
        return self._finish(context, pipeline)

    def _defer(self, context: Context, pipeline: Pipeline, waits: Sequence[Wait]) -> None:
        """Leave the live requests to a trigger."""
        from airflow_provider_odirouter.batch.report import publish
        from airflow_provider_odirouter.models import pack_deadlines
        from airflow_provider_odirouter.triggers.batch import OdiRouterBatchTrigger

        wait_id = uuid4().hex
        deadline = datetime.fromtimestamp(max(wait.deadline for wait in waits), UTC)
        record = self._record(context, pipeline.store, deferred_at=datetime.now(UTC), deadline=deadline)
        publish(context, pipeline.store, record, wait_id=wait_id)
        pipeline.guard.stop_if_not_running()
        self.defer_to(
            OdiRouterBatchTrigger(
                odirouter_conn_id=self.odirouter_conn_id,
                endpoint=self.endpoint,
                wait_id=wait_id,
                deadlines=pack_deadlines({wait.request_id: wait.deadline for wait in waits}),
                poll_interval=self.poll_interval,
                cancel_on_kill=self.cancel_on_kill,
                cancel_on_timeout=self.cancel_on_timeout,
            )
        )

    def _record(self, context: Context, store: BatchStore, **known: Any) -> BatchRecord:
        from airflow_provider_odirouter.batch.report import make_record

        return make_record(
            context,
            store,
            endpoint=self.endpoint,
            odirouter_conn_id=self.odirouter_conn_id,
            cancel_on_kill=self.cancel_on_kill,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            **known,
        )

    def _finish(self, context: Context, pipeline: Pipeline) -> dict[str, Any]:
        from airflow_provider_odirouter.batch.progress import log_end
        from airflow_provider_odirouter.batch.report import batch_error, publish, write_manifest
        from airflow_provider_odirouter.lifecycle.failures import will_be_retried
        from airflow_provider_odirouter.lifecycle.finish import name_of_files
        from airflow_provider_odirouter.models import BatchSummary
        from airflow_provider_odirouter.operators import lineage

        pipeline.store.check_owner()
        items = pipeline.store.items
        self._manifest = write_manifest(
            items,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            name=name_of_files(context),
        )
        publish(context, pipeline.store, self._record(context, pipeline.store, manifest=self._manifest))
        error = batch_error(
            items,
            self._manifest,
            on_item_failure=self.on_item_failure,
            stopped_by=pipeline.error,
            will_be_retried=will_be_retried(context),
        )
        spent = pipeline.store.spent()
        log_end(items, self._manifest, spent=spent, is_failure=error is not None)
        if error:
            raise error
        summary = BatchSummary.from_items(self.endpoint, self._manifest, items, spent).model_dump(mode="json")
        lineage.describe_assets(context, self.outlets, summary, folder=self.output_path)
        return summary
