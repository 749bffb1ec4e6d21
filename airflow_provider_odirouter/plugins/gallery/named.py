"""
The pictures that a task instance names: its inputs, its mask, its outputs.

Nothing else is ever opened, whatever a call asks for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airflow_provider_odirouter.images.inputs import is_url
from airflow_provider_odirouter.models import LandedOutput
from airflow_provider_odirouter.plugins.gallery.instances import Instance

HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
"""What Chromium takes for a host in a policy."""


class Kind(StrEnum):
    """What a picture is to its task."""

    IMAGE = "images"
    MASK = "mask"
    OUTPUT = "outputs"


@dataclass(frozen=True)
class Named:
    """
    A picture that a task instance names.

    :param place: A path of a store, or an ``http(s)`` URL.
    :param sha256: Of what lies there, as the task has seen it; ``None``: it is linked.
    :param output: What the manifest knows of it, if it is one.
    """

    kind: Kind
    index: int
    place: str
    sha256: str | None
    output: LandedOutput | None = None

    @property
    def etag(self) -> str:
        """What HTTP tells one version from another by."""
        return f'"{hashlib.sha256(f"{self.place} {self.sha256}".encode()).hexdigest()[:16]}"'

    @property
    def is_linked(self) -> bool:
        """Whether the reader's browser fetches it itself, from where it lies."""
        return is_url(self.place)

    @property
    def origin(self) -> str | None:
        """Where a linked picture comes from, as a Content-Security-Policy names it."""
        try:
            url = urlsplit(self.place)
        except ValueError:  # such as http://[bad/a.png
            return None
        host = url.netloc.rpartition("@")[2]
        # Whatever else may stand in a URL must not become a part of the policy.
        return f"{url.scheme}://{host}" if HOST.fullmatch(host) else None

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(re.split("[?#]", self.place)[0] if self.is_linked else self.place).name


def pictures_of(instance: Instance) -> Iterator[Named]:
    """
    Yield all pictures that may be shown for a task instance.

    What lies in a store is shown only under the digest that the task has noted: who can write this Dag's XComs, but not
    read another's, could else name that one's picture.
    """
    if request := instance.request:
        named = [(Kind.IMAGE, index, place) for index, place in enumerate(request.images)]
        named += [(Kind.MASK, 0, request.mask)] if request.mask else []
        for kind, index, place in named:
            if is_url(place) or place in request.sha256:
                yield Named(kind, index, place, request.sha256.get(place))
    if manifest := instance.manifest:
        for index, output in enumerate(manifest.outputs):
            if output.path and output.sha256 and instance.can_have_landed(output.path):
                yield Named(Kind.OUTPUT, index, output.path, output.sha256, output)
            elif output.url and is_url(output.url):
                yield Named(Kind.OUTPUT, index, output.url, None, output)


def find(instance: Instance, kind: Kind, index: int) -> Named | None:
    """Return the picture that a call asks for, ``None`` if the task instance does not name it."""
    return next((one for one in pictures_of(instance) if (one.kind, one.index) == (kind, index)), None)
