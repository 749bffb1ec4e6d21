"""Checks a mask, and whether it fits the first image."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_odirouter.errors import Problem
from airflow_provider_odirouter.images.picture import Picture


def mask_problems(mask: Picture, first: Picture | None) -> Iterator[Problem]:
    """
    Yield what is wrong with a mask.

    :param first: The first image; ``None``: it is not read, or cannot be used.
    """
    if not mask.has_alpha:
        yield Problem("mask", "has no alpha channel; only its transparent part may be edited")
    elif mask.is_opaque:
        # The service may change nothing then, but the request would be paid.
        yield Problem("mask", "is opaque everywhere; only its transparent part may be edited")
    if first and mask.format != first.format:
        yield Problem("mask", f"is a {mask.format}, but images[0] is a {first.format}; both must be the same")
    if first and mask.size != first.size:
        yield Problem("mask", _other_size(mask, first))


def mask_remarks(*, mask_is_read: bool, first_is_read: bool) -> Iterator[str]:
    """Yield what is not checked, since an input is a URL."""
    if not mask_is_read:
        yield (
            "The mask is a URL and is not checked: it must have an alpha channel, and the format and size of images[0]."
        )
    elif not first_is_read:
        yield ("images[0] is a URL, and the mask is not compared with it: the mask must have the same format and size.")


def _other_size(mask: Picture, first: Picture) -> str:
    sizes = f"has {_pixels(mask.size)} pixels, but images[0] has {_pixels(first.size)}"
    if mask.size != first.shown_size:
        return sizes
    return (
        f"{sizes} as it is stored, and is only shown as {_pixels(first.shown_size)} (EXIF orientation "
        f"{first.orientation}); save images[0] turned, or make a mask of the stored size"
    )


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
