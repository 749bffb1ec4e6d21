"""The operator for any endpoint of the queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from airflow.sdk import BaseOperator

from airflow_provider_odirouter.compat import is_mapped_on_worker
from airflow_provider_odirouter.errors import InvalidParametersError, Problem
from airflow_provider_odirouter.file_parameters import file_sources, usable_names, with_files
from airflow_provider_odirouter.json_values import json_object
from airflow_provider_odirouter.operators.base import OdiRouterSubmittingTask
from airflow_provider_odirouter.parameter_checks import (
    MISSING_WORDS,
    PROMPT,
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
    unset_problem,
)
from airflow_provider_odirouter.storage.path_fields import PathLike, UrlField
from airflow_provider_odirouter.templating import is_template, without_unset
from airflow_provider_odirouter.text_paths import as_text, relative_remark
from airflow_provider_odirouter.xcoms import OdiRouterRequestLink

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_odirouter.lifecycle.polling import Wait
    from airflow_provider_odirouter.lifecycle.state import OnLostSubmit, RequestStore, Submitted
    from airflow_provider_odirouter.models import RequestEvent, Spending
    from airflow_provider_odirouter.xcoms import RequestRecord

log = logging.getLogger(__name__)

NOT_REMEMBERED = (
    "needs a place where the submits of earlier tries are remembered: set durable=True, and, on Airflow before 3.3, an "
    "output_path"
)


class ParametersField(UrlField):
    """The parameters as an attribute: whenever it is set, path objects of files become texts."""

    def __set__(self, instance: Any, value: object) -> None:
        if isinstance(value, dict):
            files = {name: one for name, one in value.items() if name in usable_names(instance.file_parameters)}
            value = {**value, **as_text(files)}
        super().__set__(instance, value)


class OdiRouterQueueOperator(OdiRouterSubmittingTask, BaseOperator):
    """
    Submit a request to an endpoint of OdiRouter's queue, wait for it, and land its outputs.

    It pushes the XCom ``request_id`` and an extra link before it waits, and returns the manifest: ``{"request_id",
    "endpoint", "outputs": [{"path" or "url", "content_type", "width", "height", "size_bytes", "sha256"}],
    "submitted_at", "completed_at", "inference_seconds", "submits", "cost", "metadata"}``. Outputs never go
    through XCom.

    The event of an asset in ``outlets`` has the manifest's main fields in its ``extra`` (``request_id``, ``endpoint``,
    ``outputs``, ``inference_seconds``), beside what you put there; an ``AssetAlias`` stands for the outputs' folder.

    Errors that a retry cannot cure (rejected parameters, a bad key, no balance, refused content) fail the task without
    a retry; so does a submit without an answer, since a second submit could be paid, too.

    :param endpoint: The model, such as ``gpt_image_2_edit``.
    :param parameters: The endpoint's parameters, sent as they are. One whose template renders to ``None``, NaN or a
        blank text is not sent; for ``prompt`` and for an element of a list, this is an error.
    :param file_parameters: The names of parameters that are files, such as ``("image", "audio")``: each is a path, a
        URL of a store, or a list of these. The worker reads the files, of any kind and of at most 10 MiB each, and
        sends them as base64; an ``http(s)`` URL is sent as it is.
    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``.
    :param output_path: Folder for the outputs: a path, or a URL of any store that ``ObjectStoragePath`` knows, such as
        ``s3://bucket/edited``. The task checks that it can be written before anything is paid. Without it, the manifest
        has the vendor's links, which expire.
    :param storage_conn_id: The Airflow connection of the store, for URLs that do not name one themselves
        (``s3://aws_default@bucket/edited``).
    :param deferrable: Wait in the triggerer, not on the worker. The default is true, whatever Airflow's
        ``[operators] default_deferrable`` says: its own default is false, and then each request would hold a worker for
        as long as OdiRouter works on it.
    :param wait_for_completion: If false, submit only, and return a manifest without outputs;
        :class:`~airflow_provider_odirouter.sensors.request.OdiRouterRequestSensor` waits elsewhere.
    :param poll_interval: Seconds between polls. Default: 5.
    :param timeout: Seconds from the submit to the end of the wait. Default: 900. ``execution_timeout`` counts too, if
        it is shorter. A retry that resumes an earlier try's request has its full ``timeout`` again.
    :param cancel_on_kill: Cancel the request when the task is killed, cleared or marked. Default: true.
    :param cancel_on_timeout: Cancel the request when ``timeout`` has passed, or when it cannot be polled any more and
        no retry follows. Default: true.
    :param durable: Remember the request between tries, also after a crash: a retry waits for a live request, and takes
        the result of one that has succeeded. A cleared task takes a result as well, but cancels a live request and
        submits again. Airflow 3.3 has a store for that; before 3.3, the notes lie beside the outputs, in
        ``{output_path}/.odirouter/``, so that an ``output_path`` is needed that is the same in each try. Default: true.
    :param on_lost_submit: What a retry does if the worker died during the submit, so that a request may or may not have
        been made and paid: ``"submit"`` again, with a warning (default), or ``"fail"`` until the task is cleared.
    :param max_submits: How many submits the task instance may make in all its tries, also after it is cleared. Each
        submit counts that may have created a request. One more is not sent: the task fails, and Airflow does not retry.
        It needs what ``durable`` remembers. Default: no limit.
    """

    parameters = ParametersField()
    template_fields: Sequence[str] = ("endpoint", "parameters", "odirouter_conn_id", "output_path", "storage_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    operator_extra_links = (OdiRouterRequestLink(),)
    ui_color = "#e8e0ff"
    checks: ClassVar[Mapping[str, Check]] = {
        "endpoint": name_problem,
        "file_parameters": names_problem,
        "odirouter_conn_id": name_problem,
        "output_path": or_none(path_problem),
        "storage_conn_id": store_problem,
        "deferrable": flag_problem,
        "wait_for_completion": flag_problem,
        "poll_interval": seconds_problem,
        "timeout": seconds_problem,
        "cancel_on_kill": flag_problem,
        "cancel_on_timeout": flag_problem,
        "durable": flag_problem,
        "on_lost_submit": one_of("submit", "fail"),
        "max_submits": or_none(count_problem),
    }

    def __init__(
        self,
        *,
        endpoint: str,
        parameters: Mapping[str, Any],
        file_parameters: Sequence[str] = (),
        odirouter_conn_id: str = "odirouter_default",
        output_path: PathLike | None = None,
        storage_conn_id: str | None = None,
        deferrable: bool = True,
        wait_for_completion: bool = True,
        poll_interval: float = 5.0,
        timeout: float = 900.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        durable: bool = True,
        on_lost_submit: Literal["submit", "fail"] | str = "submit",
        max_submits: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.file_parameters = file_parameters
        self.parameters = parameters
        self._given_parameters = self.parameters
        self.odirouter_conn_id = odirouter_conn_id
        self.output_path = self._given_output_path = output_path
        self.storage_conn_id = storage_conn_id
        self.deferrable = deferrable
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.durable = durable
        self.on_lost_submit = cast("OnLostSubmit", on_lost_submit)  # check_parameters() refuses any other
        self.max_submits = max_submits
        self._manifest: dict[str, Any] | None = None
        # On a worker, Airflow makes a mapped task again, with final values: execute() checks them.
        if not is_mapped_on_worker(self):
            with self.checking_parameters(rendered=False):
                self.check_literal_input()

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit, or resume the request of an earlier try; wait, and return the manifest."""
        from airflow_provider_odirouter.lifecycle import resume
        from airflow_provider_odirouter.lifecycle.failures import handle_failure, may_be_retried, will_be_retried
        from airflow_provider_odirouter.lifecycle.finish import prepare_output_path
        from airflow_provider_odirouter.lifecycle.guard import SingleRequest
        from airflow_provider_odirouter.lifecycle.wait import wait_on_worker

        with handle_failure(context, self.take_ownership(context)):
            store = self._request_store(context, has_begun=False)
            guard = self.guard_requests(context, lambda: store.survives_retry)
            if self.max_submits is not None and not store.survives_retry:
                raise InvalidParametersError(self._endpoint_name, [Problem("max_submits", NOT_REMEMBERED)])
            if self.durable and not store.survives_retry and may_be_retried(context):
                self.log.info(
                    "A retry will submit a new request: only Airflow 3.3 and later keep notes for it, and without an "
                    "output_path there is no other place for them."
                )
            with resume.cancel_previous_on_early_failure(
                self.hook, store, is_last_try=not will_be_retried(context), may_cancel=self.cancel_on_timeout
            ):
                # Everything that could raise is done before the submit: after it, only the network may fail.
                with self.checking_parameters(rendered=True):
                    parameters = json_object(self._endpoint_name, self.request_parameters(), name="")
                self.hook.prepare()
                record = self._record()
                if self.output_path is not None:
                    prepare_output_path(self.output_path, self.storage_conn_id)
                intent = resume.make_intent(context, self.odirouter_conn_id, self.endpoint, parameters)
                earlier = resume.find_resumable(
                    self.hook,
                    store,
                    intent,
                    cancel_live=self.cancel_on_kill,
                    on_lost_submit=self.on_lost_submit,
                    max_submits=self.max_submits,
                )
            if earlier is None:
                guard.stop_if_killed()
            request = (
                earlier.request
                if earlier
                else resume.submit(self.hook, store, intent, parameters, max_submits=self.max_submits)
            )
            with guard.hold(SingleRequest(request.request_id, store), note=lambda: store.note(request)):
                wait = self._wait_for(context, request) if self.wait_for_completion else None
                spent = request.spending if store.survives_retry else None
                self._publish(context, record, request, wait, spent)
                if wait is None:
                    store.done()
                    return self._manifest_of_submit(context, request, spent)
                if self.deferrable and not (earlier and earlier.succeeded):
                    guard.stop_if_not_running()
                    self.defer_for(wait)
                [event] = wait_on_worker(self.hook, [wait])
            # Of a request that had succeeded before this try, the end is counted already.
            return self._finish(context, event, is_counted=bool(earlier and earlier.succeeded))

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resume with the trigger's event."""
        from airflow_provider_odirouter.lifecycle.failures import handle_failure
        from airflow_provider_odirouter.models import RequestEvent

        with handle_failure(context, self.take_ownership(context)):
            return self._finish(context, RequestEvent.model_validate(event))

    def execute_without_trigger(
        self, context: Context, error: str = "Unknown", traceback: list[str] | None = None
    ) -> dict[str, Any]:
        """
        Poll the request once more, since its trigger has crashed or did not end in time, and resume from there.

        :param error: Airflow's reason.
        :param traceback: Of the trigger's crash.
        """
        from airflow_provider_odirouter.lifecycle.failures import handle_failure
        from airflow_provider_odirouter.lifecycle.guard import SingleRequest
        from airflow_provider_odirouter.lifecycle.resume import find_deferred_request
        from airflow_provider_odirouter.lifecycle.wait import final_polls

        with handle_failure(context, self.take_ownership(context)):
            store = self._request_store(context)
            request_id, submitted_at = find_deferred_request(context, store)
            wait = self.make_wait(request_id, datetime.now(UTC), submitted_at=submitted_at)
            # Now, since a signal handler that cancels cannot ask Airflow for the connection.
            self.hook.prepare()
            guard = self.guard_requests(context, lambda: store.survives_retry)
            with guard.hold(SingleRequest(request_id, store)):
                [event] = final_polls(self.hook, [wait], error, traceback)
            return self._finish(context, event)

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Return the input pictures and the landed outputs. Only OpenLineage's provider calls this."""
        from airflow_provider_odirouter.operators import lineage

        return lineage.openlineage(self.input_sources(), lineage.landed_paths(self._manifest))

    def request_parameters(self) -> Mapping[str, Any]:
        """
        Return the checked parameters, as they are sent.

        :raises InvalidParametersError: If a rule of the endpoint is broken.
        """
        unset: dict[str, object] = {}
        parameters = without_unset(self._given_parameters, self.parameters, "parameters", unset)
        needed = {name: value for name, value in unset.items() if name == f"parameters.{PROMPT}" or name.endswith("]")}
        if needed:
            raise InvalidParametersError(self._endpoint_name, map(_unset_problem, needed.items()))
        if unset:
            log.info("Not sent, since their templates rendered to nothing: %s.", ", ".join(unset))
        unknown = self._unknown_file_parameters(self.parameters)
        self.parameters = self._json_parameters(parameters)
        return self._with_files(unknown)

    def _own_problems(self, *, rendered: bool) -> list[Problem]:
        problems = super()._own_problems(rendered=rendered)
        if self.max_submits is not None and self.durable is False:
            problems.append(Problem("max_submits", NOT_REMEMBERED))
        return problems

    def check_literal_input(self) -> None:
        """
        Check what the task sends, as far as it is known when the Dag is parsed.

        :raises InvalidParametersError: If a rule of the endpoint is broken.
        """
        if is_template(self.parameters):
            return
        self._json_parameters(self.parameters, has_template=is_template)
        problems = [*self._unknown_file_parameters(self.parameters), *self._file_sources(is_template)[1]]
        if problems:
            raise InvalidParametersError(self._endpoint_name, problems)

    def _unknown_file_parameters(self, parameters: object) -> list[Problem]:
        known = parameters if isinstance(parameters, Mapping) else ()
        return [
            Problem("file_parameters", f"{name!r} is not one of the parameters")
            for name in usable_names(self.file_parameters)
            if name not in known
        ]

    def _file_sources(
        self, has_template: Callable[[object], bool] = lambda _: False
    ) -> tuple[dict[str, str], list[Problem]]:
        return file_sources(self.parameters, self.file_parameters, prefix="parameters.", has_template=has_template)

    def _with_files(self, problems: Sequence[Problem]) -> dict[str, Any]:
        """Return the parameters with the files in the place of their paths; one error names all that is wrong."""
        if not self.file_parameters:
            return self.parameters  # type: ignore[no-any-return]
        from airflow_provider_odirouter.images.inputs import read_files

        sources, unusable = self._file_sources()
        files = read_files(sources, storage_conn_id=self.storage_conn_id)
        if found := [*problems, *unusable, *files.problems]:
            raise InvalidParametersError(self._endpoint_name, found)
        for where, source in sources.items():
            if remark := relative_remark(where, source):
                log.warning(remark)
        return with_files(self.parameters, self.file_parameters, files.encoded, prefix="parameters.")

    def _json_parameters(
        self, parameters: object, has_template: Callable[[object], bool] | None = None
    ) -> dict[str, Any]:
        plain = json_object(self._endpoint_name, parameters, has_template=has_template)
        prompt = plain.get(PROMPT)
        if isinstance(prompt, str) and prompt.strip() in MISSING_WORDS:
            raise InvalidParametersError(self._endpoint_name, [_unset_problem((f"parameters.{PROMPT}", prompt))])
        return plain

    @property
    def _endpoint_name(self) -> str:
        """The endpoint for an error, also if the endpoint itself cannot be used."""
        return self.endpoint if isinstance(self.endpoint, str) else type(self).__name__

    def input_sources(self) -> Sequence[str]:
        """Return the paths and URLs of the files that are sent, as far as the operator knows them."""
        return tuple(self._file_sources()[0].values())

    def record_fields(self) -> Mapping[str, Any]:
        """Return the fields of the gallery's record: ``parameters``; ``images``, ``mask`` and ``sha256`` if known."""
        from airflow_provider_odirouter.xcoms import shortened

        return {"parameters": shortened(self.parameters)}

    def _request_store(self, context: Context, *, has_begun: bool = True) -> RequestStore:
        from airflow_provider_odirouter.lifecycle.resume import open_request_store

        return open_request_store(
            context,
            durable=self.durable,
            output_path=self.output_path,
            storage_conn_id=self.storage_conn_id,
            has_begun=has_begun,
        )

    def _wait_for(self, context: Context, request: Submitted) -> Wait:
        """Return the wait for a request, with this try's ``timeout``, also if an earlier try has submitted it."""
        from airflow_provider_odirouter.lifecycle.polling import deadline_of
        from airflow_provider_odirouter.lifecycle.wait import end_of_execution

        ends_at = end_of_execution(context, self.execution_timeout)
        deadline = deadline_of(datetime.now(UTC), self.timeout, ends_at)
        return self.make_wait(request.request_id, deadline, submitted_at=request.submitted_at.timestamp())

    def _publish(
        self, context: Context, record: RequestRecord, request: Submitted, wait: Wait | None, spent: Spending | None
    ) -> None:
        from airflow_provider_odirouter.xcoms import push_request

        known = {
            "request_id": request.request_id,
            "submitted_at": request.submitted_at,
            "waiting_since": datetime.now(UTC) if wait else None,
            "deadline": datetime.fromtimestamp(wait.deadline, UTC) if wait else None,
            **(spent._asdict() if spent else {}),
        }
        self.hook.before_call()
        push_request(context["ti"], record.model_copy(update=known), self.hook.request_url)

    def _finish(self, context: Context, event: RequestEvent, *, is_counted: bool = False) -> dict[str, Any]:
        from airflow_provider_odirouter.errors import OdiRouterError
        from airflow_provider_odirouter.lifecycle.cancel import cancel_request
        from airflow_provider_odirouter.lifecycle.failures import will_be_retried
        from airflow_provider_odirouter.lifecycle.finish import finish, forget_unlandable_request
        from airflow_provider_odirouter.lifecycle.polling import KEEPS_WAITING, SUBMITS_AGAIN, may_be_alive
        from airflow_provider_odirouter.models import Ending
        from airflow_provider_odirouter.operators import lineage

        if not is_counted:
            self.hook.metrics.ended(event)
        if not may_be_alive(event):
            self._finished_request = event.request_id
        store = self._request_store(context)
        has_next_try = will_be_retried(context)
        keeps_request = store.survives_retry and has_next_try
        if event.ending is Ending.UNREACHABLE and self.cancel_on_timeout and not keeps_request:
            event = event.with_cancel_outcome(
                cancel_request(self.hook, self.endpoint, event.request_id, cause="unreachable")
            )
        try:
            manifest = finish(
                context,
                self.hook,
                event,
                output_path=self.output_path,
                storage_conn_id=self.storage_conn_id,
                retry=KEEPS_WAITING if keeps_request and may_be_alive(event) else SUBMITS_AGAIN,
                landing_is_free=store.survives_retry,
                spent=_try_to_read_spending(store),
            )
        except OdiRouterError as error:
            if not has_next_try:
                forget_unlandable_request(error)
            if error.request_over:
                store.forget()
            raise
        self._manifest = manifest
        folder = self.output_path if manifest["outputs"] else None
        lineage.describe_assets(context, self.outlets, lineage.event_extra(manifest), folder=folder)
        store.done()
        return manifest

    def _record(self) -> RequestRecord:
        """
        Return the gallery's record of the request, without the fields that are unknown before the submit.

        :raises InvalidParametersError: If it cannot be pushed as an XCom.
        """
        from airflow_provider_odirouter.xcoms import RequestRecord

        record = RequestRecord(
            request_id="",
            endpoint=self.endpoint,
            odirouter_conn_id=self.odirouter_conn_id,
            # Without a wait, the request belongs to the task that waits for it.
            cancel_on_kill=self.cancel_on_kill and self.wait_for_completion,
            **self.record_fields(),
        )
        json_object(self.endpoint, record.to_xcom(), name="record_fields")
        return record

    def _manifest_of_submit(self, context: Context, request: Submitted, spent: Spending | None) -> dict[str, Any]:
        from airflow_provider_odirouter.models import Manifest
        from airflow_provider_odirouter.operators import lineage

        manifest = Manifest(
            request_id=request.request_id,
            endpoint=self.endpoint,
            submitted_at=request.submitted_at,
            **(spent._asdict() if spent else {}),
        ).to_xcom()
        lineage.describe_assets(context, self.outlets, lineage.event_extra(manifest), folder=None)
        return manifest


def _try_to_read_spending(store: RequestStore) -> Spending | None:
    if not store.survives_retry:
        return None
    try:
        return store.spent()
    except Exception as error:  # noqa: BLE001 - the outputs matter more
        log.warning("The submits of this task's earlier tries could not be read: %s", error)
        return None


def _unset_problem(item: tuple[str, object]) -> Problem:
    name, value = item
    return Problem(name, str(unset_problem(value)))
