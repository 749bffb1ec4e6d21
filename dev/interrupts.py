"""Ctrl-C, SIGTERM and SIGHUP as one exception, held back where a child process could be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """One of `SIGNALS` arrived. A KeyboardInterrupt, so that pytest too ends its session and its fixtures."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _State:
    """Signal handlers belong to the process, and so does this."""

    watchers = 0
    holders = 0
    pending: int | None = None


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _State.holders:
        _State.pending = number
    else:
        raise Interrupted(number)


@contextmanager
def watched() -> Iterator[None]:
    """Turn the signals into `Interrupted` within the block. May be nested; no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}
    if _State.watchers == 0:
        for number in SIGNALS:
            # A caller that ignores a signal (nohup does) has said that it must not end us.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _on_signal)
    _State.watchers += 1
    try:
        yield
    finally:
        _State.watchers -= 1
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Hold watched signals back within the block; the last one is raised at its end.

    Only the main thread is ever interrupted, so elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.holders += 1
    try:
        yield
    finally:
        _State.holders -= 1
        if _State.holders == 0 and _State.pending is not None:
            number, _State.pending = _State.pending, None
            raise Interrupted(number)
