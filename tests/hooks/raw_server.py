"""A small server on a real socket: it can answer in ways that no correct server does."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_BUFFERED = 10 * 2**20
_A_WHILE = 30

Behaviour = Callable[["Exchange"], None]

IN_QUEUE: Mapping[str, Any] = {"status": "IN_QUEUE"}


@dataclass(frozen=True)
class Received:
    """One call; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class Exchange:
    """One call, and the means to answer it."""

    def __init__(self, peer: socket.socket, received: Received) -> None:
        self.received = received
        self._peer = peer

    def send(self, data: bytes) -> None:
        self._peer.sendall(data)

    def answer(self, body: bytes = b"", *, status: str = "200 OK", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def answer_json(self, document: Any, *, status: str = "200 OK", **headers: str) -> None:
        self.answer(json.dumps(document).encode(), status=status, content_type="application/json", **headers)

    def trickle(self, data: bytes, *, every: float = 0.05) -> None:
        """Send one byte at a time, until the client has enough."""
        for byte in data:
            self.send(bytes([byte]))
            time.sleep(every)

    def wait_for_hang_up(self) -> None:
        while self._peer.recv(4096):
            pass

    def hang_up(self) -> None:
        self._peer.shutdown(socket.SHUT_RDWR)


class RawServer:
    """
    Reads each call whole, keeps connections alive, and leaves the answer to a function.

    :param behave: Answers a call.
    :param tls: Speaks TLS, if given.
    :param seconds_per_mib: Seconds to read a MiB; the rest in the system's buffers is read at once.
    """

    def __init__(self, behave: Behaviour, tls: ssl.SSLContext | None = None, seconds_per_mib: float = 0) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self._behave = behave
        self._tls = tls
        self._seconds_per_mib = seconds_per_mib
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/model"

    def wait_until_all_are_gone(self) -> bool:
        """Return whether all clients hang up, within a while."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout=_A_WHILE)

    def wait_for_calls(self, count: int) -> bool:
        """Return whether so many calls come in, within a while."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.received) >= count, timeout=_A_WHILE)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # shutdown() wakes a waiting accept(); close() does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for peer in self._open:
                with suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                self._open.add(peer)
                number = self.connections
            self._start(self._serve, peer, number)

    def _serve(self, peer: socket.socket, number: int) -> None:
        stream = peer
        try:
            if self._tls:
                stream = self._tls.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
                with self._changed:
                    self._open = self._open - {peer} | {stream}
                stream.do_handshake()
            with stream.makefile("rb") as lines:
                while received := _read(lines, number, self._seconds_per_mib):
                    with self._changed:
                        self.received.append(received)
                        self._changed.notify_all()
                    self._behave(Exchange(stream, received))
        except (OSError, ValueError):
            pass  # The client has closed the connection, as many tests do.
        finally:
            stream.close()
            with self._changed:
                self._open = self._open - {peer, stream}
                self._changed.notify_all()


def _read(lines: Any, connection: int, seconds_per_mib: float) -> Received | None:
    first = lines.readline().decode()
    if not first:
        return None
    method, target, _ = first.split(" ")
    headers: dict[str, str] = {}
    while line := lines.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body, length = bytearray(), int(headers.get("content-length", 0))
    while len(body) < length:
        body += lines.read(min(2**20, length - len(body)))
        time.sleep(seconds_per_mib if length - len(body) > _BUFFERED else 0)
    return Received(method, target, headers, bytes(body), connection)
