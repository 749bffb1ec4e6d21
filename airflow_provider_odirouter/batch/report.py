"""What a batch reports: its record while it runs, its manifest, and whether its task has failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Literal

from airflow_provider_odirouter.errors import (
    BatchFailedError,
    BatchRefusedError,
    LostSubmitError,
    OdiRouterError,
    StorageError,
    SubmitLimitError,
    TransportError,
)
from airflow_provider_odirouter.lifecycle.finish import name_of_files
from airflow_provider_odirouter.models import BatchItem, Phase
from airflow_provider_odirouter.redaction import raises_without_traceback, without_password
from airflow_provider_odirouter.storage.files import JSON_LINES, write_whole
from airflow_provider_odirouter.storage.paths import portable_path, quote_path, storage_path
from airflow_provider_odirouter.storage.store_errors import describe_error, open_store
from airflow_provider_odirouter.storage.threads import try_in_thread
from airflow_provider_odirouter.xcoms import BATCH_XCOM, WAIT_XCOM, BatchRecord

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.batch.state import BatchStore

OnItemFailure = Literal["continue", "fail"]

MAX_MEMORY_BYTES = 2**20
"""Of a manifest; a larger one is in a temporary file before it is written."""


def make_record(
    context: Context,
    store: BatchStore,
    *,
    endpoint: str,
    odirouter_conn_id: str,
    cancel_on_kill: bool,
    output_path: str,
    storage_conn_id: str | None,
    deferred_at: datetime | None = None,
    deadline: datetime | None = None,
    manifest: str | None = None,
) -> BatchRecord:
    """
    Return a batch's record, for the gallery and for a listener that may have to cancel its requests.

    :param deferred_at: Since when the task is deferred; ``None``: a worker has it.
    :param deadline: The end of the longest wait in the trigger.
    :param manifest: Its path, once it is written.
    """
    waiting = landed = failed = edits = 0
    submitted_at: datetime | None = None
    for item in store.items:  # once: each edit that has landed is made from its line
        edits += 1
        waiting += item.is_alive and not item.error
        landed += item.phase is Phase.LANDED
        failed += bool(item.error)
        submitted_at = min(filter(None, (submitted_at, item.submitted_at)), default=None)
    spent = store.spent()
    return BatchRecord(
        endpoint=endpoint,
        odirouter_conn_id=odirouter_conn_id,
        cancel_on_kill=cancel_on_kill,
        output_path=without_password(output_path if "://" in output_path else portable_path(storage_path(output_path))),
        storage_conn_id=storage_conn_id,
        name=name_of_files(context),
        edits=edits,
        waiting=waiting,
        landed=landed,
        failed=failed,
        submits=spent.submits,
        cost=spent.cost,
        submitted_at=submitted_at,
        deferred_at=deferred_at,
        deadline=deadline,
        manifest=manifest,
    )


def announce(context: Context, record: BatchRecord) -> None:
    """Push a batch's record before its first submit: a listener needs it if the worker dies before it waits."""
    context["ti"].xcom_push(key=BATCH_XCOM, value=record.to_xcom())


def publish(context: Context, store: BatchStore, record: BatchRecord, *, wait_id: str | None = None) -> None:
    """
    Push a batch's record again.

    :param wait_id: Names the requests that a trigger now waits for.
    """
    store.check_owner()
    if wait_id:
        context["ti"].xcom_push(key=WAIT_XCOM, value=wait_id)
    context["ti"].xcom_push(key=BATCH_XCOM, value=record.to_xcom())


@raises_without_traceback()
def write_manifest(items: Sequence[BatchItem], *, output_path: str, storage_conn_id: str | None, name: str) -> str:
    """
    Write the manifest: JSON Lines, one line per edit, in order.

    :param name: Of the task instance.
    :return: Its path.
    :raises StorageError: If it cannot be written.
    """

    def write() -> str:
        path = open_store(output_path, storage_conn_id) / f"{name}.jsonl"
        with SpooledTemporaryFile(MAX_MEMORY_BYTES) as file:
            for item in items:
                file.write(json.dumps(item.to_manifest(), ensure_ascii=False).encode() + b"\n")
            write_whole(file, path, content_type=JSON_LINES)
        return portable_path(path)

    written = try_in_thread(write)
    if isinstance(written, str):
        return written
    reason = describe_error(written, output_path, storage_conn_id)
    what = f"The batch's manifest cannot be written to {quote_path(output_path)}: {reason}."
    raise StorageError(
        what,
        advice="A retry writes it, and does not pay again for edits that have landed.",
        last_advice="Clear the task: it writes the manifest, and does not pay again for edits that have landed.",
    )


def batch_error(
    items: Sequence[BatchItem],
    manifest: str,
    *,
    on_item_failure: OnItemFailure,
    stopped_by: OdiRouterError | None,
    will_be_retried: bool,
) -> OdiRouterError | None:
    """
    Return the error with which the task fails; ``None``: the task succeeds.

    :param stopped_by: The error that stopped the submits, if there was one.
    :param will_be_retried: Whether Airflow certainly tries again if this try fails.
    """
    failed = [item for item in items if item.phase is not Phase.LANDED]
    planned = sum(item.phase is Phase.PLANNED for item in items)
    # A retry lands what is paid, or may be.
    needs_retry = will_be_retried and any(item.phase in {Phase.SUBMITTED, Phase.SUCCEEDED} for item in failed)
    if stopped_by is not None and planned:
        if isinstance(stopped_by, SubmitLimitError) and needs_retry:
            return _limit_error(stopped_by, count=planned, total=len(items))
        return _not_submitted_error(stopped_by, count=planned, total=len(items))
    all_failed = len(failed) == len(items)
    if not failed or not (needs_retry or all_failed or on_item_failure == "fail"):
        return None
    curable = any(item.retry_helps for item in failed)
    return (BatchFailedError if curable else BatchRefusedError)(
        f"{len(failed):,} of {len(items):,} edits have no pictures: {_count_types(failed)}. "
        f"The first is edit {failed[0].number}: {failed[0].error} "
        f"All of them are in the manifest {quote_path(manifest)}."
    )


def _limit_error(error: SubmitLimitError, *, count: int, total: int) -> OdiRouterError:
    return BatchFailedError(
        f"{count:,} of {total:,} edits were not submitted: {error.what}",
        advice="A retry submits nothing more, but lands what is paid.",
    )


def _not_submitted_error(error: OdiRouterError, *, count: int, total: int) -> OdiRouterError:
    curable = error.retry_helps or isinstance(error, LostSubmitError)
    what_submits = "A retry" if curable else "Clearing the task"
    hint = error.hint if isinstance(error, TransportError) else None
    first = f"{hint or ('' if curable else error.advice)} ".lstrip()
    return (BatchFailedError if curable else BatchRefusedError)(
        f"{count:,} of {total:,} edits were not submitted: {error.what}",
        vendor=error.vendor,
        advice=f"{first}{what_submits} submits those, and pays for no other.",
        last_advice=f"{first}Clear the task: it submits those, and pays for no other." if curable else None,
    )


def _count_types(failed: Sequence[BatchItem]) -> str:
    types = Counter(item.error_type or "not submitted" for item in failed)
    return ", ".join(f"{count:,} {error_type}" for error_type, count in types.most_common())
