"""Pictures of every kind, a user who may not do everything, and a kill at the wrong moment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Paint = Callable[..., bytes]
Unprivileged = Callable[[], AbstractContextManager[None]]
Kill = Callable[[], None]

NOBODY = 65534


@pytest.fixture
def paint() -> Paint:
    """Makes a picture: ``paint("PNG", "RGBA", (40, 30))``."""

    def make(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
        buffer = BytesIO()
        noise = Image.effect_noise(size, 80)
        picture = noise.convert(mode)
        if mode.endswith("A"):
            picture.putalpha(noise)  # An opaque alpha channel is not worth keeping to every format.
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    return make


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can enter: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def unprivileged() -> Unprivileged:
    """Gives up root's rights for a while; who has none stays who they are."""

    @contextmanager
    def become() -> Iterator[None]:
        before = os.geteuid()
        if before == 0:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(before)

    return become
