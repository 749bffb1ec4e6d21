"""The operator with which a person looks at edited pictures before they are used."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.utils.skipmixin import SkipMixin
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_provider_odirouter.addresses import images_tab, instance_address, link_from_ui
from airflow_provider_odirouter.compat import get_xcom, takes_response_timeout
from airflow_provider_odirouter.operators.base import OdiRouterTask, OptionalField
from airflow_provider_odirouter.parameter_checks import Check, duration_problem, flag_problem, one_of, or_none
from airflow_provider_odirouter.storage.path_fields import PathField

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context, XComArg

    from airflow_provider_odirouter.models import ReviewRecord
    from airflow_provider_odirouter.review.input import ReviewedEdit
    from airflow_provider_odirouter.xcoms import RequestRecord

log = logging.getLogger(__name__)

Edits: TypeAlias = "Mapping[str, Any] | Sequence[Mapping[str, Any]] | XComArg"
"""A manifest, a batch's summary, or a list of these; or an upstream task's output that will be one."""

NOTE = "note"
"""The key of the form's text."""


class OdiRouterReviewOperator(HITLOperator, SkipMixin):
    """
    Let a person look at edited pictures, and say which of them may be used.

    The task asks in Airflow's *Required Actions*, and holds no worker meanwhile (and on Airflow 3.3 no triggerer
    either). The page shows the input of each edit beside its outputs, its prompt, and a switch *Keep* for each output.
    It returns ``{"approved", "rejected", "note", "responded_by", "responded_at"}``, and each of these is an XCom of its
    own, too: ``review.output["approved"]``. The first two are lists of the manifests, or of the lines of a batch's
    manifest, with just these outputs: the ``images`` of a next edit, or the ``edits`` of a next batch. ``responded_by``
    is ``{"id", "name"}``, or ``None`` if no person has answered.

    What has changed while a person looked at it is neither approved nor rejected: the task fails then, and a retry asks
    again. If there is nothing to review, no person is asked: nothing is approved.

    :param edits: What an upstream task has returned: an edit's manifest, those of a mapped edit, a batch's summary, or
        some of its lines; at most 100 pictures. For more, map the review over :func:`review_chunks`. Outputs that have
        no file, but the vendor's link, are shown as links.
    :param subject: The heading, one line.
    :param preselect: Whether the switches are on at first. Default: true.
    :param on_none_approved: What the task does if nothing is approved: ``"skip"`` (default): it succeeds, and all tasks
        directly after it are skipped, those that use what is rejected, too; if the review is mapped, those of the same
        map index. ``"succeed"``: nothing else. ``"fail"``: it fails, and Airflow does not retry.
    :param on_timeout: What the task does if no person has answered within ``response_timeout``: ``"fail"`` (default),
        and a retry asks again; or it counts all pictures as rejected (``"reject"``) or approved (``"approve"``).
    :param response_timeout: How long to wait for an answer. Default: for ever. Airflow refuses an answer that comes
        later.
    :param assigned_users: The only users who may answer: ``{"id": …, "name": …}``, or a list of these. Default: all who
        may edit the Dag's *Required Actions*.
    :param notifiers: Airflow's notifiers, which are called as soon as the task asks.
    :param storage_conn_id: The Airflow connection of the stores, for URLs that name none themselves.
    """

    template_fields: Sequence[str] = ("subject", "edits", "storage_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"edits": "json"}
    inherits_from_skipmixin = True
    edits = PathField()
    storage_conn_id = OptionalField()
    ui_color = "#e8e0ff"
    SUBMIT = "Submit"
    checks: ClassVar[Mapping[str, Check]] = {
        "preselect": flag_problem,
        "on_none_approved": one_of("skip", "succeed", "fail"),
        "on_timeout": one_of("fail", "reject", "approve"),
        "response_timeout": or_none(duration_problem),
    }

    def __init__(
        self,
        *,
        edits: Edits,
        subject: str = "Which of these pictures may be used?",
        preselect: bool = True,
        on_none_approved: Literal["skip", "succeed", "fail"] | str = "skip",
        on_timeout: Literal["fail", "reject", "approve"] | str = "fail",
        response_timeout: timedelta | None = None,
        assigned_users: dict[str, str] | list[dict[str, str]] | None = None,
        notifiers: Sequence[BaseNotifier] | BaseNotifier | None = None,
        storage_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if takes_response_timeout(HITLOperator):
            kwargs["response_timeout"] = response_timeout
        # For review.output["approved"].
        kwargs.setdefault("multiple_outputs", True)
        kwargs["assigned_users"] = assigned_users
        # With a default answer, Airflow closes the request when the time is over, and refuses a later answer.
        super().__init__(
            subject=subject,
            options=[self.SUBMIT],
            defaults=[self.SUBMIT],
            notifiers=notifiers,
            **kwargs,
        )
        self.response_timeout = (
            response_timeout if response_timeout is not None else getattr(self, "response_timeout", None)
        )
        self.edits = edits
        self.preselect = preselect
        self.on_none_approved = on_none_approved
        self.on_timeout = on_timeout
        self.storage_conn_id = storage_conn_id
        if problems := [
            f"{name} {what}" for name, check in self.checks.items() if (what := check(getattr(self, name)))
        ]:
            raise ValueError("; ".join(problems))

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Check all pictures, and ask for their review."""
        from airflow_provider_odirouter.lifecycle.failures import advise, as_airflow_errors
        from airflow_provider_odirouter.review.input import count_outputs, make_record
        from airflow_provider_odirouter.review.page import Addresses, make_body
        from airflow_provider_odirouter.xcoms import REVIEW_XCOM

        with as_airflow_errors(), advise(context):
            reviewed = self._read(context)
            if not reviewed:
                log.warning("There is nothing to review, so no person is asked.")
                return self._finish(context, [], {})
        ti = context["ti"]
        names = (ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index)
        addresses = Addresses(link_from_ui(instance_address(*names)), images_tab(*names))
        self.body = make_body(reviewed, addresses, preselect=self.preselect)
        self.params = self._make_params(reviewed)
        # Before Airflow 3.3, this is made when the Dag is parsed; later, it is made anew each time.
        self.hitl_summary.update(body=self.body, serialized_params=self.serialized_params)
        # Before the request: the page's pictures are those of the record.
        ti.xcom_push(key=REVIEW_XCOM, value=make_record(reviewed).to_xcom())
        if not takes_response_timeout(HITLOperator) and self.response_timeout:
            self.execution_timeout = self.response_timeout  # that of this call is running already
        log.info("Asking for a review of %d pictures.", count_outputs(reviewed))
        return super().execute(context)  # type: ignore[no-any-return]

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the person has approved and rejected, if the pictures are still those that the page showed."""
        from airflow_provider_odirouter.errors import ReviewError
        from airflow_provider_odirouter.lifecycle.failures import advise, as_airflow_errors
        from airflow_provider_odirouter.metrics import Metrics, flush
        from airflow_provider_odirouter.review.input import count_outputs

        metrics = Metrics.of(context["ti"])
        with as_airflow_errors(), advise(context):
            reviewed = self._read_again(context)
            self.params = self._make_params(reviewed)
            try:
                response = super().execute_complete(context, event)
            except Exception as error:
                raise ReviewError(f"The answer cannot be used: {error}.") from error
            values = {**self._initial_values(reviewed), **response["params_input"]}
            if event.get("timedout"):
                metrics.reviewed("timeout", count_outputs(reviewed))
                values = self._values_at_timeout(values)
            else:
                approved = sum(bool(value) for key, value in values.items() if key != NOTE)
                metrics.reviewed("approved", approved)
                metrics.reviewed("rejected", count_outputs(reviewed) - approved)
            flush()  # the process may end now
            return self._finish(context, reviewed, values, response)

    def _read(self, context: Context) -> list[ReviewedEdit]:
        from airflow_provider_odirouter.review.input import read_review, with_digests

        records = self._records(context)
        return with_digests(read_review(self.edits, records, storage_conn_id=self.storage_conn_id))

    def _read_again(self, context: Context) -> list[ReviewedEdit]:
        """
        Return the edits that the page has shown.

        :raises ReviewError: If they are not the same any more.
        """
        from airflow_provider_odirouter.errors import InvalidParametersError, ReviewError
        from airflow_provider_odirouter.review.input import is_same_review, make_record

        shown = self._shown(context)
        try:
            reviewed = self._read(context)
        except (InvalidParametersError, ReviewError) as error:
            raise ReviewError(f"{CHANGED} {error.what}") from error
        if not is_same_review(shown, make_record(reviewed)):
            raise ReviewError(CHANGED)
        return reviewed

    def _shown(self, context: Context) -> ReviewRecord:
        from pydantic import ValidationError

        from airflow_provider_odirouter.errors import ReviewError
        from airflow_provider_odirouter.models import ReviewRecord
        from airflow_provider_odirouter.xcoms import REVIEW_XCOM

        ti = context["ti"]
        try:
            return ReviewRecord.model_validate(get_xcom(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, REVIEW_XCOM))
        except ValidationError:
            raise ReviewError(
                f"The task's XCom {REVIEW_XCOM} is missing: it is not known what the page showed."
            ) from None

    def _records(self, context: Context) -> dict[str, RequestRecord]:
        """Return what upstream tasks of ours have recorded of their requests, by request id."""
        from pydantic import ValidationError

        from airflow_provider_odirouter.xcoms import REQUEST_XCOM, RequestRecord

        task, found = context["task"], dict[str, RequestRecord]()
        for task_id in sorted(task.get_flat_relative_ids(upstream=True)):
            upstream = context["dag"].get_task(task_id)
            if not issubclass(getattr(upstream, "operator_class", type(upstream)), OdiRouterTask):
                continue
            for value in context["ti"].xcom_pull(task_ids=[task_id], key=REQUEST_XCOM):
                try:
                    record = RequestRecord.model_validate(value)
                except ValidationError:  # It did not submit anything.
                    continue
                # A sensor's record knows neither inputs nor prompt.
                if record.images or record.request_id not in found:
                    found[record.request_id] = record
        return found

    def _initial_values(self, reviewed: Sequence[ReviewedEdit]) -> dict[str, Any]:
        from airflow_provider_odirouter.review.page import switch_names

        return {**dict.fromkeys(switch_names(reviewed), self.preselect), NOTE: ""}

    def _make_params(self, reviewed: Sequence[ReviewedEdit]) -> ParamsDict:
        """Return the fields of the form, which both the process that asks and the one that resumes need."""
        from airflow_provider_odirouter.review.page import switch_names

        params = {
            key: Param(self.preselect, type="boolean", title=title) for key, title in switch_names(reviewed).items()
        }
        note = Param("", type=["string", "null"], title="Note", format="multiline", description="For the next tasks.")
        return ParamsDict({**params, NOTE: note})

    def _values_at_timeout(self, values: Mapping[str, Any]) -> dict[str, Any]:
        from airflow_provider_odirouter.errors import ReviewError

        if self.on_timeout == "fail":
            waited = self.response_timeout or self.execution_timeout
            raise ReviewError(
                f"No person has answered within {waited}, and on_timeout is 'fail'.",
                advice="A retry asks again.",
                last_advice="Clear the task: it asks again.",
            )
        is_approved = self.on_timeout == "approve"
        words = "approved" if is_approved else "rejected"
        log.warning("No person has answered in time: all pictures are %s (on_timeout=%r).", words, self.on_timeout)
        return {**dict.fromkeys(values, is_approved), NOTE: ""}

    def _finish(
        self,
        context: Context,
        reviewed: Sequence[ReviewedEdit],
        values: Mapping[str, Any],
        response: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        from airflow_provider_odirouter.errors import NoneApprovedError
        from airflow_provider_odirouter.review.outcome import count, split

        answers = {key: bool(value) for key, value in values.items() if key != NOTE}
        chosen = split(reviewed, answers)
        responded_at = response["responded_at"] if response else datetime.now(UTC)
        result = {
            **chosen,
            "note": values.get(NOTE) or None,
            "responded_by": response["responded_by_user"] if response else None,
            "responded_at": responded_at.isoformat(),
        }
        log.info("%d pictures are approved, and %d are not.", count(chosen["approved"]), count(chosen["rejected"]))
        if chosen["approved"] or self.on_none_approved == "succeed":
            return result
        if self.on_none_approved == "fail":
            note = f" The note: {result['note']}" if result["note"] else ""
            raise NoneApprovedError(f"No picture is approved, and on_none_approved is 'fail'.{note}")
        if self.do_xcom_push:  # skip() may raise: nothing is returned then
            for key, value in {**result, "return_value": result}.items():
                context["ti"].xcom_push(key=key, value=value)
        log.info("The tasks directly after this one are skipped (on_none_approved='skip').")
        self.skip(context["ti"], [one for one in self.get_direct_relatives() if not one.is_teardown])
        return result


CHANGED = "The pictures have changed since the page showed them, so none is approved and none is rejected."


def review_chunks(
    summary: Mapping[str, Any], size: int = 50, *, storage_conn_id: str | None = None
) -> list[dict[str, Any]]:
    """
    Split a batch into parts that a person can review on one page each.

    A task calls it, and the review is mapped over what it returns::

        chunks = task(review_chunks)(edit.output)
        OdiRouterReviewOperator.partial(task_id="review").expand(edits=chunks)

    :param summary: What the batch has returned.
    :param size: How many pictures a part may have, 10 to 100. Default: 50. All pictures of one edit are in one part.
    :param storage_conn_id: The Airflow connection of the manifest's store, if its URL names none itself.
    :return: The parts, which name lines of the batch's manifest. Edits without pictures are left out.
    :raises InvalidParametersError: If it is no summary of a batch, or the size is another one.
    :raises StorageError: If the manifest cannot be read now, but may be readable later.
    """
    from airflow_provider_odirouter.review.input import make_chunks

    return make_chunks(summary, size, storage_conn_id=storage_conn_id)
