"""The end of a batch: its manifest, and whether its task has succeeded."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from airflow_provider_odirouter.errors import (
    BatchFailedError,
    BatchRefusedError,
    LostSubmitError,
    OdiRouterError,
    StorageError,
)
from airflow_provider_odirouter.images.files import write_whole
from airflow_provider_odirouter.images.paths import shown, storage_path, url_of
from airflow_provider_odirouter.images.stores import in_words, reached
from airflow_provider_odirouter.images.threads import tried_aside
from airflow_provider_odirouter.models import IMAGE_EDIT_ENDPOINT, BatchItem, Phase
from airflow_provider_odirouter.operators.steps import name_of
from airflow_provider_odirouter.records import BATCH_XCOM, WAVE_XCOM, BatchRecord
from airflow_provider_odirouter.redaction import raises_bare, without_password

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.operators.batch.ledger import Ledger

OnItemFailure = Literal["continue", "fail"]


def record_of(
    context: Context,
    ledger: Ledger,
    *,
    odirouter_conn_id: str,
    cancel_on_kill: bool,
    output_path: str,
    storage_conn_id: str | None,
    deadline: datetime | None = None,
    manifest: str | None = None,
) -> BatchRecord:
    """
    Return what others may want of a batch: the gallery, and a listener that cancels its requests.

    :param deadline: When the wait is given up.
    :param manifest: Where it lies, if it is written.
    """
    items = ledger.items
    return BatchRecord(
        endpoint=IMAGE_EDIT_ENDPOINT,
        odirouter_conn_id=odirouter_conn_id,
        cancel_on_kill=cancel_on_kill,
        output_path=without_password(output_path if "://" in output_path else url_of(storage_path(output_path))),
        storage_conn_id=storage_conn_id,
        name=name_of(context),
        edits=len(items),
        waiting=sum(item.is_alive and not item.error for item in items),
        landed=sum(item.phase is Phase.LANDED for item in items),
        failed=sum(bool(item.error) for item in items),
        submitted_at=min((item.submitted_at for item in items if item.submitted_at), default=None),
        deadline=deadline,
        manifest=manifest,
    )


def announce(context: Context, record: BatchRecord) -> None:
    """Push a batch's record before its first submit, for a listener: the worker may die before it comes to its wait."""
    context["ti"].xcom_push(key=BATCH_XCOM, value=record.to_xcom())


def publish(context: Context, ledger: Ledger, record: BatchRecord, *, wave: str | None = None) -> None:
    """
    Push a batch's record, and what its requests are called.

    :param wave: Names the requests that are waited for from now on.
    """
    ledger.check_owner()
    if wave:
        context["ti"].xcom_push(key=WAVE_XCOM, value=wave)
    context["ti"].xcom_push(key=BATCH_XCOM, value=record.to_xcom())


@raises_bare()
def write_manifest(items: Sequence[BatchItem], *, output_path: str, storage_conn_id: str | None, name: str) -> str:
    """
    Write the manifest: JSON Lines, one line per edit, in order.

    :param name: Of the task instance.
    :return: Where it lies.
    :raises StorageError: If it cannot be written.
    """
    lines = [json.dumps(item.to_manifest(), ensure_ascii=False).encode() + b"\n" for item in items]

    def write() -> str:
        path = reached(output_path, storage_conn_id) / f"{name}.jsonl"
        write_whole(io.BytesIO(b"".join(lines)), path)
        return url_of(path)

    written = tried_aside(write)
    if isinstance(written, str):
        return written
    reason = in_words(written, output_path, storage_conn_id)
    what = f"The batch's manifest cannot be written to {shown(output_path)}: {reason}."
    raise StorageError(what, advice="A retry writes it, and pays for nothing that has landed.")


def verdict(
    items: Sequence[BatchItem],
    manifest: str,
    *,
    on_item_failure: OnItemFailure,
    stopped_by: OdiRouterError | None,
    tried_again: bool,
) -> OdiRouterError | None:
    """
    Decide whether a batch has failed.

    :param stopped_by: What kept the rest from being submitted.
    :param tried_again: Whether Airflow tries again.
    """
    bad = [item for item in items if item.phase is not Phase.LANDED]
    left = sum(item.phase is Phase.PLANNED for item in items)
    if stopped_by is not None and left:
        return _stopped(stopped_by, left=left, total=len(items))
    # A retry brings home what is paid, or may be.
    waits_for_retry = tried_again and any(item.phase in {Phase.SUBMITTED, Phase.SUCCEEDED} for item in bad)
    none_well = len(bad) == len(items)
    if not bad or not (waits_for_retry or none_well or on_item_failure == "fail"):
        return None
    curable = any(item.retry_helps for item in bad)
    return (BatchFailedError if curable else BatchRefusedError)(
        f"{_count(bad, len(items))}: {_kinds(bad)}. The first is edit {bad[0].number}: {bad[0].error} "
        f"All of them are in the manifest {shown(manifest)}."
    )


def _stopped(error: OdiRouterError, *, left: int, total: int) -> OdiRouterError:
    curable = error.retry_helps or isinstance(error, LostSubmitError)
    rest = "A retry" if curable else "Clearing the task"
    return (BatchFailedError if curable else BatchRefusedError)(
        f"{left:,} of {total:,} edits were not submitted: {error.what}",
        vendor=error.vendor,
        advice=f"{'' if curable else error.advice + ' '}{rest} submits those, and pays for no other.",
    )


def _count(bad: Sequence[BatchItem], total: int) -> str:
    return f"{len(bad):,} of {total:,} edits have no pictures"


def _kinds(bad: Sequence[BatchItem]) -> str:
    kinds = Counter(item.error_type or "not submitted" for item in bad)
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
