"""
The XComs of a task that people look at: the request that it waits for, and why it failed.

Written by operators and sensors; read by the gallery, and by the listener that cancels for a task which cannot. This
module must never do I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from airflow.sdk import BaseOperatorLink
from pydantic import BaseModel, ConfigDict

from airflow_provider_odirouter.addresses import instance_address, link_from_ui
from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.redaction import shorten_url, shorten_urls

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

REQUEST_XCOM = "odirouter_request"
FAILURE_XCOM = "odirouter_failure"
BATCH_XCOM = "odirouter_batch"
REVIEW_XCOM = "odirouter_review"
"""The pictures that a person reviews."""
STATUS_XCOM = "odirouter_status"
WAIT_XCOM = "odirouter_wait"
"""Names the requests that a batch's trigger waits for, as ``request_id`` names that of a single edit."""

MAX_TEXT = 4_000
"""Characters of a parameter of an endpoint that we do not know: it may be a picture as base64."""


class TaskInstance(Protocol):
    """What is used of Airflow's task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None

    def xcom_push(self, key: str, value: Any) -> None:
        """Push an XCom."""


class Record(BaseModel):
    """Base of the records: plain JSON, without what is not known."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    """Of the record's form."""

    def to_xcom(self) -> dict[str, Any]:
        """Return the record as plain JSON, without secrets."""
        plain = self.without_secrets().model_dump(mode="json", exclude_defaults=True)
        return {"version": self.version, **plain}

    def without_secrets(self) -> Self:
        """Return the record with shortened URLs."""
        # Not in a serializer of pydantic: that turns an execution_timeout which passes meanwhile into its own error.
        return self


class WaitRecord(Record):
    """What a task waits for, and whose it is."""

    endpoint: str
    odirouter_conn_id: str | None = None
    cancel_on_kill: bool = False
    """Whether it is cancelled when the task is marked: never, if another task waits for it."""
    submits: int | None = None
    """Of the task instance in all its tries; ``None``: nothing remembers them."""
    cost: float | None = None
    """Of these; ``None``: there is no price for one of them."""


class RequestRecord(WaitRecord):
    """A request, as the task that waits for it knows it."""

    request_id: str
    submitted_at: datetime | None = None
    """``None``: another task has submitted the request."""
    waiting_since: datetime | None = None
    """When the wait of this try began; ``None``: the task does not wait."""
    deadline: datetime | None = None
    """When the wait ends; ``None``: the task does not wait."""
    images: tuple[str, ...] = ()
    """The input pictures: URLs, and paths with the connection of their store."""
    mask: str | None = None
    sha256: dict[str, str] = {}
    """Of the pictures that the worker has read, by their path: nothing else may be shown in their place."""
    parameters: dict[str, Any] = {}
    """All that was sent but the pictures."""

    def without_secrets(self) -> Self:
        """Return the record with shortened URLs."""
        return self.model_copy(
            update={
                "images": tuple(map(shorten_url, self.images)),
                "mask": self.mask and shorten_url(self.mask),
                "sha256": {shorten_url(path): digest for path, digest in self.sha256.items()},
                "parameters": shorten_urls(self.parameters),
            }
        )


class BatchRecord(WaitRecord):
    """A batch, as its task knows it while it submits and waits."""

    output_path: str | None = None
    """Below it lies what is noted of each edit."""
    storage_conn_id: str | None = None
    name: str | None = None
    """Of the task instance, there."""
    edits: int
    """How many there are."""
    waiting: int = 0
    """How many requests are waited for."""
    landed: int = 0
    failed: int = 0
    submitted_at: datetime | None = None
    deferred_at: datetime | None = None
    """Since when a trigger waits for those; ``None``: a worker does."""
    deadline: datetime | None = None
    """When the trigger's wait for those ends."""
    manifest: str | None = None
    """Where the manifest lies, as soon as it is written."""


class StatusRecord(Record):
    """The status of a request, as its trigger has seen it when its state changed."""

    request_id: str
    """The trigger of an earlier try may be late, and its request another one."""
    raw_status: str
    seen_at: datetime


class FailureRecord(Record):
    """Why the task failed."""

    what: str
    vendor: str | None = None
    """The vendor's own words."""
    request_id: str | None = None
    advice: str | None = None
    """What the user should do."""

    @classmethod
    def of(cls, error: OdiRouterError) -> Self:
        """Return an error's record."""
        what, vendor = shorten_urls(error.what), shorten_urls(error.vendor)
        return cls(what=what, vendor=vendor, request_id=error.request_id, advice=error.advice or None)


def shortened(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters for people: long texts are cut."""
    return {name: _shortened(value) for name, value in parameters.items()}


def _shortened(value: Any) -> Any:
    match value:
        case str() if len(value) > MAX_TEXT:
            return f"{value[:80]}… ({len(value):,} characters)"
        case list() | tuple():
            return [_shortened(item) for item in value]
        case Mapping():
            return {str(name): _shortened(item) for name, item in value.items()}
        case _:
            return value


class OdiRouterRequestLink(BaseOperatorLink):
    """
    The gallery's page of the task instance, which shows the request.

    Airflow asks for it when a task ends; the operators push it as an XCom before they wait, so that it is there then.
    """

    name = "OdiRouter request"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the link, relative to the address of Airflow's UI."""
        return _link_to_page(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)


def push_request(ti: TaskInstance, record: RequestRecord, url_of: Callable[[str, str], str]) -> None:
    """
    Push what others need while the task waits: the record, XComs ``request_id`` and ``request_url``, the extra link.

    :param url_of: Returns a request's URL, of its endpoint and its id.
    """
    # The record first: it is what another process needs to cancel, and this one may die at any moment.
    ti.xcom_push(key=REQUEST_XCOM, value=record.to_xcom())
    ti.xcom_push(key="request_id", value=record.request_id)
    ti.xcom_push(key="request_url", value=url_of(record.endpoint, record.request_id))
    link = _link_to_page(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
    ti.xcom_push(key=OdiRouterRequestLink().xcom_key, value=link)


def _link_to_page(dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    return link_from_ui(instance_address(dag_id, run_id, task_id, -1 if map_index is None else map_index))
