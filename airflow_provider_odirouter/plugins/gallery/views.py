"""
The gallery's pages: of one subject, of the instances of a mapped task, of the edits of a batch.

The template engine escapes every text.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_provider_odirouter.addresses import COVER, PREFIX, SMALL, WHOLE, with_page
from airflow_provider_odirouter.models import BatchSummary, Manifest, Spending
from airflow_provider_odirouter.plugins.gallery.edits import Edit, Edits
from airflow_provider_odirouter.plugins.gallery.files import MAX_BYTES
from airflow_provider_odirouter.plugins.gallery.instances import Instance, Task
from airflow_provider_odirouter.plugins.gallery.subjects import Kind, Picture, Subject
from airflow_provider_odirouter.redaction import MASK, shorten_url, shorten_urls
from airflow_provider_odirouter.xcoms import BatchRecord, RequestRecord

TEMPLATES = Path(__file__).parent / "templates"
CARDS_PER_PAGE = 60
MAX_ALT = 200
"""Characters of a picture's alternative text."""
NOT_OURS = "This task does not edit pictures with OdiRouter, so there is nothing to show here."
ALL_INSTANCES = "All instances of this task"
EXPIRED = "The vendor's link to this picture has expired, or cannot be reached. Set output_path to keep pictures."
UNREACHABLE = "There is no picture at this address any more, or it cannot be reached."
UNREADABLE = (
    "Not found, or changed since the task wrote it. The API server can read every object store, but a worker's own "
    "disk only if that disk is shared."
)
TOO_LARGE = f"The picture has more than {MAX_BYTES // 2**20} MiB, too many to be shown."
UNLOADED = "This {} is a link: open it to see the picture."
INCOMPLETE = "This input was a link with a password or a signature, which is not kept, so it cannot be opened here."
SHOWN_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
WAITING = frozenset({"running", "deferred", "up_for_reschedule"})
"""The states in which a task can wait for its request."""


@dataclass(frozen=True)
class Page:
    """
    A page without its nonce, which lets its own style and script run.

    :param origins: Those of the linked pictures that the page loads.
    """

    template: str
    content: dict[str, Any]
    origins: frozenset[str] = frozenset()

    def render(self, nonce: str) -> str:
        """Return the HTML."""
        return _environment().get_template(self.template).render(nonce=nonce, **self.content)


@dataclass(frozen=True)
class Site:
    """
    Where the gallery is.

    :param root: The path under which it is mounted, with the prefix of Airflow's ``[api] base_url``.
    :param hosts: The names of Airflow's host.
    """

    root: str
    hosts: frozenset[str] = frozenset()

    @property
    def airflow(self) -> str:
        """The path of Airflow's UI."""
        return self.root.removesuffix(PREFIX)

    def origins(self, subjects: Iterable[Subject]) -> frozenset[str]:
        """Return the origins of the linked pictures that a page of these subjects loads."""
        pictures = (one for subject in subjects for one in subject.pictures() if one.is_linked)
        return frozenset(one.origin for one in pictures if one.is_loaded(self.hosts) and one.origin)


@dataclass(frozen=True)
class Figure:
    """
    A picture on a page.

    :param whole: The address of the picture as it is; ``None``: there is none.
    :param is_opened: Whether the page offers to open it: a browser does not show each kind of file.
    :param unloaded: The text in its place if the page does not load it.
    :param cover: The address of what covers the editable part, if there is a mask.
    :param missing: The text in its place if the browser cannot load it.
    """

    title: str
    alt: str
    small: str
    whole: str | None
    is_opened: bool
    missing: str
    unloaded: str
    is_linked: bool
    is_loaded: bool
    source: str
    facts: Sequence[str] = ()
    cover: str | None = None


def notice(text: str) -> Page:
    """Make a page of one sentence."""
    return Page("notice.html", {"title": "Images", "text": text, "refresh": False})


def instance_page(site: Site, instance: Instance) -> Page:
    """Make the page of a task instance with one edit."""
    if not instance.is_ours:
        return notice(NOT_OURS)
    links = {"up": _link_to_all(site, instance), "previous": None, "next": None}
    return _subject_page(
        site, instance, links | {"try_number": instance.try_number, "waiting": _waiting(site, instance)}
    )


def edit_page(site: Site, edit: Edit) -> Page:
    """Make the page of an edit of a batch."""
    number, total = edit.number, edit.total
    grid = with_page(edit.batch.address, -(-number // CARDS_PER_PAGE))
    links = {
        "up": (site.root + grid, f"All edits of this batch ({total:,})"),
        "previous": site.root + edit.address_of(number - 1) if number > 1 else None,
        "next": site.root + edit.address_of(number + 1) if number < total else None,
    }
    # The batch's try may be later than the one that submitted this edit.
    return _subject_page(site, edit, links | {"try_number": None, "waiting": None})


def mapped_page(site: Site, task: Task, instances: Sequence[Instance], *, page: int, total: int) -> Page:
    """
    Make a page of the instances of a mapped task.

    :param instances: Those on this page.
    :param total: How many there are on all pages.
    """
    if not any(instance.is_ours for instance in instances):
        return notice(NOT_OURS)
    content = {
        "title": f"Images of {task.task_id}",
        "task": task,
        "cards": [_card(site, one, one.index_label, _batch_counts(one)) for one in instances],
        "total": total,
        "refresh": not all(instance.has_ended for instance in instances),
    }
    paging = _paging(page, total, lambda number: site.root + with_page(task.address, number))
    return Page("grid.html", content | paging, site.origins(instances))


def batch_page(site: Site, edits: Edits, *, page: int, problem: str | None) -> Page:
    """
    Make a page of a batch: its progress, and its edits.

    :param problem: Why the edits cannot be shown.
    """
    batch, summary = edits.batch, edits.batch.batch_summary
    manifest = summary.manifest if summary else None
    page = min(page, _page_count(len(edits)))
    first = (page - 1) * CARDS_PER_PAGE + 1
    parsed = list(edits.parse_some(first, CARDS_PER_PAGE))
    if unreadable := [str(number) for number, edit in enumerate(parsed, first) if edit is None]:
        problem = f"The manifest has been changed. Lines that cannot be read: {', '.join(unreadable)}."
    if manifest and not edits and not problem:
        problem = "The manifest is empty."
    content = {
        "title": f"Images of {batch.heading}",
        "subject": batch,
        "try_number": batch.try_number,
        "counts": _batch_counts(batch),
        "times": _batch_times(batch),
        "spent": _spent(batch.batch_summary),
        "problem": problem,
        "cards": [_card(site, edit, edit.heading) for edit in parsed if edit],
        "manifest": shorten_url(manifest) if manifest else None,
        "up": _link_to_all(site, batch),
        "refresh": not batch.has_ended,
    }
    paging = _paging(page, len(edits), lambda number: site.root + with_page(batch.address, number))
    return Page("batch.html", content | paging)


def _subject_page(site: Site, subject: Subject, content: dict[str, Any]) -> Page:
    pictures = list(subject.pictures())
    mask = next((one for one in pictures if one.kind is Kind.MASK and not one.is_linked), None)
    common = {
        "title": f"Images of {subject.heading}",
        "subject": subject,
        "request_id": _first_known(subject, "request_id"),
        "endpoint": _first_known(subject, "endpoint"),
        "prompt": subject.parameters.get("prompt"),
        "parameters": {name: _text(value) for name, value in subject.parameters.items() if name != "prompt"},
        "inputs": [_figure(site, subject, one, mask) for one in pictures if one.kind is not Kind.OUTPUT],
        "outputs": [_figure(site, subject, one, mask) for one in pictures if one.kind is Kind.OUTPUT],
        "notes": _notes(subject),
        "spent": _spent(subject.manifest) or _spent(subject.request),
        "refresh": not subject.has_ended,
    }
    return Page("subject.html", common | content, site.origins([subject]))


def _waiting(site: Site, instance: Instance) -> dict[str, Any] | None:
    """Return what a person wants to know of a request that has not ended; ``None``: the task does not wait for one."""
    request, status = instance.request, instance.status
    if request is None or request.deadline is None or instance.state not in WAITING:
        return None
    conn_id = request.odirouter_conn_id or "odirouter_default"
    return {
        "since": request.waiting_since,
        "deadline": request.deadline,
        "is_late": _has_passed(request.deadline),
        "status": status,
        "logs": site.airflow + instance.address_in_airflow,
        "command": shlex.join(
            ["odirouter-request", "status", request.endpoint, request.request_id, "--conn-id", conn_id]
        ),
        "cancel_on_kill": request.cancel_on_kill,
    }


def _notes(subject: Subject) -> list[str]:
    """Return why some outputs have neither a file nor a link."""
    outputs = enumerate(subject.manifest.outputs if subject.manifest else (), start=1)
    return [f"Output {number}: {shorten_urls(output.note)}" for number, output in outputs if output.note]


def _spent(record: Manifest | RequestRecord | BatchSummary | BatchRecord | None) -> str | None:
    """Return what all tries have spent, for people; ``None``: it is not known."""
    return str(Spending(record.submits, record.cost)) if record and record.submits else None


def _first_known(subject: Subject, name: str) -> Any:
    records = (subject.request, subject.manifest, subject.failure)
    return next((value for record in records if (value := getattr(record, name, None))), None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _link_to_all(site: Site, instance: Instance) -> tuple[str, str] | None:
    return (site.root + instance.task.address, ALL_INSTANCES) if instance.is_mapped else None


def _batch_counts(instance: Instance) -> dict[str, int]:
    """Return how many edits of a batch have come how far; nothing, if it is not a batch."""
    match instance.batch_summary:
        case BatchSummary() as summary:
            return {"edits": summary.edits, "landed": summary.succeeded, "failed": summary.failed}
        case BatchRecord() as record:
            counts = {"edits": record.edits, "landed": record.landed, "failed": record.failed}
            return counts if instance.has_ended else counts | {"waiting": record.waiting}
    if instance.review:
        edits = instance.review.edits
        return {"edits": len(edits), "outputs": sum(len(item.outputs) for item in edits)}
    return {}


def _batch_times(batch: Instance) -> dict[str, datetime]:
    times: dict[str, datetime | None] = {}
    match batch.batch_summary:
        case BatchSummary() as summary:
            times = {"Submitted": summary.submitted_at, "Completed": summary.completed_at}
        case BatchRecord() as record:
            times = {"Submitted": record.submitted_at}
            if not batch.has_ended:
                times |= {"Deferred since": record.deferred_at, "Deadline": record.deadline}
    return {name: time for name, time in times.items() if time}


def _page_count(total: int) -> int:
    return max(1, -(-total // CARDS_PER_PAGE))


def _paging(page: int, total: int, address: Callable[[int], str]) -> dict[str, Any]:
    pages = _page_count(total)
    return {
        "page": page,
        "pages": pages,
        "previous": address(page - 1) if page > 1 else None,
        "next": address(page + 1) if page < pages else None,
    }


def _card(site: Site, subject: Subject, name: str, counts: dict[str, int] | None = None) -> dict[str, Any]:
    pictures = sorted(
        (one for one in subject.pictures() if one.is_loaded(site.hosts)),
        key=lambda picture: picture.kind is not Kind.OUTPUT,
    )
    return {
        "subject": subject,
        "name": name,
        "address": site.root + subject.address,
        "figure": _figure(site, subject, pictures[0], None) if pictures else None,
        "counts": counts,
        "more": max(0, sum(one.kind is Kind.OUTPUT for one in pictures) - 1),
    }


def _figure(site: Site, subject: Subject, picture: Picture, mask: Picture | None) -> Figure:
    """
    Make the figure of a picture.

    :param mask: Of the first input.
    """
    number = picture.index + 1
    missing = UNREACHABLE if picture.is_linked else UNREADABLE
    match picture.kind:
        case Kind.OUTPUT:
            title = f"Output {number}"
            alt = f"{title} of: {subject.parameters.get('prompt') or subject.heading}"[:MAX_ALT]
            missing = _why_output_is_missing(picture)
        case Kind.IMAGE:
            title = f"Input {number}"
            alt = f"{title}: {picture.file_name}"
        case Kind.MASK:
            title = "Mask"
            alt = f"{title}: {picture.file_name}. Its transparent part may be edited."
    base = site.root + subject.address
    is_masked = mask is not None and (picture.kind, picture.index) == (Kind.IMAGE, 0)
    names = {"kind": picture.kind, "index": picture.index}
    source = shorten_url(picture.source)
    is_incomplete = picture.is_linked and picture.kind is not Kind.OUTPUT and MASK in source
    return Figure(
        title=title,
        alt=alt,
        small=picture.source if picture.is_linked else base + SMALL.format(**names),
        whole=None if is_incomplete else picture.source if picture.is_linked else base + WHOLE.format(**names),
        is_opened=not is_incomplete and (picture.is_linked or _is_shown(picture)),
        missing=missing,
        unloaded=INCOMPLETE if is_incomplete else UNLOADED.format("output" if picture.output else "input"),
        is_linked=picture.is_linked,
        is_loaded=picture.is_loaded(site.hosts),
        source=source,
        facts=_facts(picture),
        cover=base + COVER if is_masked else None,
    )


def _why_output_is_missing(picture: Picture) -> str:
    """Return the most likely reason; what a file is, its bytes say, so the page tries to load any."""
    if picture.is_linked:
        reason = EXPIRED
    elif picture.output and (picture.output.size_bytes or 0) > MAX_BYTES:
        reason = TOO_LARGE
    else:
        reason = UNREADABLE
    if _is_shown(picture):
        return reason
    content_type = picture.output.content_type if picture.output else None
    advice = "" if picture.is_linked or reason is TOO_LARGE else ": download it"
    claim = f"the manifest calls this file {content_type}"
    return f"The gallery shows PNG, JPEG, WebP and GIF, and {claim}{advice}. Or: {reason}"


def _is_shown(picture: Picture) -> bool:
    """Return whether browsers show a picture, as far as its manifest says what it is."""
    content_type = picture.output.content_type if picture.output else None
    return not content_type or content_type.lower() in SHOWN_TYPES


def _facts(picture: Picture) -> list[str]:
    if not (output := picture.output):
        return []
    facts = [(output.content_type or "").removeprefix("image/").upper()]
    if output.width and output.height:
        facts.append(f"{output.width} × {output.height}")
    if output.size_bytes is not None:
        facts.append(_size(output.size_bytes))
    return [fact for fact in facts if fact]


def _size(size: int) -> str:
    if size >= 2**60:  # A manifest can claim it, and more than a float can hold.
        return "more than 1 EiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _time(at: datetime) -> str:
    try:
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError):  # In UTC, it would be before the year 1 or after 9999.
        return str(at)


def _has_passed(at: datetime) -> bool:
    try:
        return at.astimezone(UTC) < datetime.now(UTC)
    except (OverflowError, ValueError):  # as above
        return False


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["time"] = _time
    return environment
