"""Ports on loopback."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


class PortBusyError(RuntimeError):
    """A port is taken."""


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def check_port(port: int) -> None:
    """Raise `PortBusyError` if a server could not listen on this port now."""
    with socket.socket() as probe:
        # As servers do: the port counts as free while connections of an earlier server are still closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            reason = error.strerror or error
            raise PortBusyError(f"Port {port} of {LOOPBACK} cannot be used: {reason}. Choose another.") from error
