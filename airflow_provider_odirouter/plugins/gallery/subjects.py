"""
The subjects of the gallery's pages, and their pictures.

The gallery opens only pictures that a subject itself names, whatever the browser asks for.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_odirouter.images.inputs import is_url
from airflow_provider_odirouter.models import LandedOutput, Manifest
from airflow_provider_odirouter.xcoms import FailureRecord, RequestRecord

HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
"""What Chromium accepts as a host in a Content-Security-Policy."""
MISREAD = re.compile(r"[\\\x00-\x1f\x7f]")
"""Browsers read a backslash as a slash, and drop line breaks."""
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
STATES = {
    None: "not scheduled yet",
    "scheduled": "scheduled",
    "queued": "waits for a worker",
    "running": "runs on a worker",
    "deferred": "waits for OdiRouter",
    "awaiting_input": "waits for a person's answer",
    "up_for_retry": "failed, will be retried",
    "up_for_reschedule": "waits for OdiRouter",
    "restarting": "is restarting",
    "success": "succeeded",
    "failed": "failed",
    "upstream_failed": "did not run: an upstream task failed",
    "skipped": "skipped",
    "removed": "removed",
}


def host_name(authority: str) -> str:
    """Return the name of a host with or without a port, in the one form that is compared."""
    return re.sub(":[0-9]*$", "", authority).lower().rstrip(".")


class Kind(StrEnum):
    """The role of a picture in its edit."""

    IMAGE = "images"
    MASK = "mask"
    OUTPUT = "outputs"


@dataclass(frozen=True)
class Picture:
    """
    A picture that a subject names.

    :param source: A path of a store, or an ``http(s)`` URL.
    :param sha256: The digest that the task recorded; ``None`` for a URL.
    :param output: What the manifest says about it, if it is an output.
    """

    kind: Kind
    index: int
    source: str
    sha256: str | None
    output: LandedOutput | None = None

    @property
    def etag(self) -> str:
        """HTTP's name of this version of the picture."""
        return f'"{hashlib.sha256(f"{self.source} {self.sha256}".encode()).hexdigest()[:16]}"'

    @property
    def is_linked(self) -> bool:
        """Whether the browser fetches it from a URL; the gallery serves all others itself."""
        return is_url(self.source)

    def is_loaded(self, own_hosts: Collection[str]) -> bool:
        """
        Return whether a page loads it without a click.

        Not a linked input, and nothing of Airflow itself: the person who starts a run can name any address, such as the
        one that logs the reader out.

        :param own_hosts: The names of Airflow's own host. Its port does not count, as it does not for cookies.
        """
        if not self.is_linked:
            return True
        return self.kind is Kind.OUTPUT and self.host is not None and self.host not in own_hosts

    @property
    def host(self) -> str | None:
        """The host of a link, if it is certain that a browser reads the same one."""
        if MISREAD.search(self.source):
            return None
        try:
            authority = urlsplit(self.source).netloc.rpartition("@")[2]
        except ValueError:  # such as http://[bad/a.png
            return None
        if not HOST.fullmatch(authority):
            return None
        host = host_name(authority)
        # Browsers read 2130706433, 0x7f.1 and 127.1 as 127.0.0.1.
        is_number = re.fullmatch("[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2])
        return None if is_number and not IPV4.fullmatch(host) else host

    @property
    def origin(self) -> str | None:
        """The origin of a linked picture, as a Content-Security-Policy names it; nothing else of a URL gets there."""
        url = urlsplit(self.source) if self.host else None
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}" if url else None

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(re.split("[?#]", self.source)[0] if self.is_linked else self.source).name


@dataclass(frozen=True, kw_only=True)
class Subject(ABC):
    """
    What a page shows: a task instance, or an edit of a batch.

    :param state: Airflow's name of the state; ``None`` before the task is scheduled.
    """

    state: str | None
    request: RequestRecord | None
    manifest: Manifest | None
    failure: FailureRecord | None

    @property
    @abstractmethod
    def heading(self) -> str:
        """Its name for people."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The address of its page, below the gallery's own."""

    @abstractmethod
    def can_have_landed(self, path: str) -> bool:
        """
        Return whether a file can be an output of this subject.

        A manifest that was tampered with must not show the output of another task.
        """

    @property
    def state_words(self) -> str:
        """Its state for people."""
        return STATES.get(self.state, str(self.state))

    @property
    def has_ended(self) -> bool:
        """Whether its state is final, unless a person clears it."""
        return self.state in ENDED

    @property
    def has_request(self) -> bool:
        """Whether it submitted a request, or failed before."""
        return bool(self.request or self.manifest or self.failure)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that it sent."""
        return self.request.parameters if self.request else {}

    def pictures(self) -> Iterator[Picture]:
        """
        Yield all pictures that may be shown.

        A file of a store is shown only under the digest that the task recorded. Otherwise a person who can write this
        Dag's XComs, but cannot read another Dag's, could name the other Dag's picture here.
        """
        if request := self.request:
            inputs = [(Kind.IMAGE, index, source) for index, source in enumerate(request.images)]
            inputs += [(Kind.MASK, 0, request.mask)] if request.mask else []
            for kind, index, source in inputs:
                if is_url(source) or source in request.sha256:
                    yield Picture(kind, index, source, request.sha256.get(source))
        if manifest := self.manifest:
            for index, output in enumerate(manifest.outputs):
                if output.path and output.sha256 and self.can_have_landed(output.path):
                    yield Picture(Kind.OUTPUT, index, output.path, output.sha256, output)
                elif output.url and is_url(output.url):
                    yield Picture(Kind.OUTPUT, index, output.url, None, output)

    def find_picture(self, kind: Kind, index: int) -> Picture | None:
        """Return one of its pictures; ``None`` if the subject does not name it."""
        return next((one for one in self.pictures() if (one.kind, one.index) == (kind, index)), None)
