"""Whether a mask fits the picture that it is made for, as far as that can be told."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_odirouter.errors import Problem
from airflow_provider_odirouter.images.picture import Picture


def mask_problems(mask: Picture, edited: Picture | None) -> Iterator[Problem]:
    """
    Tell what is wrong with a mask.

    :param edited: The first image; ``None``, if nothing is known of it.
    """
    if not mask.has_alpha:
        yield Problem("mask", "has no alpha channel; its transparent part is what may be edited")
    elif mask.is_opaque:
        # As good as none: it would be paid for a picture that nothing may be changed in.
        yield Problem("mask", "is opaque everywhere; its transparent part is what may be edited")
    if edited and mask.format != edited.format:
        yield Problem("mask", f"is a {mask.format}, but images[0] is a {edited.format}; both must be the same")
    if edited and mask.size != edited.size:
        yield Problem("mask", _other_size(mask, edited))


def mask_remarks(*, mask_seen: bool, edited_seen: bool) -> Iterator[str]:
    """Tell what could not be checked, since it lies behind a URL."""
    if not mask_seen:
        yield (
            "The mask lies behind a URL and is not checked: it must have an alpha channel, and the format and size of "
            "images[0]."
        )
    elif not edited_seen:
        yield (
            "images[0] lies behind a URL, so that the mask is not compared with it: it must have its format and size."
        )


def _other_size(mask: Picture, edited: Picture) -> str:
    sizes = f"has {_pixels(mask.size)} pixels, but images[0] has {_pixels(edited.size)}"
    if mask.size != edited.shown_size:
        return sizes
    return (
        f"{sizes} as it is stored, and is only shown as {_pixels(edited.shown_size)} (EXIF orientation "
        f"{edited.orientation}); save images[0] turned, or make the mask for it as it is stored"
    )


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
