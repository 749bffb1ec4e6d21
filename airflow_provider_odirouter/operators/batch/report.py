"""Telling the log now and then how far something has come."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger(__name__)

REPORT_SECONDS = 30.0
"""Between two lines."""


class Report:
    """
    Counts what is done, by many threads.

    :param text: A line of the log, with a place for the number that is done and one for that of all.
    """

    def __init__(self, text: str, total: int) -> None:
        self._text = text
        self._total = total
        self._done = 0
        self._told_at = time.monotonic()
        self._lock = threading.Lock()

    def count(self) -> bool:
        """Count one more, and return whether that was told."""
        with self._lock:
            self._done += 1
            if time.monotonic() < self._told_at + REPORT_SECONDS:
                return False
            self._told_at = time.monotonic()
        self.tell()
        return True

    def tell(self) -> None:
        """Tell it now."""
        log.info(self._text, self._done, self._total)
