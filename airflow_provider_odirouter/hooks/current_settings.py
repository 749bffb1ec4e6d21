"""The connection as it was read last: read once, and again only where the service refuses its key."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_odirouter.compat import AirflowNotFoundException, asks_in_thread
from airflow_provider_odirouter.errors import AuthenticationError, ConnectionNotFoundError
from airflow_provider_odirouter.hooks.settings import ConnectionSettings

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)

MAX_KEYS = 3
"""Settings that one call is sent with, where the connection has changed each time that the service refuses a key."""


class CurrentSettings:
    """
    A connection's settings, shared by a hook and its twins.

    :param ask: Asks Airflow for the connection.
    :param aask: Does so in a triggerer, whose event loop the other one would block.
    """

    def __init__(self, conn_id: str, ask: Callable[[str], Connection], aask: Callable[[str], Awaitable[Connection]]):
        self._conn_id = conn_id
        self._ask = ask
        self._aask = aask
        self._settings: ConnectionSettings | None = None
        self._read_at = -math.inf
        self._renewing = threading.Lock()
        self._may_ask = True

    def get(self) -> ConnectionSettings:
        """
        Return the settings; the first time, they are read.

        :raises ConnectionSettingsError: If there is no connection, or none that can be used.
        """
        return self._settings or self._read()

    async def aget(self, one_at_a_time: asyncio.Lock) -> ConnectionSettings:
        """Return the settings, as :meth:`get` does."""
        if self._settings is not None:
            return self._settings
        async with one_at_a_time:
            return self._settings or await self._aread()

    def renewed(
        self, error: AuthenticationError, tried: Sequence[ConnectionSettings], sent_at: float
    ) -> ConnectionSettings:
        """
        Return what the connection says by now, if that is something else.

        :param error: How the service refused the key.
        :param tried: The settings that the call was sent with, the last one at the end.
        :param sent_at: When it was sent last, by the steady clock. What was read since then holds for it, too: many
            calls that are refused at once read the connection once.
        :raises AuthenticationError: The same, if there is nothing else to try.
        :raises ConnectionSettingsError: If there is no connection any more, or none that can be used.
        """
        # Without leave to ask, the lock may be held by what a signal handler has interrupted.
        if self._may_ask and _may_be_renewed(error, tried):
            with self._renewing:
                if self._is_unchanged_since(tried[-1], sent_at):
                    self._read()
        return self._other(error, tried)

    async def arenewed(
        self,
        error: AuthenticationError,
        tried: Sequence[ConnectionSettings],
        sent_at: float,
        one_at_a_time: asyncio.Lock,
    ) -> ConnectionSettings:
        """Return what the connection says by now, as :meth:`renewed` does."""
        if self._may_ask and _may_be_renewed(error, tried):
            async with one_at_a_time:
                if self._is_unchanged_since(tried[-1], sent_at):
                    await self._aread()
        return self._other(error, tried)

    def ask_no_more(self) -> None:
        """Take the settings as they are from now on: a signal handler may have interrupted a question to Airflow."""
        self._may_ask = False

    def _is_unchanged_since(self, refused: ConnectionSettings, sent_at: float) -> bool:
        return self._settings == refused and self._read_at <= sent_at

    def _other(self, error: AuthenticationError, tried: Sequence[ConnectionSettings]) -> ConnectionSettings:
        if not _may_be_renewed(error, tried) or self._settings is None or self._settings in tried:
            raise error
        log.warning("%s The connection has changed since it was read; the call goes on with it.", error.what)
        return self._settings

    def _read(self) -> ConnectionSettings:
        began = time.monotonic()
        with self._finding():
            return self._keep(self._ask(self._conn_id), began)

    async def _aread(self) -> ConnectionSettings:
        if asks_in_thread():
            return await asyncio.to_thread(self._read)
        began = time.monotonic()
        with self._finding():
            return self._keep(await self._aask(self._conn_id), began)

    def _keep(self, connection: Connection, began: float) -> ConnectionSettings:
        settings = ConnectionSettings.of(connection)
        if settings != self._settings:  # what was built for the same ones stays in use
            self._settings = settings
        self._read_at = began
        return self._settings or settings

    @contextmanager
    def _finding(self) -> Iterator[None]:
        try:
            yield
        except AirflowNotFoundException as error:
            raise ConnectionNotFoundError(f"Airflow finds no connection {self._conn_id!r}.") from error


def _may_be_renewed(error: AuthenticationError, tried: Sequence[ConnectionSettings]) -> bool:
    return error.status_code == 401 and len(tried) < MAX_KEYS
