"""Ctrl-C, SIGTERM and SIGHUP raise one exception, delayed where it would leave a child process running."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """One of `SIGNALS` arrived. A KeyboardInterrupt, so that pytest tears down its fixtures."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _State:
    """One for the process, as its signal handlers are."""

    raise_blocks = 0
    delay_blocks = 0
    pending: int | None = None


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _State.delay_blocks:
        _State.pending = number
    else:
        raise Interrupted(number)


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise `Interrupted` in the block when a signal arrives. May be nested; no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}
    if _State.raise_blocks == 0:
        for number in SIGNALS:
            # If the caller ignores a signal, as nohup does, it must not end this process.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _on_signal)
    _State.raise_blocks += 1
    try:
        yield
    finally:
        _State.raise_blocks -= 1
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def delay_signals() -> Iterator[None]:
    """Delay `Interrupted` to the end of the block. May be nested; of several signals the last one counts.

    Python handles signals in the main thread only, so elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.delay_blocks += 1
    try:
        yield
    finally:
        _State.delay_blocks -= 1
        if _State.delay_blocks == 0 and _State.pending is not None:
            number, _State.pending = _State.pending, None
            raise Interrupted(number)
