"""A picture on a page, with all that is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_odirouter.plugins.gallery.addresses import Addresses
from airflow_provider_odirouter.plugins.gallery.instances import Instance
from airflow_provider_odirouter.plugins.gallery.named import Kind, Named
from airflow_provider_odirouter.redaction import without_password

EXPIRED = "The vendor's link to this picture has expired, or cannot be reached. Set output_path to keep pictures."
UNREACHABLE = "This address has no picture any more, or cannot be reached."
UNREADABLE = (
    "The API server finds no picture there. What lies on a worker's own disk is seen only if that disk is shared; an "
    "object store can be read from everywhere."
)


@dataclass(frozen=True)
class Figure:
    """
    A picture on a page.

    :param cover: What covers the editable part, if there is a mask of it.
    :param missing: What is said if the browser cannot show it.
    """

    title: str
    alt: str
    small: str
    whole: str
    missing: str
    is_linked: bool
    is_loaded: bool
    place: str
    facts: Sequence[str] = ()
    cover: str | None = None


def is_loaded(picture: Named) -> bool:
    """
    Return whether a page loads a picture by itself.

    Not an input behind a link: whoever starts a run can name any address, such as the one that logs its reader out.
    """
    return picture.kind is Kind.OUTPUT or not picture.is_linked


def make_figure(addresses: Addresses, instance: Instance, picture: Named, mask: Named | None) -> Figure:
    """
    Make the figure of a picture.

    :param mask: Of the first image.
    """
    number = f" {picture.index + 1}"
    match picture.kind:
        case Kind.OUTPUT:
            title, missing = f"Output{number}", EXPIRED if picture.is_linked else UNREADABLE
            content_type = picture.output.content_type if picture.output else None
            if content_type and not content_type.startswith("image/"):
                missing = f"It is no picture, but {content_type}."
            alt = f"Output{number} of: {instance.parameters.get('prompt') or instance.task.task_id}"[:200]
        case Kind.IMAGE:
            title, missing = f"Input{number}", UNREACHABLE if picture.is_linked else UNREADABLE
            alt = f"Input{number}: {picture.file_name}"
        case Kind.MASK:
            title, missing = "Mask", UNREACHABLE if picture.is_linked else UNREADABLE
            alt = f"Mask: {picture.file_name}. Its transparent part may be edited."
    is_masked = mask and (picture.kind, picture.index) == (Kind.IMAGE, 0)
    return Figure(
        title=title,
        alt=alt,
        small=addresses.small(instance, picture),
        whole=addresses.whole(instance, picture),
        missing=missing,
        is_linked=picture.is_linked,
        is_loaded=is_loaded(picture),
        place=without_password(picture.place),
        facts=_facts(picture),
        cover=addresses.cover(instance, mask) if mask and is_masked else None,
    )


def _facts(picture: Named) -> list[str]:
    if not (output := picture.output):
        return []
    facts = [(output.content_type or "").removeprefix("image/").upper()]
    if output.width and output.height:
        facts.append(f"{output.width} × {output.height}")
    if output.size_bytes is not None:
        facts.append(_size(output.size_bytes))
    return [fact for fact in facts if fact]


def _size(size: int) -> str:
    if size >= 2**60:  # which no file has, but a manifest can say so, and more than a float can hold
        return "more than 1 EiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
