"""The operator for many edits with ``gpt_image_1_edit`` in one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_odirouter import IMAGE_EDIT_ENDPOINT
from airflow_provider_odirouter.batch.image_edits import ImageEditRules
from airflow_provider_odirouter.operators.batch import Items, OdiRouterBatchOperator
from airflow_provider_odirouter.storage.path_fields import PathField, PathLike

if TYPE_CHECKING:
    from airflow_provider_odirouter.batch.rules import EndpointRules


class OdiRouterImageEditBatchOperator(OdiRouterBatchOperator):
    """
    Edit many pictures with ``gpt_image_1_edit`` in one task, each edit on its own: submit, wait, land.

    When a request ends, the next edit takes its slot at once, and its pictures land while other requests run. After
    the last submit, the task leaves the worker and waits in one trigger for the requests that still run.

    Each edit has the parameters of
    :class:`~airflow_provider_odirouter.operators.image_edit.OdiRouterImageEditOperator`, and may have a ``name``, with
    which the names of its files begin. All edits and all pictures are checked before the first submit; one error names
    everything that is wrong, with its line.

    It writes a manifest to the output path, as JSON Lines: a line per edit, in order, with ``outputs``, or with
    ``error``, ``error_type`` and ``request_id``. It returns ``{"endpoint", "manifest", "edits", "succeeded", "failed",
    "outputs", "submits", "cost", "submitted_at", "completed_at"}``: the manifest's path, and the counts.

    The state of each edit is saved beside the manifest (in ``.odirouter/``), on every version of Airflow: a retry lands
    what was paid, and submits only edits that were not submitted, or that failed with an error that a retry can cure.
    Clearing the task also submits edits that the service has refused, but never one that has succeeded.

    :param edits: A list of dictionaries, or the path of a JSON Lines (``.jsonl``) or CSV file in any store; at most
        10,000 edits. Relative paths of pictures in a file are relative to the file's folder. A manifest, or a line of a
        batch's manifest, counts as the edit ``{"images": it}``: of its outputs.
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

    template_fields: Sequence[str] = ("edits", "defaults", "output_path", "odirouter_conn_id", "storage_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"edits": "json", "defaults": "json"}
    edits = PathField()

    def __init__(
        self,
        *,
        edits: Items,
        output_path: PathLike,
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
        # First: the base's __init__ checks them together with its own.
        self.edits = edits
        super().__init__(
            endpoint=IMAGE_EDIT_ENDPOINT,
            items=(),
            output_path=output_path,
            defaults=defaults,
            storage_conn_id=storage_conn_id,
            odirouter_conn_id=odirouter_conn_id,
            max_concurrent_submits=max_concurrent_submits,
            max_in_flight=max_in_flight,
            if_exists=if_exists,
            on_empty=on_empty,
            on_item_failure=on_item_failure,
            deferrable=deferrable,
            poll_interval=poll_interval,
            timeout=timeout,
            cancel_on_kill=cancel_on_kill,
            cancel_on_timeout=cancel_on_timeout,
            on_lost_submit=on_lost_submit,
            max_submits=max_submits,
            dry_run=dry_run,
            **kwargs,
        )

    @property
    def listed(self) -> Any:
        """The edits, as the user gave them: a list, or the path of a file."""
        return self.edits

    @property
    def rules(self) -> EndpointRules:
        """The rules of an image edit."""
        return ImageEditRules()
