"""The journal: each call, and its answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.settings import Action

_MAX_ENTRIES = 100_000
_MAX_TEXT = 256


@dataclass(frozen=True)
class JournalEntry:
    """
    One call and its answer.

    :param at: The clock's time when the call arrived.
    :param action: The kind of call.
    :param method: HTTP method.
    :param path: Path without the query.
    :param query: Query string.
    :param headers: Headers with lower-case names; the key is masked.
    :param authorization_sent: Whether there was an ``Authorization`` header.
    :param authorized: Whether it held the right key.
    :param endpoint: Model id in the path.
    :param request_id: The request in the path, or the one that the submit made.
    :param status_code: The answer's status; ``None``: the caller never received the whole answer.
    :param body: A submit's JSON, with long base64 strings abbreviated.
    """

    at: float
    action: Action
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    authorization_sent: bool
    authorized: bool
    endpoint: str | None
    request_id: str | None
    status_code: int | None
    body: Any = None

    @property
    def user_agent(self) -> str | None:
        """The caller's ``User-Agent``."""
        return self.headers.get("user-agent")


class Journal:
    """
    The latest calls, oldest first; safe to read while calls are written.

    :param on_entry: Called with each entry.
    """

    def __init__(self, on_entry: Callable[[JournalEntry], None] | None = None) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=_MAX_ENTRIES)
        self._lock = Lock()
        self._on_entry = on_entry

    def write(self, entry: JournalEntry) -> None:
        """Add an entry."""
        with self._lock:
            self._entries.append(entry)
        if self._on_entry:
            self._on_entry(entry)

    def read(self) -> list[JournalEntry]:
        """Copy the entries."""
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()


def redact(headers: Mapping[str, str], api_key: str) -> dict[str, str]:
    """Mask the key, and whatever else was sent as authorization."""
    return {
        name: "***" if name == "authorization" else value.replace(api_key, "***") for name, value in headers.items()
    }


def abbreviate(value: Any) -> Any:
    """Shorten the pictures in a submit's body."""
    if isinstance(value, dict):
        return {key: abbreviate(item) for key, item in value.items()}
    if isinstance(value, list):
        return [abbreviate(item) for item in value]
    if isinstance(value, str) and len(value) > _MAX_TEXT and _looks_encoded(value):
        return f"{value[:16]}… ({len(value)} characters)"
    return value


def _looks_encoded(text: str) -> bool:
    head = text[:_MAX_TEXT]
    return head.startswith("data:") or all(
        character.isascii() and (character.isalnum() or character in "+/=-_") for character in islice(head, _MAX_TEXT)
    )
